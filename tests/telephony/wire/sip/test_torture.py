"""The RFC 4475 torture messages, and messages with the habits of real stacks."""

from __future__ import annotations

import pytest

from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.headers import CSeq, Reason, SessionExpires
from switchhook.telephony.wire.sip.message import MalformedMessage, Request, Response, parse_message
from switchhook.telephony.wire.sip.uri import OpaqueUri, SipUri, TelUri
from tests.telephony.wire.sip.samples import names, sample

INVALID = {
    "badinv01": 400,
    "badvers": 505,
    "bigcode": 400,
    "clerr": 400,
    "escruri": 400,
    "insuf": 400,
    "ltgtruri": 400,
    "lwsruri": 400,
    "mcl01": 400,
    "mismatch01": 400,
    "mismatch02": 400,
    "multi01": 400,
    "ncl": 400,
    "novelsc": 416,
    "quotbal": 400,
    "scalar02": 400,
    "scalarlg": 400,
    "unkscm": 416,
}
# Answered when the field is asked for, since only a registrar has to ask.
INVALID_WHEN_READ = {"regbadct": 400}
UNANSWERABLE = {"bigcode", "scalarlg"}


def request(name: str) -> Request:
    found = parse_message(sample(name))
    assert isinstance(found, Request)
    return found


def response(name: str) -> Response:
    found = parse_message(sample(name))
    assert isinstance(found, Response)
    return found


def sip(uri: object) -> SipUri:
    assert isinstance(uri, SipUri)
    return uri


def test_every_invalid_message_is_expected() -> None:
    assert names("invalid") == sorted(f"invalid/{name}" for name in INVALID | INVALID_WHEN_READ)


