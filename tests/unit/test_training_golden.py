"""Two optimisation steps of the published procedure, against recorded values (golden/training)."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fommctl.api.training import ThinPlateTransform, TrainingBatch
from fommctl.host import Host
from fommctl.models.loading import load_file
from fommctl.stages.training_step import TrainingStep

GOLDEN = Path(__file__).parents[1] / "golden" / "training"
RELATIVE = 1e-3
ABSOLUTE = 1e-4


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "train-adv-tiny.npz") as file:
        return {name: file[name] for name in file}


def pictures(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32) / 255)


def test_two_steps_match_the_published_procedure(host: Host, recorded: dict[str, np.ndarray]) -> None:
    preset = GOLDEN / "train-adv-tiny.model_params.yaml"
    loaded = load_file(GOLDEN / "train-adv-tiny.pth.tar", host, name="tiny", preset=str(preset))
    step = TrainingStep(loaded.backend, loaded.preset.section("train_params"), torch.device("cpu"), "fp32")
    transform = ThinPlateTransform(
        torch.from_numpy(recorded["tps_theta"]), torch.from_numpy(recorded["tps_control_params"])
    )
    batch = TrainingBatch(pictures(recorded["source"]), pictures(recorded["driving"]), transform)
    for number in (0, 1):
        result = step(batch)
        expected = {
            name.removeprefix(f"step{number}_loss_"): float(value)
            for name, value in recorded.items()
            if name.startswith(f"step{number}_loss_")
        }
        assert result.losses == pytest.approx(expected, rel=RELATIVE)
        if number == 0:
            assert result.gradient_norms["optimizer_generator"] == pytest.approx(
                float(recorded["grad_norm_generator"]), rel=RELATIVE
            )
            assert result.gradient_norms["optimizer_kp_detector"] == pytest.approx(
                float(recorded["grad_norm_kp_detector"]), rel=RELATIVE
            )
            assert result.view is not None
            np.testing.assert_allclose(result.view.prediction, recorded["step0_prediction"], atol=ABSOLUTE)
    compared = [name for name in recorded if name.startswith("after2_")]
    for name in compared:
        group, _, tensor = name.removeprefix("after2_").partition(".")
        found = loaded.backend.modules()[group].state_dict()[tensor]
        np.testing.assert_allclose(found.numpy(), recorded[name], atol=ABSOLUTE, err_msg=name)
    assert len(compared) == 6
    assert yaml.safe_load(preset.read_text())["train_params"]["batch_size"] == 36
