"""The model's loop: batches, their order, and what happens when the device's memory does not suffice."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fommctl.animate.motion import Choreography, Moment
from fommctl.animate.rendering import Rendering, batches
from fommctl.animate.timing import Cue, as_driven, at_rate
from fommctl.errors import MissingError
from fommctl.media.reader import Frame
from fommctl.networks.transfer import Motion


class SmallMemory:
    """A renderer whose frames are their own keypoints; it takes at most `room` frames at once.

    No GPU is at hand to run out of memory on: this stands for one.
    """

    device = torch.device("cpu")

    def __init__(self, room, room_to_detect=1000):
        self.room, self.room_to_detect, self.rendered = room, room_to_detect, []

    def detect(self, frames):
        if len(frames) > self.room_to_detect:
            raise torch.OutOfMemoryError("no room")
        return Motion(frames.mean((2, 3))[:, None, :2])

    def render(self, context, motion):
        if len(motion) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.rendered.append(len(motion))
        return motion.keypoints[:, 0, :1, None, None].expand(-1, 3, 2, 2)


def cues(count):
    return [
        Cue(Frame(np.full((2, 2, 3), 10 * index, np.uint8), index, Fraction(index), Fraction(1)), ())
        for index in range(count)
    ]


def rendering(renderer, batch_size):
    still = Motion(torch.zeros(1, 1, 2))
    choreography = Choreography(still, [still], mode="absolute", adapt_scale=False, smooth=True)
    return Rendering(renderer, None, choreography, lambda time: Moment(float(time)), batch_size)


def shown(run, count):
    return [
        (cue.frame.index, int(pixels[0, 0, 0]))
        for batch in batches(cues(count), 8)
        for rendered in run(batch)
        for cue, pixels in zip(rendered.cues, rendered.pixels.array(), strict=True)
    ]


def test_batches():
    assert [len(batch) for batch in batches(cues(7), 3)] == [3, 3, 1]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize(("room", "detect"), [(3, 1000), (1000, 3), (1, 2)])
def test_out_of_memory_halves_the_batch_and_changes_no_frame(room, detect):
    expected = shown(rendering(SmallMemory(1000), 8), 20)
    small = SmallMemory(room, detect)
    run = rendering(small, 8)
    assert shown(run, 20) == expected
    assert [index for index, _ in expected] == list(range(20))
    assert max(small.rendered) <= room
    assert run.batch_size == {3: 2, 1: 1}[min(room, detect)]  # 8, 4, 2, 1
    assert run.frames == 20


def test_no_room_for_one_frame_is_an_error_with_a_hint():
    with pytest.raises(MissingError, match="does not suffice") as raised:
        shown(rendering(SmallMemory(0), 4), 4)
    assert "--device cpu" in raised.value.hint


def test_times_of_frames_and_of_a_constant_rate():
    uneven = [
        Frame(np.zeros((1, 1, 3), np.uint8), index, Fraction(start), Fraction(end) - Fraction(start))
        for index, (start, end) in enumerate([("0", "0.1"), ("0.1", "0.5"), ("0.5", "0.52"), ("0.52", "0.8")])
    ]
    assert [cue.showings[0].time for cue in as_driven(uneven)] == [frame.time for frame in uneven]
    retimed = list(at_rate(uneven, Fraction(10)))
    assert [(cue.frame.index, len(cue.showings)) for cue in retimed] == [(0, 1), (1, 4), (2, 1), (3, 2)]
    moments = [showing.time for cue in retimed for showing in cue.showings]
    assert moments == [Fraction(index, 10) for index in range(8)]


def test_a_constant_rate_stops_at_the_end_asked_for():
    still = [Frame(np.zeros((1, 1, 3), np.uint8), 0, Fraction(0), Fraction(2))]
    (cue,) = at_rate(still, Fraction(25), Fraction(3, 10))
    assert [showing.time for showing in cue.showings] == [Fraction(index, 25) for index in range(8)]
