"""Downloads that end whole or not at all: resumed, checked while they stream, renamed at the end."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from fommctl import __version__
from fommctl.errors import InterruptedRunError, MissingError, ModelError, UsageError, not_written
from fommctl.files import open_regular, read_regular
from fommctl.home import make_folder
from fommctl.machine import offline


class Part:
    """The unfinished file beside `target`: what it holds, of which version of which address, and its hashes."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self.size = 0
        self.continued = False
        """Whether anything was added to what an earlier connection had brought."""
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        if self.path.exists():
            with open_regular(self.path) as file:
                while chunk := file.read(2**20):
                    self._count(chunk)

    @property
    def sha256(self) -> str:
        """The hash of all bytes so far, in hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """The hash of all bytes so far, in hexadecimal."""
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
        """Return the ETag or date with which the file can be continued from `url`; None where it cannot."""
        try:
            note = json.loads(read_regular(self._note).decode("utf-8"))
            return str(note["validator"]) if note["url"] == url and self.size else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
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


log = logging.getLogger(__name__)

Report = Callable[[int, int | None], None]
"""report(bytes done, bytes in all or None)."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
ATTEMPTS = 4
"""Tries in a row that bring nothing, after which an address is given up."""
PAUSE = 0.5
"""Seconds before the second try; doubled for each further one."""
LARGEST = 64 * 2**30
"""Bytes; no model comes near it."""
SLOWEST = 1000
"""Bytes a second, over `TIMEOUT` seconds, below which a connection counts as cut."""
_CHUNK = 2**18
_PROGRESS = 2**20
"""Bytes (or a hundredth of the file) that a try has to bring to count as progress."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A remote file's properties before it is fetched."""

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    check: Callable[[Path], object] = lambda path: None
    """Raises ModelError where the fetched file is not what it should be."""


@dataclass(frozen=True)
class Fetched:
    """A fetched file's final address and properties."""

    url: str
    sha256: str
    size: int


class _Cut(Exception):
    """Worth another try."""

    def __init__(self, reason: str, total: int | None = None) -> None:
        """total: bytes of the file, where they are known."""
        super().__init__(reason)
        self.total = total


class _Refused(Exception):
    """This address will not give the file."""


def download(
    urls: Sequence[str], target: Path, expected: Expected, *, hint: str, report: Report = lambda done, total: None
) -> Fetched:
    """Fetch the first of `urls` (http, https, hf) that gives the expected file to `target`.

    Where a connection is cut the download goes on from there, in this call and in a later one, unless the server's
    file has changed. Proxies are those of the environment. Raises MissingError with `hint` where no address gives
    the file or FOMMCTL_OFFLINE is set, OutputError where it cannot be written, UsageError for other kinds of address.
    """
    if offline():
        raise MissingError(f"{target.name} is not on this machine, and FOMMCTL_OFFLINE forbids downloads", hint)
    requests = [_request(url) for url in urls]
    make_folder(target.parent)
    part = Part(target)
    failures = []
    for request in requests:
        try:
            _fetch(request, part, expected, report)
            fetched = Fetched(request.full_url, part.sha256, part.size)
            part.finish(target)
            return fetched
        except _Refused as refusal:
            failures.append(f"{request.full_url}: {refusal}")
            log.info("%s", failures[-1])
        except OSError as error:
            part.clear()
            raise not_written(target, error, "Free some space, or set FOMMCTL_HOME elsewhere.") from error
        except KeyboardInterrupt as error:
            if part.validator_for(request.full_url) is None:
                # Nothing can be continued of it.
                part.clear()
                raise
            raise InterruptedRunError(
                "interrupted", f"The same command goes on with the {part.size:,} bytes that are here."
            ) from error
    raise MissingError(f"cannot fetch {target.name}: {'; '.join(failures)}", hint)


