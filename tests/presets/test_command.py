"""`fommctl presets`, with the presets of this installation and of a third-party plugin."""

from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
import yaml

from fommctl.presets.preset import presets_root

Run = Callable[..., command_line.Result]


@pytest.fixture
def acme(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a distribution whose plugin offers one preset (`acme.yaml`) of this name; it
    returns the folder."""

    def write(name: str) -> Path:
        info = tmp_path / "acme_presets-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-presets\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[fommctl]\nacme = acme_presets\n")
        (tmp_path / "acme_presets.py").write_text(
            "from pathlib import Path\n"
            "from fommctl.api import PresetSpec, hookimpl\n"
            "@hookimpl\n"
            "def fommctl_presets():\n"
            "    path = Path(__file__).with_name('acme.yaml')\n"
            f"    yield PresetSpec(name={name!r}, summary='', path=path, aliases=('rockets',))\n"
        )
        smoke = (presets_root() / "smoke.yaml").read_text()
        (tmp_path / "acme.yaml").write_text(smoke.replace("Tiny 64-pixel model for tests", "Rockets"))
        return tmp_path

    return write


def test_list_names_every_file_of_the_folder_with_a_summary(run_cli: Run) -> None:
    result = run_cli("presets", "list", "--json")
    rows = {row["name"]: row for row in result.json()["presets"]}
    assert result.code == 0
    assert set(rows) == {path.stem for path in presets_root().glob("*.yaml")}
    assert rows["vox-256"]["aliases"] == ["vox"]
    assert rows["smoke"]["aliases"] == []
    assert all(row["summary"] for row in rows.values())
    shown = run_cli("presets", "list").stdout
    assert all(name in shown for name in rows)


def test_show_prints_a_configuration_that_loads_again(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("presets", "show", "vox", "--set", "train_params.batch_size=8")
    assert result.code == 0
    assert yaml.safe_load(result.stdout)["train_params"]["batch_size"] == 8
    (tmp_path / "mine.yaml").write_text(result.stdout)
    assert run_cli("presets", "show", tmp_path / "mine.yaml").stdout == result.stdout
    data = run_cli("presets", "show", tmp_path / "mine.yaml", "--json").json()
    assert data == {"path": str(tmp_path / "mine.yaml"), "preset": yaml.safe_load(result.stdout)}


def test_presets_of_a_plugin_stand_beside_ours(run_beside: Run, acme: Callable[[str], Path]) -> None:
    folder = acme("acme-64")
    listed = run_beside("presets", "list", "--json", path=folder).json()["presets"]
    assert {
        "name": "acme-64",
        "aliases": ["rockets"],
        "summary": "Rockets",
        "path": str(folder / "acme.yaml"),
    } in listed
    shown = run_beside("presets", "show", "rockets", path=folder)
    assert yaml.safe_load(shown.stdout)["name"] == "acme-64"
    (folder / "acme.yaml").write_text("a: [")
    broken = run_beside("presets", "list", "--json", path=folder)
    assert broken.code == 0
    row = next(row for row in broken.json()["presets"] if row["name"] == "acme-64")
    assert row["summary"].startswith("unusable: ")


def test_a_plugin_cannot_replace_a_shipped_preset(run_beside: Run, acme: Callable[[str], Path]) -> None:
    result = run_beside("presets", "show", "vox", path=acme("vox"))
    assert result.code == 2
    assert "a plugin's preset has the name of the shipped preset 'vox'" in result.stderr
