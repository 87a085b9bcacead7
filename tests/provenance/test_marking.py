"""Marks in files: well-formed, bounded, and read back from files of any kind."""

import contextlib
import io
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fommctl.errors import InputError
from fommctl.media.marking import (
    TRAINED_ALGORITHMIC_MEDIA,
    XMP_BOX,
    Mark,
    Statement,
    add_xmp_box,
    gif_extension,
    printable,
    read_statement,
)

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@given(ANY_TEXT, ANY_TEXT)
def test_xmp_is_well_formed_whatever_the_names_are(model, preset):
    mark = Mark("1.2", model, preset)
    description = next(
        ElementTree.fromstring(mark.xmp.decode()).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    )
    assert description.get(f"{IPTC}DigitalSourceType") == TRAINED_ALGORITHMIC_MEDIA
    assert description.get(f"{IPTC}AISystemUsed") == printable(model)
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "fommctl 1.2"
    assert "".join(description.itertext()).strip("\n") == mark.comment


@given(ANY_TEXT, ANY_TEXT)
def test_the_comment_is_one_short_line_that_reads_back(model, preset):
    comment = Mark("1.2", model, preset).comment
    comment.encode()
    assert comment.isprintable()
    assert len(comment) < 500
    statement = Statement(comment)
    assert statement.synthetic
    tool = statement.tool
    assert tool is not None
    assert (tool["version"], f"{tool['model']}, preset {tool['preset']}") == (
        "1.2",
        f"{printable(model)}, preset {printable(preset)}",
    )


def test_the_box_is_a_uuid_box_of_its_length(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"before")
    add_xmp_box(tmp_path / "a.mp4", b"packet")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == b"before" + (30).to_bytes(4, "big") + b"uuid" + XMP_BOX + b"packet"


def test_decoders_that_know_no_xmp_skip_it():
    extension = gif_extension(Mark("1", "m", "p").xmp)
    at = (
        3 + extension[2]
    )  # The block of the identifier, then sub-blocks, each preceded by its length, up to an empty one.
    while extension[at]:
        at += 1 + extension[at]
    assert at == len(extension) - 1


@pytest.mark.parametrize(
    ("kind", "synthetic"),
    [("trainedAlgorithmicMedia", True), ("compositeWithTrainedAlgorithmicMedia", True), ("digitalCapture", False)],
)
@pytest.mark.parametrize(
    "form", ['x:DigitalSourceType="{}"', "<x:DigitalSourceType>{}</x>", "<x:DigitalSourceType rdf:resource='{}'/>"]
)
def test_statements_of_others(tmp_path, kind, synthetic, form):
    address = f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", xmp=form.format(address).encode())
    statement = read_statement(tmp_path / "a.webp")
    assert (statement.source_type, statement.synthetic, statement.tool) == (address, synthetic, None)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    base = Image.new("P", (8, 8))
    buffer = io.BytesIO()
    base.save(buffer, "GIF", comment=b"hello")
    gif = buffer.getvalue()[:-1] + gif_extension(Mark("1", "m", "p").xmp) + b";"
    boxes = b"".join(
        size.to_bytes(4, "big") + kind + data.draw(st.binary(max_size=40))
        for size, kind in data.draw(
            st.lists(
                st.tuples(st.integers(0, 60), st.sampled_from([b"uuid", b"moov", b"mdat", b"\0\0\0\1"])), max_size=5
            )
        )
    )
    content = bytearray(data.draw(st.sampled_from([gif, b"\0\0\0\x14ftypisom\0\0\2\0isom" + boxes])))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.gif"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(read_statement(path), Statement)
