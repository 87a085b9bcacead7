"""What a file is, what it says of itself, and whether that holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.errors import FommctlError
from fommctl.media.files import check_file
from fommctl.media.marking import Statement, read_statement
from fommctl.media.output_paths import is_pattern
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.sequences import listed
from fommctl.provenance.hashing import media_hash
from fommctl.provenance.sidecar import Sidecar, read, sidecar_of
from fommctl.provenance.verifying import Verdict, verify


@dataclass(frozen=True, kw_only=True, slots=True)
class BesideIt:
    """The sidecar of a file."""

    path: Path
    fits: bool
    """Whether the file is the result that it describes, byte for byte."""
    record: Sidecar | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        model = None if self.record is None else {"name": self.record.model.name, "sha256": _model_hash(self.record)}
        version = None if self.record is None else self.record.tool.get("version")
        return {"path": str(self.path), "fits": self.fits, "note": self.note, "version": version, "model": model}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Everything that `fommctl inspect` found."""

    path: Path
    sha256: str
    media: VideoInfo | None
    statement: Statement
    sidecar: BesideIt | None
    """None where there is none."""
    credentials: Verdict
    notes: tuple[str, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Why the file is not what somebody vouched for; empty where nothing speaks against it."""
        reasons = []
        if self.credentials.state == "invalid":
            reasons.append("it was changed after it was signed, or its signature does not hold")
        if self.sidecar is not None and self.sidecar.record is not None and not self.sidecar.fits:
            reasons.append("it is not the result that its sidecar describes")
        return tuple(reasons)

    def to_json(self) -> dict[str, Any]:
        """For --json: more keys may be added, none of these changes."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "media": None if self.media is None else _media(self.media),
            "synthetic": self.statement.synthetic,
            "statement": {
                "comment": self.statement.comment,
                "digital_source_type": self.statement.source_type,
                "tool": self.statement.tool,
            },
            "sidecar": None if self.sidecar is None else self.sidecar.to_json(),
            "credentials": self.credentials.to_json(),
            "changed": list(self.changed),
            "notes": list(self.notes),
        }


def inspect(path: Path, trust: Path | None = None) -> Inspection:
    """Look at a picture, a video, or a pattern or folder of frames; any other file is looked at for its credentials.

    trust: see `verify`. Raises InputError where there is nothing to look at.
    """
    notes: list[str] = []
    frames = path.is_dir() or is_pattern(path)
    if not frames:
        check_file(path)
    media, statement = None, Statement()
    try:
        media = probe(path)
        statement = read_statement(listed(path)[0][1] if frames else path)
    except FommctlError as error:
        if frames:
            raise
        notes.append(error.message)
    if frames:
        credentials = Verdict(state="unread", note="frames hold no content credentials of the whole")
        sha256 = media_hash(path)
    else:
        credentials, sha256 = verify(path, trust), media_hash(path)
    return Inspection(
        path=path,
        sha256=sha256,
        media=media,
        statement=statement,
        sidecar=_beside(path, sha256),
        credentials=credentials,
        notes=tuple(notes),
    )


def _beside(path: Path, sha256: str) -> BesideIt | None:
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        return None
    try:
        record = read(sidecar)
    except FommctlError as error:
        return BesideIt(path=sidecar, fits=False, record=None, note=error.message)
    return BesideIt(path=sidecar, fits=record.output.sha256 == sha256, record=record)


def _model_hash(record: Sidecar) -> str | None:
    return None if record.model.file is None else record.model.file.sha256


def _media(info: VideoInfo) -> dict[str, Any]:
    return {
        "kind": info.kind,
        "container": info.container,
        "codec": info.video_codec,
        "width": info.width,
        "height": info.height,
        "fps": f"{info.rate.numerator}/{info.rate.denominator}",
        "frames": info.frames,
        "duration_s": None if info.duration is None else round(float(info.duration), 6),
        "alpha": info.has_alpha,
        "audio": [track.codec for track in info.audio],
        "timecode": info.timecode,
    }
