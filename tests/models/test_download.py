"""Downloads from a real server that disconnects, lies, changes its file or is unreachable."""

import contextlib
import hashlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving
from small_disk import files_up_to

from fommctl import download as module
from fommctl.download import Expected, download
from fommctl.errors import InterruptedRunError, MissingError, ModelError, OutputError, UsageError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HINT = "Put it there yourself."


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOMMCTL_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE", 0.001)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as state:
        yield state


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "vox.pth.tar"


def fetch(server: FileServer, target: Path, **expected: object) -> module.Fetched:
    return download([f"{server.address}/vox.pth.tar"], target, Expected(**expected), hint=HINT)  # type: ignore[arg-type]


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_download_brings_the_file_its_hash_and_its_progress(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = download(
        [f"{server.address}/a"], target, Expected(sha256=SHA256.upper()), hint="", report=lambda *x: seen.append(x)
    )
    assert target.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.size, fetched.url) == (SHA256, len(CONTENT), f"{server.address}/a")
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert leftovers(target) == []


def test_a_cut_connection_continues_where_it_stopped(server: FileServer, target: Path) -> None:
    server.cut_after, server.cuts = 300_000, 3
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]
    assert server.requests[1]["If-Range"] == '"1"'


def test_a_download_that_was_given_up_is_resumed_by_the_next_call(server: FileServer, target: Path) -> None:
    server.cut_after, server.cuts = 300_000, 1
    server.status, server.failures = 200, 0

    def stop(done: int, total: int | None) -> None:
        if done >= 300_000:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        download([f"{server.address}/vox.pth.tar"], target, Expected(), hint=HINT, report=stop)
    assert not target.exists()
    server.requests.clear()
    assert fetch(server, target).sha256 == SHA256
    assert [request.get("Range") for request in server.requests] == ["bytes=300000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("honest", [True, False], ids=["server honours If-Range", "server ignores If-Range"])
def test_a_file_that_changed_on_the_server_is_never_spliced(honest: bool, server: FileServer, target: Path) -> None:
    server.cut_after, server.cuts, server.status, server.if_range = 300_000, 1, 200, honest

    def change(done: int, total: int | None) -> None:
        if done >= 300_000:
            server.content, server.etag = CONTENT[::-1], '"2"'

    fetched = download([f"{server.address}/vox.pth.tar"], target, Expected(), hint=HINT, report=change)
    assert target.read_bytes() == CONTENT[::-1]
    assert fetched.sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_a_server_without_ranges_or_etag_is_asked_for_all_of_it_again(server: FileServer, target: Path) -> None:
    server.ranges, server.cut_after, server.cuts = False, 300_000, 1
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    server.etag, server.cuts = None, 1
    server.requests.clear()
    fetch(server, target, sha256=SHA256)
    assert [request.get("Range") for request in server.requests] == [None, None]
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_only_checked(server: FileServer, target: Path) -> None:
    part = module.Part(target)
    target.parent.mkdir()
    part.append(CONTENT)
    part.note(f"{server.address}/vox.pth.tar", '"1"')
    assert fetch(server, target, sha256=SHA256).size == len(CONTENT)
    assert target.read_bytes() == CONTENT


def test_a_wrong_part_is_thrown_away_and_everything_fetched_once_more(server: FileServer, target: Path) -> None:
    part = module.Part(target)
    target.parent.mkdir()
    part.append(b"x" * 1000)
    part.note(f"{server.address}/vox.pth.tar", '"1"')
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"sha256": "0" * 64}, f"its SHA-256 is {SHA256}, not {'0' * 64}"),
        ({"md5": "0" * 32}, f"its MD5 is {hashlib.md5(CONTENT).hexdigest()}, not {'0' * 32}"),
        ({"size": 7}, f"it has {len(CONTENT):,} bytes, not 7"),
    ],
)
def test_the_wrong_file_is_refused_and_nothing_is_left(
    expected: dict[str, object], message: str, server: FileServer, target: Path
) -> None:
    with pytest.raises(MissingError) as error:
        fetch(server, target, **expected)
    assert error.value.message == f"cannot fetch vox.pth.tar: {server.address}/vox.pth.tar: {message}"
    assert error.value.hint == HINT
    assert error.value.exit_code == 5
    assert list(target.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_what_the_caller_refuses_is_refused(server: FileServer, target: Path) -> None:
    def check(path: Path) -> None:
        raise ModelError(f"{path} is not a model")

    with pytest.raises(MissingError, match="the file is not a model"):
        fetch(server, target, check=check)
    assert list(target.parent.iterdir()) == []


def test_addresses_are_tried_in_order(server: FileServer, target: Path) -> None:
    with serving() as gone:
        gone.status = 404
        urls = [f"{gone.address}/vox", f"{server.address}/vox"]
        assert download(urls, target, Expected(sha256=SHA256), hint=HINT).url == urls[1]
        assert len(gone.requests) == 1


def test_all_failures_are_reported(server: FileServer, target: Path) -> None:
    server.status = 404
    with pytest.raises(MissingError) as error:
        download([f"{server.address}/a", f"{server.address}/b"], target, Expected(), hint=HINT)
    assert error.value.message == (
        f"cannot fetch vox.pth.tar: {server.address}/a: HTTP 404 Not Found; {server.address}/b: HTTP 404 Not Found"
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status: int, server: FileServer, target: Path) -> None:
    server.status, server.failures = status, 2
    fetch(server, target, sha256=SHA256)
    assert len(server.requests) == 3


def test_a_server_that_stays_broken_is_given_up(server: FileServer, target: Path) -> None:
    server.status = 503
    with pytest.raises(MissingError, match="HTTP 503 Service Unavailable"):
        fetch(server, target)
    assert len(server.requests) == module.ATTEMPTS


def test_a_connection_that_always_breaks_at_one_place_is_given_up(server: FileServer, target: Path) -> None:
    server.ranges, server.cut_after = False, 1000
    with pytest.raises(MissingError, match="the connection was cut after 1,000 of 1,024,000 bytes"):
        fetch(server, target)


def test_without_a_server_the_error_says_so(target: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MissingError, match="no connection") as error:
        download([f"http://127.0.0.1:{port}/a"], target, Expected(), hint=HINT)
    assert error.value.hint == HINT


def test_a_server_that_falls_silent_is_given_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(MissingError, match=r"no connection .*timed out"):
            download([url], target, Expected(), hint=HINT)


def test_offline_nothing_is_asked(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOMMCTL_OFFLINE", "1")
    with pytest.raises(MissingError, match="FOMMCTL_OFFLINE"):
        fetch(server, target)
    assert server.requests == []


def test_a_web_page_is_no_model(server: FileServer, target: Path) -> None:
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(MissingError, match="a web page instead"):
        fetch(server, target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "vox.pth.tar", "hf://only/two", "data:,x"])
def test_other_kinds_of_addresses_are_refused(url: str, target: Path) -> None:
    with pytest.raises(UsageError, match="cannot fetch"):
        download([url], target, Expected(), hint=HINT)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_to_other_kinds_of_addresses_are_refused(place: str, server: FileServer, target: Path) -> None:
    server.redirect = place
    with pytest.raises(MissingError, match=r"not allowed|redirects to"):
        fetch(server, target)


def test_a_redirect_is_followed_and_can_be_resumed(server: FileServer, target: Path) -> None:
    server.redirect, server.cut_after, server.cuts = "/redirected", 400_000, 1
    assert fetch(server, target, sha256=SHA256).url == f"{server.address}/vox.pth.tar"
    assert [request.get("Range") for request in server.requests if request["Path"] == "/redirected"] == [
        None,
        "bytes=400000-",
    ]


def test_files_of_the_hugging_face_hub_have_their_own_addresses(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.redirect = "/redirected"
    download(["hf://spaces/someone/app/weights/vox.pth.tar"], target, Expected(sha256=SHA256), hint=HINT)
    first, second = server.requests
    assert first["Path"] == "/spaces/someone/app/resolve/main/weights/vox.pth.tar"
    assert first["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in second
    target.unlink()
    server.redirect = None
    download(["hf://someone/model@v1.2/a/vox.pth.tar"], target, Expected(sha256=SHA256), hint=HINT)
    assert server.requests[-1]["Path"] == "/someone/model/resolve/v1.2/a/vox.pth.tar"


def test_a_folder_that_cannot_be_made_is_an_output_error(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot create the folder"):
        fetch(server, tmp_path / "file" / "vox.pth.tar")


def test_a_disk_without_room_is_reported_before_anything_is_written(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(target.parent.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match="needs 1,024,000 more bytes than the disk has free"):
        fetch(server, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("room", [500_000, 1_023_990], ids=["half of it", "all but the last bytes"])
def test_a_disk_that_fills_up_leaves_nothing(room: int, server: FileServer, target: Path) -> None:
    with files_up_to(room), pytest.raises(OutputError, match=r"the disk is full: .*vox"):
        fetch(server, target)
    assert list(target.parent.iterdir()) == []


@contextlib.contextmanager
def drips(pause: float, byte: bytes = b"x") -> Iterator[str]:
    """Serve a byte now and then, endlessly and without stating a size; yield the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(byte)
                    time.sleep(pause)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/model"
        serving.shutdown()


def test_a_server_of_a_byte_now_and_then_is_given_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the four attempts gets some bytes, which does not count as progress."""
    monkeypatch.setattr("fommctl.download.TIMEOUT", 0.2)
    monkeypatch.setattr("fommctl.download.PAUSE", 0)
    with drips(0.02) as url, pytest.raises(MissingError, match="fewer than 1,000 bytes a second"):
        download([url], target, Expected(), hint="")


def test_a_server_without_an_end_is_given_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fommctl.download.LARGEST", 10**6)
    with drips(0, bytes(2**16)) as url, pytest.raises(MissingError, match="it has more than 1,000,000 bytes"):
        download([url], target, Expected(), hint="")
    assert not list(target.parent.glob("*"))


@pytest.mark.parametrize("etag", ['"a"', ""])
def test_an_interruption_leaves_what_the_next_call_continues_with_and_nothing_else(
    etag: str, server: FileServer, target: Path
) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    server.etag = etag
    with pytest.raises(InterruptedRunError if etag else KeyboardInterrupt) as caught:
        download([f"{server.address}/vox.pth.tar"], target, Expected(), hint=HINT, report=interrupt)
    if etag:
        assert re.search(r"goes on with the [\d,]+ bytes that are here", str(caught.value.hint))
    assert any(target.parent.iterdir()) == bool(etag)
