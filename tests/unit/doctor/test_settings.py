"""Environment variables: their effect, never a secret."""

import pytest

from fommctl.stages.doctor import settings


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(settings, "usable_cores", lambda: 4)


def found(**environment):
    return {each.name: (each.level, each.value, each.advice) for each in settings.check_settings(environment)}


def test_nothing_is_set():
    assert found(HOME="/x", GOMP_SPINCOUNT="2000") == {"variables": ("ok", "none that fommctl heeds is set", None)}


def test_effects():
    assert found(FOMMCTL_HOME="/data/fommctl", OMP_NUM_THREADS="4", CUDA_VISIBLE_DEVICES="1") == {
        "CUDA_VISIBLE_DEVICES": ("ok", "1: the GPUs that are seen", None),
        "FOMMCTL_HOME": ("ok", "/data/fommctl: where models and caches lie", None),
        "OMP_NUM_THREADS": ("ok", "4: threads of torch on the CPU", None),
    }


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("OMP_NUM_THREADS", "8", "More threads than the 4 cores wait for each other: lower it, or unset it."),
        ("OMP_NUM_THREADS", "1", "4 cores may be used: raise it, or unset it, unless several jobs share them."),
        ("OMP_NUM_THREADS", "many", "It is no number of threads, and is ignored: set it to that of the cores"),
        ("CUDA_VISIBLE_DEVICES", "", "It hides all GPUs; unset it to use them."),
        ("CUDA_VISIBLE_DEVICES", "-1", "It hides all GPUs; unset it to use them."),
        ("FOMMCTL_OFLINE", "1", "Is FOMMCTL_OFFLINE meant?"),
        ("FOMMCTL_ANYTHING_ELSE", "1", "Unset it."),
        ("RANK", "0", "Outside of torchrun and srun unset it"),
    ],
)
def test_notes(name, value, advice):
    level, _, said = found(**{name: value})[name]
    assert level == "note"
    assert said.startswith(advice)


@pytest.mark.parametrize("name", settings.SECRET)
def test_secrets_are_not_shown(name):
    assert found(**{name: "s3cret"}) == {name: ("ok", "set (not shown)", None)}


def test_long_values_are_cut():
    _, value, _ = found(PYTHONPATH="/a" * 200)["PYTHONPATH"]
    assert len(value) < 200
