"""The file of `evaluate`'s report: its numbers, escaping, clips and the shapes of its plots."""

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import L1, PSNR, constant, evaluation, noisy, side_by_side
from hypothesis import example, given
from hypothesis import strategies as st

from fommctl.api.metrics import ClipScores
from fommctl.errors import InputError
from fommctl.evaluate import videos
from fommctl.evaluate.plots import MOST_DOTS, MOST_POINTS, curves, distribution, places_for, printed
from fommctl.evaluate.report import enumerated, write_report
from fommctl.evaluate.results import Evaluation
from fommctl.evaluate.videos import ShownClip, embedded_video, shown_clips
from fommctl.media.probe import probe

HOSTILE = "<script>alert('1')</script>"


class Page(HTMLParser):
    """The content of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.numbers: dict[tuple[str | None, str | None, str | None], tuple[float, str]] = {}
        """(metric, model, field) -> (exact value, printed value)."""
        self._number: dict[str, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._number = attributes if tag == "data" and "data-field" in attributes else None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._number is not None:
            key = (self._number["data-metric"], self._number["data-model"], self._number["data-field"])
            self.numbers[key] = (float(self._number["value"] or "nan"), data)
            self._number = None

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(found: Evaluation, folder: Path, videos: dict[str, Path] | None = None, **options: Any) -> Page:
    write_report(found, videos or {}, folder / "report.html", **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def two_models() -> Evaluation:
    scores = {
        ("A", "l1.paper"): noisy(0.04, 6, 24, 0),
        ("B", "l1.paper"): noisy(0.06, 6, 24, 1),
        ("A", "psnr"): noisy(24.0, 6, 24, 2),
        ("B", "psnr"): noisy(31.0, 6, 24, 3),
    }
    return evaluation(scores, metrics={"l1.paper": L1, "psnr": PSNR})


def test_the_numbers_are_those_of_the_evaluation(tmp_path: Path) -> None:
    found = two_models()
    numbers = written(found, tmp_path).numbers
    for metric in found.metrics:
        for model in found.models:
            summary = found.summary(model, metric)
            assert summary.mean is not None
            assert summary.ci95 is not None
            got = {field: numbers[metric, model, field][0] for field in ("mean", "ci95-low", "ci95-high", "coverage")}
            assert got == {
                "mean": summary.mean,
                "ci95-low": summary.ci95[0],
                "ci95-high": summary.ci95[1],
                "coverage": summary.coverage,
            }
            assert numbers[metric, model, "frames"] == (summary.frames, str(summary.frames))
            text = numbers[metric, model, "mean"][1]
            assert float(text) == pytest.approx(summary.mean, rel=5e-4)


def test_the_best_model_stands_first_and_the_others_are_compared_with_it(tmp_path: Path) -> None:
    scores = {
        ("worse", "l1.paper"): constant(0.3, 0.5),
        ("better", "l1.paper"): constant(0.1, 0.2),
        ("worse", "psnr"): constant(10.0, 12.0),
        ("better", "psnr"): constant(20.0, 26.0),
    }
    page = written(evaluation(scores, metrics={"l1.paper": L1, "psnr": PSNR}), tmp_path)
    means = [key for key in page.numbers if key[2] == "mean"]
    assert means == [
        ("l1.paper", "better", "mean"),
        ("l1.paper", "worse", "mean"),
        ("psnr", "better", "mean"),
        ("psnr", "worse", "mean"),
    ]
    assert page.numbers["l1.paper", "worse", "difference"] == (pytest.approx(0.25), "+0.2500")
    assert page.numbers["l1.paper", "worse", "difference-low"][0] == pytest.approx(0.2)
    assert page.numbers["l1.paper", "worse", "difference-high"][0] == pytest.approx(0.3)
    assert page.numbers["psnr", "worse", "difference"] == (pytest.approx(-12.0), "−12.00")
    assert ("psnr", "better", "difference") not in page.numbers
    assert page.text.count("best") - page.text.count("the best") >= 2


def test_what_people_named_is_text_and_never_markup(tmp_path: Path) -> None:
    info = replace(L1, name=f"l1.{HOSTILE}", summary=HOSTILE, unit=HOSTILE)
    found = evaluation(
        {(f'A"{HOSTILE}', HOSTILE): constant(0.1, 0.2, 0.3)},
        metrics={HOSTILE: info},
        clips=(HOSTILE, 'clip" onload="x', "ordinary"),
        warnings=(HOSTILE,),
        failed=({"model": "A", "clip": HOSTILE, "message": HOSTILE},),
        configuration={"options": {"data": HOSTILE}, "</pre><script>": HOSTILE},
    )
    videos = dict.fromkeys(found.clips, side_by_side(tmp_path / "clip.webm", frames=2))
    page = written(found, tmp_path, videos, commands=[f"fommctl evaluate {HOSTILE}"])
    assert page.named("script") == []
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert page.text.count(HOSTILE) > 10


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    found = evaluation({("A", "l1.paper"): constant(0.1, 0.2, 0.3)})
    videos = dict.fromkeys(found.clips, side_by_side(tmp_path / "clip.webm"))
    page = written(found, tmp_path, videos)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(links) == 4
    assert all(link and link.startswith("data:") for link in links)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")


def test_configuration_commands_versions_and_warnings_are_there(tmp_path: Path) -> None:
    found = evaluation(
        {("A", "l1.paper"): constant(0.1)},
        configuration={"options": {"data": "shapes"}, "depth": {"é": [1, None]}},
        warnings=("w",),
    )
    page = written(found, tmp_path, commands=["fommctl evaluate --data shapes", "second line"])
    for part in ('"é": [\n', "fommctl evaluate --data shapes\nsecond line", "torch", "Warnings", "data shapes"):
        assert part in page.text


def test_nothing_scored_is_a_page_with_dashes(tmp_path: Path) -> None:
    page = written(evaluation({("A", "l1.paper"): (None, *constant(None))}, frames=(0, 5)), tmp_path)
    assert ("l1.paper", "A", "mean") not in page.numbers
    assert page.numbers["l1.paper", "A", "coverage"][0] == 0
    assert "nan" not in page.text.lower()
    assert "Infinity" not in page.text


def test_without_any_metric_there_is_a_page_with_the_warnings(tmp_path: Path) -> None:
    found = Evaluation(
        mode="files",
        models=("A",),
        clips=("one",),
        frames=(3,),
        metrics={},
        scores={},
        configuration={},
        warnings=("lpips was left out",),
    )
    assert "lpips was left out" in written(found, tmp_path).text


def test_a_video_that_cannot_be_read_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("before")
    broken = tmp_path / "broken.webm"
    broken.write_bytes(b"no video")
    with pytest.raises(InputError):
        written(evaluation({("A", "l1.paper"): constant(0.1)}), tmp_path, {"clip0": broken})
    assert (tmp_path / "report.html").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "broken.webm"}


def places(found: Evaluation) -> tuple[str | None, dict[str, int]]:
    metric, shown = shown_clips(found)
    return metric, {one.role: one.clip for one in shown}


def test_best_median_and_worst_clip() -> None:
    values = constant(0.5, 0.1, 0.4, 0.2, 0.3)
    assert places(evaluation({("A", "l1.paper"): values})) == ("l1.paper", {"best": 1, "median": 4, "worst": 0})
    higher = evaluation({("A", "psnr"): values}, metrics={"psnr": PSNR})
    assert places(higher) == ("psnr", {"best": 0, "median": 4, "worst": 1})


def test_clips_are_ordered_by_their_mean_over_the_models_that_all_scored_them() -> None:
    scores = {("A", "l1.paper"): constant(0.1, 0.2, 0.6, 0.0), ("B", "l1.paper"): constant(0.9, 0.4, 0.2, None)}
    assert places(evaluation(scores))[1] == {"best": 1, "median": 2, "worst": 0}


def test_few_clips_and_metrics_without_values_of_clips() -> None:
    assert places(evaluation({("A", "l1.paper"): constant(0.2, 0.1)}))[1] == {"best": 1, "worst": 0}
    assert places(evaluation({("A", "l1.paper"): constant(0.2)}))[1] == {"": 0}
    whole = ClipScores(np.empty(0), None, 4, 4)
    scores = {("A", "fid"): (whole, whole), ("A", "l1.paper"): constant(0.2, 0.1)}
    assert places(evaluation(scores, metrics={"fid": L1, "l1.paper": L1}))[0] == "l1.paper"
    only = evaluation({("A", "fid"): (whole,) * 4}, metrics={"fid": L1}, frames=(4, 0, 4, 4))
    assert shown_clips(only) == (None, (ShownClip("", 0), ShownClip("", 2), ShownClip("", 3)))


def test_a_small_video_is_embedded_byte_for_byte(tmp_path: Path) -> None:
    path = side_by_side(tmp_path / "clip.webm", frames=10, panels=3, side=32)
    video = embedded_video(path)
    assert base64.b64decode(video.uri.removeprefix("data:video/webm;base64,")) == path.read_bytes()
    assert (video.width, video.height, video.first_seconds, video.reduced) == (96, 32, None, False)
    assert embedded_video(path, 2.0).first_seconds == pytest.approx(0.4, abs=0.05)


def test_a_large_video_is_shortened_until_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = side_by_side(tmp_path / "clip.webm", frames=80, panels=4, side=40, noise=True)
    monkeypatch.setattr(videos, "SHORTENED_WIDTH", 80)
    monkeypatch.setattr(videos, "SHORTENED_SECONDS", (3, 2, 1))
    sizes = []
    for limit in (path.stat().st_size, path.stat().st_size - 1, 1):
        monkeypatch.setattr(videos, "LARGEST_VIDEO", limit)
        video = embedded_video(path)
        held = tmp_path / "held.webm"
        held.write_bytes(base64.b64decode(video.uri.partition(",")[2]))
        info = probe(held)
        assert (info.width, info.height) == (video.width, video.height)
        sizes.append((video.reduced, video.width, video.height, video.first_seconds and round(video.first_seconds, 1)))
    assert sizes == [(False, 160, 40, None), (True, 80, 20, 3.0), (True, 80, 20, 1.0)]


def test_a_shortened_video_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "LARGEST_VIDEO", 1)
    monkeypatch.setattr(videos, "SHORTENED_SECONDS", (1,))
    video = side_by_side(tmp_path / "clip.webm", frames=40)
    page = written(evaluation({("A", "l1.paper"): constant(0.1, frames=40)}), tmp_path, {"clip0": video})
    assert "40 frames; shown are the first 1.0 s, at a reduced size" in page.text


@given(st.floats(-1e6, 1e6))
def test_printed_numbers_are_true_to_their_last_place(value: float) -> None:
    assert float(printed(value).replace(",", "").replace("−", "-")) == pytest.approx(
        value, abs=0.5001 * 10 ** -places_for(value)
    )


def test_numbers_as_printed() -> None:
    assert [printed(value) for value in (0.034567, 31.2345, 0.0, None, -2.5)] == [
        "0.03457",
        "31.23",
        "0.000",
        "–",
        "−2.500",
    ]
    assert printed(12345.6) == "12,346"
    assert printed(0.00123, 5, signed=True) == "+0.00123"
    assert [enumerated(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_distribution_is_a_box_with_its_clips() -> None:
    plot = distribution([[0.0, 1.0, 2.0, 3.0, 100.0, None]], [f"c{number}" for number in range(6)], [4])
    assert plot is not None
    (row,) = plot.rows
    # The x of a clip is linear in its value: derive the scale from the outermost dots.
    zero, hundred = row.dots[0].x, row.dots[-1].x
    values = [(x - zero) / (hundred - zero) * 100 for x in row.box]
    assert values == pytest.approx([0, 1, 2, 3, 3], abs=0.05)
    assert [dot.shown for dot in row.dots] == [False, False, False, False, True]
    assert row.dots[-1].name == "c4: 100.0"
    assert row.description == "5 clips from 0.000 to 100.0, median 2.000"
    assert distribution([[None], [None]], ["c"], []) is None


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.sampled_from([0.1 * 0.4 - 1e-3, 1.0, 28.130803608679106])
)
@example([-1, 1], 10 / 255)
def test_clips_that_differ_by_rounding_alone_have_a_distribution(steps: list[int], value: float) -> None:
    values = [value + step * math.ulp(value) for step in steps]
    plot = distribution([values], [f"c{number}" for number in range(len(values))], [])
    assert plot is not None
    assert list(plot.rows[0].box) == sorted(plot.rows[0].box)
    assert len({tick.text for tick in plot.ticks}) == len(plot.ticks) > 1
    assert curves([[np.array(values)]], [25.0]) != [None]


def test_of_many_clips_evenly_picked_ones_are_drawn_and_the_shown_ones_always() -> None:
    plot = distribution([np.arange(1001.0).tolist()], [f"c{number}" for number in range(1001)], [1, 500])
    assert plot is not None
    names = {dot.name.partition(":")[0] for dot in plot.rows[0].dots}
    assert {"c0", "c1", "c500", "c1000"} <= names
    assert MOST_DOTS <= len(names) <= MOST_DOTS + 2


def test_a_curve_pauses_where_frames_have_no_score() -> None:
    nan = math.nan
    (plot,) = curves([[np.array([1.0, 2.0, nan, 3.0, nan, 1.0])]], [25.0])
    assert plot is not None
    assert re.sub(r"[\d. ]+", " ", plot.curves[0].path) == "M L M h M h "
    assert plot.stride == 1
    assert [tick.text for tick in plot.x_ticks] == ["0.00", "0.05", "0.10", "0.15", "0.20"]


def test_a_long_curve_is_made_of_means() -> None:
    frames = np.tile([1.0, 3.0, np.nan], 1000)
    (plot,) = curves([[frames]], [None])
    assert plot is not None
    points = plot.curves[0].path.count("L") + plot.curves[0].path.count("M")
    assert plot.stride == math.ceil(3000 / MOST_POINTS)
    assert points == math.ceil(3000 / plot.stride)


def test_clips_share_one_axis_and_a_clip_without_scores_has_no_plot() -> None:
    low, none, high = curves(
        [[np.array([0.0, 1.0])], [np.full(3, np.nan)], [np.array([9.0, 10.0]), np.empty(0)]], [25.0, 25.0, 25.0]
    )
    assert low is not None
    assert high is not None
    assert low.y_ticks == high.y_ticks
    assert none is None
    assert [curve.model for curve in high.curves] == [0]
    assert curves([[np.empty(0)]], [25.0]) == [None]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 100, ["0", "25", "50", "75", "100"]),
        (0, 1, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (-0.002, 0.004, ["−0.002", "0.000", "0.002", "0.004"]),
        (27.1, 29.3, ["27.5", "28.0", "28.5", "29.0"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, texts: list[str]) -> None:
    plot = distribution([[low, high]], ["a", "b"], [])
    assert plot is not None
    assert [tick.text for tick in plot.ticks] == texts


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e5))
def test_ticks_are_evenly_spaced_different_numbers_inside_the_plot(low: float, width: float) -> None:
    plot = distribution([[low, low + width]], ["a", "b"], [])
    assert plot is not None
    places = [tick.at for tick in plot.ticks]
    assert len({tick.text for tick in plot.ticks}) == len(places) <= 6
    assert all(0 <= place <= 280 for place in places)
    steps = np.diff(places)
    assert not len(steps) or steps.max() - steps.min() < 0.3
