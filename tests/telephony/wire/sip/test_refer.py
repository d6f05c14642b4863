"""REFER as values: Refer-To both ways, message/sipfrag, what a NOTIFY says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.message import Request, parse_message
from switchhook.telephony.wire.sip.refer import (
    Notification,
    ReferTarget,
    parse_sipfrag,
    read_notification,
    read_refer_to,
    refer_to,
    wants_no_subscription,
    write_sipfrag,
)
from switchhook.telephony.wire.sip.replaces import Replaces
from switchhook.telephony.wire.sip.uri import SipUri
from tests.telephony.wire.sip.samples import message

REPLACES = "12@pbx.example;to-tag=a!b;from-tag=c'd"


def request(*headers: str, body: bytes = b"") -> Request:
    found = parse_message(message(*headers, body=body))
    assert isinstance(found, Request)
    return found


def test_a_blind_target_is_its_uri() -> None:
    assert refer_to("sip:+17205550100@carrier.example;user=phone", None) == "<sip:+17205550100@carrier.example;user=phone>"
    assert refer_to("tel:+1-720-555-0100", None) == "<tel:+1-720-555-0100>"


def test_an_attended_target_carries_the_call_to_replace_escaped() -> None:
    written = refer_to("sip:bob@pbx.example", REPLACES)
    assert written == "<sip:bob@pbx.example?Replaces=12%40pbx.example%3Bto-tag%3Da!b%3Bfrom-tag%3Dc'd>"
    assert refer_to("sip:bob@pbx.example?Subject=x", REPLACES).startswith("<sip:bob@pbx.example?Subject=x&Replaces=")
    uri = NameAddr.parse(written).uri
    assert isinstance(uri, SipUri)
    assert read_refer_to(request(f"Refer-To: {written}")) == ReferTarget("sip:bob@pbx.example", REPLACES)


@given(st.from_regex(r"\A[A-Za-z0-9@.%&=?+_-]{1,40}\Z"), st.from_regex(r"\A[A-Za-z0-9.%!*_+`'~-]{1,20}\Z"))
def test_whatever_the_tags_are_the_peer_reads_them_back(call_id: str, tag: str) -> None:
    wanted = Replaces(call_id, tag, tag, early_only=True)
    found = read_refer_to(request(f"Refer-To: {refer_to('sip:a@b', str(wanted))}"))
    assert Replaces.parse(found.replaces or "") == wanted


@pytest.mark.parametrize(
    ("uri", "replaces"), [("http://x", None), ("bob", None), ("", None), ("sip:", None), ("tel:+15550100", REPLACES)]
)
def test_targets_that_cannot_be_written(uri: str, replaces: str | None) -> None:
    with pytest.raises(GrammarError):
        refer_to(uri, replaces)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        (["Refer-To: <sip:a@b>", "Refer-To: <sip:c@d>"], 400),
        (["Refer-To: <http://example.com/>"], 400),
        (["Refer-To: <sip:a@b"], 400),
        (["Refer-To: <sip:a@b?Replaces=nonsense>"], 400),
        (["Refer-To: <sip:a@b?Replaces=x%40y%3Bto-tag%3D1%0d%0aX%3B%3Bfrom-tag%3D2>"], 400),
        (["Refer-To: <sip:a@b;method=BYE>"], 603),
    ],
)
def test_refer_to_that_cannot_be_followed(headers: list[str], status: int) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        read_refer_to(request(*headers))
    assert refused.value.status_hint == status


def test_refer_to_in_its_other_forms() -> None:
    assert read_refer_to(request("r: sip:bob@pbx.example")) == ReferTarget("sip:bob@pbx.example", None)
    assert read_refer_to(request("Refer-To: <tel:+17205550100>")) == ReferTarget("tel:+17205550100", None)
    assert read_refer_to(request("Refer-To: Bob <sips:bob@b;method=INVITE?Subject=hi>")).uri == "sips:bob@b;method=INVITE"


@given(st.text(max_size=120).filter(lambda text: "\r" not in text and "\n" not in text))
@example("<sip:a@b?Replaces=%>")
def test_any_refer_to_is_read_or_refused(text: str) -> None:
    try:
        read_refer_to(request("Refer-To: " + text.encode("utf-8", "replace").decode()))
    except RemoteProtocolError as error:
        assert error.status_hint in (400, 603)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"SIP/2.0 200 OK\r\n", 200),
        (b"SIP/2.0 180 Ringing\r\nVia: x\r\n\r\n", 180),
        (b"\r\n  sip/2.0  486 Busy", 486),
        (b"SIP/2.0 603", 603),
        (b"SIP/2.0 \t100 Trying", 100),
        (b"SIP/2.0 2000 OK", None),
        (b"SIP/2.0 099 X", None),
        (b"SIP/2.0\r\n200 OK", None),
        (b"HTTP/1.1 200 OK", None),
        (b"Via: x\r\nSIP/2.0 200 OK", None),
        (b"", None),
    ],
)
def test_sipfrag(body: bytes, status: int | None) -> None:
    assert parse_sipfrag(body) == status


@given(st.integers(100, 699))
def test_every_status_is_read_back(status: int) -> None:
    assert parse_sipfrag(write_sipfrag(status)) == status


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda tail: b"SIP/2.0 " + tail))
@example(b"\n" * 100_000 + b"SIP/2.0 200 OK")
@example(b"SIP" + b" " * 100_000)
def test_any_bytes_are_a_status_or_none(body: bytes) -> None:
    status = parse_sipfrag(body)
    assert status is None or 100 <= status <= 699


def test_what_a_notify_says() -> None:
    told = request(
        "Event: Refer;id=93809824",
        "Subscription-State: Terminated;reason=noresource",
        "Content-Type: message/sipfrag;version=2.0",
        body=b"SIP/2.0 200 OK\r\n",
    )
    assert read_notification(told) == Notification(93809824, 200, terminated=True)
    bare = request("o: refer;id=x", body=b"SIP/2.0 183 Progress")
    assert read_notification(bare) == Notification(None, 183, terminated=False)
    assert read_notification(request("Event: refer;=;", "Subscription-State: active;expires=60")) == Notification(
        None, None, False
    )
    assert read_notification(request("Event: presence")) is None
    assert read_notification(request()) is None


@given(st.lists(st.tuples(st.sampled_from(["Event", "Subscription-State", "Content-Type"]), st.text(max_size=30))), st.binary())
def test_any_notify_can_be_read(headers: list[tuple[str, str]], body: bytes) -> None:
    lines = [f"{name}: refer{text}" for name, text in headers if "\r" not in text and "\n" not in text]
    told = read_notification(request(*(line.encode("utf-8", "replace").decode() for line in lines), body=body))
    assert told is None or told.status is None or 100 <= told.status <= 699


@pytest.mark.parametrize(("value", "wanted"), [("false", True), (" FALSE ;x=1", True), ("true", False), ("", False)])
def test_norefersub(value: str, wanted: bool) -> None:
    assert wants_no_subscription(request(f"Refer-Sub: {value}")) is wanted
