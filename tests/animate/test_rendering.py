"""The model's loop: batches, their order, and a lack of memory on the device."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fommctl.animate.detecting import MotionDetector
from fommctl.animate.motion import DrivingFrame, as_driven, at_rate
from fommctl.animate.rendering import SquareRenderer
from fommctl.animate.transfer import Moment, MotionTransfer
from fommctl.errors import MissingError
from fommctl.media.reader import Frame
from fommctl.networks.transfer import Motion
from fommctl.threads import batches


class SmallMemory:
    """A renderer whose frames are their own keypoints, for at most `room` frames at once; replaces a GPU that runs out
    of memory."""

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


def driving(count):
    return [
        DrivingFrame(index + 1, Fraction(index), Fraction(1), True, np.full((2, 2, 3), 10 * index, np.uint8))
        for index in range(count)
    ]


def shown(renderer, batch_size, count):
    """Return index and shade of each rendered frame, and the batch size at the end."""
    still = Motion(torch.zeros(1, 1, 2))
    moves = MotionTransfer(still, [still], mode="absolute", adapt_scale=False, smooth=True)
    detector, squares = MotionDetector(renderer, batch_size), SquareRenderer(renderer, None, batch_size)
    found = []
    for batch in batches(driving(count), detector.usual):
        detected = list(detector(batch))
        assert all(frame.pixels is None for frame in detected), "pixels that nobody shows are not kept"
        motion = moves(
            Motion.cat([frame.motion for frame in detected]), [Moment(float(frame.time)) for frame in detected]
        )
        for part, pixels, _, _ in squares(motion):
            found += [
                (frame.number, int(square[0, 0, 0]))
                for frame, square in zip(detected[part], pixels.array(), strict=True)
            ]
    return found, min(detector.batch_size, squares.batch_size)


def test_batches():
    assert [len(batch) for batch in batches(driving(7), 3)] == [3, 3, 1]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize(("room", "detect"), [(3, 1000), (1000, 3), (1, 2)])
def test_out_of_memory_halves_the_batch_and_changes_no_frame(room, detect):
    expected, _ = shown(SmallMemory(1000), 8, 20)
    small = SmallMemory(room, detect)
    found, batch_size = shown(small, 8, 20)
    assert found == expected
    assert [number for number, _ in expected] == list(range(1, 21))
    assert max(small.rendered) <= room
    assert batch_size == {3: 2, 1: 1}[min(room, detect)]  # 8, 4, 2, 1


def test_no_room_for_one_frame_is_an_error_with_a_hint():
    with pytest.raises(MissingError, match="not enough memory on cpu for one frame") as raised:
        shown(SmallMemory(0), 4, 4)
    assert "--device cpu" in raised.value.hint


def test_times_of_frames_and_of_a_constant_rate():
    uneven = [
        Frame(np.zeros((1, 1, 3), np.uint8), index, Fraction(start), Fraction(end) - Fraction(start))
        for index, (start, end) in enumerate([("0", "0.1"), ("0.1", "0.5"), ("0.5", "0.52"), ("0.52", "0.8")])
    ]
    assert [timed.presentations[0].time for timed in as_driven(uneven)] == [frame.time for frame in uneven]
    retimed = list(at_rate(uneven, Fraction(10)))
    assert [(timed.frame.index, len(timed.presentations)) for timed in retimed] == [(0, 1), (1, 4), (2, 1), (3, 2)]
    moments = [moment.time for timed in retimed for moment in timed.presentations]
    assert moments == [Fraction(index, 10) for index in range(8)]


def test_a_constant_rate_stops_at_the_end_asked_for():
    still = [Frame(np.zeros((1, 1, 3), np.uint8), 0, Fraction(0), Fraction(2))]
    (timed,) = at_rate(still, Fraction(25), Fraction(3, 10))
    assert [moment.time for moment in timed.presentations] == [Fraction(index, 25) for index in range(8)]
