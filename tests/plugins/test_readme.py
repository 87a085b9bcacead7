"""plugins/README.md documents every hook, and its examples run."""

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fommctl import __version__
from fommctl.api import StageEvent, testing
from fommctl.api.metrics import FrameChunk, MetricClip
from fommctl.api.specs import Hooks
from fommctl.api.testing import check_metric
from fommctl.api.testing_backend import check_backend, check_training
from fommctl.host import HOOKS, Host, PluginInfo, load_host
from fommctl.plugin_checks import SUITES

IMPORT = "from fommctl.api import hookimpl\n"
README = (Path(__file__).parents[2] / "plugins/README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.+?)(?=^##|\Z)", README, re.M | re.S))
CHAPTERS = dict(re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", README, re.M | re.S))


def blocks(chapter: str, language: str) -> list[str]:
    """Return the code blocks of a language in a chapter."""
    return re.findall(rf"^```{language}\n(.+?)^```", CHAPTERS[chapter], re.M | re.S)


def example(hook: str) -> str:
    """Return the Python example in the section of a hook."""
    body = next(body for title, body in SECTIONS.items() if title.startswith(f"{hook}("))
    (code,) = re.findall(r"^```python\n(.+?)^```", body, re.M | re.S)
    return code


@pytest.fixture
def installed(third_party: Callable[..., None]) -> Callable[[str], PluginInfo]:
    """Return a function that installs the example of a hook as a distribution and returns its PluginInfo."""

    def install(hook: str) -> PluginInfo:
        third_party(example(hook), name="fommctl-example", entry="example")
        (info,) = [plugin for plugin in load_host().plugins if plugin.name == "example"]
        return info

    return install


def test_every_hook_is_documented_with_its_arguments() -> None:
    signatures = []
    for hook in HOOKS:
        signature = inspect.signature(getattr(Hooks, hook))
        parameters = [parameter for name, parameter in signature.parameters.items() if name != "self"]
        signatures.append(f"{hook}{signature.replace(parameters=parameters)}".replace("'", ""))
    assert list(SECTIONS) == signatures


@pytest.mark.parametrize("hook", HOOKS)
def test_examples_register_what_they_say(installed: Callable[[str], PluginInfo], hook: str) -> None:
    found = installed(hook)
    assert found.problem is None
    ((kind, names),) = found.registers.items()
    assert kind == "hook" or hook == f"fommctl_{kind}s"
    assert len(names) == 1


def test_hook_fommctl_backends(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_backends")
    spec = load_host().backends["shift"]
    check_backend(spec, {"sharpness": 4.0})
    check_training(spec, {"sharpness": 4.0}, {"num_epochs": 1, "batch_size": 2})


def test_hook_fommctl_datasets(installed: Callable[[str], PluginInfo], tmp_path: Path) -> None:
    installed("fommctl_datasets")
    (tmp_path / "raw/ann").mkdir(parents=True)
    (tmp_path / "raw/ann/talk.mp4").touch()
    spec = load_host().datasets["one-folder-a-person"]
    testing.check_dataset(spec, tmp_path / "raw")
    assert [(clip.name, clip.identity) for clip in spec.build().clips(tmp_path / "raw")] == [("ann-talk", "ann")]


def test_hook_fommctl_detectors(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_detectors")
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:20, 30:50] = 255
    spec = load_host().detectors["bright-spot"]
    testing.check_detector(spec, [frame])
    (detection,) = spec.build().detect([frame])[0]
    box = detection.box
    assert (box.left, box.top, box.right, box.bottom, detection.score) == (30, 10, 50, 20, 200)


def test_hook_fommctl_embedders(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_embedders")
    spec = load_host().embedders["mean-colour"]
    testing.check_embedder(spec)
    (vector,) = spec.build().embed([np.uint8([[[10, 20, 30], [30, 20, 10]]])])
    assert vector is not None
    assert vector.tolist() == [20, 20, 20]


def test_hook_fommctl_metrics(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_metrics")
    spec = load_host().metrics["worst.pixel"]
    check_metric(spec)
    scorer = spec.build().clip(MetricClip("clip", rate=25.0))
    scorer.add(FrameChunk(np.uint8([[[[3, 250, 0]]]]), np.uint8([[[[1, 255, 0]]]])))
    scorer.add(FrameChunk(np.uint8([[[[0, 0, 9]]]]), np.uint8([[[[0, 0, 0]]]]), first=1))
    scores = scorer.finish()
    assert (list(scores.frames), scores.value, scores.scored, scores.total) == ([5.0, 9.0], 7.0, 2, 2)


def test_hook_fommctl_presets(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_presets")
    assert load_host().find("preset", "cats").path.name == "cats-128.yaml"


def test_hook_fommctl_models(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_models")
    assert len(load_host().models["cats-128"].urls) == 2


def test_hook_fommctl_commands(installed: Callable[[str], PluginInfo], run_cli: Callable[..., object]) -> None:
    installed("fommctl_commands")
    testing.check_command(load_host().commands["greet"])
    assert run_cli("greet", "--name", "Ann").stdout == "hello Ann\n"  # type: ignore[attr-defined]


EVENT = StageEvent(stage="animate", details={"output": "out.mp4"})


def test_hook_fommctl_stage_started(installed: Callable[[str], PluginInfo], capsys: pytest.CaptureFixture[str]) -> None:
    installed("fommctl_stage_started")
    load_host().started(EVENT)
    assert capsys.readouterr() == ("", "begins: animate out.mp4\n")


def test_hook_fommctl_stage_finished(
    installed: Callable[[str], PluginInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("fommctl_stage_finished")
    monkeypatch.chdir(tmp_path)
    load_host().finished(EVENT)
    assert json.loads((tmp_path / "history.jsonl").read_text()) == {"stage": "animate", "output": "out.mp4"}


def test_hook_fommctl_square(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_square")
    host, squares = load_host(), torch.full((1, 3, 8, 8), 0.5)
    squares[..., 4] = 0.8
    (sharpen,) = host.square_filters(EVENT)
    sharpened = sharpen(squares)
    assert sharpened[0, 0, 3, 4] == pytest.approx(0.8 + 0.5 * 0.2)
    assert sharpened[0, 0, 3, 3] == pytest.approx(0.5 - 0.5 * 0.1)
    assert sharpened[0, 0, 3, 1] == 0.5
    assert host.square_filters(StageEvent(stage="train", details={})) == []


def test_hook_fommctl_frame(installed: Callable[[str], PluginInfo]) -> None:
    installed("fommctl_frame")
    host, frame = load_host(), np.zeros((16, 16, 3), np.uint8)
    (mark,) = host.frame_filters(EVENT)
    assert mark(frame, 0).sum() == 8 * 8 * 3 * 255
    assert frame.sum() == 0
    assert host.frame_filters(StageEvent(stage="train", details={})) == []


def test_every_hook_has_a_test() -> None:
    assert {f"test_hook_{hook}" for hook in HOOKS} == {name for name in globals() if name.startswith("test_hook_")}


def test_the_example_of_a_test_runs() -> None:
    (code,) = blocks("Testing", "python")
    names: dict[str, Callable[[], None]] = {}
    exec(code, names)  # type: ignore[arg-type]
    names["test_my_dataset"]()


def test_the_smallest_plugin(third_party: Callable[..., None], tmp_path: Path) -> None:
    (code,) = blocks("What a plugin is", "python")
    third_party(code, name="fommctl-example", entry="example")
    (info,) = [plugin for plugin in load_host().plugins if plugin.name == "example"]
    assert (info.requires, info.problem, info.registers) == ("<3,>=2", None, {"dataset": ("any-clips",)})
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ann__talk.mp4").touch()
    testing.check_dataset(load_host().datasets["any-clips"], tmp_path / "raw")
    (table,) = blocks("What a plugin is", "toml")
    assert tomllib.loads(table)["project"]["entry-points"]["fommctl"] == {"example": "fommctl_example"}


def test_the_dependency_suits_this_version() -> None:
    (text,) = blocks("Versions", "toml")
    assert tomllib.loads(text)["project"]["dependencies"] == ["fommctl>=2,<3"]
    assert __version__.startswith("2.")


def test_the_workflow_publishes_without_a_password() -> None:
    (text,) = blocks("Publishing", "yaml")
    job = yaml.safe_load(text)["jobs"]["publish"]
    assert job["permissions"] == {"id-token": "write"}
    assert "build" in job["steps"][2]["run"]
    assert job["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")


def test_links_lead_to_headings() -> None:
    headings = re.findall(r"^##+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = re.findall(r"\]\(#([^)]+)\)", README)
    assert set(linked) <= anchors
    assert {heading.lower().replace(" ", "-") for heading in CHAPTERS} <= set(linked)


def test_checks_refer_to_chapters_that_there_are(host: Host) -> None:
    referred = {"Versions", "Troubleshooting", "Life cycle", "Hooks"}
    assert referred <= set(CHAPTERS)
    assert all(any(title.startswith(f"fommctl_{kind}s(") for title in SECTIONS) for kind in SUITES)


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ("`does not load: ModuleNotFoundError`", "import no_such_library"),
        ("`unknown hook ... (did you mean ...?)`", f"{IMPORT}@hookimpl\ndef fommctl_dataset(): return []"),
        ("`... is not marked with @hookimpl`", "def fommctl_datasets(): return []"),
        ("`does not load: PluginValidationError`", f"{IMPORT}@hookimpl\ndef fommctl_datasets(root): return []"),
        ("`fommctl_...s returned ..., not several ...Spec`", f"{IMPORT}@hookimpl\ndef fommctl_datasets(): return 3"),
    ],
)
def test_troubles_are_called_as_they_appear(third_party: Callable[..., None], row: str, source: str) -> None:
    assert f"| {row} |" in CHAPTERS["Troubleshooting"]
    third_party(source, name="fommctl-example", entry="example")
    (info,) = [plugin for plugin in load_host().plugins if plugin.name == "example"]
    shown = re.escape(row.strip("`")).replace(r"\.\.\.", ".+")
    assert re.search(shown, str(info.problem)), info.problem
