"""A carrier that wants proof of who calls: by proxy or by itself, MD5 and SHA-256, nonces that have grown old (RFC 7616)."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from switchhook_demo.sip_text import Message
from tests.peers.party import PartyCall
from tests.server.exchange import PASSWORD, Exchange, agent_is_heard
from tests.server.model import Model

pytestmark = pytest.mark.asyncio(loop_scope="session")
ASKS = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}
PROVES = {401: "authorization", 407: "proxy-authorization"}
HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


def challenge(algorithm: str, nonce: str, stale: bool = False) -> str:
    """A challenge of the carrier's realm."""
    return f'Digest realm="carrier.example", nonce="{nonce}", algorithm={algorithm}, qop="auth"' + (
        ", stale=true" if stale else ""
    )


def proves(invite: Message, name: str, algorithm: str, nonce: str, password: str = "open sesame") -> bool:
    """Whether the INVITE holds the right response to the challenge with this nonce (RFC 7616 §3.4.1)."""
    found: list[tuple[str, str, str]] = re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', invite.get(name))
    fields = {key: quoted or bare for key, quoted, bare in found}

    def hashed(*parts: str) -> str:
        return HASHES[algorithm](":".join(parts).encode()).hexdigest()

    secret, action = hashed("carrier", "carrier.example", password), hashed("INVITE", fields["uri"])
    wanted = hashed(secret, nonce, fields["nc"], fields["cnonce"], "auth", action)
    same = (fields["username"], fields["realm"], fields["nonce"], fields["uri"], fields["algorithm"])
    return same == ("carrier", "carrier.example", nonce, invite.uri, algorithm) and fields["response"] == wanted


def invite_of(call: PartyCall) -> Message:
    """As it came."""
    assert call.invite_got is not None
    return call.invite_got


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("grows_old", [False, True])
async def test_a_call_to_a_carrier_that_wants_proof(exchange: Exchange, status: int, algorithm: str, grows_old: bool) -> None:
    """One call for the customer, however often the INVITE is made; a nonce that is stale by then is answered with the next."""
    asks, name = ASKS[status], PROVES[status]
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place(PASSWORD)
        first = await party.call(1)
        assert not invite_of(first).get(name)
        first.refuse(status, {asks: challenge(algorithm, "n1")})
        call, nonce = await party.call(2), "n1"
        if grows_old:
            assert proves(invite_of(call), name, algorithm, "n1")
            call.refuse(status, {asks: challenge(algorithm, "n2", stale=True)})
            call, nonce = await party.call(3), "n2"
        assert proves(invite_of(call), name, algorithm, nonce)
        call.ring()
        call.answer()
        session = await model.session()
        await session.got("response.create")
        await agent_is_heard(call, session)
        await call.hang_up()
        end = await exchange.end_of(guid)
        invites = [invite_of(taken) for taken in party.taken]
    assert (end["status"], end["outboundCallResult"]) == (0, "Connected")
    assert [invite.cseq[0] for invite in invites] == list(range(1, len(invites) + 1))
    assert len({(invite.get("call-id"), invite.get("from")) for invite in invites}) == 1


async def test_the_stronger_of_two_challenges_is_answered(exchange: Exchange) -> None:
    """RFC 8760: SHA-256 and MD5 are both asked for; the first that is known is proved."""
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place(PASSWORD)
        both = {"Proxy-Authenticate": challenge("SHA-256", "n1"), "proxy-authenticate": challenge("MD5", "n1")}
        (await party.call(1)).refuse(407, both)
        call = await party.call(2)
        assert proves(invite_of(call), "proxy-authorization", "SHA-256", "n1")
        call.refuse(486)
        assert (await exchange.end_of(guid))["outboundCallResult"] == "Busy"


async def test_a_password_that_the_carrier_does_not_take(exchange: Exchange) -> None:
    """The second challenge is no stale one: it is not asked a third time, and the record says 407."""
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place(PASSWORD)
        for count in (1, 2):
            call = await party.call(count)
            call.refuse(407, {"Proxy-Authenticate": challenge("MD5", f"n{count}")})
        end = await exchange.end_of(guid)
        await asyncio.wait_for(call.acknowledged.wait(), 20)
        assert len(party.taken) == 2
    assert (end["status"], end["outboundCallResult"]) == (0, "Failed")
    assert (await exchange.row("message", "call_id = ?", guid)).startswith("The far side answered 407")
