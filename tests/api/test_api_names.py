"""The API for plugins is recorded, so that removing a name or a parameter is noticed here, not by plugin authors.
`python tests/api/test_api_names.py` rewrites the record."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "golden" / "api.txt"
GUIDE = ROOT / "plugins" / "README.md"
COLLECTED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def documented_modules() -> list[str]:
    """Return the modules in the guide's table."""
    return re.findall(r"^\| `(fommctl\.api[a-z_.]*)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)


def public_names(module: ModuleType) -> list[str]:
    """Return `__all__` or, without it, the names defined at the top level of the module, or deliberately imported
    there."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names if alias.asname == alias.name}
    return sorted(name for name in names if name and not name.startswith("_"))


def signature(value: object) -> str:
    """Return `(name, other=)`: the parameters, with a mark after optional ones; empty if there are none to be seen."""
    try:
        parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    names = [
        f"{parameter.name}{'' if parameter.default is inspect.Parameter.empty else '='}"
        for parameter in parameters
        if parameter.name != "self" and not parameter.name.startswith("_") and parameter.kind not in COLLECTED
    ]
    return f"({', '.join(names)})"


def described(name: str, value: object) -> Iterator[str]:
    """Yield a name with its parameters; for a class, also its own members."""
    if not inspect.isclass(value):
        yield name + (signature(value) if inspect.isroutine(value) else "")
        return
    yield name + signature(value)
    for member, inner in sorted(vars(value).items()):
        if not member.startswith(("_", "model_")) and (inspect.isroutine(inner) or isinstance(inner, property)):
            yield f"{name}.{member}{signature(inner) if inspect.isroutine(inner) else ''}"


def surface() -> list[str]:
    """Return every public name of the documented modules."""
    lines = []
    for module in map(importlib.import_module, documented_modules()):
        for name in public_names(module):
            lines += described(f"{module.__name__}.{name}", getattr(module, name))
    return lines


def test_the_guide_documents_every_module_for_plugins() -> None:
    """The other modules make up `fommctl.api` itself, and contain nothing else that is public."""
    parts = {"protocols", "specs"}
    there = {f"fommctl.api.{path.stem}" for path in (ROOT / "fommctl" / "api").glob("[a-z]*.py")}
    assert there - {f"fommctl.api.{part}" for part in parts} == set(documented_modules()) - {"fommctl.api"}


def test_no_name_goes() -> None:
    recorded, offered = RECORD.read_text(encoding="utf-8").splitlines(), surface()
    gone = sorted(set(recorded) - set(offered))
    assert not gone, (
        f"plugins for this major version may use these, which are gone or changed: {gone}. Keep them, with a "
        "DeprecationWarning, until the next one."
    )
    new = sorted(set(offered) - set(recorded))
    assert not new, f"new in the API: {new}. Record them: python {__file__}"


def test_names_are_those_of_the_host() -> None:
    lines = surface()
    assert "fommctl.api.DatasetSpec(name, summary, licence, build)" in lines
    assert "fommctl.api.Renderer.render(context, motion)" in lines
    assert "fommctl.api.testing_backend.check_backend(spec, model_params, frame_shape=)" in lines


if __name__ == "__main__":
    RECORD.write_text("\n".join(surface()) + "\n", encoding="utf-8")
