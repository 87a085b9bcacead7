"""The choice of detectors, embedders and other sources for metrics."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fommctl.api import DetectorSpec, EmbedderSpec, MissingError, UsageError
from fommctl.evaluate.keypoint_sources import choose_embedder, choose_keypoints
from fommctl.host import Host

PLUGIN = """
    from fommctl.api import DetectorSpec, EmbedderSpec, hookimpl

    def detector(name, ready, metric_priority, landmarks=5, priority=0):
        return DetectorSpec(
            name=name, summary="s", subject="cat", build=object, landmarks=landmarks, priority=priority,
            metric_priority=metric_priority, ready=lambda: None if ready else f"{name} is asleep",
        )

    @hookimpl
    def fommctl_detectors():
        return [DETECTORS]

    @hookimpl
    def fommctl_embedders():
        return [EMBEDDERS]
"""


def cats(third_party: Callable[..., None], detectors: str, embedders: str = "") -> Host:
    from fommctl.host import load_host

    source = PLUGIN.replace("DETECTORS", detectors).replace("EMBEDDERS", embedders)
    third_party(source, name="fommctl-cats", entry="cats")
    return load_host()


def choose(host: Host, name: str = "auto", **more: object) -> DetectorSpec | str:
    return choose_keypoints(host, name, **{"subject": "cat", "true_points": False, "model": True, **more})  # type: ignore[arg-type]


def test_true_keypoints_come_first() -> None:
    host = Host(())
    assert choose(host, true_points=True) == choose(host, "true", true_points=True) == "true"
    with pytest.raises(UsageError, match="not every clip"):
        choose(host, "true")
    assert choose(host, "model", true_points=True) == "model"
    with pytest.raises(UsageError, match="no model"):
        choose(host, "model", model=False)


def test_the_best_ready_detector_with_landmarks(third_party: Callable[..., None]) -> None:
    host = cats(
        third_party,
        "detector('asleep', False, 30), detector('few', True, 10), detector('best', True, 20, priority=-5), "
        "detector('boxes', True, 40, landmarks=0), detector('named-only', True, -1, priority=50)",
    )
    chosen = choose(host)
    assert isinstance(chosen, DetectorSpec)
    assert chosen.name == "best"
    # By name, also what is not ready: it may have to be downloaded.
    for name in ("asleep", "named-only"):
        assert choose(host, name, true_points=True).name == name  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="'boxes' has no landmarks"):
        choose(host, "boxes")
    with pytest.raises(UsageError, match="unknown detector 'bests'"):
        choose(host, "bests")
    with pytest.raises(MissingError, match="keypoints of a dog is ready"):
        choose(host, subject="dog")


def test_missing_requirements_are_named(third_party: Callable[..., None]) -> None:
    host = cats(third_party, "detector('asleep', False, 30), detector('named-only', True, -1)")
    with pytest.raises(MissingError, match=r"keypoints of a cat is ready \(asleep: asleep is asleep\)") as error:
        choose(host)
    assert "--keypoints" in str(error.value.hint)
    with pytest.raises(MissingError, match="the subject of these clips is unknown"):
        choose(host, subject=None)


def test_faces_are_measured_by_fan_else_by_dlib(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose(host, subject="face")
    assert isinstance(chosen, DetectorSpec)
    assert chosen.name == "dlib-68"  # FAN's weights are not available in tests
    everything = {name: replace(spec, ready=lambda: None) for name, spec in host.detectors.items()}
    monkeypatch.setattr(host, "detectors", everything)
    assert choose(host, subject="face").name == "fan"  # type: ignore[union-attr]


def test_embedders(host: Host, third_party: Callable[..., None]) -> None:
    for name in ("auto", None, "dlib-128"):
        assert choose_embedder(host, name, subject="face").name == "dlib-128"
    with pytest.raises(UsageError, match="unknown embedder"):
        choose_embedder(host, "dlib", subject="face")
    cat = "EmbedderSpec(name='{0}', summary='s', subject='cat', dimension=4, build=object, priority={1}, ready={2})"
    offers = (("a", 1, "lambda: None"), ("b", 2, "lambda: None"), ("c", 3, "lambda: 'no'"))
    host = cats(third_party, "", ", ".join(cat.format(*offer) for offer in offers))
    chosen = choose_embedder(host, subject="cat")
    assert isinstance(chosen, EmbedderSpec)
    assert chosen.name == "b"
    with pytest.raises(MissingError, match="identity of a dog"):
        choose_embedder(host, subject="dog")
