"""Checks that run in the child process: they load libraries, drivers, plugins and weights, and animate three frames."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl import machine
from fommctl.doctor.environment import LITTLE_MEMORY, editable, requirements, satisfied, version
from fommctl.doctor.report import Row, in_bytes, note, problem
from fommctl.errors import FommctlError, unforeseen
from fommctl.files import file_sha256

if TYPE_CHECKING:
    import torch

    from fommctl.host import Host, PluginInfo

DISPENSABLE = frozenset({"face-alignment", "scikit-video", "huggingface-hub", "filelock", "jinja2", "packaging"})
"""Dependencies that `animate` with the built-in model does not need."""
IMPORT_ADVICE = (
    (
        r"libGL|libgthread|libxcb|libSM|libXext",
        "Run 'apt-get install libgl1 libglib2.0-0', or replace opencv-python by opencv-python-headless.",
    ),
    (
        r"NumPy 1\.x|numpy\.core\.multiarray|dtype size changed|_ARRAY_API",
        "It was built for another numpy: run 'pip install --upgrade --force-reinstall {name} numpy'.",
    ),
    (r"SIGILL", "The wheel uses instructions that this processor lacks: install an older {name}."),
    (r"it took longer", "Run it again with a larger --timeout; a slow network disk may be the cause."),
)
"""Patterns in errors of imports, with the usual remedy."""


def dependencies() -> list[str]:
    """Return the declared dependencies, sorted; none if packaging, which parses them, cannot be imported."""
    with contextlib.suppress(ImportError):
        return [requirement.name for requirement in requirements()]
    return []


def modules(name: str) -> list[str]:
    """Return the modules to import from a distribution: the one with its name, else all public ones."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    # metadata.packages_distributions misses modules without Python files.
    tops = set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        if file.suffix == ".py" and len(file.parts) < 3:
            tops.add(file.stem if len(file.parts) == 1 else file.parts[0] if file.name == "__init__.py" else "")
    public = sorted(top for top in tops if re.fullmatch(r"[A-Za-z]\w*", top))
    same = name.lower().replace("-", "_")
    return [top for top in public if top.lower() == same] or public


def check_dependency(name: str) -> Iterator[Row]:
    """Check one dependency by importing it."""
    requirement = next(each for each in requirements() if each.name == name)
    installed = version(name)
    if installed is None:
        value, advice = f"not installed; needed: {requirement.specifier}", f"Run 'pip install \"{requirement}\"'."
        yield problem(name, value, advice, stops=is_essential(name))
        return
    if not satisfied(requirement):
        advice = f"Run 'pip install --upgrade \"{requirement}\"'."
        yield problem(name, f"{installed}; needed: {requirement.specifier}", advice)
        return
    for module in modules(name):
        spec = importlib.util.find_spec(module)
        file, error = spec.origin if spec else None, None
        try:
            importlib.import_module(module)
        except BaseException as raised:  # SystemExit included
            error = unforeseen(raised)
        if file and not _belongs(name, file):
            value = f"{installed}; 'import {module}' loads {file}, which is not of this distribution"
            advice = f"Rename or remove {file}; it hides the package."
            yield problem(name, f"{value}: {error}" if error else value, advice, stops=is_essential(name))
            return
        if error:
            yield import_failure(name, error)
            return
    yield Row(name, installed)


def import_failure(name: str, why: str) -> Row:
    """Return the row for a dependency that cannot be imported, with the usual remedy."""
    known = (advice.format(name=name) for pattern, advice in IMPORT_ADVICE if re.search(pattern, why))
    advice = next(known, f"Run 'pip install --force-reinstall {name}'.")
    value = f"{version(name)}; 'import {', '.join(modules(name))}' fails: {why}"
    return problem(name, value, advice, stops=is_essential(name))


def is_essential(name: str) -> bool:
    """Return whether `animate` with the built-in model needs this dependency."""
    return name.lower() not in DISPENSABLE


def _belongs(name: str, file: str) -> bool:
    """Return whether a file is where the distribution is installed; for an editable installation, always True."""
    distribution = metadata.distribution(name)
    place = Path(str(distribution.locate_file(""))).resolve()
    return editable(distribution) or Path(file).resolve().is_relative_to(place)


DEVICES = ("torch", "cuda", "mps")


def check_device(name: str) -> Iterator[Row]:
    """Check one of DEVICES: torch itself and the CPU, the CUDA devices, or mps."""
    if name == "torch":
        yield from _torch()
        return
    try:
        import torch  # noqa: F401
    except Exception:
        return  # reported by the check of torch
    yield from _cuda() if name == "cuda" else _mps()


