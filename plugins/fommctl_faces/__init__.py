"""Face detectors, face embeddings and face data sets."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import DatasetSpec, DetectorSpec, EmbedderSpec, hookimpl
from fommctl_faces import weights


@hookimpl
def fommctl_detectors() -> Iterator[DetectorSpec]:
    yield DetectorSpec(
        name="dlib-hog",
        summary="dlib's frontal face detector (histogram of oriented gradients); no download",
        subject="face",
        build="fommctl_faces.hog:HogDetector",
        ready=lambda: weights.missing_package("dlib", "dlib-bin"),
        priority=10,
        packages=("dlib", "dlib-bin"),
    )
    yield DetectorSpec(
        name="dlib-68",
        summary="dlib-hog with 68 landmarks; needs the package face_recognition_models",
        subject="face",
        build="fommctl_faces.shape:ShapeDetector",
        ready=lambda: weights.missing_recognition_models(weights.SIXTY_EIGHT_LANDMARKS),
        priority=5,
        landmarks=68,
        metric_priority=10,
        packages=("dlib", "dlib-bin", "face_recognition_models"),
    )
    yield DetectorSpec(
        name="blazeface",
        summary="BlazeFace by face-alignment, with 6 landmarks; also finds turned and stylised faces",
        subject="face",
        build="fommctl_faces.blazeface:BlazeFaceDetector",
        ready=lambda: weights.missing_weights(weights.BLAZEFACE),
        priority=20,
        landmarks=6,
        # No published figure rests on these six landmarks.
        metric_priority=-1,
        packages=("face-alignment", "torch"),
    )
    yield DetectorSpec(
        name="sfd",
        summary="S3FD by face-alignment: the most reliable, slow without a GPU",
        subject="face",
        build="fommctl_faces.alignment:SfdDetector",
        ready=lambda: weights.missing_weights(weights.SFD),
        priority=30,
        packages=("face-alignment", "torch"),
    )
    yield DetectorSpec(
        name="fan",
        summary="S3FD with FAN's 68 landmarks, by face-alignment; the slowest",
        subject="face",
        build="fommctl_faces.alignment:FanDetector",
        ready=lambda: weights.missing_weights(weights.FAN),
        priority=0,
        landmarks=68,
        metric_priority=20,
        packages=("face-alignment", "torch"),
    )
    yield DetectorSpec(
        name="face-mesh",
        summary="MediaPipe Face Mesh, with 478 landmarks; needs the package mediapipe (extra mesh)",
        subject="face",
        build="fommctl_faces.mesh:MeshDetector",
        ready=lambda: weights.missing_package("mediapipe", "fommctl[mesh]"),
        priority=1,
        landmarks=478,
        metric_priority=5,
        packages=("mediapipe",),
    )


@hookimpl
def fommctl_embedders() -> Iterator[EmbedderSpec]:
    yield EmbedderSpec(
        name="dlib-128",
        summary="dlib's descriptor of the aligned face; needs the package face_recognition_models",
        subject="face",
        dimension=128,
        build="fommctl_faces.identity:DlibEmbedder",
        ready=lambda: weights.missing_recognition_models(weights.FIVE_LANDMARKS, weights.RESNET),
        priority=10,
        packages=("dlib", "dlib-bin", "face_recognition_models"),
    )


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="voxceleb",
        summary="VoxCeleb: chunks of YouTube videos by vox-metadata.csv",
        licence=(
            "the videos belong to the people who published them on YouTube; download them yourself, each as "
            "VIDEO_ID.mp4; vox-metadata.csv is in https://github.com/AliaksandrSiarohin/video-preprocessing, "
            "VoxCeleb itself (Oxford VGG) at https://www.robots.ox.ac.uk/~vgg/data/voxceleb/"
        ),
        build="fommctl_faces.datasets:VoxCeleb",
    )
    yield DatasetSpec(
        name="nemo",
        summary="UvA-Nemo Smile Database: 1240 smiles of 400 people, 001_deliberate_smile_2.mp4 and so on",
        licence=(
            "belongs to the University of Amsterdam, which gives it to researchers who sign its licence: "
            "https://www.uva-nemo.org"
        ),
        build="fommctl_faces.datasets:UvaNemo",
    )
    yield DatasetSpec(
        name="faces",
        summary="A folder of clips and pictures of faces, cropped to squares",
        licence="that of your own files",
        build="fommctl_faces.datasets:Faces",
    )
