"""Inspection of a file: its kind, its statements, its content credentials and its sidecar, and whether they hold."""

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
"""valid: whole, by a signer that is not known to be trusted.  expired: whole, but the signer's certificate has ended
since, and no time stamp says that it held when it signed.  none: no credentials.  unread: of a kind that holds none or
that cannot be read.  not checked: the package is absent."""
UNTRUSTED, EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
_LARGEST_ANCHORS = 16 * 2**20
_SEARCHED = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The statements of a file's credentials, and whether they hold."""

    state: State
    problems: tuple[str, ...] = ()
    """Codes of C2PA, such as assertion.bmffHash.mismatch."""
    note: str | None = None
    signer: str | None = None
    issuer: str | None = None
    algorithm: str | None = None
    time: str | None = None
    """Time of the signature as a time-stamp authority states it; None where none did."""
    generator: str | None = None
    actions: tuple[dict[str, Any], ...] = ()
    """`action` and `digital_source_type` of each."""
    ingredients: tuple[dict[str, Any], ...] = ()
    """`title`, `relationship`, and the `state` of its own credentials."""
    animation: dict[str, Any] = field(default_factory=dict)
    """Model and inputs, where fommctl signed."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for --json."""
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
    """Verify the credentials inside a file.

    trust: certificates (PEM) of the authorities that are trusted. Nothing is fetched over the network. Raises
    MissingError where `trust` is given and the package is absent, UsageError for anchors that are none.
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
        return Verdict(state="unread", note="files of this kind hold no content credentials that can be read")
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        said = str(error)[:200]
        if _was_signed(path):
            return Verdict(state="invalid", note=f"its content credentials are damaged: {said}")
        return Verdict(state="unread", note=f"it cannot be looked at for content credentials: {said}")


def _store(c2pa: Any, path: Path, settings: dict[str, Any]) -> str:
    with (
        c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
        path.open("rb") as file,
        c2pa.Reader(None, file, context=context) as reader,
    ):
        return str(reader.json())


def _was_signed(path: Path) -> bool:
    """Return whether a file that the library cannot read begins a manifest store (C2PA, section 11.1.4)."""
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
    """Return what should be a mapping, in a file from anywhere."""
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSidecar:
    """The sidecar of a file."""

    path: Path
    fits: bool
    """Whether the file is the result that it describes, byte for byte."""
    record: Sidecar | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for --json."""
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
    sidecar: FoundSidecar | None
    """Sidecar of the file; None where there is none."""
    credentials: Verdict
    notes: tuple[str, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Reasons why the file is not what was vouched for; empty where there are none."""
        reasons = []
        if self.credentials.state == "invalid":
            reasons.append("it was changed after it was signed, or its signature does not hold")
        if self.sidecar is not None and self.sidecar.record is not None and not self.sidecar.fits:
            reasons.append("it is not the result that its sidecar describes")
        return tuple(reasons)

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json: more keys may be added, none of these changes."""
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
