"""What is said of findings: verdict, exit code, JSON, text."""

import json

import pytest

from fommctl.stages.doctor.findings import Examination, Finding
from fommctl.stages.doctor.report import lines

OK = Finding(area="machine", name="Python", value="3.11.7, CPython")
NOTE = Finding(
    area="extras",
    name="eval",
    value="lacks torchmetrics>=1.6",
    level="note",
    advice="Run \"pip install 'fommctl[eval]'\" if you need it.",
)
PLUGIN = Finding(area="plugins", name="theirs", value="does not load", level="problem", advice="Uninstall it.")
MODEL = Finding(
    area="weights",
    name="a very long name of a model",
    value="the file has 12 bytes and its header states that there should be 4,578,918 of them",
    level="problem",
    advice="Run 'pip install --force-reinstall fommctl'.",
    stops=True,
)

TEXT = """\
machine
  ok      Python               3.11.7, CPython
extras
  note    eval                 lacks torchmetrics>=1.6
                               -> Run "pip install 'fommctl[eval]'" if you need
                                  it.
plugins
  PROBLEM theirs               does not load
weights
  PROBLEM a very long name of a model
                               the file has 12 bytes and its header states that
                               there should be 4,578,918 of them

2 problems, 1 of which keeps 'fommctl animate' from working here.
1. weights, a very long name of a model: the file has 12 bytes and its header
   states that there should be 4,578,918 of them
   -> Run 'pip install --force-reinstall fommctl'.
2. plugins, theirs: does not load
   -> Uninstall it."""


def printed(*findings, width=80):
    return "\n".join(line.text for line in lines(Examination(findings=findings), width))


def test_the_text():
    assert printed(OK, NOTE, PLUGIN, MODEL) == TEXT


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((OK, NOTE), "No problems: 'fommctl animate' works here."),
        ((OK, PLUGIN), "1 problem; 'fommctl animate' works here with the built-in model."),
        ((MODEL,), "1 problem keeps 'fommctl animate' from working here."),
        ((MODEL, MODEL), "2 problems keep 'fommctl animate' from working here."),
    ],
)
def test_the_verdict(findings, verdict):
    text = printed(*findings)
    assert text.split("\n\n")[1].splitlines()[0] == verdict


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(map(len, printed(OK, NOTE, PLUGIN, MODEL, width=width).splitlines())) <= width


def test_paths_are_never_broken():
    path = "/" + "/".join(["folder-of-a-long-name"] * 6)
    assert f"{path}:" in printed(Finding(area="disk", name="cache", value=f"{path}: 3 MB")).split()


def test_marks_have_the_colour():
    styled = [line for line in lines(Examination(findings=(OK, NOTE, PLUGIN))) if line.marked]
    assert [(line.style, line.text[: line.marked]) for line in styled] == [
        ("ok", "  ok      "),
        ("note", "  note    "),
        ("problem", "  PROBLEM "),
    ]


def test_only_what_stops_the_main_job_fails():
    assert (Examination(findings=(OK, NOTE, PLUGIN)).ok, Examination(findings=(OK, NOTE, PLUGIN)).exit_code) == (
        True,
        0,
    )
    assert (Examination(findings=(OK, MODEL)).ok, Examination(findings=(OK, MODEL)).exit_code) == (False, 5)
    assert Examination(findings=(PLUGIN, OK, MODEL)).problems == (MODEL, PLUGIN)


def test_json():
    data = Examination(findings=(OK, MODEL), versions={"torch": "2.6"}, devices=({"name": "cpu"},)).to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == {
        "ok": False,
        "problems": 1,
        "checks": [
            {
                "area": "machine",
                "name": "Python",
                "value": "3.11.7, CPython",
                "level": "ok",
                "advice": None,
                "stops": False,
            },
            {
                "area": "weights",
                "name": "a very long name of a model",
                "value": MODEL.value,
                "level": "problem",
                "advice": MODEL.advice,
                "stops": True,
            },
        ],
        "versions": {"torch": "2.6"},
        "devices": [{"name": "cpu"}],
    }
