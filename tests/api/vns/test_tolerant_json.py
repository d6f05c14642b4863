"""Replies as people write them: what is mended, what stays an error, and that nothing is typed anew."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns.tolerant_json import InvalidJson, MendedObject, parse_object, parse_tolerantly, parse_value

MEND = 1 << 17
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def read(body: bytes) -> dict[str, Any]:
    return {member.name: member.value for member in parse_tolerantly(body, MEND).members}


@pytest.mark.parametrize(
    ("body", "value", "repair"),
    [
        (b'{"a":[1,2,],}', {"a": [1, 2]}, "trailing comma"),
        (b'{"a":[1 , /* last */ ] // end\n , }', {"a": [1]}, "comment"),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}, "byte order mark"),
        (b'{"a":"x\ty\nz"}', {"a": "x\ty\nz"}, "control character in a string"),
        (b'// top\n{"a":"http://x/*no*/,]"}', {"a": "http://x/*no*/,]"}, "comment"),
        (b'{"a":"\\",]",}', {"a": '",]'}, "trailing comma"),
        (b'{"a":1/**/}', {"a": 1}, "comment"),
        (b'{"a":1/* * ** */}//', {"a": 1}, "comment"),
    ],
)
def test_mended(body: bytes, value: object, repair: str) -> None:
    assert read(body) == value
    assert repair in parse_tolerantly(body, MEND).repairs


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[1]",
        b'"text"',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,,}',
        b"{,}",
        b'{"a":[,]}',
        b'{"a":[,1]}',
        b",{}",
        b'{"a":1} x',
        b'{"a":1}}',
        b'{"a" 1}',
        b'{"a":1 "b":2}',
        b"{1:2}",
        b'{"a":"open',
        b'{"a":1 /* open',
        b'{"a":"bad \\\n escape"}',
        b'{"a":01}',
        b"<html>",
        b"\xff\xfe{\x00}\x00",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_errors_stay_errors(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_tolerantly(body, MEND)


def test_members_keep_their_text() -> None:
    body = '{ "a" : 1.0 , "b":{"n": 1e400, "big":12345678901234567890123} , "c":"\\u00e9é" }'
    assert [(m.name, m.text) for m in parse_object(body)] == [
        ("a", "1.0"),
        ("b", '{"n": 1e400, "big":12345678901234567890123}'),
        ("c", '"\\u00e9é"'),
    ]


def test_strict_json_is_not_touched() -> None:
    assert parse_tolerantly(b'{"a":"// , ]"}', MEND).repairs == ()


def test_what_is_long_is_not_mended() -> None:
    with pytest.raises(InvalidJson):
        parse_tolerantly(b'{"a":1,}', 7)
    assert read(b'{"a":1,}') == {"a": 1}


def test_an_error_never_repeats_the_content() -> None:
    for body in (b'{"key":"canary" "x":1}', b'{"canary":1,,}', b'{"a":canary}', b'{"a":"\\canary"}'):
        with pytest.raises(InvalidJson) as caught:
            parse_tolerantly(body, MEND)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("piece", [b'"\\', b"/*", b'\\"', b"//", b'"', b"/", b"/*\n", b"*/", b"* ", b"{", b"[,"])
def test_hostile_text_is_refused_in_linear_time(piece: bytes) -> None:
    body = (b"{" + piece * (MEND // len(piece)))[:MEND]
    began = time.process_time()
    with pytest.raises(InvalidJson):
        parse_tolerantly(body, MEND)
    assert time.process_time() - began < 2


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidJson):
        assert isinstance(parse_tolerantly(body, MEND), MendedObject)


@given(
    st.lists(
        st.sampled_from(
            ['"', "\\", "/", "*", "//", "/*", "*/", "{", "}", "[", "]", ",", ":", "1", "a", "\n", " ", '"a"', "null"]
        ),
        max_size=40,
    )
)
def test_any_tokens_are_read_or_refused(tokens: list[str]) -> None:
    with contextlib.suppress(InvalidJson):
        parse_tolerantly("".join(tokens).encode(), MEND)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans())
def test_valid_json_means_what_the_standard_library_says(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    assert read(body) == json.loads(body)
    assert parse_value(text) == json.loads(text)
    assert {m.name: json.loads(m.text) for m in parse_object(text)} == value


@given(st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"])), JSON, min_size=1, max_size=5))
def test_mending_changes_no_meaning(value: dict[str, Any]) -> None:
    sloppy = "\ufeff/* , */" + json.dumps(value, indent=1)[:-1] + ", // end\n}"
    assert read(sloppy.encode()) == value
