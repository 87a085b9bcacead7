"""Nothing that tells who or where the user is."""

from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.privacy import Veil

VEIL = Veil(homes=("/data/home/ada", "/home/ada"), names=("ada", "engine-7"))


def test_what_is_hidden():
    hidden = {
        "/home/ada/.cache/x": "~/.cache/x",
        "/data/home/ada": "~",
        "/home/adam/x": "/home/adam/x",
        "/scratch/ada/run, by ada@engine-7": "/scratch/NAME/run, by NAME@NAME",
        "a ladder, adapted": "a ladder, adapted",
        "https://ada:secret@example.org/x": "https://example.org/x",
        "token hf_AbCdEfGhIjKlMnOpQrStUv": "token hf_...",
    }
    assert {text: VEIL.text(text) for text in hidden} == hidden


def test_findings_and_data():
    finding = Finding(area="disk", name="home", value="/home/ada is full", level="note", advice="rm /home/ada/x")
    assert VEIL.finding(finding) == Finding(area="disk", name="home", value="~ is full", level="note", advice="rm ~/x")
    assert VEIL.data({"a": ["/home/ada", 3, None, {"b": "ada"}]}) == {"a": ["~", 3, None, {"b": "NAME"}]}


def test_of_this_user(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/else")
    monkeypatch.setenv("LOGNAME", "grace")
    veil = Veil.of_this_user()
    assert veil.text("/somewhere/else/models of grace") == "~/models of NAME"


def test_a_home_that_is_the_root_hides_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert Veil.of_this_user().text("/usr/lib") == "/usr/lib"