def _fetch(request: urllib.request.Request, part: Part, expected: Expected, report: Report) -> None:
    """Bring `part` to its end and check it."""
    failures, restarted = 0, False
    while True:
        before = part.size
        try:
            _receive(request, part, expected, report)
            return _verify(part, expected)
        except _Cut as cut:
            enough = _PROGRESS if cut.total is None else min(_PROGRESS, -(-cut.total // 100))
            failures = 0 if part.size - before >= enough else failures + 1
            if failures >= ATTEMPTS:
                raise _Refused(str(cut)) from cut
            log.info("%s: %s; trying again", request.full_url, cut)
            time.sleep(PAUSE * 2**failures)
        except _Refused:
            continued = part.continued
            part.clear()
            if not continued or restarted:
                raise
            restarted = True


def _verify(part: Part, expected: Expected) -> None:
    if expected.size is not None and part.size != expected.size:
        raise _Refused(f"it has {part.size:,} bytes, not {expected.size:,}")
    if expected.sha256 is not None and part.sha256 != expected.sha256.lower():
        raise _Refused(f"its SHA-256 is {part.sha256}, not {expected.sha256.lower()}")
    if expected.md5 is not None and part.md5 != expected.md5.lower():
        raise _Refused(f"its MD5 is {part.md5}, not {expected.md5.lower()}")
    try:
        expected.check(part.path)
    except ModelError as error:
        raise _Refused(error.message.replace(str(part.path), "the file")) from error


def _receive(request: urllib.request.Request, part: Part, expected: Expected, report: Report) -> None:
    """Append to `part` what one connection brings. Raises _Cut where it ends early."""
    validator = part.validator_for(request.full_url)
    for header in ("Range", "If-range"):
        request.remove_header(header)
    if validator:
        request.add_header("Range", f"bytes={part.size}-")
        request.add_header("If-Range", validator)
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        if error.code == 416 and validator and error.headers.get("Content-Range") == f"bytes */{part.size}":
            return
        if error.code == 416:
            part.clear()
        again = error.code in (408, 416, 425, 429) or error.code >= 500
        raise (_Cut if again else _Refused)(f"HTTP {error.code} {error.reason}") from error
    with response:
        start = part.size if response.status == 206 and validator else 0
        found = _validator(response)
        if start and (
            not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            or (found is not None and found != validator)
        ):
            part.clear()
            raise _Cut("the server continued another file or at another place than asked")
        if not start:
            part.clear()
        part.continued = part.continued or start > 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        _refuse_early(response, total, start, part, expected)
        part.note(request.full_url, validator if start else found)
        _append(response, part, total, expected.size or LARGEST, report)


def _refuse_early(response: HTTPResponse, total: int | None, start: int, part: Part, expected: Expected) -> None:
    """Refuse before anything is written what cannot be right; OSError where the disk has no room for it."""
    if "text/html" in response.headers.get("Content-Type", ""):
        raise _Refused("the server sent a web page instead of the file")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Refused("the server sent the file in another encoding")
    if total is not None and expected.size is not None and total != expected.size:
        raise _Refused(f"it has {total:,} bytes, not {expected.size:,}")
    if total is not None and shutil.disk_usage(part.path.parent).free < total - start:
        raise OSError(f"it needs {total - start:,} more bytes than the disk has free")


def _append(response: HTTPResponse, part: Part, total: int | None, largest: int, report: Report) -> None:
    report(part.size, total)
    since, before = time.monotonic(), part.size
    while chunk := _chunk(response, total):
        part.append(chunk)
        report(part.size, total)
        if part.size > largest:
            raise _Refused(f"it has more than {largest:,} bytes")
        spent = time.monotonic() - since
        if spent > TIMEOUT:
            if part.size - before < SLOWEST * spent:
                raise _Cut(f"fewer than {SLOWEST:,} bytes a second", total)
            since, before = time.monotonic(), part.size
    if total is not None and part.size < total:
        raise _Cut(f"the connection was cut after {part.size:,} of {total:,} bytes", total)


def _chunk(response: HTTPResponse, total: int | None) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _Cut(f"the connection was cut ({error})", total) from error


def _open(request: urllib.request.Request) -> HTTPResponse:
    """Send a request. Raises HTTPError for an answer that is an error, _Cut where there is no answer."""
    try:
        response: HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _Cut(f"no connection ({error.reason})") from error
    except (OSError, HTTPException) as error:
        raise _Cut(f"no connection ({error})") from error
    except ValueError as error:
        raise _Refused(f"it leads to an address that is none ({error})") from error
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ("https://",) if req.full_url.startswith("https://") else ("https://", "http://")
        if not newurl.lower().startswith(allowed):
            raise _Refused(f"the server redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(response: HTTPResponse) -> str | None:
    """Return what tells this version of the file from another: a strong ETag, else the date of its last change."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    date = response.headers.get("Last-Modified")
    return str(date) if date and not etag else None


def _request(url: str) -> urllib.request.Request:
    scheme, separator, rest = url.partition("://")
    headers = {"User-Agent": f"fommctl/{__version__}", "Accept-Encoding": "identity"}
    if separator and scheme in ("http", "https"):
        return urllib.request.Request(url, headers=headers)
    if separator and scheme == "hf":
        return _hugging_face_request(rest, url, headers)
    raise UsageError(f"cannot fetch {url}", "Weights come from https://, http:// or hf:// addresses.")


def _hugging_face_request(place: str, url: str, headers: dict[str, str]) -> urllib.request.Request:
    """Return hf://[spaces/|datasets/]OWNER/NAME[@REVISION]/FILE as an address of the hub, with the user's token if
    any."""
    from huggingface_hub import get_token, hf_hub_url

    parts = place.split("/")
    kind = parts.pop(0).removesuffix("s") if parts[0] in ("spaces", "datasets") else None
    if len(parts) < 3 or not all(parts):
        hint = "It reads hf://OWNER/NAME/FILE, hf://OWNER/NAME@REVISION/FILE or hf://spaces/OWNER/NAME/FILE."
        raise UsageError(f"cannot fetch {url}", hint)
    owner, (name, _, revision) = parts[0], parts[1].partition("@")
    address = hf_hub_url(
        f"{owner}/{name}",
        "/".join(parts[2:]),
        repo_type=kind,
        revision=revision or None,
        endpoint=os.environ.get("HF_ENDPOINT") or None,
    )
    request = urllib.request.Request(address, headers=headers)
    token = get_token()
    if token:
        # Not passed on where the hub redirects to its storage, which refuses foreign credentials.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request
