"""The fast renderer: the source is encoded once, and normalisations are folded into convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.api.blocks import (
    DTYPES,
    LARGEST_TENSOR,
    FastHourglass,
    FastResidualBlock,
    FastUpsampling,
    GraphedRenderer,
    Motion,
    Numerics,
    between_borders,
    folded,
    identity_grid,
    neighbours,
    resize_grid,
    resize_map,
    step_at,
    weight_and_bias,
    weighted_rows,
)
from fommctl_monkeynet.networks import (
    DenseMotionModule,
    EmbeddedSource,
    MonkeyKeypointDetector,
    MotionTransferGenerator,
    flow_from_maps,
    motion_from_maps,
)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of the source at one scale."""

    table: Tensor
    """(h w, F): one row per position."""
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class FastSource:
    """Everything that depends only on the source."""

    motion: Motion
    moved: EmbeddedSource | None
    """The keypoint embedding for the motion network, if there is one."""
    shown: EmbeddedSource | None
    """The keypoint embedding for the decoder, if it has one."""
    features: tuple[Features, ...]
    """The source itself, then its features from fine to coarse."""


class FastDetector:
    """`MonkeyKeypointDetector` for inference."""

    def __init__(self, detector: MonkeyKeypointDetector, numerics: Numerics, scale: float) -> None:
        self._network = _hourglass(detector, numerics)
        self._step = step_at(detector.down.step, scale)
        self._temperature = detector.temperature
        self._kp_variance = detector.kp_variance
        self._clip_variance = detector.clip_variance

    def __call__(self, frames: Tensor) -> Motion:
        """Detect the motion of frames (B, C, H, W) float32 in [0, 1]."""
        small = _downsampled(frames, self._step).contiguous(memory_format=torch.channels_last)
        return motion_from_maps(
            self._network(small).contiguous(), self._temperature, self._kp_variance, self._clip_variance
        )


class FastMotion:
    """`DenseMotionModule` for inference."""

    def __init__(self, module: DenseMotionModule, numerics: Numerics, scale: float) -> None:
        self._embedding = module.embedding
        self._step = step_at(module.down.step, scale)
        self._mask, self._correction = module.use_mask, module.use_correction
        self._dtype = numerics.dtype
        self._groups = [
            numerics.convolution(
                *folded(block.conv, block.norm),  # type: ignore[arg-type]
                padding=0,
                relu=True,
                groups=module.embedding.parts,
            )
            for block in module.group_blocks
        ]
        self._network = _hourglass(module, numerics)

    def of_source(self, frame: Tensor, motion: Motion) -> EmbeddedSource:
        """Return the part of the embedding that depends only on the source (1, C, H, W)."""
        return self._embedding.of_source(_downsampled(frame, self._step).contiguous(), motion)

    def __call__(self, source: EmbeddedSource, driving: Motion) -> Tensor:
        """Return the flow (B, h, w, 2), a sampling grid of the source in [-1, 1]."""
        x = self._embedding(source, driving).to(self._dtype, memory_format=torch.channels_last)
        for conv in self._groups:
            x = conv(x)
        maps = self._network(x).float().contiguous()
        return flow_from_maps(maps, source.motion, driving, mask=self._mask, correction=self._correction)[0]


