"""YAML is read within bounds, by YAML 1.2's scalars, and with the line of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.yamlscan import LARGEST_FILE_BYTES, Document, read_plain, scan


def data_of(text: str) -> Any:
    documents, problems = scan(text, "a.yaml")
    assert problems == []
    return [document.data for document in documents]


def documents_of(text: str) -> list[Document]:
    documents, problems = scan(text, "a.yaml")
    assert problems == []
    return documents


def problems_of(text: str) -> list[str]:
    return [str(problem) for problem in scan(text, "a.yaml")[1]]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nil", "nil"),
        ("3", 3),
        ("-3", -3),
        ("0", 0),
        ("0644", 420),  # octal, as Kubernetes reads it
        ("0o644", 420),
        ("0o9", "0o9"),
        ("089", 89.0),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("22:22", "22:22"),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e400", "1e400"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("-.INF", "-.INF"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 5000, "9" * 5000),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("+", "+"),
        (".", "."),
    ],
)
def test_unquoted_scalars_are_yaml_1_2_with_kubernetes_octals(written: str, value: object) -> None:
    read = read_plain(written)
    assert (type(read), read) == (type(value), value)


def test_quoted_scalars_are_texts() -> None:
    assert data_of("""["3", 'true', "null", "0644"]""") == [["3", "true", "null", "0644"]]


def test_documents_are_told_apart_and_empty_ones_left_out() -> None:
    assert data_of("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]


def test_json_is_yaml() -> None:
    assert data_of('{"a": [1, {"b": null}], "c": "\\u00e9😀"}') == [{"a": [1, {"b": None}], "c": "é😀"}]


def test_anchors_and_one_merge_are_filled_in() -> None:
    text = "base: &base {image: a, tag: 1}\nuse:\n  <<: *base\n  tag: 2\nlist: [*base]\n"
    assert data_of(text) == [
        {"base": {"image": "a", "tag": 1}, "use": {"tag": 2, "image": "a"}, "list": [{"image": "a", "tag": 1}]}
    ]


def test_what_is_written_beside_a_merge_wins_wherever_it_stands() -> None:
    assert data_of("a: &a {x: 1}\nb: {x: 2, <<: *a}\nc: {<<: *a, x: 3}\n")[0]["b"] == {"x": 2}


def test_of_several_merged_mappings_the_first_that_has_a_field_gives_it() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd: {<<: []}\n"
    assert data_of(text)[0]["c"] == {"x": 3, "y": 1, "z": 2}
    assert data_of(text)[0]["d"] == {}


def test_a_quoted_merge_sign_is_a_key() -> None:
    assert data_of('{"<<": 1}') == [{"<<": 1}]


def test_keys_are_texts_as_written() -> None:
    assert data_of("1: a\ntrue: b\n0644: c\n") == [{"1": "a", "true": "b", "0644": "c"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: 'a' is there twice: first on line 1"),
        ("a:\n  - x: 1\n    x: 2\n", "a.yaml:3: 'x' is there twice: first on line 2"),
        ("a: [1\nb: 2", "a.yaml:2: not YAML: did not find expected ',' or ']', while parsing a flow sequence"),
        ("a:\n\t- b", "a.yaml:2: not YAML: a tab where only blanks may be"),
        ("a: @b", "a.yaml:1: not YAML: a text that begins with @ needs quotes"),
        ("ä: ö\nb: %c", "a.yaml:2: not YAML: a text that begins with % needs quotes"),
        ("\ufeffa: ö\r\nb: `c", "a.yaml:2: not YAML: a text that begins with ` needs quotes"),
        ("a: \x07", "a.yaml:1: not YAML: control characters are not allowed"),
        ('a: "\\0"', "a.yaml:1: holds a NUL character"),
        ("a: \ud800", "a.yaml: not YAML: it holds half of a surrogate pair"),
        ("a: !!python/object/apply:os.system [id]", "a.yaml:1: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed"),
        ("a: !vault |\n  abc", "a.yaml:1: tag '!vault' is not allowed"),
        ("a: !!binary aGk=", "a.yaml:1: tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("a: !!int x", "a.yaml:1: 'x' is not what its tag !!int says"),
        ("? [a]\n: b", "a.yaml:1: a key must be a text"),
        (
            "a: 1\nb: {{ .Values.b }}",
            "a.yaml:2: a key must be a text: {{ … }} is for a template engine, whose output can be applied (helm template …)",
        ),
        (
            "{{- if .Values.a }}\na: 1\n{{- end }}",
            "a.yaml:1: a key must be a text: {{ … }} is for a template engine, whose output can be applied (helm template …)",
        ),
        (
            "a: {{ x | default 3 }} b",
            "a.yaml:1: a key must be a text: {{ … }} is for a template engine, whose output can be applied (helm template …)",
        ),
        ("a: *nowhere", "a.yaml:1: alias *nowhere stands for nothing above"),
        ("a: &a [*a]", "a.yaml:1: alias *a is inside of what it stands for"),
        ("a: &a {}\nb:\n  <<: *a\n  <<: *a", "a.yaml:4: '<<' is there twice: one with a list, '<<: [*a, *b]', takes several mappings"),
        ("<<: 3", "a.yaml:1: '<<' takes a mapping or a list of mappings"),
        ("a: &a {}\nb: {<<: [*a, 3]}", "a.yaml:2: '<<' takes a mapping or a list of mappings"),
        ("[" * 65, "a.yaml:1: is nested more than 64 levels deep"),
        ("[" * 1_000_000, "a.yaml:1: is nested more than 64 levels deep"),
        ("{a: " * 100_000, "a.yaml:1: is nested more than 64 levels deep"),
        ("- " * 100_000 + "a", "a.yaml:1: is nested more than 64 levels deep"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_bad_yaml_is_told_with_its_line(text: str, message: str) -> None:
    assert problems_of(text) == [message]


def test_core_tags_are_read() -> None:
    assert data_of("[!!str 3, !!int 3, !!float 1, !!null x, ! 5]".replace("!!null x", "!!null ''")) == [
        ["3", 3, 1, None, "5"]
    ]


def test_64_levels_are_read() -> None:
    assert problems_of("[" * 64 + "]" * 64) == []


def test_depth_counts_what_aliases_stand_for() -> None:
    deep = "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40
    assert problems_of(deep) == ["a.yaml:2: is nested more than 64 levels deep once its aliases are filled in"]


def test_an_alias_bomb_is_refused_by_the_number_of_values_it_stands_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (problem,) = problems_of("\n".join(lines))
    assert problem.startswith("a.yaml:5: the document holds more than 10,000 values or 3 MiB (aliases counted")


LONG = "x" * 100_000


@pytest.mark.parametrize("big", [f"big: &big {LONG}", f"big: &big\n  ? {LONG}\n  : v"], ids=["text", "key"])
def test_many_aliases_of_one_long_text_are_refused(big: str) -> None:
    """Few values, but gigabytes once they are written out."""
    (problem,) = problems_of(big + "\nlist:\n" + "- *big\n" * 9_000)
    assert "the document holds more than 10,000 values or 3 MiB" in problem


def test_a_merge_bomb_is_refused() -> None:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    (problem,) = problems_of("\n".join(lines))
    assert "more than 10,000 values" in problem


def test_a_chain_of_merges_counts_each_time() -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: v" for n in range(1000)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 20)]
    (problem,) = problems_of("\n".join(lines))
    assert "more than 10,000 values" in problem


def test_10000_values_are_read_and_one_more_is_not() -> None:
    assert problems_of("\n".join(["- x"] * 9_999)) == []
    assert len(problems_of("\n".join(["- x"] * 10_000))) == 1


def test_the_bound_is_for_each_document() -> None:
    assert problems_of("\n---\n".join(["\n".join(["- x"] * 6_000)] * 3)) == []


@pytest.mark.parametrize("text", ["#" * (LARGEST_FILE_BYTES + 1), "#" + "é" * (LARGEST_FILE_BYTES // 2)])
def test_a_file_over_3_mib_is_not_read(text: str) -> None:
    assert problems_of(text) == ["a.yaml: is larger than 3 MiB, the most that is read"]


def test_documents_before_a_broken_one_are_read() -> None:
    documents, problems = scan("a: 1\n---\nb: [", "a.yaml")
    assert [document.data for document in documents] == [{"a": 1}]
    assert len(problems) == 1


def test_every_key_and_item_has_its_line() -> None:
    (document,) = scan("# comment\na:\n  b:\n    - c: 1\n\n    - d: 2\n", "a.yaml")[0]
    assert document.line_of(("a",)) == 2
    assert document.line_of(("a", "b", 1, "d")) == 6
    assert document.line_of(("a", "b", 1, "missing")) == 6
    assert document.line_of(("a", "b", 7)) == 3


def test_lines_stay_right_when_items_are_removed() -> None:
    (document,) = scan("a:\n- x: 1\n- y: 2\n", "a.yaml")[0]
    document.remove(document.data["a"], 0)
    assert document.line_of(("a", 0)) == 3
    assert document.line_of(("a", 0, "y")) == 3


def test_eleven_bombs_are_refused_within_bounds_of_processor_and_memory() -> None:
    """In a child with limits of its own: a defect here would take the machine with it."""
    program = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from controller.model.yamlscan import scan
merge = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{<<: *a{n-1}, k{n}: *a{n-1}}}" for n in range(1, 40)]
bombs = ["[" * 3_000_000, "{a: " * 700_000, "- " * 1_500_000, "&a " * 1_000_000, "? " * 1_500_000, "\\n".join(merge),
         "a: '" + "x" * 3_000_000, "[" + "x," * 1_500_000, "{" + "x," * 1_500_000, "!" * 3_000_000, "%" * 3_000_000]
for bomb in bombs:
    assert scan(bomb, "x")[1], bomb[:40]
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert child.returncode == 0, child.stderr[-2000:]


json_values = st.recursive(
    # YAML has no escapes in surrogate pairs, which json.dumps writes beyond 0xFFFF.
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc é<", max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(json_values.filter(lambda value: value is not None))
def test_json_data_reads_back_as_it_is(value: Any) -> None:
    text = json.dumps(value)
    if "\\u0000" not in text:
        assert data_of(text) == [value]


@given(st.text("-:[]{}&*!|>'\"%@`#,? \n\tab01~<\\", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    scan(text, "a.yaml")


# --- JSON that is no YAML ------------------------------------------------------------------------------------------


def test_json_may_hold_characters_as_surrogate_pairs() -> None:
    (document,) = documents_of(r'{"a": "\ud83d\ude00 \\ud83d\\ude00 é",' + "\n" + r'"b": "\uD83D\uDE00"}')
    assert document.data == {"a": "\U0001f600 \\ud83d\\ude00 é", "b": "\U0001f600"}
    assert document.line_of(("b",)) == 2


@pytest.mark.parametrize("text", [r'{"a": "\ud83d"}', r'{"a": "\ude00\ud83d"}', r'a: "\ud83d\ude00"'])
def test_half_a_surrogate_pair_is_an_error_and_in_yaml_a_whole_one_too(text: str) -> None:
    (problem,) = scan(text, "a.yaml")[1]
    assert "invalid Unicode character escape code" in problem.message


def test_json_objects_one_after_another_are_documents() -> None:
    """As `jq '.items[]'` writes them."""
    first, second, third = documents_of('{\n  "a": "}"\n}\n{\n  "b": [{},\n{}]\n}\n\n  {"c": "\\ud83d\\ude00"}\n')
    assert (first.data, second.data, third.data) == ({"a": "}"}, {"b": [{}, {}]}, {"c": "\U0001f600"})
    assert (first.line, second.line, third.line) == (1, 4, 9)


def test_an_escaped_apostrophe_is_read_in_double_quotes_and_only_there() -> None:
    r"""kubectl's YAML takes \' there; libyaml does not."""
    text = r"""a: "it\'s \"é\" \\'"
b: |
  it\'s
c: it\'s
d: "\'"
"""
    assert data_of(text) == [{"a": "it's \"é\" \\'", "b": "it\\'s\n", "c": "it\\'s", "d": "'"}]


def test_other_unknown_escapes_are_refused_with_their_line() -> None:
    documents, problems = scan('a: "\\\'"\nb: "\\q"\n', "a.yaml")
    assert documents == []
    assert [str(problem) for problem in problems] == [
        "a.yaml:2: not YAML: found unknown escape character, while parsing a quoted scalar"
    ]


def test_flow_yaml_is_not_taken_for_json() -> None:
    (document,) = documents_of("{a: '\\ud83d\\ude00', b: \"}\n{\"}")
    assert document.data == {"a": "\\ud83d\\ude00", "b": "} {"}
