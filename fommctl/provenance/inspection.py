"""Inspects a file: its format, its marks as synthetic, its content credentials and its sidecar."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fommctl.errors import FommctlError, InputError, MissingError, UsageError
from fommctl.media.files import check_file
from fommctl.media.marking import Statement, read_statement
from fommctl.media.output_paths import is_pattern
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.sequences import listed
from fommctl.provenance.hashing import media_hash
from fommctl.provenance.sidecar import Sidecar, read, sidecar_of
from fommctl.provenance.signing import ANIMATION, SETTINGS, library, undisturbed

State = Literal["trusted", "valid", "expired", "invalid", "none", "unread", "not checked"]
"""State of a file's credentials.  trusted: unchanged since it was signed, by a trusted signer.  valid: unchanged, by an
unknown signer.  expired: unchanged, but the signer's certificate has expired, and no time stamp shows that it was valid
when it signed.  none: no credentials.  unread: a format without credentials, or one that cannot be read.  not checked:
the package c2pa is not installed."""
UNTRUSTED, EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
_LARGEST_ANCHORS = 16 * 2**20
_SEARCHED = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A file's content credentials and whether they are valid."""

    state: State
    problems: tuple[str, ...] = ()
    """C2PA failure codes, such as assertion.bmffHash.mismatch."""
    note: str | None = None
    signer: str | None = None
    issuer: str | None = None
    algorithm: str | None = None
    time: str | None = None
    """Time of the signature, as certified by a time-stamp authority; None without a time stamp."""
    generator: str | None = None
    actions: tuple[dict[str, Any], ...] = ()
    """`action` and `digital_source_type` of each action."""
    ingredients: tuple[dict[str, Any], ...] = ()
    """`title`, `relationship` and `state` (of its own credentials) of each ingredient."""
    animation: dict[str, Any] = field(default_factory=dict)
    """Model and inputs, if fommctl signed the file."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict for --json."""
        return {
            "state": self.state,
            "problems": list(self.problems),
            "note": self.note,
            "signer": self.signer,
            "issuer": self.issuer,
            "algorithm": self.algorithm,
            "time": self.time,
            "generator": self.generator,
            "actions": list(self.actions),
            "ingredients": list(self.ingredients),
            "animation": self.animation or None,
        }


def verify(path: Path, trust: Path | None = None) -> Verdict:
    """Verify the content credentials in a file, without network access.

    trust: PEM file with the certificates of trusted authorities.  Raises MissingError if `trust` is given but c2pa is
    not installed, UsageError if `trust` has no certificates, InputError if it cannot be read.
    """
    anchors = None if trust is None else _anchors(trust)
    try:
        c2pa = library()
    except MissingError as error:
        if trust is not None:
            raise
        return Verdict(state="not checked", note=f"{error.message}: {error.hint}")
    settings = {**SETTINGS, "trust": {**SETTINGS["trust"], **({"trust_anchors": anchors} if anchors else {})}}
    try:
        return _verdict(json.loads(undisturbed(lambda: _store(c2pa, path, settings))))
    except c2pa.C2paError.ManifestNotFound:
        return Verdict(state="none")
    except c2pa.C2paError.NotSupported:
        return Verdict(state="unread", note="content credentials cannot be read from files of this kind")
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        reason = str(error)[:200]
        if _was_signed(path):
            return Verdict(state="invalid", note=f"its content credentials are damaged: {reason}")
        return Verdict(state="unread", note=f"its content credentials cannot be read: {reason}")


def _store(c2pa: Any, path: Path, settings: dict[str, Any]) -> str:
    with (
        c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
        path.open("rb") as file,
        c2pa.Reader(None, file, context=context) as reader,
    ):
        return str(reader.json())


def _was_signed(path: Path) -> bool:
    """Return whether a file that the library cannot read has a manifest store (C2PA, section 11.1.4)."""
    with path.open("rb") as file:
        return b"jumdc2pa" in file.read(_SEARCHED)


def _anchors(path: Path) -> str:
    check_file(path)
    if path.stat().st_size > _LARGEST_ANCHORS:
        raise UsageError(f"{path} is too large for trust anchors", "Is it the right file?")
    try:
        text = path.read_text(encoding="ascii", errors="strict")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
    except ValueError:
        text = ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(f"{path} contains no PEM certificate", "Give the certificates of the authorities you trust.")
    return text


