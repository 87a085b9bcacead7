"""The contract of backends, as `fommctl.api.testing` has those of the other plugins; without torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fommctl.api.promises import promise as _promise
from fommctl.api.protocols import FlowRenderer
from fommctl.api.specs import BackendSpec, Groups
from fommctl.api.validation import spec_fault

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.api.protocols import Backend, Renderer, SourceContext
    from fommctl.networks.motion import MotionParts


def check_backend(
    spec: BackendSpec, model_params: Mapping[str, Any], frame_shape: tuple[int, int, int] = (64, 64, 3)
) -> None:
    """model_params: a small but complete configuration in the backend's schema; frame_shape: (H, W, C) it is made for.

    The networks, on the CPU in fp32: groups as declared, built alike for one seed, finite results of the promised
    shapes and ranges, frames of a batch independent of each other, fast paths within 1e-3 of the plain one, and a
    published layout that leads there and back.
    """
    import torch

    fault = spec_fault("backend", spec)
    _promise(fault is None, fault or "")
    _promise(spec.summary, "the summary says what it is")
    _promise(spec.motions and all(map(str.isidentifier, spec.motions)), "motions are one word each", spec.motions)
    schema = spec.schema()
    _promise(spec.recognises(dict(model_params)), "recognises() knows its own model_params")
    _promise(not spec.recognises({}), "recognises({}) is False")
    _check_unknown_keys(schema, model_params)
    torch.manual_seed(0)
    backend = spec.build(schema.model_validate(dict(model_params)))
    torch.manual_seed(0)
    _check_groups(spec, backend, spec.build(schema.model_validate(dict(model_params))))
    groups = {name: dict(module.state_dict()) for name, module in backend.modules().items()}
    _check_layout(spec, groups)
    architecture = spec.read_architecture(groups)
    if architecture is not None:
        again = spec.build(schema.model_validate(dict(architecture.model_params)))
        shapes = {name: _shapes(module.state_dict()) for name, module in again.modules().items()}
        _promise(
            {name: _shapes(tensors) for name, tensors in groups.items() if name in spec.groups}
            == {name: each for name, each in shapes.items() if name in spec.groups},
            "read_architecture() describes networks of the same tensors",
        )
    _promise(spec.read_architecture({"nobody": {"knows": torch.zeros(1)}}) is None, "foreign tensors are not claimed")
    height, width, channels = frame_shape
    frames = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    plain = backend.prepare(torch.device("cpu"), "fp32", fast=False)
    with torch.inference_mode():
        expected = _check_renderer(plain, frames)
        fast = backend.prepare(torch.device("cpu"), "fp32")
        found = _check_renderer(fast, frames)
        if spec.source_views > 1:
            _check_views(fast, frames)
    apart = float((expected - found).abs().max())
    _promise(apart <= 1e-3, "the fast fp32 path is within 1e-3 of the plain one", f"{apart:.2g}")


def _check_unknown_keys(schema: Any, model_params: Mapping[str, Any]) -> None:
    try:
        schema.model_validate({**model_params, "no_such_key": 1})
    except ValueError:
        return
    _promise(False, "the schema refuses unknown keys", "no error for no_such_key: 1")


def _check_groups(spec: BackendSpec, backend: Backend, twin: Backend) -> None:
    modules, others = backend.modules(), twin.modules()
    _promise(set(spec.groups) <= set(modules), "modules() has every group", sorted(modules))
    _promise(
        set(modules) <= {*spec.groups, *spec.optional_groups}, "modules() has declared groups only", sorted(modules)
    )
    for name, module in modules.items():
        _promise(not module.training, f"{name} is in eval mode")
        state, other = module.state_dict(), others[name].state_dict()
        _promise(all(tensor.device.type == "cpu" for tensor in state.values()), f"{name} is on the CPU")
        same = state.keys() == other.keys() and all(state[key].equal(other[key]) for key in state)
        _promise(same, f"{name} has the same weights for the same seed")


def _check_layout(spec: BackendSpec, groups: Groups) -> None:
    """Published names and shapes, and back."""
    before = {name: _shapes(tensors) for name, tensors in groups.items()}
    same = {name: _shapes(tensors) for name, tensors in spec.from_published(groups).items()} == before
    _promise(same, "from_published() leaves tensors in the layout of modules() as they are")
    again = spec.from_published(spec.to_published(groups))
    _promise(set(again) == set(groups), "the groups come back from the published layout")
    for name, tensors in groups.items():
        same = again[name].keys() == tensors.keys() and all(again[name][key].equal(tensors[key]) for key in tensors)
        _promise(same, f"the tensors of {name} come back from the published layout")


def _check_views(renderer: Renderer, frames: Tensor) -> None:
    """Frames as pictures of one source."""
    context = renderer.encode_source(frames[:2])
    _check_motion(context.motion, 1)
    motion = renderer.detect(frames)
    _promise(_alike(context.motion, motion[:1]), "the motion of several pictures of a source is that of the first")
    rendered = renderer.render(context, motion)
    _promise(_fits(rendered, frames), "render() of several pictures of a source gives (B, C, H, W)")
    _promise(rendered.isfinite().all(), "frames made of several pictures are finite")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_renderer(renderer: Renderer, frames: Tensor) -> Tensor:
    """Returns the rendered frames."""
    import torch

    before = frames.clone()
    motion = renderer.detect(frames)
    _check_motion(motion, len(frames))
    context = renderer.encode_source(frames[:1])
    _check_motion(context.motion, 1)
    _promise(_alike(context.motion, motion[:1]), "the context's motion is that of its source")
    together = renderer.render(context, motion)
    _promise(_fits(together, frames), "render() gives (B, C, H, W), no smaller than the frames", together)
    _promise(torch.isfinite(together).all(), "frames are finite")
    low, high = float(together.min()), float(together.max())
    _promise(low >= 0 and high <= 1, "frames are in [0, 1]", f"{low:.3g} to {high:.3g}")
    together = together.clone()
    for index in range(len(frames)):
        one = slice(index, index + 1)
        alone = renderer.detect(frames[one])
        _promise(_alike(alone, motion[one]), "detect() sees each frame of a batch on its own")
        _promise(_near(renderer.render(context, motion[one]), together[one]), "render() makes each frame on its own")
    _check_flow(renderer, context, motion, together)
    _promise(frames.equal(before), "the frames that are handed in stay as they are")
    return together


def _check_flow(renderer: Renderer, context: SourceContext, motion: MotionParts, frames: Tensor) -> None:
    """Of a renderer that can tell what moved where; frames: as `render` made them."""
    import torch

    if not isinstance(renderer, FlowRenderer):
        return
    again, flow = renderer.render_with_flow(context, motion)
    _promise(_near(again, frames), "render_with_flow() gives the frames of render()")
    if flow is None:
        return
    fits = flow.ndim == 4 and len(flow) == len(frames) and flow.shape[3] == 2
    _promise(fits, "a flow is (B, h, w, 2)", flow)
    _promise(flow.dtype == torch.float32 and bool(torch.isfinite(flow).all()), "a flow is finite float32", flow)
    flow = flow.clone()
    for index in range(len(frames)):
        one = slice(index, index + 1)
        alone = renderer.render_with_flow(context, motion[one])[1]
        _promise(alone is not None and _near(alone, flow[one]), "render_with_flow() sees each frame on its own")


def _check_motion(motion: MotionParts, count: int) -> None:
    import torch

    from fommctl.networks.motion import Motion

    if isinstance(motion, Motion):
        points, jacobians, covariances, codes = motion.parts()
        assert points is not None
        _promise(points.ndim == 3 and points.shape[2] == 2, "keypoints are (B, K, 2)", points)
        _promise(points.shape[1] or codes is not None, "there are keypoints, or codes in their place")
        for name, maps in (("Jacobians", jacobians), ("covariances", covariances)):
            _promise(maps is None or maps.shape == (*points.shape, 2), f"{name} are (B, K, 2, 2)", maps)
        _promise(codes is None or codes.ndim == 2, "codes are (B, D)", codes)
    points = motion.points()
    _promise(points.shape == (count, points.shape[1], 2), "the points of a motion are (B, K, 2)", points)
    for name, part in zip(motion.names(), motion.parts(), strict=True):
        _promise(part is None or len(part) == count, f"{name} are (B, ...)", part)
        finite = part is None or (part.dtype == torch.float32 and bool(torch.isfinite(part).all()))
        _promise(finite, f"{name} are finite float32", part)


def _alike(one: MotionParts, other: MotionParts) -> bool:
    """Are all parts of both motions there or absent, and near each other?"""
    return all(
        (mine is None) == (theirs is None) and (mine is None or theirs is None or _near(mine, theirs))
        for mine, theirs in zip(one.parts(), other.parts(), strict=True)
    )


def _fits(rendered: Tensor, frames: Tensor) -> bool:
    """Are rendered frames as many as those of the model, of as many channels, and of the same or a larger size?"""
    larger = [made / given for made, given in zip(rendered.shape[2:], frames.shape[2:], strict=True)]
    return rendered.shape[:2] == frames.shape[:2] and larger[0] == larger[1] >= 1


def _near(one: Tensor, other: Tensor) -> bool:
    # Of no values at all, too: a motion may have no keypoints.
    return bool(((one - other).abs() <= 1e-3).all())