@pytest.mark.parametrize("name", sorted(INVALID))
def test_invalid_message_names_its_answer(name: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(sample(f"invalid/{name}"))
    assert caught.value.status_hint == INVALID[name]
    partial = caught.value.partial
    if name in UNANSWERABLE:
        assert partial is None
        return
    assert partial is not None
    answer = partial.reply(caught.value.status_hint, caught.value.reason, to_tag="us")
    written = answer.serialize()
    assert written.startswith(b"SIP/2.0 %d " % INVALID[name])
    assert answer.headers.get_all("Via") == partial.headers.get_all("Via")
    if name not in ("insuf", "quotbal"):
        assert b";tag=" in written.partition(b"To: ")[2].partition(b"\r\n")[0]


@pytest.mark.parametrize("name", sorted(INVALID_WHEN_READ))
def test_invalid_field_is_refused_when_read(name: str) -> None:
    found = request(f"invalid/{name}")
    with pytest.raises(RemoteProtocolError) as caught:
        _ = found.contact
    assert caught.value.status_hint == INVALID_WHEN_READ[name]


@pytest.mark.parametrize("name", [*names("valid"), *names("tolerated"), *names("peers")])
def test_what_is_written_reads_the_same(name: str) -> None:
    first = parse_message(sample(name))
    again = parse_message(first.serialize())
    assert again.start_line == first.start_line
    assert again.body == first.body
    again.headers.remove("Content-Length")
    first.headers.remove("Content-Length")
    assert again.headers == first.headers
    assert (again.vias, again.from_, again.to, again.cseq) == (first.vias, first.from_, first.to, first.cseq)
    assert again.contacts == first.contacts


def test_blanks_folds_and_compact_names() -> None:
    found = request("valid/wsinv")
    assert found.to.tag == "1918181833n"
    assert found.from_.display_name == 'J Rosenberg \\"'
    assert found.cseq == CSeq(9, "INVITE")
    assert found.max_forwards == 68
    assert [(via.transport, via.host, via.branch) for via in found.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    assert found.contact is not None
    assert found.contact.display_name == 'Quoted string ""'
    assert found.contact.params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert found.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    assert sip(found.route[0].uri).params["lr"] is None
    assert len(found.body) == 150


def test_every_character_that_is_allowed() -> None:
    found = request("valid/intmeth")
    assert found.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert found.to.display_name == "BEL: NUL: DEL:"
    assert found.from_.params["fromparam''~+*_!.-%"] == "работающий"
    assert found.from_.tag == "_token~1'+`*%!-."
    assert sip(found.request_uri).host == "example.com"
    assert str(found.request_uri) == found.uri
    assert found.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert b'To: "BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f"' in found.serialize()


def test_escapes() -> None:
    found = request("valid/esc01")
    assert sip(found.request_uri).user == "sips:user@example.com"
    assert str(found.request_uri) == found.uri
    assert sip(found.to.uri).user == "user"
    assert sip(found.from_.uri).user == "I have spaces"
    assert found.contact is not None
    assert str(found.contact.uri) == "sip:cal%6Cer@host5.example.net;%6c%72;n%61me=v%61lue%25%34%31"
    assert len(request("valid/escnull").contacts) == 2
    assert len(request("valid/esc02").contacts) == 2, "C%6Fntact is not Contact"


def test_long_values_and_34_hops() -> None:
    found = request("valid/longreq")
    assert len(found.vias) == 34
    assert found.vias[-1].received == "192.0.2.5"
    assert len(found.from_.tag or "") > 150


def test_second_request_of_a_datagram_is_left_out() -> None:
    found = request("valid/dblreq")
    assert found.method == "REGISTER"
    assert found.body == b""


def test_odds_and_ends() -> None:
    assert sip(request("valid/semiuri").request_uri).user == "user;par=u@example.net"
    assert [via.transport for via in request("valid/transports").vias] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]
    assert response("valid/noreason").status == 100
    assert response("valid/unreason").reason == "= 2**3 * 5**2 но сто девяносто девять - простое"
    assert request("valid/badbranch").via.branch == "z9hG4bK"
    assert request("valid/bext01").require == ["nothingsupportsthis", "nothingsupportsthiseither"]
    assert request("valid/bext01").proxy_require == ["noproxiessupportthis", "nordoanyproxiessupportthis"]
    assert request("valid/inv2543").via.branch is None
    assert request("valid/inv2543").from_.tag is None
    assert request("valid/invut").content_type == "application/unknownformat"
    assert isinstance(request("valid/unksm2").to.uri, OpaqueUri)
    assert request("valid/zeromf").max_forwards == 0
    # Without brackets a parameter is the field's, within them it is the URI's.
    outside, inside = request("valid/cparam01").contact, request("valid/cparam02").contact
    assert outside is not None
    assert inside is not None
    assert outside.params == {"unknownparam": None}
    assert sip(inside.uri).params == {"unknownparam": None}
    assert request("tolerated/baddn").from_.display_name == "Bell, Alexander"
    assert sip(request("tolerated/badaspec").to.uri).user == "t.watson"
    assert request("tolerated/baddate").date == "Fri, 01 Jan 2010 16:00:00 EST"


def test_asterisk() -> None:
    found = request("peers/asterisk-pjsip-invite")
    assert found.session_expires == SessionExpires(1800)
    assert found.min_se == 90
    assert found.supported == ["100rel", "timer", "replaces", "norefersub", "histinfo"]
    assert "PRACK" in found.allow
    assert found.p_asserted_identity[0].uri.user == "2001"


def test_carrier_behind_proxies() -> None:
    found = request("peers/twilio-like-invite")
    assert len(found.vias) == 3
    assert found.vias[1].received == "172.25.14.8"
    assert found.vias[1].rport == 5060
    assert found.diversion[0].uri.user == "+14155550111"
    assert found.diversion[0].params["reason"] == "unconditional"
    assert sip(found.record_route[0].uri).params["ftag"] == "11582461_c3356d0b_2f9d"


def test_office_switches() -> None:
    cisco = request("peers/cisco-like-invite")
    assert cisco.from_.display_name == "Conf Room 4, East"
    assert cisco.supported[-1] == "x-cisco-original-called"
    assert cisco.remote_party_id is not None
    assert cisco.remote_party_id.params["party"] == "calling"
    assert cisco.body_of("application/sdp") is None
    avaya = request("peers/avaya-like-invite")
    assert [sip(route.uri).host for route in avaya.record_route] == ["10.2.2.2", "127.0.0.2", "10.2.2.3"]
    assert avaya.via.wants_rport
    assert avaya.via.rport is None
    assert isinstance(avaya.p_asserted_identity[1].uri, TelUri)
    assert [entry.params["index"] for entry in avaya.history_info] == ["1", "1.1"]
    assert avaya.session_expires == SessionExpires(1200, "uac")
    sdp = avaya.body_of("application/sdp")
    assert sdp is not None
    assert sdp.startswith(b"v=0\r\n")
    assert sdp.endswith(b"a=ptime:20\r\n")
    assert avaya.body_of("application/isup") == b"\x80\x01\xff\r\n"


def test_a_name_that_is_not_utf8() -> None:
    found = request("peers/latin1-caller-invite")
    assert found.from_.display_name == "Müller GmbH"
    assert b'From: "M\xfcller GmbH"' in found.serialize()
    assert found.privacy == ["id", "header"]
    assert found.via.host == "2001:db8::9:1"
    assert found.via.received == "2001:db8::9:255"
    assert found.to.uri.user == "+17206999999"
    assert request("peers/freeswitch-bye").from_.display_name == "Müller"


def test_reasons_and_retry_time() -> None:
    assert request("peers/freeswitch-bye").reasons == [Reason("Q.850", 16, "NORMAL_CLEARING"), Reason("SIP", 200)]
    assert response("peers/kamailio-503").retry_after == 120
    early = response("peers/carrier-183")
    assert early.rseq == 7741
    assert early.require == ["100rel"]
    assert early.content_type == "application/sdp"
    assert early.body_of("application/sdp") == early.body