def _verdict(store: dict[str, Any]) -> Verdict:
    manifest = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    failures = _mapping(_mapping(store.get("validation_results")).get("activeManifest")).get("failure")
    problems = tuple(str(each.get("code")) for each in _mappings(failures))
    signature = _mapping(manifest.get("signature_info"))
    assertions = {str(each.get("label")): _mapping(each.get("data")) for each in _mappings(manifest.get("assertions"))}
    acts = assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions") or {}
    tools = _mappings(manifest.get("claim_generator_info")) or [{}]
    return Verdict(
        state=_state(str(store.get("validation_state")), problems),
        problems=problems,
        signer=signature.get("common_name"),
        issuer=signature.get("issuer"),
        algorithm=signature.get("alg"),
        time=signature.get("time"),
        generator=" ".join(str(tools[0][key]) for key in ("name", "version") if key in tools[0]) or None,
        actions=tuple(
            {"action": act.get("action"), "digital_source_type": act.get("digitalSourceType")}
            for act in _mappings(acts.get("actions"))
        ),
        ingredients=tuple(map(_ingredient, _mappings(manifest.get("ingredients")))),
        animation=assertions.get(ANIMATION) or {},
    )


def _state(said: str, problems: tuple[str, ...]) -> State:
    if said == "Trusted":
        return "trusted"
    if said == "Valid":
        return "valid"
    return "expired" if problems and set(problems) <= {UNTRUSTED, EXPIRED} else "invalid"


def _ingredient(ingredient: dict[str, Any]) -> dict[str, Any]:
    state = "none"
    if "active_manifest" in ingredient:
        active = _mapping(_mapping(ingredient.get("validation_results")).get("activeManifest"))
        codes = tuple(str(each.get("code")) for each in _mappings(active.get("failure")))
        state = _state("Invalid" if set(codes) - {UNTRUSTED} else "Valid" if codes else "Trusted", codes)
    return {
        "title": ingredient.get("title"),
        "relationship": ingredient.get("relationship"),
        "state": state,
    }


def _mapping(value: Any) -> dict[str, Any]:
    """Return a mapping from an untrusted file; empty for any other type."""
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSidecar:
    """The sidecar of a file."""

    path: Path
    fits: bool
    """Whether the file is the result that the sidecar describes, byte for byte."""
    record: Sidecar | None
    """Content of the sidecar; None if it cannot be read."""
    note: str | None = None
    """Reason why it cannot be read."""

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's summary for --json."""
        model = None if self.record is None else {"name": self.record.model.name, "sha256": _model_hash(self.record)}
        version = None if self.record is None else self.record.tool.get("version")
        return {"path": str(self.path), "fits": self.fits, "note": self.note, "version": version, "model": model}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The result of `fommctl inspect`."""

    path: Path
    sha256: str
    media: VideoInfo | None
    statement: Statement
    sidecar: FoundSidecar | None
    """Sidecar of the file; None if there is none."""
    credentials: Verdict
    notes: tuple[str, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Reasons why the file differs from what was signed or recorded; empty if there are none."""
        reasons = []
        if self.credentials.state == "invalid":
            reasons.append("it was changed after it was signed, or its signature is invalid")
        if self.sidecar is not None and self.sidecar.record is not None and not self.sidecar.fits:
            reasons.append("it is not the result that its sidecar describes")
        return tuple(reasons)

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
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
    """Inspect a picture, a video, or a pattern or folder of frames; of any other file, only the credentials.

    trust: see `verify`.  Raises InputError if the file does not exist or frames cannot be read, and the errors of
    `verify`.
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
        credentials = Verdict(state="unread", note="separate frames cannot have content credentials for the whole")
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


def _beside(path: Path, sha256: str) -> FoundSidecar | None:
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        return None
    try:
        record = read(sidecar)
    except FommctlError as error:
        return FoundSidecar(path=sidecar, fits=False, record=None, note=error.message)
    return FoundSidecar(path=sidecar, fits=record.output.sha256 == sha256, record=record)


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
