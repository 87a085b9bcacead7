"""The checksum of TFRecord files: CRC-32C (Castagnoli; RFC 3720, appendix B.4), many bytes at a time.

A CRC is linear over bits: that of a long message is put together from those of its pieces, each advanced by the
number of bytes behind it. So a thousand pieces are worked through side by side.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, bits reversed."""
_MASK_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF
_LANES = 1024
"""Pieces that are worked through side by side; a power of two."""

Words = NDArray[np.uint32]


def crc32c(data: bytes) -> int:
    """The checksum, in [0, 2**32), of `data`; `crc32c(b"123456789") == 0xE3069283`."""
    if len(data) < 4:
        return _bytewise(data)
    lanes = _LANES if len(data) >= 16 * _LANES else 1
    length = -(-len(data) // lanes)
    # Zeros in front of the message leave an empty register empty; the register begins with all bits set, which is
    # the same as the first four bytes inverted.
    padded = np.zeros(lanes * length, np.uint8)
    first = lanes * length - len(data)
    padded[first:] = np.frombuffer(data, np.uint8)
    padded[first : first + 4] ^= 0xFF
    registers = np.zeros(lanes, np.uint32)
    for column in padded.reshape(lanes, length).T:
        registers = _table()[(registers ^ column) & 0xFF] ^ (registers >> 8)
    while len(registers) > 1:
        registers = _applied(_advance(length), registers[0::2]) ^ registers[1::2]
        length *= 2
    return int(registers[0]) ^ _ALL


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: turned by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h)."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + _MASK_DELTA) & _ALL


def _bytewise(data: bytes) -> int:
    register = _ALL
    for byte in data:
        register = int(_table()[(register ^ byte) & 0xFF]) ^ register >> 8
    return register ^ _ALL


@cache
def _table() -> Words:
    """(256,): the register after each byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


@cache
def _advance(count: int) -> Words:
    """(32,): what each bit of a register becomes by `count` zero bytes, count >= 1."""
    if count == 1:
        bits: Words = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
        after: Words = _table()[bits & 0xFF] ^ (bits >> 8)
        return after
    half = _advance(count // 2)
    twice = _applied(half, half)
    return _applied(_advance(1), twice) if count % 2 else twice


def _applied(matrix: Words, registers: Words) -> Words:
    """Registers (N,) under a matrix over bits, (32,) columns."""
    changed = np.zeros_like(registers)
    for bit in range(32):
        changed ^= np.where(registers >> np.uint32(bit) & 1, matrix[bit], np.uint32(0))
    return changed
