"""Distributions that are missing, old, hidden, doubled or broken: real ones, on a path of their own."""

import importlib
import sys

import pytest
from packaging.requirements import Requirement

from fommctl.stages.doctor import packages
from fommctl.stages.doctor.looking import imports
from fommctl.stages.doctor.probe import Seen


def distribution(folder, name, version, *, modules=(), requires=(), extras=(), record=True):
    """An installed distribution whose modules are files in `folder`."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {each}" for each in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    for module in modules:
        (folder / module).mkdir(exist_ok=True)
        (folder / module / "__init__.py").write_text("")
    if record:
        rows = [f"{module}/__init__.py,," for module in modules]
        (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/METADATA,,"]) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of distributions before all others."""
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def dependency(name, seen=None, *, wanted=">=1.0", stops_others=None):
    return packages._dependency(Requirement(f"{name}{wanted}"), seen or Seen(), stops_others or {})


def test_what_is_declared():
    names = [requirement.name for requirement in packages.requirements()]
    assert {"torch", "av", "numpy", "dlib-bin", "packaging"} <= set(names)
    assert "pyarrow" not in names
    assert [requirement.name for requirement in packages.requirements("robots")] == ["pyarrow"]


def test_the_modules_of_distributions():
    expected = {
        "pillow": ["PIL"],
        "pyyaml": ["yaml"],
        "torch": ["torch"],
        "dlib-bin": ["dlib"],
        "face-alignment": ["face_alignment"],
        "scikit-video": ["skvideo"],
        "av": ["av"],
        "no-such-distribution": [],
    }
    assert {name: packages.modules(name) for name in expected} == expected


def test_missing_and_old(site):
    distribution(site, "old-package", "0.9")
    missing, old = dependency("no-such-package"), dependency("old-package")
    assert (missing.value, missing.level, missing.stops) == ("not installed; needed: >=1.0", "problem", True)
    assert missing.advice == "Run 'pip install \"no-such-package>=1.0\"'."
    assert (old.value, old.level, old.stops) == ("0.9; needed: >=1.0", "problem", False)
    assert old.advice == "Run 'pip install --upgrade \"old-package>=1.0\"'."


def test_a_package_that_animate_does_without_stops_nothing():
    gone = packages._dependency(Requirement("scikit_video>=99"), Seen(), {})
    assert (gone.level, gone.stops) == ("problem", False)


def test_a_hidden_package(site, tmp_path_factory, monkeypatch):
    """A file earlier on the path, which raises at import; what needs the package fails alike, and is told so."""
    distribution(site, "victim", "1.0", modules=["victim"])
    distribution(site, "follower", "1.0", modules=["follower"])
    (site / "follower" / "__init__.py").write_text("import victim")
    beside = tmp_path_factory.mktemp("beside")
    (beside / "victim.py").write_text("raise RuntimeError('not the one that was meant')")
    monkeypatch.syspath_prepend(beside)
    facts = {f"imports.{name}:{name}": imports.look(f"{name}:{name}") for name in ("victim", "follower")}
    assert facts["imports.victim:victim"] == {
        "file": str(beside / "victim.py"),
        "error": "RuntimeError: not the one that was meant",
    }
    monkeypatch.setattr(packages, "requirements", lambda: [Requirement("follower>=1"), Requirement("victim>=1")])
    follower, victim = packages.check_dependencies(Seen(facts))
    assert follower.advice == "Solve what is said of victim first."
    assert victim.advice == f"Rename or remove {beside / 'victim.py'}; it hides the package."
    assert victim.stops
    assert follower.value == "1.0; 'import follower' fails: RuntimeError: not the one that was meant"


def test_a_package_that_works(site):
    distribution(site, "healthy", "1.5", modules=["healthy"])
    fact = imports.look("healthy:healthy")
    finding = dependency("healthy", Seen({"imports.healthy:healthy": fact}))
    assert (finding.level, finding.value, finding.advice) == ("ok", "1.5", None)
    del sys.modules["healthy"]


def test_a_package_that_ends_the_process_and_one_that_was_not_reached(site):
    distribution(site, "crashing", "1.0", modules=["crashing"])
    crashed = dependency("crashing", Seen({}, {"imports.crashing:crashing": "ended the process with SIGILL"}))
    assert crashed.value == "1.0; 'import crashing' fails: ended the process with SIGILL"
    assert crashed.advice == "The wheel uses instructions that this processor lacks: install an older crashing."
    late = dependency("crashing", Seen({}, {"imports.crashing:crashing": "not looked at: x took all of the 60 s"}))
    assert (late.level, late.stops) == ("note", False)
    assert "--timeout" in late.advice


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("ImportError: numpy.core.multiarray failed to import", "--force-reinstall cv2 numpy"),
        ("ValueError: numpy.dtype size changed, may indicate binary incompatibility", "another numpy"),
        ("OSError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found", "for another system"),
        ("ModuleNotFoundError: No module named 'idna'", "Run 'pip install --force-reinstall cv2'."),
    ],
)
def test_advice_on_imports(error, advice):
    assert advice in packages.import_advice("cv2", error)


def test_rivals(site):
    distribution(site, "opencv-python-headless", "4.10", modules=["cv2"])
    distribution(site, "opencv-contrib-python", "4.10", modules=["cv2"])
    distribution(site, "numpy", "1.2.3")
    found = {finding.name: finding for finding in packages.check_rivals()}
    assert found["cv2"].level == "problem"
    assert "opencv-contrib-python and opencv-python" in found["cv2"].value
    assert found["cv2"].advice.startswith("Keep one: run 'pip uninstall opencv-contrib-python opencv-python")
    assert found["numpy"].value.startswith("installed more than once: 1.2.3 and ")


def test_extras(site):
    distribution(
        site,
        "fommctl",
        "0.0.1",
        requires=[
            "no-such-package>=2; extra == 'night'",
            "numpy>=1; extra == 'day'",
            "numpy>=1; extra == 'dev'",
            "numpy>=1; extra == 'elsewhere' and sys_platform == 'plan9'",
        ],
        extras=["night", "day", "dev", "elsewhere"],
    )
    day, elsewhere, night = packages.check_extras()
    assert (day.name, day.level) == ("day", "ok")
    assert day.value.startswith("numpy ")
    assert elsewhere.value == "nothing to install on this platform"
    assert (night.level, night.value) == ("note", "lacks no-such-package>=2")
    assert night.advice == "Run \"pip install 'fommctl[night]'\" if you need it."


def test_metadata_of_another_version(site):
    distribution(site, "fommctl", "0.0.1")
    (finding,) = packages.check_installation()
    assert (finding.level, finding.stops) == ("problem", False)
    assert finding.value.endswith("but its metadata is that of 0.0.1")


def test_without_the_package_that_compares_versions(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    with pytest.raises(Exception, match="versions cannot be compared") as raised:
        packages.requirements()
    assert raised.value.hint == "Run 'pip install --force-reinstall packaging'."
