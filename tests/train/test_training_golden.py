"""Two optimisation steps of the published procedure, against recorded values (golden/training).

Adam divides a gradient by its own size, so the sign of one that is nearly zero moves its weight by a whole learning
rate, either way.  A few weights of these networks have such gradients, and there the rounding of single precision
decides: exact arithmetic differs from the recording as well.  So the two steps are compared twice.  In double precision
what is left is the recording's own rounding, on every machine.  In single precision all values agree closely wherever
convolutions are rounded as they were when the values were recorded: by oneDNN with AVX-512 (with AVX2 the gradients of
the keypoint detector differ by 2 % before any step).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fommctl.api.training import ThinPlateTransform, TrainingBatch
from fommctl.host import Host
from fommctl.models.loading import LoadedModel, load_file
from fommctl.train.step import StepResult, TrainingStep

GOLDEN = Path(__file__).parents[1] / "golden" / "training"
PRESET = GOLDEN / "train-adv-tiny.model_params.yaml"
RELATIVE = 1e-3
ABSOLUTE = 1e-4
RATE = 2e-4
Recorded = dict[str, np.ndarray]

ROUNDS_AS_RECORDED = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@dataclass(frozen=True)
class Agreement:
    """How closely two steps agree with the recorded ones."""

    second_losses: float
    """Relative tolerance after the first step."""
    largest: float
    """Absolute tolerance of any element after both steps."""
    within: float
    """Share of the elements that agree to ABSOLUTE."""


SINGLE = pytest.param(torch.float32, Agreement(RELATIVE, ABSOLUTE, 1), id="single")
# A step in the opposite direction differs by two learning rates, besides the usual tolerance.
DOUBLE = pytest.param(torch.float64, Agreement(5e-3, 2 * RATE + ABSOLUTE, 0.97), id="double")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with np.load(GOLDEN / "train-adv-tiny.npz") as file:
        return {name: file[name] for name in file}


def start(host: Host, recorded: Recorded, dtype: torch.dtype) -> tuple[LoadedModel, TrainingStep, TrainingBatch]:
    loaded = load_file(GOLDEN / "train-adv-tiny.pth.tar", host, name="tiny", preset=str(PRESET))
    for network in loaded.backend.modules().values():
        network.to(dtype)
    step = TrainingStep(loaded.backend, loaded.preset.section("train_params"), torch.device("cpu"), "fp32")
    for phase in step.phases:
        phase.module.to(dtype)
    source, driving = (
        torch.from_numpy(recorded[name].astype(np.float32) / 255).to(dtype) for name in ("source", "driving")
    )
    theta, params = (torch.from_numpy(recorded[f"tps_{name}"]).to(dtype) for name in ("theta", "control_params"))
    return loaded, step, TrainingBatch(source, driving, ThinPlateTransform(theta, params))


def losses(recorded: Recorded, number: int) -> dict[str, float]:
    prefix = f"step{number}_loss_"
    return {name.removeprefix(prefix): float(recorded[name]) for name in recorded if name.startswith(prefix)}


def assert_first_step(result: StepResult, recorded: Recorded) -> None:
    assert result.losses == pytest.approx(losses(recorded, 0), rel=RELATIVE)
    assert result.view is not None
    np.testing.assert_allclose(result.view.prediction.numpy(), recorded["step0_prediction"], rtol=0, atol=ABSOLUTE)


def test_the_losses_and_the_prediction_match_the_published_ones(host: Host, recorded: Recorded) -> None:
    _, step, batch = start(host, recorded, torch.float32)
    assert_first_step(step(batch), recorded)


@pytest.mark.parametrize(("dtype", "agreement"), [DOUBLE, SINGLE] if ROUNDS_AS_RECORDED else [DOUBLE])
def test_two_steps_match_the_published_procedure(
    host: Host, recorded: Recorded, dtype: torch.dtype, agreement: Agreement
) -> None:
    loaded, step, batch = start(host, recorded, dtype)
    first, second = step(batch), step(batch)
    assert_first_step(first, recorded)
    for network in ("generator", "kp_detector"):
        expected = float(recorded[f"grad_norm_{network}"])
        assert first.gradient_norms[f"optimizer_{network}"] == pytest.approx(expected, rel=RELATIVE)
    assert second.losses == pytest.approx(losses(recorded, 1), rel=agreement.second_losses)
    compared = [name for name in recorded if name.startswith("after2_")]
    differences = []
    for name in compared:
        group, _, tensor = name.removeprefix("after2_").partition(".")
        found = loaded.backend.modules()[group].state_dict()[tensor]
        np.testing.assert_allclose(found.numpy(), recorded[name], rtol=0, atol=agreement.largest, err_msg=name)
        differences.append(np.abs(found.numpy() - recorded[name]).ravel())
    assert len(compared) == 6
    assert (np.concatenate(differences) <= ABSOLUTE).mean() >= agreement.within


def test_adam_forgets_as_published(host: Host, recorded: Recorded) -> None:
    """The recorded values do not show it: two steps change too little."""
    _, step, _ = start(host, recorded, torch.float32)
    assert [
        (group["betas"], group["lr"]) for optimiser in step.optimisers.values() for group in optimiser.param_groups
    ] == [((0.5, 0.999), RATE)] * 3
