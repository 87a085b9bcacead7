"""The registry of models, and how they get into FOMMCTL_HOME and out of it."""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from file_server import FileServer, serving
from weights_plugin import spec, write_distribution

from fommctl import download, home
from fommctl.api.weights import weights_file
from fommctl.errors import MissingError, ModelError, OutputError, UsageError
from fommctl.host import Host, load_host
from fommctl.machine import offline
from fommctl.models import registry
from fommctl.models.files import read_metadata
from fommctl.models.loading import import_model, load_model
from fommctl.provenance.hashing import model_identity

Run = Callable[..., Any]
GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
TINY = GOLDEN / "vox-tiny.pth.tar"
TINY_PRESET = str(GOLDEN / "vox-tiny.model_params.yaml")
CONTENT = TINY.read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.delenv("FOMMCTL_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with serving(CONTENT) as state:
        yield state


def host_with(specs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.syspath_prepend(write_distribution(tmp_path / "site", specs))
    return load_host()


@pytest.fixture
def tiny_host(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a model `tiny` on the server."""
    return host_with(spec("tiny", f"{server.address}/files/tiny-cpk.pth.tar"), tmp_path, monkeypatch)


def test_the_published_weights_are_known_with_where_they_come_from(host: Host) -> None:
    known = registry.entries(host)
    assert list(known) == [
        "faces-mini",
        "vox",
        "vox-adv",
        "vox-adv-small",
        "vox-adv-space",
        "taichi",
        "taichi-adv",
        "nemo",
        "mgif",
        "bair",
        "fashion",
        "liveportrait",
        "liveportrait-animals",
    ]
    mirror = "https://github.com/graphemecluster/first-order-model-demo/releases/download/checkpoints/"
    for name, entry in known.items():
        if entry.spec is not None and entry.spec.urls and name not in ("faces-mini", "vox-adv-small", "vox-adv-space"):
            file = "fashion.pth.tar" if name == "fashion" else f"{name}-cpk.pth.tar"
            assert entry.spec.urls == (mirror + file,)
            assert entry.preset == f"{name}-256"
            assert "the terms of the training data apply" in entry.licence
    small = host.models["vox-adv-small"]
    assert small.urls == ("https://openavatarify.s3.amazonaws.com/weights/vox-adv-cpk.pth.tar",)
    assert small.md5 == "8a45a24037871c045fbb8a6a8aa95ebc"
    assert host.models["vox-adv-space"].urls == (
        "hf://spaces/abhishek/first-order-motion-model/weights/vox-adv-cpk.pth.tar",
    )


def test_the_built_in_model_is_here_and_is_the_default(host: Host) -> None:
    entry = registry.default(host)
    assert (entry.name, entry.status) == ("faces-mini", "built-in")
    assert entry.path.stat().st_size < 6_000_000
    assert "impersonating" in entry.path.with_name("card.md").read_text()


def test_two_defaults_are_an_error_only_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_with(spec("other", "https://example.org/a.pth.tar", default=True), tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="several models claim to be the default: faces-mini, other"):
        registry.default(host)
    assert load_model("faces-mini", host).name == "faces-mini"


def test_the_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path))
    assert home.home() == tmp_path
    monkeypatch.setenv("FOMMCTL_HOME", "")
    assert home.home().name == "fommctl"
    assert home.home().is_absolute()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False), ("No", False)])
def test_offline_is_a_switch(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOMMCTL_OFFLINE", value)
    assert offline() is expected


def test_a_pull_brings_the_weights_and_records_their_hash(tiny_host: Host, isolated: Path) -> None:
    assert registry.find("tiny", tiny_host).status == "not pulled"
    entry, fetched = registry.pull("tiny", tiny_host)
    assert (fetched, entry.status) == (True, "available")
    assert entry.path == isolated / "models" / "tiny.pth.tar"
    assert entry.path.read_bytes() == CONTENT
    assert registry.origin("tiny") == {
        "url": tiny_host.models["tiny"].urls[0],
        "sha256": SHA256,
        "size": len(CONTENT),
    }
    assert load_model("tiny", tiny_host, preset=TINY_PRESET).name == "tiny"


def test_a_second_pull_asks_the_server_for_nothing(tiny_host: Host, server: FileServer) -> None:
    registry.pull("tiny", tiny_host)
    server.requests.clear()
    assert registry.pull("tiny", tiny_host)[1] is False
    assert server.requests == []


def test_a_later_pull_must_match_the_recorded_hash(tiny_host: Host, server: FileServer) -> None:
    registry.pull("tiny", tiny_host)
    registry.remove("tiny", tiny_host)
    server.content = (GOLDEN / "mgif-tiny.pth.tar").read_bytes()
    with pytest.raises(MissingError, match=f"its SHA-256 is .*, not {SHA256}") as error:
        registry.pull("tiny", tiny_host)
    assert error.value.hint is not None
    assert f"delete {registry.record_path('tiny')} first" in error.value.hint
    registry.record_path("tiny").unlink()
    assert registry.pull("tiny", tiny_host)[1] is True


def test_the_first_use_is_recorded_late_or_reported(tiny_host: Host, isolated: Path, caplog) -> None:
    """A file without a record is not compared with any later one."""
    registry.pull("tiny", tiny_host)
    record = registry.record_path("tiny")
    record.unlink()
    record.mkdir()
    with pytest.raises(ModelError, match="is damaged"):
        registry.pull("tiny", tiny_host)
    record.rmdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "atomic_write", _full)
        assert registry.pull("tiny", tiny_host)[1] is False
        assert "a later file of tiny cannot be compared with this one" in caplog.text
        registry.remove("tiny", tiny_host)
        with pytest.raises(OutputError, match="the disk is full") as error:
            registry.pull("tiny", tiny_host)
        assert error.value.hint == "The file stays; run 'fommctl models pull tiny' again to record its hash."
    assert registry.pull("tiny", tiny_host)[1] is False
    assert registry.origin("tiny")["sha256"] == SHA256


def test_the_first_use_of_safetensors_is_recorded_late_too(
    server: FileServer, isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = registry.BUILT_IN.path.read_bytes()  # type: ignore[union-attr]
    host = host_with(spec("tiny", f"{server.address}/files/tiny.safetensors"), tmp_path, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "atomic_write", _full)
        with pytest.raises(OutputError, match="the disk is full"):
            registry.pull("tiny", host)
    assert registry.pull("tiny", host)[1] is False
    assert registry.origin("tiny")["sha256"] == hashlib.sha256(server.content).hexdigest()


def _full(target: Path, *, hint: str) -> object:
    raise OutputError(f"the disk is full: {target}", hint)


def test_a_damaged_file_is_fetched_again(tiny_host: Host) -> None:
    entry, _ = registry.pull("tiny", tiny_host)
    entry.path.write_bytes(CONTENT[:1000])
    assert registry.pull("tiny", tiny_host)[1] is True
    assert entry.path.read_bytes() == CONTENT


def test_a_known_hash_is_checked(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_with(spec("tiny", f"{server.address}/a.pth.tar", sha256="0" * 64), tmp_path, monkeypatch)
    with pytest.raises(MissingError, match="its SHA-256 is"):
        registry.pull("tiny", host)
    assert registry.find("tiny", host).status == "not pulled"


def test_files_that_are_not_models_are_not_recorded(tiny_host: Host, server: FileServer) -> None:
    server.content = b"Quota exceeded"
    with pytest.raises(MissingError, match="the file is not a model"):
        registry.pull("tiny", tiny_host)
    assert registry.origin("tiny") == {}


def test_a_failed_pull_says_what_to_fetch_and_where_to_put_it(
    tiny_host: Host, server: FileServer, isolated: Path
) -> None:
    server.status = 404
    with pytest.raises(MissingError) as error:
        registry.pull("tiny", tiny_host)
    url = tiny_host.models["tiny"].urls[0]
    assert error.value.hint == (
        f"Fetch {url} by other means and put it at {isolated / 'models' / 'tiny.pth.tar'}, "
        "or run 'fommctl models import FILE --name tiny'."
    )
    (isolated / "models" / "tiny.pth.tar").write_bytes(CONTENT)
    assert registry.find("tiny", tiny_host).status == "available"


def test_an_import_under_a_registered_name_stands_for_the_pull(tiny_host: Host, server: FileServer) -> None:
    import_model(TINY, tiny_host, name="tiny", preset=TINY_PRESET)
    entry = registry.find("tiny", tiny_host)
    assert (entry.status, entry.path.name, entry.licence) == ("available", "tiny.safetensors", "MIT")
    assert registry.pull("tiny", tiny_host)[1] is False
    assert server.requests == []


def test_an_import_keeps_what_is_known(host: Host, isolated: Path) -> None:
    import_model(TINY, host, name="mine", preset=TINY_PRESET, licence="CC0", summary="tiny", half=True)
    path = isolated / "models" / "mine.safetensors"
    metadata = read_metadata(path)
    assert (metadata["backend"], metadata["licence"], metadata["summary"]) == ("fomm", "CC0", "tiny")
    assert json.loads(metadata["training"]) == {"epoch": 3}
    assert metadata["imported_from"] == f"vox-tiny.pth.tar, SHA-256 {SHA256}"
    assert load_model("mine", host).preset.frame_shape == (64, 64, 3)
    assert path.stat().st_size < 0.6 * sum(
        4 * tensor.numel()
        for n in load_model("mine", host).backend.modules().values()
        for tensor in n.state_dict().values()
    )


def test_an_import_takes_the_name_of_its_file(host: Host) -> None:
    assert import_model(TINY, host).name == "vox-tiny"


def test_a_taken_name_is_refused_without_overwrite(host: Host, isolated: Path) -> None:
    import_model(TINY, host, name="mine", preset=TINY_PRESET)
    before = (isolated / "models" / "mine.safetensors").read_bytes()
    with pytest.raises(UsageError, match="there is a model mine already"):
        import_model(TINY, host, name="mine", half=True)
    assert (isolated / "models" / "mine.safetensors").read_bytes() == before
    import_model(TINY, host, name="mine", preset=TINY_PRESET, half=True, overwrite=True)
    assert (isolated / "models" / "mine.safetensors").stat().st_size < len(before)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a b", "x" * 200, "a.safetensors"])
def test_names_that_are_no_file_names_are_refused(name: str, host: Host) -> None:
    with pytest.raises(UsageError):
        import_model(TINY, host, name=name or "-")


def test_the_built_in_model_can_be_neither_replaced_nor_removed(host: Host) -> None:
    with pytest.raises(UsageError, match="faces-mini is a built-in model"):
        import_model(TINY, host, name="faces-mini", overwrite=True)
    with pytest.raises(UsageError, match="cannot be removed"):
        registry.remove("faces-mini", host)
    assert registry.default(host).path.exists()


def test_a_file_that_does_not_fit_is_not_imported(host: Host, isolated: Path) -> None:
    with pytest.raises(ModelError):
        import_model(TINY, host, name="mine", preset="vox")
    assert list(isolated.rglob("*.safetensors*")) == []


def test_removed_models_are_gone(tiny_host: Host) -> None:
    entry, _ = registry.pull("tiny", tiny_host)
    assert registry.remove("tiny", tiny_host) == entry.path
    assert not entry.path.exists()
    with pytest.raises(UsageError, match="tiny is not on this machine; nothing to remove"):
        registry.remove("tiny", tiny_host)
    import_model(TINY, tiny_host, name="mine")
    registry.remove("mine", tiny_host)
    with pytest.raises(UsageError, match="unknown model 'mine'"):
        registry.remove("mine", tiny_host)


def test_the_error_names_the_kind_of_a_file_that_is_not_a_model(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ModelError, match="is a pipe or a device"):
        registry.find(str(tmp_path / "pipe.pth"), host)
    with pytest.raises(UsageError, match="is a folder, not the name of a model"):
        registry.find(str(tmp_path), host)
    with pytest.raises(ModelError, match="there is no model file"):
        registry.find(str(tmp_path / "missing.pth"), host)


def test_a_file_is_not_taken_for_a_name(host: Host) -> None:
    with pytest.raises(UsageError, match="is a file, not the name of a model") as caught:
        registry.find(str(TINY), host)
    assert "models import" in str(caught.value.hint)


def test_a_damaged_imported_file_does_not_break_the_list(host: Host, isolated: Path) -> None:
    (isolated / "models").mkdir()
    (isolated / "models" / "bad.safetensors").write_bytes(b"nothing")
    entry = registry.find("bad", host)
    assert entry.summary.startswith("damaged: ")
    with pytest.raises(ModelError):
        load_model("bad", host)
    registry.remove("bad", host)


def test_a_user_without_a_home_has_the_built_in_model_and_gets_errors_for_the_rest(
    tiny_host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "FOMMCTL_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert load_model(None, tiny_host).name == "faces-mini"
    with pytest.raises(OutputError, match="cannot create the folder") as error:
        registry.pull("tiny", tiny_host)
    assert error.value.hint == "Set FOMMCTL_HOME to a folder that you can write to."
    assert list(tmp_path.glob("~*")) == []
    monkeypatch.setenv("FOMMCTL_HOME", "~nosuchuser/models")
    with pytest.raises(UsageError, match="FOMMCTL_HOME is ~nosuchuser/models: there is no such user"):
        registry.pull("tiny", tiny_host)


def test_a_damaged_record_is_reported(tiny_host: Host) -> None:
    registry.record_path("tiny").parent.mkdir()
    registry.record_path("tiny").write_text("{")
    with pytest.raises(ModelError, match=r"tiny\.origin\.json is damaged"):
        registry.pull("tiny", tiny_host)


def test_a_model_that_another_process_works_on_is_waited_for_and_then_an_error_names_that_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(home, "_SILENT_S", 0.01)
    monkeypatch.setattr(home, "_PATIENCE_S", 0.01)
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with (
        home.model_lock("tiny"),
        pytest.raises(UsageError, match=f"{holder} is still working on the model tiny"),
        home.model_lock("tiny"),
    ):
        pass
    assert caplog.messages == [f"waiting for {holder}, which is working on the model tiny"]
    with home.model_lock("tiny"):
        pass


@pytest.fixture
def parts(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a model of two files with a network each: one names its network, the other has only tensors."""
    content = torch.load(TINY, weights_only=True)
    for path, saved in (
        ("a/kp_detector.pth", content["kp_detector"]),
        ("generator.pth", {"generator": content["generator"]}),
    ):
        torch.save(saved, tmp_path / "saved.pth")
        server.contents[f"/someone/two/resolve/v2/{path}"] = (tmp_path / "saved.pth").read_bytes()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    files = "(ModelFile(name='a/kp_detector.pth', licence='CC0'), ModelFile(name='generator.pth'))"
    specs = (
        "ModelSpec(name='two', summary='test', preset='smoke', licence='MIT', repository='hf://someone/two@v2', "
        f"files={files})"
    )
    return host_with(specs, tmp_path, monkeypatch)


def test_a_model_of_several_files_is_a_folder(parts: Host, server: FileServer, tmp_path: Path, run_cli: Run) -> None:
    (row,) = run_cli("models", "pull", "two", "--json").json()["models"]
    assert (row["fetched"], row["status"], Path(row["path"])) == (True, "available", home.models_folder() / "two")
    assert run_cli("models", "pull", "two", "--json").json()["models"][0]["fetched"] is False
    shown = run_cli("models", "show", "two", "--json").json()
    assert [(each["name"], each["licence"], each["there"]) for each in shown["files"]] == [
        ("a/kp_detector.pth", "CC0", True),
        ("generator.pth", "MIT", True),
    ]
    assert shown["size"] == sum(each["size"] for each in shown["files"])
    model = load_model("two", parts, preset=TINY_PRESET)
    assert model.groups == ("generator", "kp_detector")
    single = load_model(str(TINY), parts, preset=TINY_PRESET)
    for group in model.groups:
        for name, tensor in single.backend.modules()[group].state_dict().items():
            assert torch.equal(model.backend.modules()[group].state_dict()[name], tensor)
    identity = model_identity(model)
    assert identity["sha256"] == shown["sha256"] == registry.origin("two")["sha256"]
    generator = Path(row["path"]) / "generator.pth"
    generator.write_bytes(generator.read_bytes()[:-1])
    assert run_cli("models", "pull", "two", "--json").json()["models"][0]["fetched"] is True
    imported = import_model(Path(row["path"]), parts, name="joined", preset=TINY_PRESET)
    assert imported.groups == model.groups
    registry.remove("two", parts)
    assert registry.find("two", parts).status == "not pulled"


def test_weights_beside_a_model_are_fetched_once(server: FileServer, isolated: Path) -> None:
    address = f"{server.address}/files/sight.pth"
    path = weights_file("sight.pth", [address], sha256=SHA256)
    assert (path, path.read_bytes()) == (isolated / "weights" / "sight.pth", CONTENT)
    assert weights_file("sight.pth", [address]) == path
    assert len(server.requests) == 1
    with pytest.raises(MissingError, match="cannot fetch other"):
        weights_file("other.pth", [address], sha256="0" * 64, instead="leave it out")
