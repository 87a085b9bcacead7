"""How a result says in its own file that it is synthetic: a comment for people, XMP for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by a trained model (NewsCodes, digital source type)."""
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Identifier of the `uuid` box that holds XMP (XMP specification part 3, table 9; ISO base media files)."""
OURS = "Synthetic video, animated by fommctl"
"""How the comment of every result begins."""
_LONGEST_NAME = 200
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
# A decoder that knows no XMP takes the packet for sub-blocks: wherever it steps into this, the next byte leads it to
# the end (XMP specification part 3, section 1.1.2).
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
    """What a result says of itself. Names may hold anything: what cannot be printed is replaced."""

    version: str
    """Of fommctl."""
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
    """The name on one line, cut to `longest` characters: neither XML nor UTF-8 holds control characters or
    surrogates."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name[:longest])


def add_xmp_box(movie: Path, packet: bytes) -> None:
    """Put an XMP packet at the end of a finished MP4 or QuickTime file."""
    with movie.open("ab") as file:
        file.write((8 + len(XMP_BOX) + len(packet)).to_bytes(4, "big") + b"uuid" + XMP_BOX + packet)


def gif_extension(packet: bytes) -> bytes:
    """An XMP packet as GIF's application extension."""
    return _GIF_XMP + packet + _GIF_XMP_END
