"""The report of `evaluate` in a browser: its numbers, its videos, and that it makes no requests."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser
from command_line import Result
from evaluations import L1, PSNR, evaluation, noisy, side_by_side

from fommctl.evaluate.report import write_report
from fommctl.evaluate.results import Evaluation

CLIPS = ("<script>document.title = 'taken over'</script>", "second", "third & last")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def found() -> Evaluation:
    scores = {
        (model, metric): noisy(level * factor, 3, 25, seed)
        for seed, (metric, level) in enumerate({"l1.paper": 0.04, "psnr": 25.0}.items())
        for model, factor in {"first": 1.0, "second": 1.3}.items()
    }
    return evaluation(scores, metrics={"l1.paper": L1, "psnr": PSNR}, clips=CLIPS, warnings=("beware",))


@pytest.fixture(scope="module")
def page(chromium: Browser, found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    folder = tmp_path_factory.mktemp("page")
    video = side_by_side(folder / "clip.webm", frames=25, panels=4, side=48)
    write_report(found, dict.fromkeys(CLIPS, video), folder / "report.html", commands=["fommctl evaluate"])
    chromium.open((folder / "report.html").as_uri())
    return chromium


def test_the_numbers_are_read_back(page: Browser, found: Evaluation) -> None:
    rows: list[list[Any]] = page.value(
        "[...document.querySelectorAll('data[data-field]')]"
        ".map(e => [e.dataset.metric, e.dataset.model, e.dataset.field, Number(e.value), e.innerText])"
    )
    numbers = {(metric, model, field): value for metric, model, field, value, _ in rows}
    expected: dict[tuple[str, str, str], float] = {}
    for metric in found.metrics:
        best = found.ranking(metric)[0]
        for model in found.models:
            compared = {} if model == best else {"difference": found.difference(model, best, metric)}
            for prefix, summary in {"": found.summary(model, metric), **compared}.items():
                assert summary.mean is not None
                assert summary.ci95 is not None
                expected[metric, model, prefix or "mean"] = summary.mean
                expected[metric, model, f"{prefix or 'ci95'}-low"] = summary.ci95[0]
                expected[metric, model, f"{prefix or 'ci95'}-high"] = summary.ci95[1]
            expected[metric, model, "frames"] = found.summary(model, metric).frames
            expected[metric, model, "coverage"] = found.summary(model, metric).coverage
    assert numbers == expected
    assert all(text for *_, text in rows)


def test_nothing_is_asked_from_anywhere(page: Browser) -> None:
    first, *others = page.requests()
    assert first.startswith("file://")
    assert set(others) == {"data:"}
    assert page.complaints() == []


def test_the_browser_reports_requests(chromium: Browser, tmp_path: Path) -> None:
    """Without this, the test above would prove nothing."""
    leaky = tmp_path / "leaky.html"
    leaky.write_text('<img src="http://pictures.invalid/one.png">')
    elsewhere = Path(chromium.value("document.URL").removeprefix("file://"))
    chromium.open(leaky.as_uri())
    assert "http://pictures.invalid/one.png" in chromium.requests()
    assert any("ERR_NAME_NOT_RESOLVED" in text for text in chromium.complaints())
    chromium.open(elsewhere.as_uri())


def test_every_video_plays(page: Browser) -> None:
    played = page.value(
        """Promise.all([...document.querySelectorAll("video")].map(async video => {
            const moved = new Promise((done, fail) => {
                video.ontimeupdate = () => video.currentTime > 0.2 && done(true);
                video.onerror = () => fail(video.error.message);
            });
            await video.play();
            await moved;
            video.pause();
            return [video.readyState >= 2, video.duration, video.videoWidth, video.videoHeight];
        }))"""
    )
    assert len(played) == 3
    for ready, duration, width, height in played:
        assert ready
        assert duration == pytest.approx(1.0, abs=0.05)
        assert (width, height) == (192, 48)


def test_names_are_shown_and_never_run(page: Browser) -> None:
    assert page.value("document.title") == "first and second compared"
    assert page.value("document.scripts.length") == 0
    assert CLIPS[0] in page.value("[...document.querySelectorAll('h3')].map(e => e.innerText).join()")


def test_pictures_videos_and_tables_have_names(page: Browser) -> None:
    nameless = page.value(
        """[...document.querySelectorAll("svg:not([aria-hidden=true]), video, [role=region], table:not(:has(caption))")]
            .filter(e => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby"))).length"""
    )
    assert nameless == 0
    headings = page.value("[...document.querySelectorAll('h1, h2, h3')].map(e => e.tagName)")
    assert headings.count("H1") == 1
    assert page.value("[...document.querySelectorAll('td')].every(e => e.closest('tr').querySelector('th'))")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_window_and_can_be_read(page: Browser, width: int, dark: bool) -> None:
    page.look(width=width, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width
    colours = page.value("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    ink, paper = (sum(json.loads("[" + colour.strip("rgb()") + "]")) for colour in colours)
    assert (ink > 600 and paper < 150) if dark else (ink < 150 and paper > 600)


@pytest.mark.slow
def test_the_page_of_the_command_says_what_its_json_says(
    chromium: Browser, run_cli: Callable[..., Result], tmp_path: Path
) -> None:
    for folder, noise in {"truth": False, "same": False, "noise": True}.items():
        (tmp_path / folder).mkdir()
        for clip, frames in {"one": 6, "two": 9}.items():
            side_by_side(tmp_path / folder / f"{clip}.webm", frames=frames, noise=noise)
    folders = {name: str(tmp_path / name) for name in ("truth", "same", "noise", "out")}
    done = run_cli(
        *("evaluate", "--pred", folders["noise"], "--pred", folders["same"], "--truth", folders["truth"]),
        *("--metrics", "l1,psnr", "--output", folders["out"], "--workers", "0", "--json"),
    )
    assert done.code == 0, done.stderr
    data = done.json()
    chromium.open((tmp_path / "out" / "report.html").as_uri())
    rows = chromium.value(
        "[...document.querySelectorAll('data[data-field=mean]')]"
        ".map(e => [e.dataset.model, e.dataset.metric, Number(e.value)])"
    )
    told = {(model, metric): value for model, metric, value in rows}
    assert told == {
        (model, metric): summary["mean"]
        for model, found in data["models"].items()
        for metric, summary in found["metrics"].items()
    }
    assert told["same", "l1.paper"] == 0
    assert chromium.value("[...document.querySelectorAll('.best')].map(e => e.innerText)") != []
    assert chromium.value("document.querySelectorAll('video').length") == 2
    assert set(chromium.requests()[1:]) == {"data:"}
    assert chromium.complaints() == []
