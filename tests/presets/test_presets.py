"""Loading presets: by name and path, partial and published files, with the location of every mistake."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.errors import UsageError
from fommctl.host import Host, load_host
from fommctl.presets.preset import find_preset, load_preset, preset_from_data, preset_from_text, preset_names
from fommctl.presets.sections import Framing

HOST = load_host()
GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
MODEL = """\
model_params:
  common_params: {num_kp: 5, num_channels: 3}
  kp_detector_params: {temperature: 0.1, block_expansion: 8, max_features: 32, num_blocks: 3}
  generator_params:
    block_expansion: 8
    max_features: 32
    num_down_blocks: 2
    num_bottleneck_blocks: 2
    dense_motion_params: {block_expansion: 8, max_features: 32, num_blocks: 3}
"""


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def message(text: str, folder: Path, host: Host, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        load_preset(written(folder, text), host, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value.message.replace(f"{folder}/", "")


@pytest.mark.parametrize("name", preset_names(HOST))
def test_every_preset_reads_back_from_its_own_text(name: str, host: Host) -> None:
    preset = load_preset(name, host)
    again = preset_from_text(preset.text(), host, source="text")
    assert again == preset
    assert again.text() == preset.text()


scales = st.lists(st.sampled_from([1, 0.5, 0.25, 0.125, 0.3]), min_size=1, max_size=4)
overrides = st.fixed_dictionaries(
    {
        "train_params.batch_size": st.integers(1, 1000),
        "train_params.lr_generator": st.floats(0, 1),
        "train_params.scales": scales,
        "train_params.max_grad_norm": st.none() | st.floats(0.001, 100),
        "model_params.discriminator_params.scales": scales,
        "dataset_params.root_dir": st.none() | st.sampled_from(["1e-4", "data/x y", "null", "ä: #", "2020-01-01", "'"]),
        "dataset_params.augmentation_params.crop_param": st.none() | st.just({"size": 64}),
        "animate_params.normalization_params.adapt_movement_scale": st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(overrides)
def test_any_configuration_reads_back_equal(options: dict[str, object]) -> None:
    preset = load_preset("smoke", HOST, options=options)
    again = preset_from_text(preset.text(), HOST, source="text")
    assert again == preset
    assert again.text() == preset.text()


def test_a_whole_scale_stays_whole_so_that_the_discriminator_keeps_its_published_name(host: Host) -> None:
    preset = load_preset("vox", host)
    text = preset_from_text(preset.text(), host, source="text").text()
    assert "scales: [1]" in text
    assert "scales: [1, 0.5, 0.25, 0.125]" in text


@pytest.mark.parametrize("family", ["vox", "vox-adv", "taichi", "taichi-adv", "fashion", "mgif", "nemo", "bair"])
def test_a_bare_family_name_means_its_256_pixel_preset(family: str, host: Host) -> None:
    assert find_preset(family, host).name == load_preset(family, host).name == f"{family}-256"


@pytest.mark.parametrize("name", ["vox-tiny", "vox-tiny-ac0", "vox-adv-tiny", "mgif-tiny"])
def test_golden_configurations_load_by_path_without_the_other_sections(name: str, host: Host) -> None:
    preset = load_preset(str(GOLDEN / f"{name}.model_params.yaml"), host)
    params = preset.model_params.model_dump()
    assert preset.backend == "fomm"
    assert preset.frame_shape == (64, 64, 3)
    assert preset.framing is None
    assert params["common_params"]["align_corners"] is (name != "vox-tiny-ac0")
    assert params["kp_detector_params"]["single_jacobian_map"] is (name == "mgif-tiny")
    assert params["discriminator_params"]["use_kp"] is (name == "vox-adv-tiny")
    with pytest.raises(UsageError, match="no section 'train_params'"):
        preset.section("train_params")


def test_a_file_without_dataset_params_has_published_frames(tmp_path: Path, host: Host) -> None:
    preset = load_preset(written(tmp_path, MODEL), host)
    assert (preset.name, preset.backend, preset.frame_shape) == ("mine", "fomm", (256, 256, 3))
    assert preset.model_params.model_dump()["common_params"] == {
        "num_kp": 5,
        "num_channels": 3,
        "estimate_jacobian": False,
        "align_corners": True,
    }


def test_image_shape_is_read_as_frame_shape_also_in_set(tmp_path: Path, host: Host) -> None:
    path = written(tmp_path, MODEL + "dataset_params:\n  image_shape: [128, 64, 3]\n")
    assert load_preset(path, host).frame_shape == (128, 64, 3)
    assert load_preset(path, host, sets=["dataset_params.image_shape=[32, 32, 3]"]).frame_shape == (32, 32, 3)
    problem = message(MODEL + "dataset_params:\n  image_shape: big\n", tmp_path, host)
    assert problem == "mine.yaml:11: 'dataset_params.frame_shape' should be a list, not the text 'big'"


def test_precedence_is_preset_file_set_option(tmp_path: Path, host: Host) -> None:
    path = written(tmp_path, "extends: vox\ntrain_params:\n  batch_size: 7\n  num_epochs: 8\n  num_repeats: 9\n")
    preset = load_preset(
        path,
        host,
        sets=["train_params.num_epochs=80", "train_params.num_repeats=90"],
        options={"train_params.num_repeats": 900, "train_params.batch_size": None},
    )
    train = preset.section("train_params")
    assert (train.batch_size, train.num_epochs, train.num_repeats) == (7, 80, 900)
    assert train.epoch_milestones == (60, 90)
    assert (preset.name, preset.framing) == ("mine", Framing(subject="face", width=0.52))


def test_all_problems_are_reported_at_once_each_with_its_line(tmp_path: Path, host: Host) -> None:
    text = MODEL.replace("num_kp: 5", "num_kpp: 5") + (
        "trainparams: {}\n"
        "train_params:\n"
        "  num_epochs: ten\n"
        "  batch_size: true\n"
        "  lr_generator: '1e-4'\n"
        "  scales: [1, 2]\n"
        "  loss_weights:\n"
        "    percptual: [1]\n"
        "framing: {subject: face, width: -1}\n"
    )
    lines = message(text, tmp_path, host, sets=["animate_params.num_pairs=no"]).splitlines()
    assert lines[0] == "10 problems in the configuration:"
    assert sorted(line.strip() for line in lines[1:]) == [
        "--set animate_params.num_pairs=no: 'animate_params.num_pairs' should be a whole number, not false",
        "mine.yaml:10: unknown key 'trainparams' (did you mean 'train_params'?)",
        "mine.yaml:12: 'train_params.num_epochs' should be a whole number, not the text 'ten'",
        "mine.yaml:13: 'train_params.batch_size' should be a whole number, not true",
        "mine.yaml:14: 'train_params.lr_generator' should be a number, not the text '1e-4'",
        "mine.yaml:15: 'train_params.scales.1' should be more than 0 and at most 1, not 2",
        "mine.yaml:17: unknown key 'train_params.loss_weights.percptual' (did you mean 'perceptual'?)",
        "mine.yaml:18: 'framing.width' should be greater than 0, not -1",
        "mine.yaml:2: the key 'num_kp' is missing in 'model_params.common_params'",
        "mine.yaml:2: unknown key 'model_params.common_params.num_kpp' (did you mean 'num_kp'?)",
    ]


def test_a_set_with_a_key_from_elsewhere_says_where_it_belongs(host: Host) -> None:
    for text, key in (("num_kp=4", "model_params.common_params.num_kp"), ("batch_size=4", "train_params.batch_size")):
        with pytest.raises(UsageError, match=rf"--set {text}: unknown key '\w+' \(did you mean '{key}'\?\)"):
            load_preset("smoke", host, sets=[text])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train_params: {num_epochs: 1, batch_size: 1}\n", "mine.yaml: the section 'model_params' is missing"),
        ("model_params:\n", "mine.yaml: the section 'model_params' is missing"),
        ("model_params: 5\n", "mine.yaml:1: 'model_params' should be a mapping"),
        (MODEL + "backend: fom\n", "mine.yaml:10: unknown backend 'fom' (did you mean 'fomm'?)"),
        (MODEL + "backend: 5\n", "mine.yaml:10: 'backend' should be text, not 5"),
        (
            "model_params:\n  x: 1\n",
            "no installed backend recognises these model_params; say which with 'backend: NAME'",
        ),
        (MODEL + "dataset_params: []\n", "mine.yaml:10: 'dataset_params' should be a mapping, not a list"),
        (MODEL + "dataset_params: {frame_shape: [64, 64]}\n", "a value is missing in 'dataset_params.frame_shape'"),
        (MODEL.replace("num_blocks: 3}\n  gen", "num_blocks: 3, scale_factor: 0.3}\n  gen"), "should be 1, 0.5, 0.25"),
        (MODEL.replace("temperature: 0.1", "temperature: .nan"), "should be a finite number"),
        (
            MODEL + "dataset_params: {frame_shape: [64, 64, 3, 3]}\n",
            "mine.yaml:10: 'dataset_params.frame_shape' should have at most 3 items, not 4",
        ),
        (
            MODEL + "dataset_params: {augmentation_params: {resize_param: {interpolation: cubic}}}\n",
            "resize_param.interpolation' should be 'nearest' or 'bilinear', not the text 'cubic'",
        ),
        ("extends: nobody\n", "unknown preset 'nobody'"),
    ],
)
def test_errors_in_a_file_are_reported(text: str, problem: str, tmp_path: Path, host: Host) -> None:
    assert problem in message(text, tmp_path, host)


def test_the_backend_can_be_set(tmp_path: Path, host: Host) -> None:
    path = written(tmp_path, MODEL.replace("    num_down_blocks: 2\n    num_bottleneck_blocks: 2\n", ""))
    with pytest.raises(UsageError, match="no installed backend recognises"):
        load_preset(path, host)
    missing = ["num_down_blocks", "num_bottleneck_blocks"]
    with pytest.raises(UsageError) as caught:
        load_preset(path, host, sets=["backend=fomm"])
    assert all(
        f"the key '{key}' is missing in 'model_params.generator_params'" in caught.value.message for key in missing
    )
    sets = ["backend=fomm", *(f"model_params.generator_params.{key}=1" for key in missing)]
    assert load_preset(path, host, sets=sets).backend == "fomm"


def test_augmentations_take_one_number_for_a_range(host: Host) -> None:
    prefix = "dataset_params.augmentation_params"
    preset = load_preset("smoke", host, sets=[f"{prefix}.crop_param.size=48", f"{prefix}.rotation_param.degrees=10"])
    augmentation = preset.section("dataset_params").augmentation_params
    assert augmentation.crop_param.size == (48, 48)
    assert augmentation.rotation_param.degrees == (-10, 10)


def test_plain_data_makes_a_preset_and_names_its_source_when_wrong(host: Host) -> None:
    params = load_preset("smoke", host).model_params.model_dump()
    data = {"backend": "fomm", "dataset_params": {"frame_shape": [64, 64, 3]}, "model_params": params}
    assert preset_from_data(data, host, source="a.pth.tar").model_params == load_preset("smoke", host).model_params
    with pytest.raises(UsageError, match=r"a\.pth\.tar: unknown key 'model_params\.x'"):
        preset_from_data({"backend": "fomm", "model_params": {**params, "x": 1}}, host, source="a.pth.tar")
