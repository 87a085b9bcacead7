"""What a reproduction says: settings, the paper's numbers, claims, Markdown."""

from pathlib import Path

import pytest

from fommctl.errors import UsageError
from fommctl.host import Host
from fommctl.presets.preset import preset_names
from fommctl.stages.reproduction.found import column_of, command
from fommctl.stages.reproduction.markdown import by_hand, claims, scores
from fommctl.stages.reproduction.options import ReproduceConfig, unused_sets
from fommctl.stages.reproduction.paper import BENCHMARKS, CLAIMS, FAMILIES, PAPER, ROWS, row_of

FOUND = {
    "settings": {
        "output": "out",
        "data": None,
        "systems": ["small-fomm", "presets/mine.yaml"],
        "metrics": ["l1.paper", "psnr"],
        "steps": 7,
        "seed": 3,
        "precision": "fp32",
    },
    "metrics": {
        "l1.paper": {"summary": "Mean difference.", "unit": "of 1", "lower_is_better": True},
        "psnr": {"summary": "Signal to noise", "unit": "dB", "lower_is_better": False},
    },
    "systems": [
        {
            "name": "small-fomm",
            "frame_side": 64,
            "row": "FOMM",
            "parameters": 1234567,
            "scores": {
                "l1.paper": {"mean": 0.04321, "ci95": [0.04, 0.05], "coverage": 1.0},
                "psnr": {"mean": 25.0, "ci95": None, "coverage": 0.5},
            },
        },
        {
            "name": "mine",
            "frame_side": 64,
            "row": None,
            "parameters": 9,
            "scores": {"l1.paper": None, "psnr": None},
        },
    ],
    "paper": {
        "benchmark": "voxceleb",
        "rows": {"FOMM": {"L1": 0.043, "AKD": 1.294, "AED": 0.14}},
        "checked": [{"row": "FOMM", "column": "AKD"}],
    },
    "claims": [
        {
            "better": "small-fomm",
            "worse": "mine",
            "metric": "l1.paper",
            "difference": {"mean": -0.01, "ci95": [-0.02, 0.001], "coverage": 1.0},
            "ours": "undecided",
            "paper": "better",
        }
    ],
}


def test_full_is_best_throughout_and_x2face_worst_of_the_three_in_the_papers_tables() -> None:
    for benchmark in BENCHMARKS:
        rows = PAPER[benchmark]
        for column, value in rows["FOMM"].items():
            assert all(value < other[column] for row, other in rows.items() if row != "FOMM")
            assert rows["Monkey-Net"][column] < rows["X2Face"][column]
    assert set(PAPER["tai-chi-hd"]) == set(ROWS)


def test_claims_and_families_speak_of_rows_and_presets_that_exist(host: Host) -> None:
    assert {row for claim in CLAIMS for row in (claim.better, claim.worse)} == set(ROWS)
    for rows in FAMILIES.values():
        assert set(rows.values()) <= set(ROWS)
        assert set(rows) <= set(preset_names(host))
    assert tuple(FAMILIES["small"].values()) == ROWS
    assert row_of("small-fomm-jacobian") == "Jac. w/o Eq. (12)"
    assert row_of("smoke") is None


@pytest.mark.parametrize(
    ("metric", "column"), [("l1.paper", "L1"), ("akd", "AKD"), ("mkr.strict", "MKR"), ("psnr", None)]
)
def test_columns(metric: str, column: str | None) -> None:
    assert column_of(metric) == column


def test_overrides_reach_the_systems_that_they_name(tmp_path: Path) -> None:
    config = ReproduceConfig(
        output=tmp_path,
        sets=("train_params.batch_size=2", "small-fomm*:train_params.scales=[1]", "small-x2face:a.b=c:d=e"),
    )
    assert config.sets_of("small-x2face") == ("train_params.batch_size=2", "a.b=c:d=e")
    assert config.sets_of("small-fomm-pyramid") == ("train_params.batch_size=2", "train_params.scales=[1]")
    assert unused_sets(config.sets, ["small-fomm"]) == ["small-x2face:a.b=c:d=e"]


def test_the_command_names_what_is_not_as_usual(tmp_path: Path) -> None:
    assert command(ReproduceConfig(output=Path("out"))) == "fommctl reproduce -o out"
    config = ReproduceConfig(
        output=Path("my out"), data=Path("clips"), systems=("a", "b"), steps=7, workers=2, sets=("x=1", "y:z=[1, 2]")
    )
    assert command(config) == (
        "fommctl reproduce -o 'my out' --data clips --systems a,b --steps 7 --set x=1 --set 'y:z=[1, 2]' --workers 2"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"family": "smal"}, "--preset-family is 'smal'"),
        ({"benchmark": "vox"}, "--benchmark is 'vox'"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"systems": ("a", "b", "a")}, "--systems names 'a' twice"),
        ({"metrics": ()}, "there is no metric to compare by"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ReproduceConfig(output=tmp_path, **option)  # type: ignore[arg-type]
    assert caught.value.message == message
    assert caught.value.hint


def test_ours_and_the_papers_numbers_are_in_columns_of_their_own() -> None:
    header, _, first, second, *notes = scores(FOUND).split("\n")
    assert header == (
        "| system | stands for | parameters | ours: l1.paper ↓ | ours: psnr ↑ "
        "| paper, VoxCeleb: L1 ↓ | paper, VoxCeleb: AKD ↓ | paper, VoxCeleb: AED ↓ |"
    )
    assert first == (
        "| `small-fomm` | FOMM | 1,234,567 | 0.0432 [0.0400, 0.0500] | 25.0 (50.0% of frames) "
        "| 0.043 | 1.294 ✓ | 0.140 |"
    )
    assert second == "| `mine` | – | 9 | – | – | – | – | – |"
    assert any("recalled, not checked again, but for those marked ✓" in note for note in notes)


def test_claims_have_ours_beside_the_papers() -> None:
    assert claims(FOUND).split("\n")[2] == (
        "| `small-fomm` before `mine` | l1.paper | −0.0100 [−0.0200, +0.0010] | undecided | better |"
    )


def test_the_commands_that_do_the_same_by_hand() -> None:
    assert by_hand(FOUND).split("\n") == [
        "```sh",
        "fommctl preprocess synthetic-shapes -o out/data --size 64 --format mkv",
        "fommctl train --preset presets/mine.yaml --data out/data --out out/runs/mine/seed-3 --max-steps 7 --seed 3 "
        "--precision fp32",
        "fommctl evaluate --model out/runs/mine/seed-3/model.safetensors --data out/data --metrics l1.paper,psnr "
        "--split test -o out/evaluation/by-hand",
        "```",
    ]
