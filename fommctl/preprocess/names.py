"""File names from what a raw data set calls its identities and clips, which may be anything."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256

LONGEST = 100
"""Bytes of one part of a name in UTF-8: two parts, `#`, a suffix and what a temporary name adds fit in 255."""
_HASH_LENGTH = 8
# Separators, `#`, what some file systems refuse, controls, and halves of surrogate pairs, which UTF-8 does not hold.
_UNSAFE = re.compile(r'[/\\#:*?"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]')


def safe_names(texts: Iterable[str], *, keep: str = "") -> Mapping[str, str]:
    """A part of a file name for each text: the text itself where it is harmless, else a likeness with a hash.

    The results differ from each other also where case does not count and after Unicode normalisation; none begins or
    ends with a dot or a space, is empty or is longer than LONGEST bytes. They depend on the set of texts alone.

    keep: `#` for the part behind the identity, where published names have it too (`person#video#start#end`).
    """
    wanted = {text: _likeness(text, keep) for text in set(texts)}
    taken = Counter(_folded(name) for name in wanted.values())
    return {
        text: name if name == unicodedata.normalize("NFC", text) and taken[_folded(name)] == 1 else _marked(name, text)
        for text, name in wanted.items()
    }


def _likeness(text: str, keep: str) -> str:
    normal = unicodedata.normalize("NFC", text)
    name = _UNSAFE.sub(lambda match: match[0] if match[0] in keep else "_", normal).strip(" .")
    return _cut(name, LONGEST) or "_"


def _marked(name: str, text: str) -> str:
    mark = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    return f"{_cut(name, LONGEST - _HASH_LENGTH - 1)}-{mark}"


def _cut(name: str, size: int) -> str:
    return name.encode()[:size].decode(errors="ignore").strip(" .")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
