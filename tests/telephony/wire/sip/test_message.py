"""Messages: bounds, answers, header fields, and what garbage does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.fields import Fields
from switchhook.telephony.wire.sip.headers import CSeq, Headers, RAck, Reason, SessionExpires
from switchhook.telephony.wire.sip.message import (
    MAX_HEADER_FIELDS,
    MAX_LINE_CHARS,
    MAX_MESSAGE_BYTES,
    MAX_VIAS,
    MalformedMessage,
    Message,
    Request,
    Response,
    parse_message,
)
from tests.telephony.wire.sip.samples import message, names, sample

EVERYTHING = [*names("valid"), *names("tolerated"), *names("invalid"), *names("peers")]
ACCESSORS = sorted(name for name, value in vars(Fields).items() if isinstance(value, property))


def parsed(*more: str, replace: dict[str, str] | None = None, body: bytes = b"") -> Request:
    found = parse_message(message(*more, replace=replace, body=body))
    assert isinstance(found, Request)
    return found


def refused(data: bytes) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data)
    return caught.value


def read_everything(found: Message) -> None:
    """Every accessor gives a value or the one error."""
    for name in ACCESSORS:
        try:
            getattr(found, name)
        except RemoteProtocolError as error:
            assert error.status_hint == 400
    found.body_of("application/sdp")
    found.serialize()


def fuzzed(data: bytes) -> None:
    try:
        found = parse_message(data)
    except MalformedMessage as error:
        assert error.partial is None or error.partial.reply(error.status_hint, error.reason, "t").serialize()
        assert "\r" not in error.reason
        return
    read_everything(found)
    if isinstance(found, Request):
        found.mark_received(("192.0.2.77", 4000))
        again = parse_message(found.reply(200, to_tag="t").serialize())
        assert again.cseq == found.cseq
        assert again.to.tag is not None


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    fuzzed(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EVERYTHING), st.data())
def test_any_damage_to_a_message_is_a_message_or_malformed(name: str, data: st.DataObject) -> None:
    damaged = bytearray(sample(name))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        length = data.draw(st.integers(0, 12))
        damaged[at : at + length] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b"<", b";", b",", b"\r\n", b"%", b":"]))
        )
    fuzzed(bytes(damaged))


@settings(deadline=None)
@given(st.lists(st.text(alphabet=' \t";,<>:@=\\sip%41tag\x00é', max_size=30), min_size=1, max_size=8))
def test_any_values_in_known_fields(values: list[str]) -> None:
    fields = ["From", "To", "Contact", "Via", "Route", "Reason", "RAck", "Session-Expires", "Diversion", "P-Asserted-Identity"]
    fuzzed(message(*(f"{field}: {value}" for field, value in zip(fields, values, strict=False))))


@pytest.mark.parametrize("filler", ['"', "<", "\\", '"\\', ",", ";", " ", "\t", "(", "=", "a=", "\n ", ":", "%", "[", "SIP/2.0 "])
@pytest.mark.parametrize(
    "line", ["From: {}", "Contact: {}", "Via: {}", "{}", "INVITE {} SIP/2.0", "Contact: sip:a@b{}", 'Contact: "a{}']
)
def test_hostile_repetition_is_read_in_linear_time(line: str, filler: str) -> None:
    # Quadratic work on 60 kB would take minutes and hit the test's time limit.
    text = line.format(filler * (60_000 // len(filler)))
    for data in (message(text), message(replace={"From": text}), message(replace={"INVITE": text})):
        fuzzed(data)


def test_bounds() -> None:
    assert refused(message("X: " + "a" * MAX_LINE_CHARS)).status_hint == 400
    assert refused(message(*["X: a"] * MAX_HEADER_FIELDS)).reason == "Too many header fields"
    assert refused(message("Allow: " + "A," * MAX_HEADER_FIELDS)).reason == "Too many header fields"
    assert refused(message(*["Via: SIP/2.0/UDP a"] * MAX_VIAS)).reason == "Via: too many"
    assert refused(message(body=b"a" * MAX_MESSAGE_BYTES)).status_hint == 513
    assert refused(message(replace={"INVITE": "INVITE sip:" + "a" * MAX_LINE_CHARS + " SIP/2.0"})).status_hint == 400
    for data in (message("X: " + "a" * MAX_LINE_CHARS), message(body=b"a" * MAX_MESSAGE_BYTES)):
        partial = refused(data).partial
        assert partial is not None
        assert partial.call_id == "c1"


@pytest.mark.parametrize(
    "data", [b"", b"\r\n\r\n", b"\x00\x00\x00\x00", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"hello", b"SIP/2.0\r\n\r\n"]
)
def test_what_is_not_sip_gets_no_answer(data: bytes) -> None:
    assert refused(data).partial is None


def test_an_ack_is_never_answered() -> None:
    data = message(replace={"INVITE": "ACK sip:a@b SIP/2.0", "CSeq": "CSeq: x"})
    assert refused(data).partial is None


def test_errors_are_fresh() -> None:
    data = message(replace={"CSeq": "CSeq: x"})
    first, second = refused(data), refused(data)
    assert first is not second
    assert first.__cause__ is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("From", "From: missing"),
        ("To", "To: missing"),
        ("Call-ID", "Call-ID: missing"),
        ("CSeq", "CSeq: missing"),
        ("Via", "Via: missing"),
    ],
)
def test_a_missing_field_is_named(line: str, reason: str) -> None:
    error = refused(message(replace={line: ""}))
    assert (error.status_hint, error.reason) == (400, reason)
    assert (error.partial is None) == (line == "Via")


def test_lines_that_are_no_header_field_are_passed_over() -> None:
    found = parsed("no colon here", "bad name: x", ": nothing", "X-After: yes")
    assert found.headers.get("x-after") == "yes"


def test_bare_line_feeds_and_blank_lines_in_front() -> None:
    found = parse_message(b"\r\n\n" + message(body=b"x").replace(b"\r\n", b"\n"))
    assert found.call_id == "c1"
    assert found.body == b"x"


def test_a_carriage_return_inside_a_value_cannot_make_a_field() -> None:
    found = parsed("Subject: a\rEvil: yes")
    assert "Evil" not in found.headers
    assert b"\rEvil" not in found.serialize()


def test_content_length_cuts_the_body_of_a_datagram() -> None:
    assert parsed("Content-Length: 3", body=b"abcdef").body == b"abc"
    assert parsed(body=b"abcdef").body == b"abcdef"
    assert parsed("l: 3", "Content-Length: 3", body=b"abc").body == b"abc"
    assert refused(message("Content-Length: 7", body=b"abcdef")).status_hint == 400


def test_reply_copies_what_ties_it_to_the_request() -> None:
    found = parsed("Via: SIP/2.0/TCP first.example.com;branch=z9hG4bK0", "Timestamp: 54", "Record-Route: <sip:p;lr>")
    answer = found.reply(180, to_tag="us")
    assert answer.reason == "Ringing"
    assert [via.host for via in answer.vias] == ["192.0.2.9", "first.example.com"]
    assert answer.to.tag == "us"
    assert (answer.from_, answer.call_id, answer.cseq) == (found.from_, found.call_id, found.cseq)
    assert "Record-Route" not in answer.headers
    assert "Timestamp" not in answer.headers
    assert found.reply(100).headers.get("Timestamp") == "54"
    assert found.reply(100).to.tag is None
    assert parsed(replace={"To": "To: <sip:a@b>;tag=old"}).reply(200, to_tag="us").to.tag == "old"
    assert parsed(replace={"To": "To: sip:a@b;x=y"}).reply(200, to_tag="us").to.tag == "us"


def test_a_reason_stays_on_its_line() -> None:
    written = Response(480, "No\r\nEvil: yes").serialize()
    assert written.startswith(b"SIP/2.0 480 No Evil: yes\r\n")


def test_the_source_is_written_into_the_topmost_via() -> None:
    found = parsed("Via: SIP/2.0/TCP first.example.com")
    found.mark_received(("198.51.100.4", 40_000))
    assert found.headers.get_all("Via") == [
        "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;rport=40000;received=198.51.100.4",
        "SIP/2.0/TCP first.example.com",
    ]
    assert found.via.reply_address == ("198.51.100.4", 40_000)


def test_accessors_follow_changes() -> None:
    found = parsed()
    assert found.cseq.number == 1
    assert found.cseq is found.cseq
    found.headers.set("CSeq", "2 INVITE")
    assert found.cseq.number == 2
    assert found.contact is None
    found.headers.add("Contact", "<sip:a@b>")
    assert found.contact is not None


def test_a_broken_field_that_only_informs_is_left_out() -> None:
    found = parsed(
        "P-Asserted-Identity: <sip:a@b>, rubbish <", "Diversion: ;", "Retry-After: soon", "Reason: ;", "Session-Expires: x"
    )
    assert [str(address) for address in found.p_asserted_identity] == ["<sip:a@b>"]
    assert found.diversion == []
    assert found.retry_after is None
    assert found.reasons == []
    with pytest.raises(RemoteProtocolError, match="Session-Expires"):
        _ = found.session_expires


def test_extension_fields() -> None:
    found = parsed(
        "RAck: 776656 1 INVITE", "x: 90;refresher=UAS", "Expires: 180", "r: <sip:x@y>", "b: <sip:me@y>", "Unsupported: a"
    )
    assert found.rack == RAck(776656, CSeq(1, "INVITE"))
    assert found.session_expires == SessionExpires(90, "uas")
    assert found.expires == 180
    assert found.refer_to == NameAddr.parse("<sip:x@y>")
    assert found.referred_by is not None
    assert found.unsupported == ["a"]
    assert parsed("Contact: *").wildcard_contact
    assert parsed("Contact: *").contact is None
    assert [str(value) for value in (found.rack, found.session_expires, Reason("SIP", 200, 'a "b"'))] == [
        "776656 1 INVITE",
        "90;refresher=uas",
        'SIP;cause=200;text="a \\"b\\""',
    ]


def test_parts_of_a_body() -> None:
    kind = "Content-Type: multipart/mixed; boundary=b"
    body = b"preamble\r\n--b\r\n\r\nplain\r\n--b\r\nContent-Type: Application/SDP; a=b\r\n\r\nv=0\r\n\r\n--b--\r\nend"
    assert parsed(kind, body=body).body_of("application/sdp") == b"v=0\r\n\r\n"
    assert parsed(kind, body=body.replace(b"\r\n", b"\n")).body_of("application/sdp") == b"v=0\n\n"
    assert parsed(kind, body=b"--b--\r\n").body_of("application/sdp") is None
    assert parsed("Content-Type: multipart/mixed", body=body).body_of("application/sdp") is None
    assert parsed("Content-Type: multipart/mixed;=", body=body).body_of("application/sdp") is None
    assert parsed(body=body).body_of("application/sdp") is None


def test_headers_are_an_ordered_multimap() -> None:
    headers = Headers([("Via", "a"), ("X-One", "1, 2"), ("v", "b, c"), ("Allow", "INVITE, ACK")])
    assert headers.get_all("VIA") == ["a", "b", "c"]
    assert headers.get("x-one") == "1, 2"
    headers.insert("Via", "z")
    assert next(iter(headers)) == ("Via", "z")
    headers.replace_first("Via", "y")
    assert headers.get_all("Via") == ["y", "a", "b", "c"]
    headers.set("Via", "only")
    assert list(headers) == [("Via", "only"), ("X-One", "1, 2"), ("Allow", "INVITE"), ("Allow", "ACK")]
    twin = headers.copy()
    headers.remove("allow")
    assert "Allow" not in headers
    assert "Allow" in twin
    assert twin != headers
    headers.replace_first("New", "1")
    assert list(headers)[-1] == ("New", "1")
    assert len(headers) == 3


@pytest.mark.parametrize(("name", "value"), [("X", "a\r\nEvil: 1"), ("X", "a\nb"), ("X\r\nEvil", "1"), ("", "1"), ("a b", "1")])
def test_no_value_can_add_a_field(name: str, value: str) -> None:
    headers = Headers()
    for change in (headers.add, headers.set, headers.insert, headers.replace_first):
        with pytest.raises(ValueError, match=r"header field|line break"):
            change(name, value)
    assert len(headers) == 0


def test_half_a_surrogate_pair_can_be_sent() -> None:
    assert b"Subject: ?\r\n" in Request("INVITE", "sip:a@b", [("Subject", "\ud83d")]).serialize()


def test_reprs_show_no_field() -> None:
    found = parsed('Authorization: Digest response="secret"')
    assert "secret" not in repr(found)
    assert "secret" not in repr(found.headers)
    assert "secret" not in repr(found.reply(200))