class FastMonkeyRenderer(GraphedRenderer[FastSource]):
    """The networks, rewritten for inference (see `fommctl.api.Renderer`).

    Keypoints, heatmaps, flow and the softmax of the masks stay in float32 whatever the precision of the convolutions.
    The renderer keeps no reference to the original networks.
    """

    def __init__(
        self,
        keypoint_detector: MonkeyKeypointDetector,
        generator: MotionTransferGenerator,
        device: torch.device,
        precision: str = "fp32",
        scale: float = 1.0,
    ) -> None:
        super().__init__(device)
        numerics, exact = Numerics(device, DTYPES[precision]), Numerics(device, torch.float32)
        self._dtype = numerics.dtype
        self._align_corners, self._mode = generator.align_corners, generator.mode
        with torch.inference_mode():
            self._detector = FastDetector(keypoint_detector, exact, scale)
            module = generator.dense_motion_module
            self._motion = None if module is None else FastMotion(module, numerics, scale)
            self._embedding = generator.embedding
            self._shown_step = step_at(generator.embedding_down.step, scale)
            self._encoder = [
                exact.convolution(*folded(block.conv, block.norm), padding=1, relu=True)  # type: ignore[arg-type]
                for block in generator.appearance_encoder.down_blocks
            ]
            self._decoder = [
                FastUpsampling(block, numerics)  # type: ignore[arg-type]
                for block in generator.video_decoder.up_blocks
            ]
            *residual, last = generator.refinement_module
            self._residual = [FastResidualBlock(block, numerics) for block in residual]  # type: ignore[arg-type]
            self._last = numerics.convolution(*weight_and_bias(last), padding=0)  # type: ignore[arg-type]
            self._widest = max(generator.video_decoder.out_filters, *(4 * up.channels for up in self._decoder))

    def _detect(self, frames: Tensor) -> Motion:
        return self._detector(frames)

    def _encode(self, frame: Tensor) -> FastSource:
        motion = self._detector(frame)
        moved = None if self._motion is None else self._motion.of_source(frame, motion)
        shown = None
        if self._embedding is not None:
            shown = self._embedding.of_source(_downsampled(frame, self._shown_step).contiguous(), motion)
        values = [frame.contiguous(memory_format=torch.channels_last)]
        for conv in self._encoder:
            values.append(F.avg_pool2d(conv(values[-1]), 2))
        return FastSource(motion, moved, shown, tuple(self._features(each) for each in values))

    def _render(self, context: FastSource, motion: Motion) -> Tensor:
        return self._render_with_flow(context, motion)[0]

    def _render_with_flow(self, context: FastSource, motion: Motion) -> tuple[Tensor, Tensor | None]:
        if self.device.type != "cpu":
            return self._decode(context, motion)
        frame = context.features[0]
        bytes_each = frame.height * frame.width * self._widest * self._dtype.itemsize
        count = max(1, LARGEST_TENSOR // bytes_each)
        starts = range(0, max(len(motion), 1), count)
        parts = [self._decode(context, motion[start : start + count]) for start in starts]
        if len(parts) == 1:
            return parts[0]
        frames = torch.cat([frames for frames, _ in parts])
        return frames, None if self._motion is None else torch.cat([flow for _, flow in parts if flow is not None])

    def _features(self, values: Tensor) -> Features:
        height, width = values.shape[2:]
        return Features(values.permute(0, 2, 3, 1).reshape(height * width, -1).to(self._dtype), height, width)

    def _decode(self, context: FastSource, motion: Motion) -> tuple[Tensor, Tensor | None]:
        """Return frames (B, C, H, W) and their flow with borders at -1 and 1, None without a motion network."""
        frame, between = context.features[0], None
        if self._motion is None or context.moved is None:
            grid = identity_grid(frame.height, frame.width, like=motion.keypoints)
            flow = grid.repeat(len(motion), 1, 1, 1)
        else:
            flow = self._motion(context.moved, motion)
            between = between_borders(flow, (frame.height, frame.width), align_corners=self._align_corners)
        shown = None
        if self._embedding is not None and context.shown is not None:
            shown = self._embedding(context.shown, motion).to(self._dtype, memory_format=torch.channels_last)
        warped = [self._beside(self._warped(features, flow), shown) for features in context.features]
        out = warped.pop()
        for up in self._decoder:
            out = up(out, warped.pop())
        for block in self._residual:
            out = block(out)
        return self._last(out).float().sigmoid_(), between

    def _warped(self, features: Features, flow: Tensor) -> Tensor:
        """Warp features along a flow: (B, F, h, w), channels last."""
        height, width = features.height, features.width
        # Enlarging a flow by nearest resizing repeats its positions, so each is sampled only once.
        repeated = self._mode == "nearest" and height % flow.shape[1] == 0 and width % flow.shape[2] == 0
        grid = flow if repeated else resize_grid(flow, height, width, self._mode)
        indices, weights = neighbours(grid, height, width, align_corners=self._align_corners)
        rows = weighted_rows(features.table, indices, weights)
        values = rows.view(*grid.shape[:3], -1).permute(0, 3, 1, 2)
        return resize_map(values, height, width, "nearest")

    def _beside(self, values: Tensor, shown: Tensor | None) -> Tensor:
        if shown is None:
            return values
        return torch.cat((values, resize_map(shown, values.shape[2], values.shape[3], self._mode)), 1)


def _hourglass(network: MonkeyKeypointDetector | DenseMotionModule, numerics: Numerics) -> FastHourglass:
    hourglass = network.predictor if isinstance(network, MonkeyKeypointDetector) else network.hourglass
    assert hourglass.decoder.conv is not None
    return FastHourglass(hourglass, weight_and_bias(hourglass.decoder.conv), 1, numerics)


def _downsampled(frames: Tensor, step: int) -> Tensor:
    return frames[:, :, ::step, ::step]
