"""Motion as models detect it: tensors of B frames, whatever they say of what moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

Smoother = Callable[[Any, Sequence[float]], Any]
"""smooth(motion of B frames, their times in seconds): alike, one call after the other along a shot."""
M = TypeVar("M", bound="MotionParts")


class MotionParts:
    """The behaviour that all motions share. A family of models derives a frozen dataclass from it, whose fields are
    float32 tensors of B frames each, frames first; one that may be absent is None then."""

    __slots__ = ()
    optional: ClassVar[tuple[str, ...]] = ()
    """Names of parts that are there or not, whatever the model is."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the parts in their order."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # derived classes are dataclasses

    def parts(self) -> tuple[Tensor | None, ...]:
        """Return the parts in the order of their names, as the class takes them."""
        return tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]  # see `names`

    @staticmethod
    def cat(motions: Sequence[M]) -> M:
        """Return the frames of several motions of one model, one after the other."""
        return type(motions[0])(
            *(
                None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
                for parts in zip(*(motion.parts() for motion in motions), strict=True)
            )
        )

    def __len__(self) -> int:
        return next(len(part) for part in self.parts() if part is not None)

    def __getitem__(self, rows: slice | Sequence[int]) -> Self:
        """Return some frames of the batch."""
        return type(self)(*(None if part is None else part[rows] for part in self.parts()))

    def to(self, device: torch.device | str) -> Self:
        """Return the motion on this device."""
        return type(self)(*(None if part is None else part.to(device) for part in self.parts()))

    def points(self) -> Tensor:
        """Return the points of the picture (B, K, 2) that are drawn, and by which poses are compared; K is 0 for
        none."""
        like = next(part for part in self.parts() if part is not None)
        return like.new_zeros((len(like), 0, 2))

    def between(self, other: Self, share: float) -> Self:
        """Return the motion that lies this share (0 to 1) of the way to another."""
        return type(self)(
            *(
                None if one is None or another is None else torch.lerp(one, another, share)
                for one, another in zip(self.parts(), other.parts(), strict=True)
            )
        )

    def travelled(self, scale: Tensor, angle: Tensor, shift: Tensor) -> Self:
        """Return the motion put back to where its subject was before its square followed it: points p go to scale
        R(angle) p + shift. scale, angle (clockwise, radians): (B,); shift: (B, 2). Where motion knows no place, as it
        is."""
        return self

    def with_landmarks(self, landmarks: Tensor) -> Self:
        """Return the motion with what the landmarks (B, N, 2) of its frames tell, NaN where none were found; see
        `fommctl.api.schema.Options.landmarks`."""
        return self

    def smoother(self) -> Smoother:
        """Return a filter for the motions of one shot, frame after frame; it leaves them as they are where none is
        known."""
        return lambda motion, times: motion


@dataclass(frozen=True, slots=True)
class Motion(MotionParts):
    """Keypoints and the local affine maps around them, float32, in a model's own coordinates."""

    keypoints: Tensor
    """(B, K, 2) in [-1, 1], x before y."""
    jacobians: Tensor | None = None
    """(B, K, 2, 2); None in zeroth-order models."""
    covariances: Tensor | None = None
    """(B, K, 2, 2): shapes of the heatmaps around the keypoints, where a model draws them so (Monkey-Net)."""
    codes: Tensor | None = None
    """(B, D): what moves, where a model says it by no keypoints (X2Face); K is 0 then."""

    def points(self) -> Tensor:
        """See `MotionParts`: the keypoints."""
        return self.keypoints

    def travelled(self, scale: Tensor, angle: Tensor, shift: Tensor) -> Motion:
        """See `MotionParts`."""
        maps = (scale[:, None, None] * turns(angle))[:, None]
        keypoints = (maps @ self.keypoints[..., None])[..., 0] + shift[:, None]
        jacobians = None if self.jacobians is None else maps @ self.jacobians
        covariances = None if self.covariances is None else maps @ self.covariances @ maps.mT
        return replace(self, keypoints=keypoints, jacobians=jacobians, covariances=covariances)


def turns(angle: Tensor) -> Tensor:
    """Return matrices (B, 2, 2) that turn by these angles (B,), radians, clockwise where y points down."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack((cosine, -sine, sine, cosine), -1).view(-1, 2, 2)
