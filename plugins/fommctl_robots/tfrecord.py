"""Reads TFRecord files of tf.train.Example messages without TensorFlow.

A file is a sequence of records: the length (8 bytes, little-endian), its masked CRC-32C (4 bytes), the data, and the
masked CRC-32C of the data (4 bytes). The data is a protocol buffer (tensorflow/core/example/example.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from fommctl.api import InputError, MissingError

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
LARGEST = 1 << 28
"""Largest record that is read into memory, bytes; a trajectory has less than a million."""
_AGAIN = "Download or copy the file again; the records before this one are intact."


def masked_crc32c(data: bytes) -> int:
    """Return the masked CRC-32C: rotated by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h).

    Raises MissingError if google-crc32c is not installed.
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
    """Yield the offsets of a file's records in bytes, reading only their headers.

    The offset of an unreadable record is included, as the last one, so that `read_record` raises the error.
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
    """Return the data of the record at offset `start`. Raises InputError if it is truncated or damaged."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            length = _length(file.read(_HEADER.size))
            if length is None:
                raise InputError(f"{path.name}: no record begins at byte {start}, or its header is damaged", _AGAIN)
            if length > LARGEST:
                raise InputError(f"{path.name}: the record at byte {start} is too long, {length} bytes", _AGAIN)
            data = file.read(length)
            checksum = file.read(_CHECKSUM.size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the file's permissions.") from error
    if len(data) < length or len(checksum) < _CHECKSUM.size:
        raise InputError(f"{path.name} is truncated within the record at byte {start}", _AGAIN)
    if masked_crc32c(data) != _CHECKSUM.unpack(checksum)[0]:
        raise InputError(f"{path.name}: the checksum of the record at byte {start} is wrong", _AGAIN)
    return data


def byte_features(example: bytes) -> dict[str, memoryview]:
    """Return the first byte string of each feature of a tf.train.Example, by name. Raises ValueError if it is not a
    valid message."""
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
    """Return the length in a record's header; None if the header is truncated or damaged."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return int(length) if masked_crc32c(header[:8]) == checksum else None


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the length-delimited values (wire type 2) of field number `wanted`."""
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
            raise ValueError("a field extends beyond its message")
        if kind == 2 and key >> 3 == wanted:
            yield message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, seven bits per byte with the lowest first, and the position after it."""
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
