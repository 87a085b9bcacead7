"""The perceptual networks equal the published ones, and nothing modifies them."""

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage import data
from torch import Tensor, nn
from vgg import CENTRE_BIAS, centre_weights, random_weights

from fommctl.models.perceptual import read_efficientnet_lite0
from fommctl.networks.perceptual import EfficientNetLite0Features, PerceptualNetwork, Vgg19Features

CATS = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}
ROCKETS = {657: "missile", 744: "projectile", 812: "space shuttle"}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return read_efficientnet_lite0()


@pytest.fixture(scope="module")
def vgg() -> Vgg19Features:
    return Vgg19Features(random_weights())


@pytest.fixture(params=["vgg19", "efficientnet-lite0"])
def network(request: pytest.FixtureRequest, published: dict[str, Tensor], vgg: Vgg19Features) -> PerceptualNetwork:
    return vgg if request.param == "vgg19" else EfficientNetLite0Features(published)


def pictures(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def square(picture: NDArray[np.uint8], side: int = 224) -> Tensor:
    """Return the middle of a picture, as the classifier expects it: (1, 3, side, side) in [0, 1]."""
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    shorter = min(x.shape[2:])
    top, left = ((length - shorter) // 2 for length in x.shape[2:])
    middle = x[:, :, top : top + shorter, left : left + shorter]
    return F.interpolate(middle, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def norm(x: Tensor, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    values = (tensors[f"{name}.{value}"] for value in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *values, eps=1e-3)


def same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Apply a convolution with TensorFlow's padding written out: half of it before, the odd one after."""
    kernel = weight.shape[2]
    for axis in (3, 2):
        side = x.shape[axis]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding = (total // 2, total - total // 2)
        x = F.pad(x, padding if axis == 3 else (0, 0, *padding))
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)


def unfolded(tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return all block outputs of EfficientNet-Lite0, written from its description, with BatchNorm as a separate
    step."""
    strides = dict.fromkeys((1, 3, 5, 11), 2)
    x = F.relu6(norm(same((255 * x - 127) / 128, tensors["_conv_stem.weight"], 2), tensors, "_bn0"))
    outputs = []
    for number in range(16):
        prefix, before = f"_blocks.{number}.", x
        if number:
            x = F.relu6(norm(same(x, tensors[f"{prefix}_expand_conv.weight"], 1), tensors, f"{prefix}_bn0"))
        x = same(x, tensors[f"{prefix}_depthwise_conv.weight"], strides.get(number, 1))
        x = norm(
            same(F.relu6(norm(x, tensors, f"{prefix}_bn1")), tensors[f"{prefix}_project_conv.weight"], 1),
            tensors,
            f"{prefix}_bn2",
        )
        x = x + before if x.shape == before.shape else x
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(
    ("name", "classes"),
    [("chelsea", CATS), ("coffee", {967: "espresso"}), ("rocket", ROCKETS)],
    ids=["cat", "coffee", "rocket"],
)
def test_real_pictures_are_recognised_from_the_last_features(
    published: dict[str, Tensor], name: str, classes: dict[int, str]
) -> None:
    features = EfficientNetLite0Features(published)(square(getattr(data, name)()))[-1]
    head = F.relu6(norm(F.conv2d(features, published["_conv_head.weight"]), published, "_bn1")).mean((2, 3))
    probable = F.linear(head, published["_fc.weight"], published["_fc.bias"]).softmax(1)[0]
    assert int(probable.argmax()) in classes
    assert float(probable[list(classes)].sum()) > 0.3


@pytest.mark.parametrize("size", [(64, 64), (97, 62)], ids=["even", "odd"])
def test_efficientnet_is_the_published_network_with_its_norms_folded(
    published: dict[str, Tensor], size: tuple[int, int]
) -> None:
    x = pictures(*size)
    wanted = unfolded(published, x)
    found = EfficientNetLite0Features(published)(x)
    assert [f.shape[1] for f in found] == [16, 24, 40, 112, 320]
    assert [f.shape[2] for f in found] == [-(-size[0] // stride) for stride in (2, 4, 8, 16, 32)]
    for feature, block in zip(found, (0, 2, 4, 10, 15), strict=True):
        torch.testing.assert_close(feature, wanted[block], rtol=1e-3, atol=1e-3)


def test_vgg_gives_the_published_slices_of_torchvisions_layers() -> None:
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512]
    layers: list[nn.Module] = []
    inputs = 3
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2, 2)]
        inputs = width or inputs
    torchvisions = nn.Sequential(*layers)
    tensors = random_weights()
    torchvisions.load_state_dict({name.removeprefix("features."): tensor for name, tensor in tensors.items()})
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    x = pictures(48, 40)
    found = Vgg19Features(tensors)(x)
    with torch.no_grad():
        for feature, end in zip(found, (2, 7, 12, 21, 30), strict=True):
            torch.testing.assert_close(feature, torchvisions[:end]((x - mean) / deviation), rtol=1e-4, atol=1e-4)


def test_vgg_by_hand() -> None:
    """Each convolution averages its input channels and adds a constant; pooling takes the maximum of four pixels."""
    x = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).repeat(1, 1, 32, 32)
    x[:, :, 21, 10] += torch.tensor([0.229, 0.224, 0.225])
    found = Vgg19Features(centre_weights())(x)
    assert [tuple(f.shape) for f in found] == [
        (1, 64, 32, 32),
        (1, 128, 16, 16),
        (1, 256, 8, 8),
        (1, 512, 4, 4),
        (1, 512, 2, 2),
    ]
    for feature, halved, convolutions in zip(found, range(5), (1, 3, 5, 9, 13), strict=True):
        wanted = torch.full_like(feature, convolutions * CENTRE_BIAS)
        wanted[:, :, 21 >> halved, 10 >> halved] += 1
        torch.testing.assert_close(feature, wanted, rtol=0, atol=1e-4)


def test_gradients_reach_the_picture_and_no_weight(network: PerceptualNetwork) -> None:
    x = pictures().requires_grad_()
    sum(feature.abs().mean() for feature in network(x)).backward()
    assert x.grad is not None
    assert bool((x.grad.abs().amax((1, 2, 3)) > 0).all())
    assert all(weight.grad is None and not weight.requires_grad for weight in network.parameters())


def test_training_changes_nothing(network: PerceptualNetwork) -> None:
    x = pictures()
    before = network(x)
    nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    for again, feature in zip(network(x), before, strict=True):
        assert torch.equal(again, feature)


def test_autocast_gives_the_same_features_in_less_precision(network: PerceptualNetwork) -> None:
    x = pictures(32, 32).requires_grad_()  # bf16 is slow on processors without instructions for it
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        features = network(x)
    sum(feature.float().abs().mean() for feature in features).backward()
    for feature, wanted in zip(features, exact, strict=True):
        assert feature.dtype == torch.bfloat16
        difference = (feature.float() - wanted).detach().norm() / wanted.detach().norm()
        assert float(difference) < 0.05
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_the_layout_of_the_picture_does_not_matter(network: PerceptualNetwork, layout: torch.memory_format) -> None:
    for feature, wanted in zip(network(pictures().contiguous(memory_format=layout)), network(pictures()), strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-3, atol=1e-3)


def test_an_absent_or_other_tensor_is_named(published: dict[str, Tensor]) -> None:
    lacking = {name: tensor for name, tensor in published.items() if name != "_blocks.7._bn1.running_var"}
    with pytest.raises(KeyError, match=r"_blocks\.7\._bn1\.running_var"):
        EfficientNetLite0Features(lacking)
    with pytest.raises(ValueError, match=r"features\.5\.bias has shape \(64,\), not \(128,\)"):
        Vgg19Features({**random_weights(), "features.5.bias": torch.zeros(64)})


def test_the_published_tensors_stay_as_they_are(published: dict[str, Tensor]) -> None:
    before = copy.deepcopy(published)
    EfficientNetLite0Features(published).to(torch.float64)
    assert all(torch.equal(tensor, before[name]) for name, tensor in published.items())
