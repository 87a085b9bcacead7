"""The mark of synthetic media: a comment for people and XMP for programs, written to results and read from files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from fommctl.media import plates, stills
from fommctl.media.files import opened

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by a trained model (NewsCodes, digital source type)."""
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Identifier of the `uuid` box that holds XMP (XMP specification part 3, table 9; ISO base media files)."""
OURS = "Synthetic video, animated by fommctl"
"""Beginning of the comment of every result."""
_LONGEST_NAME = 200
_GIF_COMMENT, _GIF_TRAILER = b"\x21\xfe", b"\x3b"
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
# A decoder without XMP reads the packet as sub-blocks: wherever it enters this trailer, the bytes lead it to the end
# (XMP specification part 3, section 1.1.2).
_GIF_XMP_END = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 Iptc4xmpExt:DigitalSourceType={kind}
 Iptc4xmpExt:AISystemUsed={model}
 Iptc4xmpExt:AISystemVersionUsed={preset}
 xmp:CreatorTool={tool}>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{comment}</rdf:li></rdf:Alt></dc:description>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of a result. Unprintable characters in names are replaced."""

    version: str
    """Version of fommctl."""
    model: str
    preset: str

    @property
    def comment(self) -> str:
        """One line of text."""
        names = f"model {printable(self.model)}, preset {printable(self.preset)}"
        return f"{OURS} {self.version} with {names}"

    @property
    def xmp(self) -> bytes:
        """An XMP packet (UTF-8) with IPTC's digital source type and, since 2025.1, its AI system."""
        model, preset = printable(self.model), printable(self.preset)
        return _PACKET.format(
            kind=quoteattr(TRAINED_ALGORITHMIC_MEDIA),
            model=quoteattr(model),
            preset=quoteattr(f"preset {preset}"),
            tool=quoteattr(f"fommctl {self.version}"),
            comment=escape(self.comment),
        ).encode()


def printable(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return the name on one line, cut to `longest` characters, with unprintable ones replaced: XML and UTF-8 cannot
    hold control characters or surrogates."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name[:longest])


def add_xmp_box(movie: Path, packet: bytes) -> None:
    """Append an XMP packet to a finished MP4 or QuickTime file."""
    with movie.open("ab") as file:
        file.write((8 + len(XMP_BOX) + len(packet)).to_bytes(4, "big") + b"uuid" + XMP_BOX + packet)


def add_to_gif(path: Path, comment: str, packet: bytes) -> None:
    """Insert a comment and an XMP packet, if not empty, before the trailer of a finished GIF."""
    text = comment.encode()
    parts = [text[start : start + 255] for start in range(0, len(text), 255)]
    blocks = _GIF_COMMENT + b"".join(bytes([len(part)]) + part for part in parts) + b"\x00" if text else b""
    if packet:
        blocks += gif_extension(packet)
    with open(path, "rb+") as file:
        file.seek(-len(_GIF_TRAILER), os.SEEK_END)
        file.write(blocks + _GIF_TRAILER)


def gif_extension(packet: bytes) -> bytes:
    """Wrap an XMP packet in a GIF application extension."""
    return _GIF_XMP + packet + _GIF_XMP_END


_OURS = re.compile(
    r"Synthetic video, animated by fommctl (?P<version>\S+) with model (?P<model>.*), preset (?P<preset>.*)"
)
_KIND = re.compile(
    rb"""DigitalSourceType(?:\s*=\s*["']|\s+rdf:resource\s*=\s*["']|>\s*)(?P<kind>https?://[\x21-\x7e]{1,200}?)\s*["'<]"""
)
_LARGEST_XMP = 2**20
_TAIL = 64 * 2**10
"""Bytes at the end of a GIF that contain our comment and XMP."""
_SYNTHETIC = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "compositeSynthetic",
    "algorithmicMedia",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """The marks found in a file. Anybody can write or remove them: they prove nothing."""

    comment: str | None = None
    source_type: str | None = None
    """IPTC's digital source type, a URL."""

    @property
    def tool(self) -> dict[str, str] | None:
        """`version`, `model` and `preset` from fommctl's comment; None for any other comment."""
        match = _OURS.fullmatch(self.comment or "")
        return None if match is None else match.groupdict()

    @property
    def synthetic(self) -> bool:
        """Whether the marks say that the file is synthetic."""
        return self.tool is not None or (self.source_type or "").rpartition("/")[2] in _SYNTHETIC


def read_statement(path: Path) -> Statement:
    """Read the comment and the digital source type of a picture or a video. Raises InputError for any other file."""
    still = stills.identify(path)
    if still is None:
        return _of_movie(path)
    if plates.needs_openimageio(path) or plates.is_deep_tiff(path):
        return Statement(plates.read_header(path).comment)
    if still.format == "GIF":
        return _of_gif(path)
    found = stills.texts(path)
    comment = found.get("comment")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    return Statement(text, _kind(found.get("xmp") or found.get("xml:com.adobe.xmp") or b""))


def _of_movie(path: Path) -> Statement:
    with opened(path) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    return Statement(tags.get("comment"), _kind(_xmp_box(path)) or _known(tags.get("digital_source_type")))


def _of_gif(path: Path) -> Statement:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
    at = tail.rfind(_GIF_COMMENT)
    text = b""
    while at >= 0 and at + 2 < len(tail) and tail[at + 2] and len(text) < _TAIL:
        length = tail[at + 2]
        text += tail[at + 3 : at + 3 + length]
        at += 1 + length
    return Statement(text.decode("utf-8", "replace") or None, _kind(tail))


def _xmp_box(path: Path) -> bytes:
    """Return the XMP packet of an MP4 or QuickTime file; empty if it has none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 24 <= size:
            file.seek(at)
            head = file.read(32)
            length, header = int.from_bytes(head[:4], "big"), 8
            if not head[4:8].isalnum() and head[4:8].strip():
                return b""
            if length == 1:
                length, header = int.from_bytes(head[8:16], "big"), 16
            if head[4:8] == b"uuid" and head[header : header + 16] == XMP_BOX:
                file.seek(at + header + 16)
                return file.read(max(0, min(length - header - 16, _LARGEST_XMP)))
            if length < header:
                return b""
            at += length
    return b""


def _kind(packet: bytes | str) -> str | None:
    data = packet.encode("utf-8", "replace") if isinstance(packet, str) else packet
    match = _KIND.search(data[:_LARGEST_XMP])
    return None if match is None else match["kind"].decode()


def _known(kind: str | None) -> str | None:
    """Return the tag if its value is the one that fommctl writes, else None."""
    return kind if kind == TRAINED_ALGORITHMIC_MEDIA else None
