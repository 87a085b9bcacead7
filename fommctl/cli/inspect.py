"""`fommctl inspect`: what a file is, what it says of itself, and whether that holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import check_there, command
from fommctl.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.media.probe import VideoInfo
    from fommctl.provenance.inspection import FoundSidecar, Inspection, Verdict

EXAMPLES = """Examples:

  fommctl inspect shot.mov

  fommctl inspect shot.mp4 --trust anchors.pem --json

Exit codes: 0 if the file is shown; 3 if it was changed after it was signed or is not the one that its sidecar
describes, and, with --trust, if it is not signed by a trusted signer.
"""
STATES = {
    "trusted": ("signed, whole, and trusted", "green"),
    "valid": ("signed and whole; the signer is not known to be trusted", "green"),
    "expired": ("signed and whole; the certificate has expired since", "yellow"),
    "invalid": ("NOT VALID", "bold red"),
    "none": ("none", ""),
    "unread": ("none that can be read", ""),
    "not checked": ("not checked", "yellow"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, epilog=EXAMPLES)(inspect)


def inspect(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture, a video, a folder or a pattern of frames.")],
    trust: Annotated[
        Path | None,
        typer.Option(help="Certificates (PEM) of the trusted authorities.", metavar="ANCHORS"),
    ] = None,
) -> None:
    """Show what a file says about its origin, and verify it."""
    check_there(file)
    from fommctl.provenance.inspection import inspect as look

    found = look(file, trust)
    session.result(found.to_json(), _text(found))
    if found.changed or (trust is not None and found.credentials.state != "trusted"):
        raise typer.Exit(InputError.exit_code)


def _text(found: "Inspection") -> "Text":
    from rich.text import Text

    lines: list[Text] = [Text(_clean(found.path), "bold")]
    if found.media is not None:
        lines.append(_line("media", _media(found.media)))
    lines.append(_line("SHA-256", found.sha256))
    statement = found.statement
    said = "says that it is synthetic" if statement.synthetic else "says nothing of being synthetic"
    lines.append(_line("metadata", said))
    lines += [_line("", _clean(text)) for text in (statement.comment, statement.source_type) if text]
    lines.append(_sidecar(found.sidecar))
    lines += _credentials(found.credentials)
    lines += [_line("note", _clean(note)) for note in found.notes]
    lines += [Text(f"  changed: {reason}", "bold red") for reason in found.changed]
    return Text("\n").join(lines)


def _media(info: "VideoInfo") -> str:
    parts = [f"{info.kind}, {info.container}, {info.video_codec}, {info.width}x{info.height}"]
    if info.kind != "image":
        parts.append(f"{float(info.rate):.3f} fps" + ("" if info.frames is None else f", {info.frames} frames"))
    if info.audio:
        parts.append("sound " + ", ".join(track.codec for track in info.audio))
    return ", ".join(parts)


def _sidecar(sidecar: "FoundSidecar | None") -> "Text":
    if sidecar is None:
        return _line("sidecar", "none")
    name = _clean(sidecar.path.name)
    if sidecar.record is None:
        return _line("sidecar", f"{name} cannot be used: {_clean(sidecar.note)}", "yellow")
    if sidecar.fits:
        return _line("sidecar", f"{name} describes this file", "green")
    return _line("sidecar", f"{name} describes a different file", "bold red")


def _credentials(verdict: "Verdict") -> "list[Text]":
    said, style = STATES[verdict.state]
    lines = [_line("credentials", said, style)]
    facts = {
        "signer": ", ".join(_clean(part) for part in (verdict.signer, verdict.issuer, verdict.algorithm) if part),
        "signed at": verdict.time,
        "made with": verdict.generator,
        "problems": ", ".join(verdict.problems) if verdict.state == "invalid" else "",
        "note": verdict.note,
    }
    lines += [_line("", f"{name}: {_clean(fact)}") for name, fact in facts.items() if fact]
    for act in verdict.actions:
        kind = str(act["digital_source_type"] or "").rpartition("/")[2]
        lines.append(_line("", f"action: {_clean(act['action'])}{f' ({_clean(kind)})' if kind else ''}"))
    for each in verdict.ingredients:
        own = "" if each["state"] == "none" else f", its own credentials are {each['state']}"
        lines.append(_line("", f"ingredient: {_clean(each['title'])} ({_clean(each['relationship'])}){own}"))
    return lines


def _line(label: str, text: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text.assemble(f"  {label:<12}", (text, style))


def _clean(value: object) -> str:
    """Return what a stranger's file says, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(value)[:500])
