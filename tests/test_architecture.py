"""Rules for imports: packages import only from those below them, and heavy libraries are imported in one place each."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"errors"},
    {"files"},
    {"journal"},
    {"home", "machine", "signals", "threads", "workers"},
    {"download"},
    {"networks"},
    {"api", "host", "media", "options", "presets"},
    {"models"},
    {"datasets"},
    {"detection"},
    {"provenance"},
    {"animate"},
    {
        "batch",
        "bench",
        "edit",
        "crop",
        "doctor",
        "evaluate",
        "farm",
        "plugin_checks",
        "preprocess",
        "scaffold",
        "train",
    },
    {"fommctl", "__main__", "cli"},
)
"""Modules and packages of `fommctl` from bottom to top; `fommctl` itself is at the top, since its `load` imports
`animate` when called."""
APART = {"batch", "crop", "doctor", "edit", "evaluate", "farm", "preprocess", "train"}
"""Commands, which may not import each other."""
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
OURS = sorted((ROOT / "fommctl").rglob("*.py"))
THEIRS = [path for name in PLUGINS for path in sorted((ROOT / "plugins" / name).rglob("*.py"))]
HEAVY = {"torch", "av", "numpy", "PIL", "dlib", "face_alignment", "skvideo", "cv2", "pydantic", "yaml", "scipy"}


@cache
def module_name(path: Path) -> str:
    base = ROOT / "plugins" if path in THEIRS else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, types: bool = True) -> tuple[str, ...]:
    """Return the full names of all imports in a file.  types: include those for type checkers only."""
    return tuple(_imports(path, types))


def _imports(path: Path, types: bool) -> Iterator[str]:
    tree = parsed(path)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not types
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name: str) -> int:
    """Return the level of a module, or of a name imported from one."""
    found = [number for number, modules in enumerate(FLOORS) if room(name) in modules]
    assert found, f"{name} stands on no floor"
    return found[0]


ROOMS = {module_name(path).split(".")[1] for path in OURS if "." in module_name(path)}


@cache
def room(name: str) -> str:
    """Return the part of `fommctl` to which a name belongs."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "fommctl"


def test_imports_lead_downwards() -> None:
    ours = [
        (module_name(path), name)
        for path in OURS
        for name in imports(path)
        if name.split(".")[0] == "fommctl" and name != "fommctl.__version__"
    ]
    assert [f"{module} imports {name} from a floor above" for module, name in ours if floor(name) > floor(module)] == []
    assert [
        f"{module} imports {name} from another command"
        for module, name in ours
        if room(name) != room(module) and {room(name), room(module)} <= APART
    ] == []


def test_no_circles() -> None:
    names = {module_name(path) for path in OURS}
    edges = {
        module_name(path): {
            target
            for name in imports(path)
            for target in (name, name.rpartition(".")[0])
            if target in names and target not in ("fommctl", module_name(path))
        }
        for path in OURS
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(names):
        visit(name, ())


def test_libraries_have_one_door() -> None:
    for path in (*OURS, *THEIRS):
        check_doors(path)


def check_doors(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path, types=False)}
    package = ".".join(module_name(path).split(".")[:2])
    if package != "fommctl.media":
        assert not roots & {"av", "PIL"}, path
    if package != "fommctl.cli":
        # Configuration classes have `typer.Option` in the annotations of their fields.
        declares = path.name in ("config.py", "options.py")
        assert not roots & ({"rich", "click"} if declares else {"typer", "rich", "click"}), path


def test_no_plugin_is_known_by_name() -> None:
    for path in OURS:
        strings = {
            node.value
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = {name.split(".")[0] for name in [*imports(path), *strings]}
        assert not named & set(PLUGINS), path


def test_plugins_see_the_api_only() -> None:
    for path in THEIRS:
        own = module_name(path).split(".")[0]
        for name in imports(path):
            first = name.split(".")[0]
            if first == "fommctl":
                assert name.startswith("fommctl.api."), f"{module_name(path)} imports {name}"
            assert first == own or first not in PLUGINS, f"{module_name(path)} imports another plugin: {name}"


def test_folders_packages_and_entry_points_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == sorted(["fommctl", *(f"plugins/{name}" for name in PLUGINS)])
    declared = project["project"]["entry-points"]["fommctl"]
    assert sorted(declared.values()) == PLUGINS
    assert all(value == f"fommctl_{name}" for name, value in declared.items())
    installed = metadata.distribution("fommctl").entry_points.select(group="fommctl")
    assert {entry.name: entry.value for entry in installed} == declared, "install again: entry points are metadata"


def loaded_by(*steps: str) -> list[set[str]]:
    """Return the modules in memory after each step, in one fresh interpreter."""
    report = "\nimport sys\nprint('\\nloaded:', *sys.modules)\n"
    code = "".join(f"{step}{report}" for step in steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("loaded:")]


LIGHT = (
    "import fommctl.api, fommctl.host\nfommctl.host.load_host().plugins",
    "import fommctl.presets.preset, fommctl.cli.presets, fommctl_fomm",
    *(f"from fommctl.cli.main import main\nassert main({words}) == 0" for words in (
        ["--help"], ["--version"], ["plugins", "--help"], ["animate", "--help"], ["plugins", "list"],
        ["presets", "show", "--help"],
    )),
)  # fmt: skip


def test_plugins_and_help_import_nothing_heavy() -> None:
    found = loaded_by(*LIGHT)
    assert not found[0] & {"typer", "rich"}
    for step, loaded in zip(LIGHT, found, strict=True):
        # typer itself loads pydantic to convert the options of a subcommand.
        allowed = {"pydantic"} if step.count("', '") else set()
        assert loaded & HEAVY <= allowed, step
        assert not loaded & {"fommctl.presets.sections", "fommctl_fomm.schema"}, step


def test_mathematics_api_and_training_stand_without_media_libraries() -> None:
    """On a machine that only trains, clips may be pictures; libraries for videos are imported only to read one."""
    names = list(map(module_name, OURS))
    pure = [name for name in names if name.startswith(("fommctl.networks", "fommctl.api"))]
    training = [name for name in names if name.startswith("fommctl.train.")]
    assert {"fommctl.train.run", "fommctl.train.pairs"} <= set(training)
    blocked = {"av": None, "face_alignment": None, "skvideo": None, "PIL": None, "dlib": None}
    lines = [
        f"import sys\nsys.modules.update({blocked})",
        *(f"import {name}" for name in [*pure, "fommctl.train.pairs"]),
    ]
    lines += ["del sys.modules['PIL']", *(f"import {name}" for name in training)]
    assert "torch" in loaded_by("\n".join(lines))[0]
