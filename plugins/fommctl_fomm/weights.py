"""The weights published by FOMM's authors, and where to download copies."""

from fommctl.api import ModelSpec

_MIRROR = "https://github.com/graphemecluster/first-order-model-demo/releases/download/checkpoints/"
_LICENCE = (
    "published by the authors of the First Order Motion Model without a licence of their own (the code is MIT); "
    "the terms of the training data apply: {data}"
)
_VOX = "VoxCeleb, whose videos belong to their owners and show real people"


def _published(name: str, preset: str, summary: str, data: str, file: str) -> ModelSpec:
    return ModelSpec(
        name=name, summary=summary, preset=preset, licence=_LICENCE.format(data=data), urls=(_MIRROR + file,)
    )


PUBLISHED: tuple[ModelSpec, ...] = (
    _published("vox", "vox-256", "faces at 256 pixels", _VOX, "vox-cpk.pth.tar"),
    _published("vox-adv", "vox-adv-256", "faces at 256 pixels, adversarial: sharper", _VOX, "vox-adv-cpk.pth.tar"),
    ModelSpec(
        name="vox-adv-small",
        summary="vox-adv without discriminator and optimisers, 228 MB",
        preset="vox-adv-256",
        licence=_LICENCE.format(data=_VOX),
        urls=("https://openavatarify.s3.amazonaws.com/weights/vox-adv-cpk.pth.tar",),
        md5="8a45a24037871c045fbb8a6a8aa95ebc",
    ),
    ModelSpec(
        name="vox-adv-space",
        summary="vox-adv from a Hugging Face Space",
        preset="vox-adv-256",
        licence=_LICENCE.format(data=_VOX),
        urls=("hf://spaces/abhishek/first-order-motion-model/weights/vox-adv-cpk.pth.tar",),
    ),
    _published(
        "taichi", "taichi-256", "whole bodies at 256 pixels", "Tai-Chi-HD, from YouTube videos", "taichi-cpk.pth.tar"
    ),
    _published(
        "taichi-adv",
        "taichi-adv-256",
        "whole bodies at 256 pixels, adversarial: sharper",
        "Tai-Chi-HD, from YouTube videos",
        "taichi-adv-cpk.pth.tar",
    ),
    _published(
        "nemo", "nemo-256", "smiling faces at 256 pixels", "UvA-NEMO, for research on request", "nemo-cpk.pth.tar"
    ),
    _published("mgif", "mgif-256", "cartoon animals at 256 pixels", "MGif, from GIFs on the web", "mgif-cpk.pth.tar"),
    _published("bair", "bair-256", "a robot arm at 256 pixels", "BAIR robot pushing", "bair-cpk.pth.tar"),
    _published(
        "fashion", "fashion-256", "fashion models at 256 pixels", "Fashion, from a retailer's videos", "fashion.pth.tar"
    ),
)