def _torch() -> Iterator[Row]:
    import torch

    from fommctl.models.precision import decision

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    built = f"ROCm {torch.version.hip}" if torch.version.hip else built
    instructions = torch.backends.cpu.get_cpu_capability()
    yield Row("torch", f"{torch.__version__}, {built}, {torch.get_num_threads()} threads, {instructions}")
    decided = decision()
    wide, narrow, training = decided.precisions.wide, decided.precisions.narrow, decided.precisions.training
    auto = f"--precision auto is {wide}"
    auto += f", {narrow} for models of few channels" if narrow != wide else ""
    auto += f", {training} in training" if training != wide else ""
    has = {"tiles": "AMX tiles", "vectors": "AVX-512 bf16, no AMX tiles"}.get(decided.instructions)
    kept = f"; kept in {decided.path}" if decided.kept else ""
    speedup = _speedup(torch.device("cpu"), ("bf16",), lambda: None, 1, 32)
    facts = {
        "kind": "cpu",
        "model": machine.processor()[0],
        "cores": machine.usable_cores(),
        "name": "cpu",
        "auto": wide,
        "auto_narrow": narrow,
        "auto_training": training,
        "instructions": decided.instructions,
        "decision": str(decided.path) if decided.kept else None,
        "speedup": speedup,
    }
    yield Row("cpu", f"{auto} ({has or 'no bf16 instructions'}{kept}); {_faster(speedup)}", facts=facts)


def _cuda() -> Iterator[Row]:
    import torch

    gpus, driver = _driver()
    yield from [driver] if driver else []
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        yield _cuda_device(torch.device("cuda", number))
    if count or not gpus:
        return
    if torch.version.cuda is None:
        value = f"torch {torch.__version__} is built for the CPU only, yet there is an NVIDIA driver"
        advice = "Install a torch whose CUDA version is at most that of the driver, shown by 'nvidia-smi': "
        yield problem("cuda", value, f"{advice}https://pytorch.org/get-started/locally")
        return
    reason = "torch gives no reason"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        reason = unforeseen(error)
    advice = f"torch was built for CUDA {torch.version.cuda}, 'nvidia-smi' shows what the driver supports; "
    advice += "see CUDA_VISIBLE_DEVICES, and --gpus of containers."
    yield problem("cuda", f"there is a driver, but no device: {reason}", advice)


