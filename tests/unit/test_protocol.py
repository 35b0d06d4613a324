"""The wire: frames and codec. Whatever bytes come, the answer is a message or ProtocolError; what was sent comes back as it was."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent import protocol
from nodeagent.protocol import (
    FRAME_BYTES_MAX,
    JSON,
    STDERR,
    STDIN,
    STDOUT,
    Cursor,
    Epoch,
    FrameReader,
    NodeConfig,
    Owner,
    ProtocolError,
    Report,
    WantedSet,
    data_frame,
    decode,
    encode,
    frame,
    parse_json,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(st.text(max_size=8), json_values, max_size=4)


# ---- frames -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(messages, max_size=4), st.data())
def test_frames_come_back_however_the_stream_is_cut(sent: list[dict[str, Any]], data: st.DataObject) -> None:
    stream = b"".join(frame(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader()
    received = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)]):  # noqa: B905 - Python 3.9 has no strict=
        received += reader.feed(stream[begin:end])
    assert received == [(JSON, message) for message in sent]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([STDIN, STDOUT, STDERR]), st.binary(max_size=200))
def test_bytes_of_streams_pass_as_they_are(kind: int, payload: bytes) -> None:
    assert FrameReader().feed(data_frame(kind, payload)) == [(kind, payload)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_whatever_bytes_come_the_answer_is_frames_or_a_protocol_error(pieces: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for piece in pieces:
            for kind, message in reader.feed(piece):
                assert isinstance(message, dict if kind == JSON else bytes)
    except ProtocolError:
        pass


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100))
def test_whatever_a_json_frame_holds_the_answer_is_an_object_or_a_protocol_error(payload: bytes) -> None:
    try:
        ((kind, message),) = FrameReader().feed(data_frame(JSON, payload))
    except ProtocolError:
        return
    assert (kind, message) == (JSON, json.loads(payload))


def test_a_frame_that_is_announced_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="announced"):
        FrameReader().feed(struct.pack(">IB", FRAME_BYTES_MAX + 1, JSON))


def test_a_message_too_large_to_be_read_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        frame({"a": "x" * FRAME_BYTES_MAX})


def test_an_unknown_kind_of_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown kind 4"):
        FrameReader().feed(struct.pack(">IB", 0, 4))


def test_half_a_frame_is_waited_for() -> None:
    sent = frame({"id": 1})
    reader = FrameReader()
    assert reader.feed(sent[:-1]) == []
    assert reader.feed(sent[-1:]) == [(JSON, {"id": 1})]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b'{"a": NaN}',
        rb'{"a": "\ud800"}',
        rb'{"\uDFFF": 1}',
        rb'{"a": ["\uDe00\ud83d"]}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1',
        b"\xff\xfe{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=[
        "nothing",
        "null",
        "list",
        "text",
        "NaN",
        "half a character",
        "half in a key",
        "two wrong halves",
        "infinity",
        "a number beyond all floats",
        "cut",
        "not UTF-8",
        "deep",
    ],
)
def test_what_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_json(payload)


@pytest.mark.parametrize("text", ["\U0001f600", "\\ud800", "\\", "é"])
def test_whole_characters_come_through_however_they_are_written(text: str) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps({"a": text}, ensure_ascii=ascii_only).encode()) == {"a": text}


# ---- codec --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    count: int = 0


@dataclass(frozen=True)
class Sample:
    name: str
    ratio: float = 1.0
    is_on: bool = False
    inner: Inner = Inner()
    maybe: Optional[Inner] = None  # noqa: UP045  # as the messages are written, for Python 3.9
    many: tuple[Inner, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)


inners = st.builds(Inner, st.integers(-(2**63), 2**63 - 1))
samples = st.builds(
    Sample,
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    inners,
    st.none() | inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(samples, st.booleans())
def test_what_is_encoded_can_be_decoded(sample: Sample, strict: bool) -> None:
    over_the_wire = json.loads(json.dumps(encode(sample)))
    assert decode(Sample, over_the_wire, strict=strict) == sample


def test_fields_that_hold_their_default_are_not_sent() -> None:
    """A peer that does not know them can read the rest."""
    assert encode(Sample("web")) == {"name": "web"}
    assert encode(Sample("web", many=(Inner(), Inner(3)))) == {"name": "web", "many": [{}, {"count": 3}]}


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_whatever_values_come_the_answer_is_a_message_or_a_protocol_error(data: Any) -> None:
    for cls in (Sample, Report, WantedSet):
        try:
            assert isinstance(decode(cls, data, strict=True), cls)
        except ProtocolError:
            pass


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "Sample: an object is expected"),
        ({}, "Sample: field 'name' is missing"),
        ({"name": 1}, "Sample.name: str is expected"),
        ({"name": None}, "Sample.name: str is expected"),
        ({"name": "a", "ratio": "1"}, "Sample.ratio: float is expected"),
        ({"name": "a", "is_on": 1}, "Sample.is_on: bool is expected"),
        ({"name": "a", "inner": {"count": True}}, "Sample.inner.count: int is expected"),
        ({"name": "a", "inner": {"count": 1.0}}, "Sample.inner.count: int is expected"),
        ({"name": "a", "inner": {"count": 2**63}}, "Sample.inner.count: number out of range"),
        ({"name": "a", "inner": None}, "Sample.inner: an object is expected"),
        ({"name": "a", "many": {}}, "Sample.many: a list is expected"),
        ({"name": "a", "many": [{}, 1]}, "Sample.many: an object is expected"),
        ({"name": "a", "by_name": []}, "Sample.by_name: an object is expected"),
    ],
)
def test_a_wrong_value_is_told_with_the_path_of_its_field(data: Any, problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(Sample, data, strict=False)
    assert str(caught.value) == problem


def test_a_whole_number_serves_as_a_float() -> None:
    assert decode(Sample, {"name": "a", "ratio": 2}, strict=True).ratio == 2.0


def test_an_unknown_field_is_ignored_in_a_report_and_refused_in_a_wanted_set() -> None:
    """An agent that does not know a field must not drop it: it might be a security context."""
    data = {"name": "a", "inner": {"count": 1, "new": {}}}
    assert decode(Sample, data, strict=False) == Sample("a", inner=Inner(1))
    with pytest.raises(ProtocolError, match=r"Sample\.inner: unknown field 'new'"):
        decode(Sample, data, strict=True)


def test_a_wanted_set_comes_over_the_wire_whole() -> None:
    node = NodeConfig("n1", "10.86.1.0/24", "10.86.0.0/16", ("/srv",))
    pod = protocol.Pod("uid-1", "default", "web-1", "hash", (protocol.Container("main", "web:1"),), stop=True)
    sent = WantedSet(
        "cluster", Epoch(3, "e"), 7, "digest", node, (pod,), {"default/c": protocol.Config("h", {"a": "1"})}
    )
    ((_, message),) = FrameReader().feed(frame(encode(sent)))
    assert decode(WantedSet, message, strict=True) == sent


def test_a_set_without_pods_is_another_message_than_no_set() -> None:
    empty = WantedSet("cluster", Epoch(1, "e"), 1, "d", NodeConfig("n1", "10.86.1.0/24", "10.86.0.0/16"))
    assert decode(WantedSet, encode(empty), strict=True).pods == ()
    with pytest.raises(ProtocolError):
        decode(WantedSet, {}, strict=True)


def test_the_messages_of_reports_are_read_leniently() -> None:
    sent = encode(Owner("cluster", Epoch(1, "e"), 4, "digest")) | {"lease": {"until_s": 3}}
    assert decode(Owner, sent, strict=False) == Owner("cluster", Epoch(1, "e"), 4, "digest")
    assert decode(Cursor, {"instance": "i", "sequence": 9}, strict=False) == Cursor("i", 9)
