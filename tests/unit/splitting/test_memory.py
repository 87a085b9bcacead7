"""What a choreography remembers can be taken to another process."""

import torch

from fommctl.animate.motion import Choreography, Moment
from fommctl.networks.transfer import Motion


def test_memory_of_a_choreography_is_a_copy():
    def motion(value):
        return Motion(torch.full((1, 3, 2), value))

    one = Choreography(motion(0.0), [motion(0.1)], mode="absolute", adapt_scale=False, smooth=True)
    one(motion(0.2), [Moment(0.0)])
    memory = one.memory()
    other = Choreography(motion(0.0), [motion(0.1)], mode="absolute", adapt_scale=False, smooth=True)
    other.resume(memory)
    expected = one(motion(0.5), [Moment(0.04)]).keypoints
    assert torch.equal(other(motion(0.5), [Moment(0.04)]).keypoints, expected)
    again = Choreography(motion(0.0), [motion(0.1)], mode="absolute", adapt_scale=False, smooth=True)
    again.resume(memory)
    assert torch.equal(again(motion(0.5), [Moment(0.04)]).keypoints, expected)