def _driver() -> tuple[int, Row | None]:
    """Return the number of GPUs according to nvidia-smi, and its row; no row if nvidia-smi is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0, None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        reason = lines[-1][:200] if lines else f"exit code {done.returncode}"
        advice = "Restart the machine, or install the driver again."
        return 1, note("NVIDIA driver", f"nvidia-smi: {reason}", advice)
    versions = [line for line in lines if line[:1].isdigit()]
    return len(versions), Row("NVIDIA driver", f"{versions[0]}, {len(versions)} GPUs" if versions else "no GPU")


def _cuda_device(device: torch.device) -> Row:
    import torch

    card, name = torch.cuda.get_device_properties(device), str(device)
    capability = f"{card.major}.{card.minor}"
    facts: dict[str, Any] = {"kind": "cuda", "name": name, "error": "", "model": card.name, "capability": capability}
    value = f"{card.name}, compute {capability}"
    try:
        free, total = torch.cuda.mem_get_info(device)
        value += f", {in_bytes(free)} of {in_bytes(total)} free"
        facts |= {"architectures": torch.cuda.get_arch_list(), "free": free, "total": total}
        facts |= _measured(device, lambda: torch.cuda.synchronize(device))
    except Exception as error:
        facts["error"] = unforeseen(error)
        advice = f"Use --device cpu until {name} works; see 'nvidia-smi' for processes that hold its memory."
        if "no kernel image" in facts["error"] or "not compatible" in facts["error"]:
            built = ", ".join(torch.cuda.get_arch_list())
            advice = f"This torch is built for {built}: install one for {capability}, or use --device cpu."
        value += f"; fails at first use: {facts['error']}"
        # A failure of the first device stops `animate`, because `--device auto` uses it.
        return Row(name, value, "problem", advice, name == "cuda:0", facts)
    busy = "Another process holds its memory (see 'nvidia-smi'); use a small --batch-size."
    value += f"; --precision auto is {facts['auto']}; {_faster(facts['speedup'])}"
    little = free < LITTLE_MEMORY
    return Row(name, value, "note" if little else "ok", busy if little else None, facts=facts)


def _mps() -> Iterator[Row]:
    import torch

    if not torch.backends.mps.is_available():
        return
    measured, total = _measured(torch.device("mps"), torch.mps.synchronize), torch.mps.recommended_max_memory()
    value = f"{in_bytes(total)}; --precision auto is {measured['auto']}; {_faster(measured['speedup'])}"
    facts = {"kind": "mps", "name": "mps", "error": "", "total": total, **measured}
    yield Row("mps", value, advice="It is used only with --device mps.", facts=facts)


def _measured(device: torch.device, wait: Callable[[], None]) -> dict[str, Any]:
    """Return the precision that `auto` chooses on a device, and the speed of bf16 and fp16 relative to fp32."""
    from fommctl.networks.inference.devices import resolve_precision

    speedup = _speedup(device, ("bf16", "fp16"), wait, 8, 64)
    return {"auto": resolve_precision("auto", device), "speedup": speedup}


def _speedup(
    device: torch.device, names: tuple[str, ...], wait: Callable[[], None], count: int, side: int
) -> dict[str, float]:
    """Return the speed of a 3x3 convolution of 256 channels relative to fp32, from the shortest of five runs each."""
    import torch
    import torch.nn.functional as F

    seconds = {}
    for name in ("fp32", *names):
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        x = torch.ones(count, 256, side, side, dtype=kind, device=device).to(memory_format=torch.channels_last)
        weight = torch.ones(256, 256, 3, 3, dtype=kind, device=device).to(memory_format=torch.channels_last)
        seconds[name] = float("inf")
        with torch.inference_mode():
            for _ in range(5):
                wait()
                start = time.perf_counter()
                result = F.conv2d(x, weight, padding=1)
                wait()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        # Each inner sum is of 9 * 256 ones, which is exact in all three precisions.
        if float(result[0, 0, 1, 1]) != 9 * 256:
            raise RuntimeError(f"a convolution of ones in {kind} gives {float(result[0, 0, 1, 1]):g} for {9 * 256}")
    return {name: round(seconds["fp32"] / seconds[name], 2) for name in names}


def _faster(speedup: dict[str, float]) -> str:
    return ", ".join(f"{name} is {factor:.1f} times as fast as fp32" for name, factor in speedup.items())


OUTPUTS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".png")
CODECS = ("PyAV", *OUTPUTS, "decoders")
WHEEL = "Install the wheel with its own FFmpeg: 'pip install --force-reinstall --only-binary av av'."


def check_codec(name: str) -> Iterator[Row]:
    """Check one of CODECS: PyAV, one kind of output, or the decoders."""
    from fommctl.media import codecs

    if name == "PyAV":
        yield Row(name, ", ".join(f"{library} {number}" for library, number in codecs.versions().items()))
        return
    if name == "decoders":
        missing = codecs.missing_decoders()
        yield note(name, f"none for {', '.join(missing)}" if missing else "all common ones", WHEEL if missing else None)
        return
    found = codecs.output_facts(name)
    value = f"{found.encoder}, sound by {found.sound_encoder}" if found.sound_encoder else found.encoder
    if found.missing:
        advice = f"{WHEEL} Until then use --codec {found.others[0]}." if found.others else WHEEL
        value = f"{value}; this PyAV has no {' and no '.join(found.missing)}"
        yield problem(name, value, advice, stops=name == ".mp4" and found.encoder in found.missing)
        return
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        yield Row(name, f"{value}; a small clip came back {codecs.round_trip(name, Path(folder))}")


ALL_PLUGINS = "plugins"
REINSTALL = "Run 'pip install --force-reinstall fommctl'."


def plugin_names() -> list[str]:
    """Return the names to check: each entry point that would be loaded, then ALL_PLUGINS."""
    found = sorted({entry.name for entry in metadata.entry_points(group="fommctl")})
    wanted = os.environ.get("FOMMCTL_PLUGINS")
    return [*(name for name in found if wanted is None or name in re.split(r"[,\s]+", wanted)), ALL_PLUGINS]


def check_plugin(name: str) -> Iterator[Row]:
    """Load one plugin, or for ALL_PLUGINS check all of them by the host."""
    if name != ALL_PLUGINS:
        # The host reports errors below; this step finds plugins that end the process.
        for entry in metadata.entry_points(group="fommctl", name=name):
            with contextlib.suppress(Exception, SystemExit):
                entry.load()
        return
    from fommctl.host import load_host

    host = load_host(check=False)
    yield from map(_plugin, host.plugins)
    if not any(plugin.distribution == "fommctl" for plugin in host.plugins):
        advice = f"Unset FOMMCTL_PLUGINS; else: {REINSTALL}"
        yield problem(ALL_PLUGINS, "none of fommctl's own is loaded", advice, stops=True)
    for warning in host.warnings:
        yield problem("FOMMCTL_PLUGINS", warning, "Correct it; 'fommctl plugins list' shows the names.")
    for conflict in host.conflicts():
        yield problem("conflict", conflict.message, conflict.hint, stops=True)
    yield from _detectors(host)


def _plugin(plugin: PluginInfo) -> Row:
    owner = f"{plugin.distribution} {plugin.version}"
    if plugin.problem is None:
        counts = {kind: len(registered) for kind, registered in plugin.registers.items()}
        offers = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
        return Row(plugin.name, f"{owner}; {offers or 'offers nothing'}")
    own = plugin.distribution == "fommctl"
    upgrade = f"Run 'pip install --upgrade {plugin.distribution}' or uninstall it; "
    advice = REINSTALL if own else f"{upgrade}'fommctl plugins show {plugin.name}' has the traceback."
    return problem(plugin.name, f"{owner}; {plugin.problem}", advice, stops=own)


def _detectors(host: Host) -> Iterator[Row]:
    """Yield a row for each detector: whether it is ready and the default, or what is missing."""
    from fommctl.host import why_not_ready

    chosen: dict[str, str] = {}
    for spec in sorted(host.detectors.values(), key=lambda spec: -spec.priority):
        reason = why_not_ready(spec)
        if reason is None:
            first = chosen.setdefault(spec.subject, spec.name) == spec.name
            yield Row(spec.name, f"{spec.subject}: ready{', the default' if first else ''}")
        else:
            fetched = "package" not in reason and "raised" not in reason
            advice = f"It fetches weights when named: '--detector {spec.name}'." if fetched else None
            yield Row(spec.name, f"{spec.subject}: {reason}", "note", advice)
    if "face" not in chosen:
        advice = "Run 'pip install --force-reinstall dlib-bin'; until then use --crop none or --crop X,Y,SIZE."
        yield problem("detectors", "no face detector is ready, so --crop auto cannot work", advice, stops=True)


WEIGHTS = ("built-in", "models")


def check_weights(name: str) -> Iterator[Row]:
    """Check one of WEIGHTS: the built-in model, or all other models, with a row for each that is installed."""
    from fommctl.host import load_host
    from fommctl.models import registry
    from fommctl.models.files import weights_in

    if name == "built-in":
        path = registry.BUILT_IN.path
        assert path is not None
        if fault := _damage(path):
            advice = f"Run 'pip install --force-reinstall --no-deps fommctl' (in a checkout: 'git checkout {path}')."
            yield problem(name, fault, advice, stops=True)
            return
        digest = file_sha256(path)
        yield Row(name, f"{in_bytes(path.stat().st_size)}, SHA-256 {digest[:16]}...", facts={"sha256": digest})
        return
    known = registry.entries(load_host(check=False)).values()
    for model in known:
        if model.name == registry.BUILT_IN.name or model.status == "not pulled":
            continue
        if fault := next(filter(None, map(_damage, weights_in(model.path))), None):
            repair = f"models pull {model.name}" if model.spec else "models import FILE"
            advice = f"Delete {model.path} and run 'fommctl {repair}'."
            shipped = "Install its package again; 'fommctl plugins list' shows whose it is."
            yield problem(model.name, fault, shipped if registry.is_shipped(model.spec) else advice)
        else:
            yield Row(model.name, str(model.path))
    if absent := [model.name for model in known if model.status == "not pulled"]:
        advice = "Run 'fommctl models pull NAME' for those that you need."
        yield Row("not pulled", ", ".join(absent), advice=advice)
    yield Row("network", f"downloads are {'forbidden by FOMMCTL_OFFLINE' if machine.offline() else 'allowed'}")


def _damage(path: Path) -> str | None:
    """Return what is wrong with a model file, by its first bytes, its header and its size; None if nothing is."""
    from fommctl.models.files import read_header, sniff

    try:
        if sniff(path) != "safetensors":
            return None
        ends = [entry["data_offsets"][1] for name, entry in read_header(path).items() if name != "__metadata__"]
        with path.open("rb") as file:
            stated = 8 + int.from_bytes(file.read(8), "little") + max(ends, default=0)
    except FommctlError as error:
        return error.message
    except (OSError, KeyError, TypeError, IndexError) as error:
        return f"{path} cannot be read: {error}"
    size = path.stat().st_size
    return None if stated == size else f"{path} has {size:,} bytes, its header states {stated:,}"


SLOW = 5.0
"""Frames per second of the built-in model below which something is wrong; two cores of a laptop reach about 40."""
_FRAMES, _TIMED = 3, 16


def check_trial(name: str) -> Iterator[Row]:
    """Animate three frames and measure the speed."""
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
    advice = "Another process may keep the processor busy; 'fommctl bench' measures at length."
    yield note(name, f"{where}: about {speed:.1f} frames/s, {value}", advice if speed < SLOW else None)
