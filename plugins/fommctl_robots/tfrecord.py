"""TFRecord files of tf.train.Example messages, without TensorFlow.

A file is a row of records: length (8 bytes, little-endian), its masked CRC-32C (4), that many bytes, and theirs (4);
the bytes are a protocol buffer (tensorflow/core/example/example.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from fommctl.api import InputError, MissingError

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
LARGEST = 1 << 28
"""Bytes of a record that are read into memory at most; a trajectory has less than one million."""
_AGAIN = "Download or copy the file again; the records before this one are fine."


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C as TFRecord stores it: turned by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h).

    Raises MissingError where google-crc32c is absent.
    """
    try:
        import google_crc32c
    except ImportError as error:
        raise MissingError(
            "TFRecord files of BAIR need the package google-crc32c", "pip install 'fommctl[robots]'"
        ) from error
    value: int = google_crc32c.value(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record_starts(path: Path) -> Iterator[int]:
    """Yield where the records of a file begin, in bytes; of the records only their headers are read.

    The start of a record that cannot be read is given too, as the last one, so that `read_record` can say why.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = 0
            while start < size or start == 0:
                yield start
                file.seek(start)
                length = _length(file.read(_HEADER.size))
                if length is None:
                    return
                start += _HEADER.size + length + _CHECKSUM.size
    except OSError:
        yield 0


def read_record(path: Path, start: int) -> bytes:
    """Return the bytes of the record that begins at `start`. Raises InputError where it is cut off or damaged."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            length = _length(file.read(_HEADER.size))
            if length is None:
                raise InputError(f"{path.name}: no record begins at byte {start}, or its header is damaged", _AGAIN)
            if length > LARGEST:
                raise InputError(f"{path.name}: the record at byte {start} says that it has {length} bytes", _AGAIN)
            data = file.read(length)
            checksum = file.read(_CHECKSUM.size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the file's permissions.") from error
    if len(data) < length or len(checksum) < _CHECKSUM.size:
        raise InputError(f"{path.name} is cut off within the record at byte {start}", _AGAIN)
    if masked_crc32c(data) != _CHECKSUM.unpack(checksum)[0]:
        raise InputError(f"{path.name}: the checksum of the record at byte {start} is wrong", _AGAIN)
    return data


def byte_features(example: bytes) -> dict[str, memoryview]:
    """Return the byte strings of a tf.train.Example by name (the first value of each). Raises ValueError where it is
    none."""
    found = {}
    for features in _messages(memoryview(example), 1):
        for entry in _messages(features, 1):
            names, values = list(_messages(entry, 1)), list(_messages(entry, 2))
            strings = [value for feature in values[-1:] for several in _messages(feature, 1) for value in
                       _messages(several, 1)]  # fmt: skip
            if names and strings:
                found[bytes(names[-1]).decode()] = strings[0]
    return found


def _length(header: bytes) -> int | None:
    """Return the length that a header states, or None where it is cut off or damaged."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return int(length) if masked_crc32c(header[:8]) == checksum else None


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values with a length (wire type 2) of field number `wanted`; the others are stepped over."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            _, position = _varint(message, position)
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(message):
            raise ValueError("a field reaches beyond its message")
        if kind == 2 and key >> 3 == wanted:
            yield message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, seven bits a byte, the lowest first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number does not end")
