"""Configurations as data: harmless YAML, its line numbers, `--set`, and the precedence of layers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.errors import UsageError
from fommctl.presets.config import (
    Layer,
    dump_yaml,
    merge,
    nearest,
    origin,
    parse_sets,
    parse_yaml,
)

names = st.text("abcdefghij_", min_size=1, max_size=6)
# YAML text can contain every character except control characters and lone surrogates.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
numbers_as_text = st.sampled_from(
    ["1e-4", "2E3", ".5e+1", "0x1F", "1_000", "1:30", "yes", "null", "~", "2020-01-01", "=", "<<"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | numbers_as_text
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(names, values, min_size=1, max_size=4)


@given(documents)
def test_what_is_dumped_reads_back_equal(data: dict[str, object]) -> None:
    assert parse_yaml(dump_yaml(data), "dump").data == data


@given(documents, documents, documents)
def test_merging_is_associative_and_an_empty_layer_changes_nothing(a: dict, b: dict, c: dict) -> None:
    one, two, three = Layer(a), Layer(b), Layer(c)
    assert merge([Layer(merge([one, two])), three]) == merge([one, Layer(merge([two, three]))])
    assert merge([one, Layer()]) == merge([Layer(), one]) == a


def test_later_layers_win_key_by_key_and_lists_are_replaced() -> None:
    below = parse_yaml("a: {x: 1, y: 2}\nb: [1, 2, 3]\n", "below.yaml")
    above = parse_yaml("# comment\na:\n  y: 3\nb: [4]\n", "above.yaml")
    layers = [below, above, *parse_sets(["a.z=5"])]
    assert merge(layers) == {"a": {"x": 1, "y": 3, "z": 5}, "b": [4]}
    assert origin(layers, ("a", "x")) == "below.yaml:1"
    assert origin(layers, ("a", "y")) == "above.yaml:3"
    assert origin(layers, ("b", 0)) == "above.yaml:4"
    assert origin(layers, ("a", "z")) == "--set a.z=5"
    assert below.data == {"a": {"x": 1, "y": 2}, "b": [1, 2, 3]}


def test_sets_are_parsed_as_yaml_and_the_last_one_wins() -> None:
    layers = parse_sets(["a.b=1e-4", "a.c=[1, 0.5]", "a.d=true", "a.e=x=y", "a.f=", "a.b=2", "g={h: '1'}"])
    assert merge(layers) == {"a": {"b": 2, "c": [1, 0.5], "d": True, "e": "x=y", "f": None}, "g": {"h": "1"}}
    assert parse_sets([]) == []


@pytest.mark.parametrize("text", ["a.b", "=1", "a..b=1", ".=1", "a=[1", "a=!!python/name:os.system", "a=b: c: d"])
def test_a_set_that_is_none_is_refused_and_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_sets([text])
    assert f"--set {text}" in caught.value.message


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("2.0e-4", 2e-4), ("-1E5", -1e5), (".5e1", 5.0), ("'1e-4'", "1e-4"), ("2020-01-01", "2020-01-01")],
)
def test_numbers_in_scientific_notation_are_numbers_unless_quoted(written: str, value: object) -> None:
    found = parse_yaml(f"key: {written}", "a").data["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!binary", "!!set", "!!omap", "!own"])
def test_tags_beyond_plain_data_are_refused(tag: str) -> None:
    for value in ("x", "[x]", "{x: y}"):
        with pytest.raises(UsageError, match="not allowed"):
            parse_yaml(f"a: {tag} {value}", "tags")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join(['*a' + str(level - 1)] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- 1\n- 2\n", "found a list"),
        ("just text", "found the text 'just text'"),
        ("a: [1", "hostile:1: not valid YAML"),
        ("a: 1\n\tb: 2\n", "hostile:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "hostile:3: duplicate key 'a'"),
        ("1: 2\n[a]: 3\n", "2 problems"),
        ("<<: {a: 1}\n", "keys must be plain text"),
        ("a: \x00", "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: !!int ten", "cannot be read as int"),
        ("a: " + "9" * 5000, "cannot be read as int"),
        ("a: *nowhere", "not valid YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply|more than"),
        (BOMB, "more than"),
        (b"a: \xff\xfe\xfa", "not valid YAML"),
    ],
)
def test_hostile_and_broken_files_are_one_clear_error(content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_yaml(content, "hostile")
    assert caught.value.hint
    assert len(caught.value.message) < 300


def test_nearest_is_near_and_blind_to_case() -> None:
    assert nearest("voxx", ["vox", "taichi"]) == "vox"
    assert nearest("Num_KP", ["num_kp", "pad"]) == "num_kp"
    assert nearest("zebra", ["vox", "taichi"]) is None
