"""Who is evaluated: models, each loaded once to see that it can be used, or folders of finished results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api.folders import file_name_part, stem
from fommctl.errors import UsageError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.host import Host

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine
    from fommctl.presets.preset import Preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One model, or one folder of finished results."""

    name: str
    folder: str
    """Its name as part of a path, different from that of all others."""
    model: str | None = None
    """As `load_model` takes it."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """All that its predictions depend on but the clip and the options: JSON values."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For the configuration that is saved: JSON values."""
    warnings: tuple[str, ...] = ()


def of_predictions(config: EvaluateConfig) -> tuple[Contestant, ...]:
    """Folders or files of finished results."""
    names = config.names or distinct([path.resolve().as_posix() for path in config.predictions])
    return tuple(
        Contestant(name=name, folder=folder, details={"predictions": str(path)})
        for name, folder, path in zip(names, folders(names), config.predictions, strict=True)
    )


def of_models(config: EvaluateConfig, host: Host) -> tuple[tuple[Contestant, ...], Preset]:
    """Models, and the preset of the first. Raises what `load_model` raises."""
    engines = [load_engine(model, config, host) for model in config.models]
    labels = [
        engine.model.name if model is None or model in _registered(host) else Path(model).resolve().as_posix()
        for model, engine in zip(config.models, engines, strict=True)
    ]
    names = config.names or distinct(labels)
    contestants = [
        _contestant(name, folder, model, engine)
        for name, folder, model, engine in zip(names, folders(names), config.models, engines, strict=True)
    ]
    return tuple(contestants), engines[0].model.preset


def load_engine(model: str | None, config: EvaluateConfig, host: Host) -> Engine:
    """The model on the device of the run."""
    # Importing torch takes longer than scoring a short clip.
    from fommctl.animate.engine import Engine
    from fommctl.models.loading import load_model

    loaded = load_model(model, host, preset=config.preset, sets=config.sets)
    return Engine(loaded, host, device=config.device, precision=config.precision)


def _registered(host: Host) -> Mapping[str, Any]:
    from fommctl.models import registry

    return registry.entries(host)


def _contestant(name: str, folder: str, model: str | None, engine: Engine) -> Contestant:
    from fommctl.provenance.hashing import model_identity

    loaded = engine.model
    width, height = engine.frame_size()
    about = model_identity(loaded)
    identity = {
        "sha256": about["sha256"],
        "preset": about["preset"],
        "device": engine.device.type,
        "precision": engine.precision,
    }
    details = {
        "model": loaded.name,
        "file": str(loaded.path),
        "sha256": identity["sha256"],
        "frame_size": [width, height],
        "device": str(engine.device),
        "precision": engine.precision,
        "preset": identity["preset"],
    }
    return Contestant(
        name=name,
        folder=folder,
        model=model,
        identity=identity,
        details=details,
        warnings=tuple(f"{name}: {note}" for note in loaded.notes),
    )


def distinct(paths: Sequence[str]) -> tuple[str, ...]:
    """Short names: the last part of each path without its ending, with so many folders before it that all differ, and
    with the endings where nothing else does.

    Raises UsageError where one path is there twice.
    """
    parts = [tuple(part for part in Path(path).parts if part != "/") for path in paths]
    for shorten in (_stem, str):
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join((*each[-depth:-1], shorten(each[-1]))) for each in parts]
            if len(set(names)) == len(names):
                return tuple(names)
    twice = next(path for path, times in Counter(paths).items() if times > 1)
    raise UsageError(f"'{twice}' is there twice", "Give every model once, or a name to each with --names.")


def folders(names: Sequence[str]) -> tuple[str, ...]:
    """A name of a folder for each of these names, which differ: no two the same, in capitals or not."""
    found: dict[str, None] = {}
    for name in names:
        plain = file_name_part(name).lstrip(".") or "_"
        wanted = chain((plain,), (f"{plain}-{number}" for number in count(2)))
        found[next(each for each in wanted if each.casefold() not in map(str.casefold, found))] = None
    return tuple(found)


def _stem(name: str) -> str:
    for ending in (".tar", ".pth", ".safetensors"):
        name = name.removesuffix(ending)
    return stem(Path(name))
