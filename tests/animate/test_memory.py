"""Memory does not grow with the length of the video: the peak of the whole process, as the system counts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from media_factory import moving_square, write_clip
from shots import portrait

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
PEAK = """
import json, resource, sys
from fommctl.cli.main import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def peak_megabytes(folder, frames):
    pictures = [moving_square(index, 512, 512) for index in range(24)]
    clip = folder / f"{frames}.mp4"
    write_clip(clip, width=512, height=512, frames=frames, audio=("aac",), draw=lambda index: pictures[index % 24])
    arguments = [
        "animate", folder / "portrait.png", clip, "-o", folder / f"{frames}.mkv", "--crop", "none", "-q",
        "--model", GOLDEN / "vox-tiny.pth.tar", "--preset", GOLDEN / "vox-tiny.model_params.yaml",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr
    return result["peak"] / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_peak_memory_of_40_and_240_frames(tmp_path):
    portrait(tmp_path / "portrait.png")
    short, long = peak_megabytes(tmp_path, 40), peak_megabytes(tmp_path, 240)
    # 200 frames of 0.8 MB.
    assert abs(long - short) < 80
