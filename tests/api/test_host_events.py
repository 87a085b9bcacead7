"""Plugins that listen to stages or change finished frames."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from distributions import LISTENER

from fommctl.api import FommctlError, StageEvent
from fommctl.host import load_host

DEAF = """
    from fommctl.api import hookimpl

    @hookimpl
    def fommctl_stage_started(event):
        raise RuntimeError("not now")
"""


def test_events_reach_all_even_where_one_listener_fails(
    third_party: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    third_party(DEAF, name="a-deaf", entry="a-deaf")
    third_party(LISTENER, name="b-listener", entry="b-listener")
    host = load_host()
    host.started(StageEvent(stage="animate", details={"source": "a.png"}))
    host.finished(StageEvent(stage="animate", details={"frames": 3}))
    assert sys.modules["b_listener"].heard == [
        ("started", "animate", {"source": "a.png"}),
        ("finished", "animate", {"frames": 3}),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "plugin 'a-deaf' (a_deaf) of a-deaf: fommctl_stage_started failed: RuntimeError: not now"
    ]


FILTER = """
    from fommctl.api import hookimpl

    @hookimpl
    def fommctl_frame(event):
        return {filter}
"""


def test_filters_run_in_the_order_of_registration(
    third_party: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    third_party(FILTER.format(filter="lambda frame, index: frame * 2"), name="a-twice", entry="a-twice")
    third_party(FILTER.format(filter="lambda frame, index: frame + index"), name="b-plus", entry="b-plus")
    third_party(FILTER.format(filter="None"), name="c-none", entry="c-none")
    event, frame = StageEvent(stage="animate", details={}), np.full((1, 1, 3), 5, np.uint8)

    def filtered() -> int:
        result = frame
        for each in load_host().frame_filters(event):
            result = each(result, 3)
        return int(result[0, 0, 0])

    assert filtered() == 5 * 2 + 3
    monkeypatch.setenv("FOMMCTL_PLUGINS", "b-plus,a-twice")
    assert filtered() == (5 + 3) * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("lambda frame, index: 1 / 0", "ZeroDivisionError: division by zero"),
        ("lambda frame, index: frame[:1]", r"ValueError: \(1, 2, 3\) uint8 came back for \(2, 2, 3\) uint8"),
        ("lambda frame, index: frame / 2", r"ValueError: \(2, 2, 3\) float64 came back"),
        ("lambda frame, index: None", "AttributeError"),
    ],
)
def test_a_filter_that_fails_is_an_error_that_names_its_plugin(
    third_party: Callable[..., None], source: str, message: str
) -> None:
    third_party(FILTER.format(filter=source), name="bad-filter", entry="bad")
    host = load_host()
    pattern = rf"the frame filter of plugin 'bad' \(bad_filter\) of bad-filter failed: {message}"
    event, frame = StageEvent(stage="animate", details={}), np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(FommctlError, match=pattern):
        _ = [each(frame, 0) for each in host.frame_filters(event)]
