"""SRTP over the life of a session: who is let in, hold, changed keys, refreshes of ours, and an INVITE without an offer."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from switchhook.telephony.wire.sdes import SrtpKeys, SrtpMode, fresh_keys
from switchhook.telephony.wire.sdp import Crypto, MediaDescription, SessionDescription
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.user_agent import Admission, Admitted
from tests.peers.sip_caller import LOCAL, AgentOnClock, Caller, sdp, statuses

KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
OTHER_KEY = KEY.replace("WVNf", "XXXX")
REQUIRED, OFFERED = SrtpMode.REQUIRED, SrtpMode.OFFERED


class TrunkGate:
    """Admits everyone over a trunk with this mode."""

    def __init__(self, srtp: SrtpMode) -> None:
        self._srtp = srtp

    def admit(self, request: Request, flow: Flow, now: float) -> Admission:
        return Admitted("trunk", self._srtp)


def secure_sdp(key: str = KEY, direction: str = "sendrecv", version: int = 1) -> bytes:
    plain = sdp(direction=direction, version=version).replace(b"RTP/AVP", b"RTP/SAVP")
    return plain + f"a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n".encode()


def audio(message: Request | Response) -> MediaDescription:
    [line] = SessionDescription.parse(message.body).media
    return line


def key_in(message: Request | Response) -> Crypto:
    [crypto] = audio(message).crypto
    return crypto


class SecureCall:
    """An answered call over a trunk that requires SRTP."""

    def __init__(self, mode: SrtpMode = REQUIRED, body: bytes | None = None, **invite: object) -> None:
        self.ua, self.caller = AgentOnClock(TrunkGate(mode)), Caller()
        self.session = self.ua.call(self.caller, body=secure_sdp() if body is None else body, **invite)
        local = replace(LOCAL, srtp=self.ua.invited[0].srtp, srtp_keys=fresh_keys(os.urandom))
        [ok] = self.ua.do(lambda agent, now: agent.answer(self.session, local, now))
        assert isinstance(ok, Response)
        self.ok = ok
        self.caller.learn(ok)

    def acknowledge(self, body: bytes = b"") -> None:
        self.ua.receive(self.caller.ack(body), self.caller.flow)

    def again(self, body: bytes, method: str = "INVITE") -> Response:
        """A re-INVITE or UPDATE, acknowledged."""
        [response] = self.ua.receive(self.caller.write(method, body=body), self.caller.flow)
        assert isinstance(response, Response)
        if method == "INVITE" and response.status == 200:
            self.acknowledge()
        return response

    @property
    def keys(self) -> SrtpKeys:
        agreed = self.ua.media[-1].media.srtp
        assert agreed is not None
        return agreed


@pytest.mark.parametrize(("mode", "body"), [(SrtpMode.OFF, secure_sdp()), (REQUIRED, sdp())])
def test_an_offer_that_the_trunk_forbids_is_refused_before_anyone_is_asked(mode: SrtpMode, body: bytes) -> None:
    ua, caller = AgentOnClock(TrunkGate(mode)), Caller()
    assert statuses(ua.receive(caller.invite(body), caller.flow)) == [488]
    assert ua.invited == []


def test_hold_and_resume_keep_both_keys() -> None:
    call = SecureCall()
    call.acknowledge()
    before, ours = call.keys, key_in(call.ok)
    assert audio(call.ok).protocol == "RTP/SAVP"
    for method, direction in (("INVITE", "sendonly"), ("UPDATE", "inactive"), ("INVITE", "sendrecv")):
        response = call.again(secure_sdp(direction=direction), method)
        assert response.status == 200
        assert key_in(response) == ours
        assert call.keys == before


def test_a_new_key_of_the_caller_is_taken_and_ours_stays() -> None:
    call = SecureCall()
    call.acknowledge()
    before = call.keys
    assert key_in(call.again(secure_sdp(OTHER_KEY, version=2))) == key_in(call.ok)
    assert call.keys.ours == before.ours
    assert call.keys.theirs != before.theirs


@pytest.mark.parametrize(("mode", "status"), [(REQUIRED, 488), (OFFERED, 200)])
def test_encryption_is_given_up_in_mid_call_only_where_it_is_not_required(mode: SrtpMode, status: int) -> None:
    call = SecureCall(mode)
    call.acknowledge()
    agreed = len(call.ua.media)
    assert call.again(sdp(version=2)).status == status
    assert call.ua.ended == []
    if status == 200:
        assert call.ua.media[-1].media.srtp is None
    else:
        assert len(call.ua.media) == agreed


def test_a_refresh_of_ours_offers_the_same_key() -> None:
    headers = [("Supported", "timer"), ("Session-Expires", "300;refresher=uas"), ("Allow", "INVITE, ACK, BYE")]
    call = SecureCall(headers=headers)
    call.acknowledge()
    [(_, refresh)] = call.ua.advance(150)
    assert isinstance(refresh, Request)
    assert key_in(refresh) == key_in(call.ok)
    assert audio(refresh).protocol == "RTP/SAVP"
    before = call.keys
    reply = refresh.reply(200)
    reply.headers.add("Contact", "<sip:ann@192.0.2.10:5062>")
    reply.headers.add("Content-Type", "application/sdp")
    reply.body = secure_sdp()
    assert statuses(call.ua.receive(bytes(reply), call.caller.flow)) == ["ACK"]
    assert call.keys == before


@pytest.mark.parametrize("mode", [REQUIRED, OFFERED])
def test_to_an_invite_without_offer_ours_has_keys_and_the_ack_decides(mode: SrtpMode) -> None:
    call = SecureCall(mode, body=b"")
    assert audio(call.ok).protocol == ("RTP/SAVP" if mode is REQUIRED else "RTP/AVP")
    assert len(audio(call.ok).crypto) == 4
    call.acknowledge(secure_sdp())
    assert call.keys.theirs.suite == "AES_CM_128_HMAC_SHA1_80"


@pytest.mark.parametrize(("mode", "ended"), [(REQUIRED, ["line-failed"]), (OFFERED, [])])
def test_an_ack_without_keys_ends_the_call_where_they_are_required(mode: SrtpMode, ended: list[str]) -> None:
    call = SecureCall(mode, body=b"")
    call.acknowledge(sdp())
    assert [event.reason for event in call.ua.ended] == ended
    if not ended:
        assert call.ua.media[-1].media.srtp is None
