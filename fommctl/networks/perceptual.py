"""Image networks with fixed weights whose features a perceptual loss compares. No files are read here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_EPSILON = 1e-3
"""Epsilon of the published EfficientNet, whose weights were trained with it."""


class PerceptualNetwork(nn.Module, ABC):
    """A frozen image network: forward(x) maps pictures (B, 3, H, W) in [0, 1], RGB, to five feature maps.

    Gradients reach the pictures and no weight, and there is no training mode: train() changes nothing.
    Weights and normalisation are float32; under autocast the features come in its precision.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, float, float], deviation: tuple[float, float, float]) -> None:
        """Set mean and deviation of each channel of a picture in [0, 1], normalised away before the first layer."""
        super().__init__()
        scale = 1 / torch.tensor(deviation).view(3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(3, 1, 1) * scale, persistent=False)

    def freeze(self) -> None:
        """Fix the weights; subclasses call it once their layers exist."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> PerceptualNetwork:
        """Do nothing: the network stays as it is."""
        return self

    def normalised(self, x: Tensor) -> Tensor:
        """Normalise x (B, 3, H, W) in [0, 1] as the first layer expects it."""
        return x * self.scale + self.shift

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Return five feature maps of x (B, 3, H, W) in [0, 1], fine to coarse."""

    def first(self, x: Tensor, count: int) -> list[Tensor]:
        """Return the first `count` of these feature maps, where possible without computing the others."""
        maps: list[Tensor] = self(x)
        return maps[:count]


