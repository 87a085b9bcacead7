"""Reading and verifying C2PA content credentials, our own and those of others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fommctl.errors import InputError, MissingError, UsageError
from fommctl.media.files import check_file
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
    """What the credentials of a file say, and whether they hold."""

    state: State
    problems: tuple[str, ...] = ()
    """C2PA's codes, such as assertion.bmffHash.mismatch."""
    note: str | None = None
    signer: str | None = None
    issuer: str | None = None
    algorithm: str | None = None
    time: str | None = None
    """Of the signature as a time-stamp authority states it; None where none did."""
    generator: str | None = None
    actions: tuple[dict[str, Any], ...] = ()
    """`action` and `digital_source_type` of each."""
    ingredients: tuple[dict[str, Any], ...] = ()
    """`title`, `relationship`, and the `state` of its own credentials."""
    animation: dict[str, Any] = field(default_factory=dict)
    """Model and inputs, where fommctl signed."""

    def to_json(self) -> dict[str, Any]:
        """For --json."""
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
    """Whether a file that the library cannot read holds the beginning of a manifest store (C2PA, section 11.1.4)."""
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
        raise UsageError(f"{path} holds no certificate in PEM", "Give the certificates of the authorities you trust.")
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
    """What should be a mapping, in a file of a stranger."""
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
