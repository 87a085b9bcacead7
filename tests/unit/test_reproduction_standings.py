"""Means, intervals and comparisons over seeds and clips, by hand."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from fommctl.api.metrics import ClipScores
from fommctl.evaluate.results import Evaluation, MetricInfo
from fommctl.stages.reproduction.standings import Standings


def info(*, lower: bool = True, combined: bool = False, weighting: str = "clips") -> MetricInfo:
    return MetricInfo(
        summary="",
        unit="",
        lower_is_better=lower,
        variant="",
        needs="truth",
        weighting=weighting,  # type: ignore[arg-type]
        combine=(lambda clips: sum(float(one.state["n"].sum()) for one in clips) / len(clips)) if combined else None,
    )


def clip(value: float | None, scored: int = 10, total: int = 10, **state: float) -> ClipScores:
    arrays = {name: np.array([number]) for name, number in state.items()}
    return ClipScores(np.empty(0), value, scored, total, arrays)


def evaluation(metric: MetricInfo, scores: Mapping[str, Sequence[ClipScores | None]]) -> Evaluation:
    count = len(next(iter(scores.values())))
    return Evaluation(
        mode="reconstruction",
        models=tuple(scores),
        clips=tuple(f"clip{number}" for number in range(count)),
        frames=(10,) * count,
        metrics={"m": metric},
        scores={(model, "m"): tuple(row) for model, row in scores.items()},
        configuration={},
    )


def of_values(*seeds: Mapping[str, Sequence[float]], metric: MetricInfo | None = None) -> Standings:
    rows = ({model: [clip(value) for value in values] for model, values in seed.items()} for seed in seeds)
    return Standings([evaluation(metric or info(), each) for each in rows])


def test_the_score_is_the_mean_over_seeds_of_the_mean_over_clips() -> None:
    standings = of_values({"a": (1, 3)}, {"a": (5, 9)})
    score = standings.score("a", "m")
    assert score is not None
    assert score.mean == 4.5
    assert score.seeds == (2, 7)
    assert (score.clips, score.frames, score.coverage) == (2, 40, 1)


def test_frames_weigh_where_the_metric_says_so() -> None:
    rows = {"a": [clip(1.0, 10), clip(4.0, 20)]}
    score = Standings([evaluation(info(weighting="frames"), rows)]).score("a", "m")
    assert score is not None
    assert score.mean == 3


def test_the_interval_of_equal_scores_is_a_point() -> None:
    score = of_values({"a": (2, 2, 2)}, {"a": (2, 2, 2)}).score("a", "m")
    assert score is not None
    assert score.ci95 == (2, 2)


def test_the_interval_spans_the_seeds_where_the_clips_agree() -> None:
    """Two seeds, 1 and 3: a quarter of the draws has the first twice, a quarter the second."""
    score = of_values({"a": (1, 1)}, {"a": (3, 3)}).score("a", "m")
    assert score is not None
    assert (score.mean, score.ci95) == (2, (1, 3))


def test_the_interval_spans_the_clips_where_the_seeds_agree() -> None:
    score = of_values({"a": (1, 3)}, {"a": (1, 3)}).score("a", "m")
    assert score is not None
    assert (score.mean, score.ci95) == (2, (1, 3))


def test_what_makes_clips_hard_for_both_cancels_in_a_difference() -> None:
    hard = np.linspace(0, 100, 12)
    standings = of_values({"a": hard + 1, "b": hard + 2})
    difference = standings.difference("a", "b", "m")
    assert difference is not None
    assert difference.mean == pytest.approx(-1)
    assert difference.ci95 == pytest.approx((-1, -1))
    alone = standings.score("a", "m")
    assert alone is not None
    assert alone.ci95 is not None
    assert alone.ci95[1] - alone.ci95[0] > 20


def test_seeds_of_two_systems_are_drawn_apart() -> None:
    """Both have seeds 0 and 1: their difference is -1, 0 or 1, and were it paired by seed, always 0."""
    difference = of_values({"a": (0, 0), "b": (0, 0)}, {"a": (1, 1), "b": (1, 1)}).difference("a", "b", "m")
    assert difference is not None
    assert difference.mean == 0
    assert difference.ci95 == (-1, 1)
    assert difference.seeds == (0, 0)


@pytest.mark.parametrize(("lower", "expected"), [(True, "better"), (False, "worse")])
def test_verdicts(lower: bool, expected: str) -> None:
    standings = of_values({"a": (1, 2, 3), "b": (4, 5, 6), "c": (0, 2, 4)}, metric=info(lower=lower))
    assert standings.verdict("a", "b", "m") == expected
    assert standings.verdict("b", "a", "m") == {"better": "worse", "worse": "better"}[expected]
    assert standings.verdict("a", "c", "m") == "undecided"
    assert standings.order("m") == (("a", "c", "b") if lower else ("b", "a", "c"))


def test_clips_without_a_score_are_left_out_and_lower_the_coverage() -> None:
    rows = {"a": [clip(1.0), clip(None, 0), None], "b": [clip(4.0), clip(8.0), clip(100.0)]}
    standings = Standings([evaluation(info(), rows)])
    score, difference = standings.score("a", "m"), standings.difference("a", "b", "m")
    assert score is not None
    assert difference is not None
    assert (score.mean, score.ci95, score.clips, score.coverage) == (1, None, 1, 0.5)
    assert (difference.mean, difference.clips) == (-3, 1)


def test_a_system_that_has_no_score_has_no_place() -> None:
    standings = Standings([evaluation(info(), {"a": [clip(None, 0)], "b": [clip(1.0)]})])
    assert standings.score("a", "m") is None
    assert standings.difference("a", "b", "m") is None
    assert standings.verdict("a", "b", "m") == "undecided"
    assert standings.order("m") == ("b",)


def test_a_seed_that_a_system_lacks() -> None:
    standings = of_values({"a": (1, 1), "b": (2, 2)}, {"a": (3, 3)})
    score, difference = standings.score("b", "m"), standings.difference("a", "b", "m")
    assert score is not None
    assert difference is not None
    assert score.seeds == (2,)
    assert (difference.mean, difference.seeds) == (0, (-1,))


def test_combined_metrics_are_combined_anew_in_each_draw() -> None:
    rows = {"a": [clip(None, n=1.0), clip(None, n=3.0)]}
    score = Standings([evaluation(info(combined=True), rows)]).score("a", "m")
    assert score is not None
    assert (score.mean, score.ci95) == (2, (1, 3))


def test_evaluations_of_different_clips_do_not_mix() -> None:
    one = evaluation(info(), {"a": [clip(1.0)]})
    other = evaluation(info(), {"a": [clip(1.0), clip(2.0)]})
    with pytest.raises(ValueError, match="different clips"):
        Standings([one, other])


def test_the_same_seed_draws_the_same_interval() -> None:
    random = np.random.default_rng(0)
    values = [{"a": random.normal(size=9)} for _ in range(3)]
    first, again = (of_values(*values).score("a", "m") for _ in range(2))
    assert first == again
    assert first is not None
    assert first.ci95 is not None
    assert first.ci95[0] < first.mean < first.ci95[1]
    assert not math.isnan(first.mean)
