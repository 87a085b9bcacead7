"""Contract checks for backends (other plugins: `fommctl.api.testing`); importing this module imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fommctl.api.protocols import ClipTransferRenderer, FlowRenderer, ReconstructionRenderer, TransferRenderer
from fommctl.api.specs import BackendSpec, Groups, spec_fault
from fommctl.api.testing import BrokenPromiseError, require
from fommctl.api.training import BaseTrainParams, PhaseResult, ThinPlateTransform, TrainingBatch, TrainingPhase, trains
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.api.protocols import Backend, Renderer, SourceContext
    from fommctl.networks.motion import MotionParts

BATCH = 2
"""Pairs of frames in a training step."""


def check_backend(
    spec: BackendSpec, model_params: Mapping[str, Any], frame_shape: tuple[int, int, int] = (64, 64, 3)
) -> None:
    """Check the networks and renderers of a backend, on the CPU.

    In fp32: groups as declared, identical for one seed; finite results of the specified shapes and ranges; frames of a
    batch independent of each other; the fast path within 1e-3 of the plain one; a published layout that converts in
    both directions. Finite frames in bf16, at twice the size (or a UsageError), and in every motion mode.

    model_params: a small but complete configuration in the backend's schema.  frame_shape: (H, W, C) of its frames.
    """
    fault = spec_fault("backend", spec)
    require(fault is None, fault or "")
    require(spec.summary, "the spec has a summary")
    require(spec.motions and all(map(str.isidentifier, spec.motions)), "motions are single words", spec.motions)
    schema = spec.schema()
    certainty = spec.recognises(dict(model_params))
    require(0 < certainty <= 1, "recognises() is in (0, 1] for its own model_params", certainty)
    require(spec.recognises({}) == 0, "recognises({}) is 0")
    _check_unknown_keys(schema, model_params)
    torch.manual_seed(0)
    backend = spec.build(schema.model_validate(dict(model_params)))
    torch.manual_seed(0)
    _check_groups(backend, spec.build(schema.model_validate(dict(model_params))))
    groups = {name: dict(module.state_dict()) for name, module in backend.modules().items()}
    _check_layout(spec, groups)
    architecture = spec.read_architecture(groups)
    if architecture is not None:
        again = spec.build(schema.model_validate(dict(architecture.model_params)))
        needed = backend.needed_groups()
        shapes = {name: _shapes(module.state_dict()) for name, module in again.modules().items()}
        require(
            {name: _shapes(tensors) for name, tensors in groups.items() if name in needed}
            == {name: each for name, each in shapes.items() if name in needed},
            "read_architecture() describes networks of the same tensors",
        )
    require(spec.read_architecture({"nobody": {"knows": torch.zeros(1)}}) is None, "foreign tensors are not claimed")
    height, width, channels = frame_shape
    frames = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    plain = backend.prepare(torch.device("cpu"), "fp32", fast=False)
    with torch.inference_mode():
        expected = _check_renderer(plain, frames)
        fast = backend.prepare(torch.device("cpu"), "fp32")
        found = _check_renderer(fast, frames)
        if spec.source_views > 1:
            _check_views(fast, frames)
        _check_modes(spec, fast, frames)
        _check_finite(backend.prepare(torch.device("cpu"), "bf16"), frames, "in bf16")
        _check_twice_the_size(backend, frames)
    apart = float((expected - found).abs().max())
    require(apart <= 1e-3, "the fast fp32 path is within 1e-3 of the plain one", f"{apart:.2g}")


def _check_modes(spec: BackendSpec, renderer: Renderer, frames: Tensor) -> None:
    """Render frames under each motion mode of the model family."""
    if not isinstance(renderer, TransferRenderer):
        return
    context, driving = renderer.encode_source(frames[:1]), renderer.detect(frames)
    for mode in getattr(renderer, "own_modes", spec.motions):
        require(mode in spec.motions, "own_modes are among the motions of the spec", mode)
        moved = renderer.transfer(driving, driving[:1], context.motion, mode=mode, options=None)
        require(len(moved) == len(frames), f"transfer() returns one motion per frame in mode {mode}", len(moved))
        _check_frames(renderer.render(context, moved), frames, f"in mode {mode}")
        move = renderer.transfer_clip if isinstance(renderer, ClipTransferRenderer) else renderer.transfer
        moved = move(driving, driving[:1], driving, mode=mode, options=None)
        require(len(moved) == len(frames), f"transfer works for a source video in mode {mode}", len(moved))


def _check_finite(renderer: Renderer, frames: Tensor, how: str) -> None:
    # One frame is enough: bf16 is slow on processors without instructions for it.
    driving = frames[1:2]
    context, motion = renderer.encode_source(frames[:1]), renderer.detect(driving)
    _check_frames(renderer.render(context, motion), driving, how)
    if isinstance(renderer, ReconstructionRenderer):
        again = renderer.reconstruct(context, motion, driving)
        _check_frames(again, driving, f"made again {how}")


def _check_frames(rendered: Tensor, frames: Tensor, how: str) -> None:
    require(_fits(rendered, frames), f"frames {how} are (B, C, H, W)", rendered)
    inside = bool(rendered.isfinite().all()) and float(rendered.min()) >= 0 and float(rendered.max()) <= 1
    require(inside, f"frames {how} are finite and in [0, 1]")


def _check_twice_the_size(backend: Backend, frames: Tensor) -> None:
    larger = torch.nn.functional.interpolate(frames, scale_factor=2)
    try:
        renderer = backend.prepare(torch.device("cpu"), "fp32", scale=0.5)
    except UsageError:
        return
    _check_finite(renderer, larger, "at twice the size")


def _check_unknown_keys(schema: Any, model_params: Mapping[str, Any]) -> None:
    try:
        schema.model_validate({**model_params, "no_such_key": 1})
    except ValueError:
        return
    require(False, "the schema refuses unknown keys", "no error for no_such_key: 1")


def _check_groups(backend: Backend, twin: Backend) -> None:
    modules, others, needed = backend.modules(), twin.modules(), backend.needed_groups()
    require(needed and set(needed) <= set(modules), "needed_groups() are groups of modules()", needed)
    for name, module in modules.items():
        require(not module.training, f"{name} is in eval mode")
        state, other = module.state_dict(), others[name].state_dict()
        require(all(tensor.device.type == "cpu" for tensor in state.values()), f"{name} is on the CPU")
        same = state.keys() == other.keys() and all(state[key].equal(other[key]) for key in state)
        require(same, f"{name} has the same weights for the same seed")


def _check_layout(spec: BackendSpec, groups: Groups) -> None:
    """Check published names and shapes, and the conversion back."""
    before = {name: _shapes(tensors) for name, tensors in groups.items()}
    same = {name: _shapes(tensors) for name, tensors in spec.from_published(groups).items()} == before
    require(same, "from_published() does not change tensors in the layout of modules()")
    again = spec.from_published(spec.to_published(groups))
    require(set(again) == set(groups), "groups are the same after to_published() and from_published()")
    for name, tensors in groups.items():
        same = again[name].keys() == tensors.keys() and all(again[name][key].equal(tensors[key]) for key in tensors)
        require(same, f"tensors of {name} are the same after to_published() and from_published()")


def _check_views(renderer: Renderer, frames: Tensor) -> None:
    """Check a renderer with several pictures of one source."""
    context = renderer.encode_source(frames[:2])
    _check_motion(context.motion, 1)
    motion = renderer.detect(frames)
    require(_alike(context.motion, motion[:1]), "the context of several source pictures has the motion of the first")
    rendered = renderer.render(context, motion)
    require(_fits(rendered, frames), "render() with several source pictures returns (B, C, H, W)")
    require(rendered.isfinite().all(), "frames with several source pictures are finite")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_renderer(renderer: Renderer, frames: Tensor) -> Tensor:
    """Check a renderer, and return the frames that it rendered."""
    before = frames.clone()
    motion = renderer.detect(frames)
    _check_motion(motion, len(frames))
    context = renderer.encode_source(frames[:1])
    _check_motion(context.motion, 1)
    require(_alike(context.motion, motion[:1]), "the context has the motion of its source")
    together = renderer.render(context, motion)
    require(_fits(together, frames), "render() returns (B, C, H, W), no smaller than the frames", together)
    require(torch.isfinite(together).all(), "frames are finite")
    low, high = float(together.min()), float(together.max())
    require(low >= 0 and high <= 1, "frames are in [0, 1]", f"{low:.3g} to {high:.3g}")
    together = together.clone()
    for index in range(len(frames)):
        one = slice(index, index + 1)
        alone = renderer.detect(frames[one])
        require(_alike(alone, motion[one]), "detect() treats the frames of a batch independently")
        require(
            _near(renderer.render(context, motion[one]), together[one]),
            "render() treats the frames of a batch independently",
        )
    _check_flow(renderer, context, motion, together)
    require(frames.equal(before), "the given frames are not changed")
    return together


def _check_flow(renderer: Renderer, context: SourceContext, motion: MotionParts, frames: Tensor) -> None:
    """Check the flow of a renderer that has one.  frames: the result of `render`."""
    if not isinstance(renderer, FlowRenderer):
        return
    again, flow = renderer.render_with_flow(context, motion)
    require(_near(again, frames), "render_with_flow() returns the frames of render()")
    if flow is None:
        return
    fits = flow.ndim == 4 and len(flow) == len(frames) and flow.shape[3] == 2
    require(fits, "a flow is (B, h, w, 2)", flow)
    require(flow.dtype == torch.float32 and bool(torch.isfinite(flow).all()), "a flow is finite float32", flow)
    flow = flow.clone()
    for index in range(len(frames)):
        one = slice(index, index + 1)
        alone = renderer.render_with_flow(context, motion[one])[1]
        require(
            alone is not None and _near(alone, flow[one]),
            "render_with_flow() treats the frames of a batch independently",
        )


def _check_motion(motion: MotionParts, count: int) -> None:
    from fommctl.networks.motion import Motion

    if isinstance(motion, Motion):
        points, jacobians, covariances, codes = motion.parts()
        assert points is not None
        require(points.ndim == 3 and points.shape[2] == 2, "keypoints are (B, K, 2)", points)
        require(points.shape[1] or codes is not None, "there are keypoints or codes")
        for name, maps in (("Jacobians", jacobians), ("covariances", covariances)):
            require(maps is None or maps.shape == (*points.shape, 2), f"{name} are (B, K, 2, 2)", maps)
        require(codes is None or codes.ndim == 2, "codes are (B, D)", codes)
    points = motion.points()
    require(points.shape == (count, points.shape[1], 2), "the points of a motion are (B, K, 2)", points)
    for name, part in zip(motion.names(), motion.parts(), strict=True):
        require(part is None or len(part) == count, f"{name} are (B, ...)", part)
        finite = part is None or (part.dtype == torch.float32 and bool(torch.isfinite(part).all()))
        require(finite, f"{name} are finite float32", part)


def _alike(one: MotionParts, other: MotionParts) -> bool:
    """Return whether both motions have the same parts, with nearly equal values."""
    return all(
        (mine is None) == (theirs is None) and (mine is None or theirs is None or _near(mine, theirs))
        for mine, theirs in zip(one.parts(), other.parts(), strict=True)
    )


def _fits(rendered: Tensor, frames: Tensor) -> bool:
    """Return whether rendered frames have the count and channels of `frames`, and their size or a multiple."""
    vertical, horizontal = (out / given for out, given in zip(rendered.shape[2:], frames.shape[2:], strict=True))
    return rendered.shape[:2] == frames.shape[:2] and vertical == horizontal >= 1


def _near(one: Tensor, other: Tensor) -> bool:
    # `all` is also true for empty tensors: a motion may have no keypoints.
    return bool(((one - other).abs() <= 1e-3).all())


def check_training(
    spec: BackendSpec,
    model_params: Mapping[str, Any],
    train_params: Mapping[str, Any],
    frame_shape: tuple[int, int, int] = (64, 64, 3),
) -> None:
    """Check the training of a backend: two steps on the CPU, and one forward pass under autocast to bf16.

    Every phase has finite scalar losses, each weight belongs to one optimiser, every optimiser changes weights, and
    losses are the same for the same seed.

    train_params: as in a preset, with `perceptual_network: none`.  Other arguments: see `check_backend`.
    """
    schema = spec.sections().get("train_params", BaseTrainParams)
    params = schema.model_validate(dict(train_params))
    first, second = (_losses(spec, model_params, params, frame_shape) for _ in range(2))
    require(first == second, "losses are the same for the same seed")
    _check_half(spec, model_params, params, frame_shape)


def _check_half(
    spec: BackendSpec, model_params: Mapping[str, Any], params: Any, frame_shape: tuple[int, int, int]
) -> None:
    """Check training under autocast to bf16, which `train` uses on devices where it is fast."""
    backend: Any = spec.build(spec.schema().model_validate(dict(model_params)))
    batch, generated = _batch(frame_shape, 0), None
    for phase in backend.training(params, None):
        with torch.autocast("cpu", torch.bfloat16):
            try:
                result: PhaseResult = phase.module.train()(batch, generated)
            except RuntimeError as error:
                raise BrokenPromiseError("a step works under autocast to bf16", str(error)) from error
        generated = result.generated
        for name, loss in result.losses.items():
            value = float(loss.detach())
            require(math.isfinite(value), f"the loss '{name}' is finite under autocast to bf16", value)


def _losses(
    spec: BackendSpec, model_params: Mapping[str, Any], params: Any, frame_shape: tuple[int, int, int]
) -> list[float]:
    torch.manual_seed(0)
    backend: Any = spec.build(spec.schema().model_validate(dict(model_params)))
    require(trains(backend), "the backend has a method training()")
    phases: list[TrainingPhase] = list(backend.training(params, None))
    _check_optimisers(phases)
    losses = []
    for number in range(2):
        batch, generated = _batch(frame_shape, number), None
        for phase in phases:
            result, values = _step(phase, batch, generated)
            generated = result.generated
            losses += values
    return losses


def _check_optimisers(phases: list[TrainingPhase]) -> None:
    names = [name for phase in phases for name in phase.optimisers]
    require(bool(names) and len(set(names)) == len(names), "optimisers have unique names", names)
    trained: set[int] = set()
    for phase in phases:
        own = {id(parameter) for parameter in phase.module.parameters() if parameter.requires_grad}
        for optimiser in phase.optimisers.values():
            held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
            require(not held & trained, "each weight belongs to one optimiser")
            trained |= held
            require(held <= own, f"the module of the phase '{phase.name}' registers what its optimisers train")
            own -= held
        require(not own, f"the module of the phase '{phase.name}' registers no other trainable weights")


def _step(phase: TrainingPhase, batch: TrainingBatch, generated: Any) -> tuple[PhaseResult, list[float]]:
    result: PhaseResult = phase.module.train()(batch, generated)
    require(bool(result.losses), f"the phase '{phase.name}' has losses")
    for name, loss in result.losses.items():
        require(loss.dim() == 0 and bool(loss.isfinite()), f"the loss '{name}' is a finite scalar", loss)
    if result.view is not None:
        shapes = {tuple(frames.shape) for frames in (result.view.source, result.view.driving, result.view.prediction)}
        require(shapes == {tuple(batch.source.shape)}, "a view has frames of the size of the batch", sorted(shapes))
    for optimiser in phase.optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    torch.stack(list(result.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, optimiser in phase.optimisers.items():
        held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        before = [parameter.detach().clone() for parameter in held]
        optimiser.step()
        moved = any(not old.equal(new) for old, new in zip(before, held, strict=True))
        require(moved, f"a step of {name} changes weights")
    return result, [float(loss.detach()) for loss in result.losses.values()]


def _batch(frame_shape: tuple[int, int, int], seed: int) -> TrainingBatch:
    height, width, channels = frame_shape
    random = torch.Generator().manual_seed(seed)
    source, driving = (torch.rand(BATCH, channels, height, width, generator=random) for _ in range(2))
    transform = ThinPlateTransform.random(BATCH, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=random)
    return TrainingBatch(source, driving, transform)
