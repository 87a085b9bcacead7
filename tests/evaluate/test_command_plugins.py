"""`fommctl evaluate` with metrics of plugins that lack a package or have a bug, in this process and in others."""

import pytest
from evaluation_data import square_clip, write_strip

COMPARED = """
    import numpy as np
    from fommctl.api import MetricSpec, hookimpl
    from fommctl.api.metrics import mean_of_frames
    {at_import}


    class Ones:
        def clip(self, clip):
            self.frames = 0
            {at_clip}
            return self

        def add(self, chunk):
            self.frames += len(chunk)
            {at_add}

        def finish(self):
            {at_finish}
            return mean_of_frames(np.ones(self.frames))


    def build():
        {at_build}
        return Ones()


    @hookimpl
    def fommctl_metrics():
        yield MetricSpec(name="ones", summary="One", unit="", lower_is_better=True, build=build)
"""
PLACES = ("import", "clip", "add", "finish", "build")
OWNER = "plugin 'bad' (bad_metrics) of bad-metrics"
LACKING = "import no_such_library"
ELSEWHERE = "import multiprocessing\n    if multiprocessing.parent_process() is not None: raise ImportError('not here')"


@pytest.fixture
def evaluate(run_cli, third_party, tmp_path):
    """evaluate(place=statement, workers=0, metrics="ones,psnr"): compares two clips with shifted copies."""
    for name in ("a", "b"):
        write_strip(tmp_path / f"truth/{name}.png", square_clip(3))
        write_strip(tmp_path / f"pred/{name}.png", square_clip(3, 2))

    def run(workers=0, metrics="ones,psnr", **statements):
        source = COMPARED.format(**{f"at_{place}": statements.get(place, "pass") for place in PLACES})
        third_party(source, name="bad-metrics", entry="bad")
        return run_cli(
            "evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "--metrics", metrics,
            "-o", tmp_path / "out", "--workers", str(workers), "--no-videos", "--json",
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("place", "workers"), [("build", 0), ("clip", 0), ("add", 2), ("finish", 0)])
def test_a_package_that_a_metric_lacks_is_missing_and_no_clip_fails(evaluate, place, workers):
    result = evaluate(workers, **{place: LACKING})
    assert result.code == 5, result.stderr
    data = result.json()
    assert (data["failed"], list(data["metrics"]), data["metrics"]["psnr"]["clips"]) == ([], ["psnr"], 2)
    assert list(data["missing"]) == ["ones"]
    assert data["missing"]["ones"].startswith(f"ModuleNotFoundError: No module named 'no_such_library', in {OWNER}. ")
    assert any(text.startswith("left out: ones: ModuleNotFoundError") for text in data["warnings"])


@pytest.mark.parametrize(("place", "workers"), [("clip", 0), ("add", 2)])
def test_a_bug_of_a_metric_fails_its_clips_by_the_name_of_its_plugin(evaluate, place, workers):
    result = evaluate(workers, **{place: "np.zeros(2).reshape(3)"})
    assert result.code == 6, result.stderr
    data = result.json()
    assert data["metrics"]["psnr"]["clips"] == 2
    assert [each["clip"] for each in data["failed"]] == ["a", "b"]
    for each in data["failed"]:
        assert each["message"].startswith("ones: ValueError: cannot reshape array")
        assert each["message"].endswith(f", in {OWNER}")


WHY = "no plugin offers it in a worker process (plugin 'bad': does not load: ImportError: not here)"


def test_a_plugin_that_loads_in_no_other_process_is_missing_there(evaluate):
    result = evaluate(2, **{"import": ELSEWHERE})
    assert result.code == 5, result.stderr
    data = result.json()
    assert (data["failed"], data["metrics"]["psnr"]["clips"]) == ([], 2)
    assert data["missing"] == {"ones": WHY}


def test_without_any_metric_in_the_other_processes_that_is_the_error(evaluate):
    result = evaluate(2, "ones", **{"import": ELSEWHERE})
    assert result.code == 5
    assert result.json()["error"]["message"] == f"ones: {WHY}"


def test_a_report_is_not_replaced_by_one_without_numbers(evaluate, run_cli, tmp_path):
    def written():
        return [(tmp_path / "out" / name).read_bytes() for name in ("report.html", "metrics.csv", "summary.json")]

    assert evaluate(metrics="psnr", add="raise ValueError('broken')").code == 0
    before = written()
    files = ("--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "-o", tmp_path / "out")
    result = run_cli("evaluate", *files, "--metrics", "ones", "--workers", "0", "--no-videos", "--json")
    assert result.code == 6
    assert any("the report of an earlier run was kept" in warning for warning in result.json()["warnings"])
    assert written() == before


@pytest.mark.parametrize("name", ["configuration.yaml", "clips/mine.mp4"])
def test_a_folder_is_not_ours_by_a_common_name(evaluate, tmp_path, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine: yes")
    (tmp_path / "out" / "metrics.csv").write_text("my,numbers")
    assert evaluate(metrics="psnr").code == 2
    assert mine.read_text() == "mine: yes"
    assert (tmp_path / "out" / "metrics.csv").read_text() == "my,numbers"