class Vgg19Features(PerceptualNetwork):
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19 (Simonyan and Zisserman 2015), as FOMM compares them.

    forward returns (B, 64, H, W), (B, 128, H/2, W/2), (B, 256, H/4, W/4), (B, 512, H/8, W/8) and
    (B, 512, H/16, W/16), sides rounded down. The layers after relu5_1 do not exist.
    """

    LAYERS = (
        (0, 3, 64),
        (2, 64, 64),
        (5, 64, 128),
        (7, 128, 128),
        (10, 128, 256),
        (12, 256, 256),
        (14, 256, 256),
        (16, 256, 256),
        (19, 256, 512),
        (21, 512, 512),
        (23, 512, 512),
        (25, 512, 512),
        (28, 512, 512),
    )
    """Convolutions: number in torchvision's file, channels in, channels out."""
    POOLED = frozenset({5, 10, 19, 28})
    """Convolutions that come after a 2x2 maximum; with the first one, those whose output is compared."""

    def __init__(self, published: Mapping[str, Tensor]) -> None:
        """Load published tensors by torchvision's names (`features.0.weight`); more of them do no harm.

        Raises KeyError or ValueError where a tensor is absent or has another shape.
        """
        super().__init__(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
        self.features = nn.ModuleDict()
        for number, inputs, outputs in self.LAYERS:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            weight = _tensor(published, f"features.{number}.weight", (outputs, inputs, 3, 3))
            bias = _tensor(published, f"features.{number}.bias", (outputs,))
            convolution.load_state_dict({"weight": weight, "bias": bias})
            self.features[str(number)] = convolution
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five feature maps of x (B, 3, H, W) in [0, 1], at least 16 pixels a side."""
        return self.first(x, 5)

    def first(self, x: Tensor, count: int) -> list[Tensor]:
        x = self.normalised(x)
        compared: list[Tensor] = []
        for number, _, _ in self.LAYERS:
            if len(compared) == count:
                break
            if number in self.POOLED:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.features[str(number)](x))
            if number == 0 or number in self.POOLED:
                compared.append(x)
        return compared


class EfficientNetLite0Features(PerceptualNetwork):
    """Ends of the stages of EfficientNet-Lite0 (Tan and Le 2019; the lite variant of 2020: ReLU6, no excitation).

    forward returns (B, 16, H/2, W/2), (B, 24, H/4, W/4), (B, 40, H/8, W/8), (B, 112, H/16, W/16) and
    (B, 320, H/32, W/32), sides rounded up. BatchNorm is folded into the convolutions.
    """

    STAGES = (
        ((32, 16, 1, 3, 1),),
        ((16, 24, 6, 3, 2), (24, 24, 6, 3, 1)),
        ((24, 40, 6, 5, 2), (40, 40, 6, 5, 1)),
        (
            (40, 80, 6, 3, 2),
            *((80, 80, 6, 3, 1),) * 2,
            (80, 112, 6, 5, 1),
            *((112, 112, 6, 5, 1),) * 2,
        ),
        ((112, 192, 6, 5, 2), *((192, 192, 6, 5, 1),) * 3, (192, 320, 6, 3, 1)),
    )
    """Blocks of each stage: channels in, channels out, expansion, kernel, stride."""

    def __init__(self, published: Mapping[str, Tensor]) -> None:
        """Load tensors by the names of the published PyTorch conversion (`_blocks.0._bn1.weight`).

        Raises KeyError or ValueError where a tensor is absent or has another shape.
        """
        super().__init__(mean=(127 / 255,) * 3, deviation=(128 / 255,) * 3)
        self.stem = _folded(published, "_conv_stem", "_bn0", (32, 3, 3, 3), stride=2)
        number = 0
        self.stages = nn.ModuleList()
        for stage in self.STAGES:
            blocks = [_Block(published, f"_blocks.{number + index}", *shape) for index, shape in enumerate(stage)]
            self.stages.append(nn.Sequential(*blocks))
            number += len(stage)
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return five feature maps of x (B, 3, H, W) in [0, 1], at strides 2, 4, 8, 16 and 32."""
        return self.first(x, 5)

    def first(self, x: Tensor, count: int) -> list[Tensor]:
        x = F.relu6(self.stem(self.normalised(x)))
        features = []
        for stage in self.stages[:count]:
            x = stage(x)
            features.append(x)
        return features


class _Block(nn.Module):
    """Inverted residual: expand by 1x1, filter each channel, project by 1x1; ReLU6 after the first two."""

    def __init__(
        self,
        published: Mapping[str, Tensor],
        prefix: str,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.residual = inputs == outputs and stride == 1
        self.expand = (
            None
            if expansion == 1
            else _folded(published, f"{prefix}._expand_conv", f"{prefix}._bn0", (inner, inputs, 1, 1))
        )
        depthwise = (inner, 1, kernel, kernel)
        self.depthwise = _folded(published, f"{prefix}._depthwise_conv", f"{prefix}._bn1", depthwise, stride)
        self.project = _folded(published, f"{prefix}._project_conv", f"{prefix}._bn2", (outputs, inner, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return out + x if self.residual else out


class _HalvingConvolution(nn.Conv2d):
    """Stride 2 with TensorFlow's `same` padding, with which the weights were trained.

    Of an even side the windows start one pixel later than PyTorch's symmetric padding lets them. One more zero before
    and after, and the first row and column of the result left out, is the same without a padded copy of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        later = [1 - side % 2 for side in x.shape[2:]]
        padding = [kernel // 2 + more for kernel, more in zip(self.kernel_size, later, strict=True)]
        out = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return out[:, :, later[0] :, later[1] :]


def _folded(
    published: Mapping[str, Tensor], convolution: str, norm: str, shape: tuple[int, int, int, int], stride: int = 1
) -> nn.Conv2d:
    """Return one convolution that does what the published one and the BatchNorm after it do."""
    outputs, inputs, kernel, _ = shape
    weight = _tensor(published, f"{convolution}.weight", shape)
    gain, bias, mean, variance = (
        _tensor(published, f"{norm}.{name}", (outputs,)) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain / (variance + _BATCH_NORM_EPSILON).sqrt()
    groups = outputs if inputs == 1 else 1
    kind = _HalvingConvolution if stride == 2 else nn.Conv2d
    folded = kind(inputs * groups, outputs, kernel, stride, kernel // 2, groups=groups)
    folded.load_state_dict({"weight": weight * gain.view(-1, 1, 1, 1), "bias": bias - mean * gain})
    return folded


def _tensor(published: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = published[name]
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
    return tensor.detach().float()
