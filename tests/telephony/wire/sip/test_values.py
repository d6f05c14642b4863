"""URIs, addresses, Via and the atoms of the grammar."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import format_params, parse_params, printable, quote, split_list, unquote
from switchhook.telephony.wire.sip.uri import OpaqueUri, SipUri, TelUri, is_sip_uri, parse_uri
from switchhook.telephony.wire.sip.via import Via

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


@pytest.mark.parametrize(
    "text",
    [
        "sip:alice@atlanta.com",
        "sip:alice:secretword@atlanta.com;transport=tcp",
        "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sips:1212@gateway.com",
        "sip:alice@192.0.2.4",
        "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
        "sip:alice;day=tuesday@atlanta.com",
        "sip:alice@[2001:db8::10]:5070;lr",
        "sip:%23%2a72@10.0.0.1:5060",
        "sip:a_b.host_name",
        "sip:+17206999999;phone-context=example.net@host;user=phone",
        "tel:+1-720-699-9999",
        "tel:7042;phone-context=example.com",
        "urn:service:sos",
        "mailto:a@b",
    ],
)
def test_uris_come_back_as_written(text: str) -> None:
    assert str(parse_uri(text)) == text


def test_parts_of_a_sip_uri() -> None:
    uri = SipUri.parse("sips:al%69ce;x:pw@[2001:db8::1]:5070;Transport=TCP;lr?a=b")
    assert (uri.scheme, uri.user, uri.password, uri.host, uri.port) == ("sips", "alice;x", "pw", "2001:db8::1", 5070)
    assert uri.params == {"transport": "TCP", "lr": None}
    assert uri.transport == "tcp"
    assert uri.headers == "a=b"
    assert "pw" not in repr(uri)
    assert (
        str(dataclasses.replace(uri, user="bob smith", headers="")) == "sips:bob%20smith:pw@[2001:db8::1]:5070;transport=TCP;lr"
    )
    assert str(SipUri("example.com", user="#31#", port=5060)) == "sip:%2331%23@example.com:5060"


@settings(deadline=None)
@given(TEXT.filter(bool))
def test_any_user_part_survives(user: str) -> None:
    assert SipUri.parse(str(SipUri("example.com", user=user))).user == printable(user)


def test_telephone_numbers() -> None:
    assert TelUri.parse("tel:+1(720)699-99.99").user == "+17206999999"
    assert OpaqueUri("urn", "x").user is None
    assert parse_uri("SIP:A@B") == SipUri("B", user="A")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("sip:a@b", True), ("SIPS:a@b", True), ("sip:", True), ("tel:+1", False), ("sipx:a@b", False), ("sip", False), ("", False)],
)
def test_what_says_that_it_is_a_sip_uri(text: str, is_one: bool) -> None:
    assert is_sip_uri(text) is is_one


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "sip:",
        "sip:@host",
        "sip:a@",
        "sip:a@b@c",
        "sip:a b@c",
        "sip:a@b:99999",
        "sip:a@b:x",
        "sip:a@b;=x",
        "sip:a@[::1",
        "sip:a@b\x00",
        "tel:",
        "tel:call me",
        "urn:",
        "1x:y",
        "<sip:a@b>",
        "sip:a@bücher",
    ],
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_uri(text)


@pytest.mark.parametrize(
    ("text", "name", "uri", "tag"),
    [
        ('"A. G. Bell" <sip:agb@bell-telephone.com> ;tag=a48s', "A. G. Bell", "sip:agb@bell-telephone.com", "a48s"),
        ("sip:+12125551212@server.phone2net.com;tag=887s", "", "sip:+12125551212@server.phone2net.com", "887s"),
        ("Anonymous <sip:c8oqz84zk7z@privacy.org>;tag=hyh8", "Anonymous", "sip:c8oqz84zk7z@privacy.org", "hyh8"),
        ("<sip:a@b;tag=uri>;TAG=Field", "", "sip:a@b;tag=uri", "Field"),
        ('"a \\"b\\" \\\\ <c>"<sip:a@b>', 'a "b" \\ <c>', "sip:a@b", None),
        ("Zoë O'Brien, Dr <sip:a@b>", "Zoë O'Brien, Dr", "sip:a@b", None),
        ("<tel:+1-720;phone-context=x>", "", "tel:+1-720;phone-context=x", None),
        ("< sip:a@b >;tag=1;tag=2", "", "sip:a@b", "1"),
    ],
)
def test_addresses(text: str, name: str, uri: str, tag: str | None) -> None:
    address = NameAddr.parse(text)
    assert (address.display_name, str(address.uri), address.tag) == (name, uri, tag)
    assert NameAddr.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"a <sip:a@b>',
        '"a" sip:a@b',
        "<sip:a@b",
        "a <sip:a@b> x",
        'a"b <sip:a@b>',
        "<sip:a@b>;a b=c",
        '<sip:a@b>;a="x',
        "sip:a@b?x=y",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(GrammarError):
        NameAddr.parse(text)


def test_a_tag_is_added() -> None:
    assert str(NameAddr.parse("Bob <sip:b@c>;x=y").with_tag("t1")) == '"Bob" <sip:b@c>;x=y;tag=t1'


@settings(deadline=None)
@given(TEXT)
def test_any_display_name_survives(name: str) -> None:
    address = NameAddr(SipUri("b"), printable(name))
    assert NameAddr.parse(str(address)).display_name == address.display_name


@pytest.mark.parametrize(
    ("text", "reply_to"),
    [
        ("SIP/2.0/UDP 192.0.2.1", ("192.0.2.1", 5060)),
        ("SIP/2.0/TLS 192.0.2.1", ("192.0.2.1", 5061)),
        ("SIP/2.0/UDP 192.0.2.1:5070;rport;branch=z9hG4bK1", ("192.0.2.1", 5070)),
        ("SIP/2.0/UDP 192.0.2.1:5070;received=198.51.100.1;rport=9;branch=z9hG4bK1", ("198.51.100.1", 9)),
        ("sip / 2.0 / udp  192.0.2.1 : 5070 ; received=198.51.100.1", ("198.51.100.1", 5070)),
        ("SIP/2.0/UDP [2001:db8::9]:6050;branch=z9;received=2001:db8::ff", ("2001:db8::ff", 6050)),
        ("SIP/2.0/UDP 192.0.2.1;maddr=239.255.255.1;ttl=1", ("239.255.255.1", 5060)),
    ],
)
def test_where_an_answer_goes(text: str, reply_to: tuple[str, int]) -> None:
    via = Via.parse(text)
    assert via.reply_address == reply_to
    assert Via.parse(str(via)) == via


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UDP 1.2.3.4",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ;branch=x",
        "SIP/2.0/UDP a b",
        "SIP/2.0/UDP a:99999",
        ";",
        "SIP/2.0/UDP a;b c",
    ],
)
def test_what_is_no_via(text: str) -> None:
    with pytest.raises(GrammarError):
        Via.parse(text)


def test_the_sender_cannot_choose_where_the_answer_goes() -> None:
    source = ("198.51.100.9", 4444)
    lying = Via.parse("SIP/2.0/UDP 198.51.100.9:4444;received=203.0.113.1").mark_received(source)
    assert lying.reply_address == source
    natted = Via.parse("SIP/2.0/UDP 10.0.0.1:5060;rport=1;received=203.0.113.1").mark_received(source)
    assert natted.reply_address == source
    assert Via.parse("SIP/2.0/UDP 10.0.0.1:5060;rport=x").rport is None


def test_lists_and_parameters() -> None:
    assert split_list('"a, b" <sip:x@y;m=a,b>, c,, "unclosed, d') == ['"a, b" <sip:x@y;m=a,b>', "c", '"unclosed, d']
    assert parse_params(' ; a ; B = "x;\\"y" ;; c=') == {"a": None, "b": 'x;"y', "c": ""}
    assert format_params({"a": None, "b": 'x;"y', "host": "[::1]:5"}) == ';a;b="x;\\"y";host=[::1]:5'
    for text in ("a=b", "; a b", ';a="x', ';a="x"y'):
        with pytest.raises(GrammarError):
            parse_params(text)


@settings(deadline=None)
@given(TEXT)
def test_quoting_is_undone(text: str) -> None:
    assert unquote(quote(text)) == text


def test_what_people_read_is_printable() -> None:
    assert printable("plain") == "plain"
    assert printable("b\x07e\x00ll\u2028") == "bell"
    assert printable("Zo\udceb") == "Zoë"
    assert printable("Zoë") == "Zoë"
