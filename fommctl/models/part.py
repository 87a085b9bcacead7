"""The unfinished file of a download."""

import hashlib
import json
import os
from pathlib import Path

from fommctl.api import plain_json


class Part:
    """The unfinished file beside `target`: what it holds, of which version of which address, and its hashes."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self.size = 0
        self.continued = False
        """Was anything added to what an earlier connection had brought?"""
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        if self.path.exists():
            with self.path.open("rb") as file:
                while chunk := file.read(2**20):
                    self._count(chunk)

    @property
    def sha256(self) -> str:
        """Of all bytes so far, hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """Of all bytes so far, hexadecimal."""
        return self._md5.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Add to the file. Raises OSError where the disk is full."""
        with self.path.open("ab", buffering=0) as file:
            written = 0
            # The system takes a part where the disk is nearly full, and refuses only the next byte.
            while written < len(chunk):
                written += file.write(chunk[written:])
        self._count(chunk)

    def finish(self, target: Path) -> None:
        """Bring the file to the disk and give it its name. Raises OSError."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, target)
        self.clear()

    def clear(self) -> None:
        """Remove the file and forget what was in it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self.continued = 0, False
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    def validator_for(self, url: str) -> str | None:
        """The ETag or date with which the file can be continued from `url`; None where it cannot."""
        try:
            note = plain_json.parse(self._note.read_text(encoding="utf-8"))
            return str(note["validator"]) if note["url"] == url and self.size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, url: str, validator: str | None) -> None:
        """Remember whose bytes these are. validator: None where the server gives nothing to tell versions apart by."""
        if validator is None:
            self._note.unlink(missing_ok=True)
        else:
            self._note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)
