"""Calls over SRTP (SDES, RFC 4568) and TLS with baresip at the other end: who must encrypt does, and both hear each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchhook_demo.phone import CallRefusedError
from tests.peers.baresip import BaresipLine, baresip_line
from tests.peers.party import Party
from tests.peers.sound import write_wav
from tests.server.exchange import DESTINATION, DESTINATION_HZ, model_hears
from tests.server.house import NUMBER
from tests.server.listening import AGENT_HZ, CALLER_HZ, agent_tone
from tests.server.model import Model
from tests.server.secure_house import (
    BY_TLS,
    CAN,
    MUST,
    OFFERING,
    PLAIN,
    SECURE_HOST,
    SecureHouse,
    open_secure,
)
from tests.server.telephones import encrypts, telephone_at, telephone_talks
from tests.server.test_transfers_baresip import A_SECOND_MS, SOURCE_MS, telephone_hears
from tests.server.trunk_house import Keys, at, trunk

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("baresip")]


# -- callers


@pytest.mark.parametrize("mode", [MUST, CAN])
@pytest.mark.parametrize("codec", ["PCMU/8000/1", "PCMA/8000/1"])
async def test_a_caller_who_encrypts(secure: SecureHouse, tmp_path: Path, mode: str, codec: str) -> None:
    """The trunk requires it: agent and caller hear each other."""
    line = BaresipLine(secure.exchange.new_caller(), SECURE_HOST, parameters=mode, codecs=codec)
    async with telephone_talks(secure.exchange, tmp_path, line, secure.exchange.uri()) as caller:
        assert encrypts(caller.phone)
        caller.phone.command("hangup")
        end = await secure.exchange.end_of(caller.guid)
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")


def _tls_alone(port: int, ca: str) -> list[Keys]:
    """A telephone's connection comes from 127.0.0.1, wherever else it listens."""
    return [trunk("by-tls", at(port), allow_from=["127.0.0.1/32"], transport="tls", tls_ca=ca, srtp="required")]


async def test_a_caller_over_tls_who_encrypts(tmp_path: Path) -> None:
    """Signalling and sound; the telephone checks our certificate."""
    async with open_secure(tmp_path, _tls_alone, lambda: {NUMBER: {}}) as house:
        line = BaresipLine(
            house.exchange.new_caller(),
            parameters=f"{MUST};transport=tls",
            identity=house.authority.vouch_for("127.0.0.1"),
            authority=house.authority.file,
        )
        async with telephone_talks(house.exchange, tmp_path, line, house.uri_by_tls()) as caller:
            assert encrypts(caller.phone)
            assert "Via: SIP/2.0/TLS" in caller.phone.messages("INVITE")[0]
            caller.phone.command("hangup")
            end = await house.exchange.end_of(caller.guid)
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")


async def test_a_plain_caller_where_srtp_is_required(secure: SecureHouse) -> None:
    """488 before anybody is asked what to do with the call."""
    async with Party(SECURE_HOST, secure.exchange.new_caller()) as telephone:
        call = await telephone.dial(secure.exchange.uri())
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
    assert refused.value.status == 488
    assert not secure.exchange.backend.requests
    assert await secure.exchange.record_of(telephone.user) == ("client-error", "line-refused-488")


async def test_a_caller_who_insists_on_srtp_where_there_is_none(secure: SecureHouse, tmp_path: Path) -> None:
    line = BaresipLine(secure.exchange.new_caller(), "127.0.0.1", parameters=MUST)
    write_wav(tmp_path / "caller.wav", CALLER_HZ, SOURCE_MS)
    async with baresip_line(tmp_path / "caller", tmp_path / "caller.wav", line) as phone:
        phone.command("dial", secure.exchange.uri())
        closed = await phone.until_event("CALL_CLOSED", 20)
    assert "488" in str(closed["param"])
    assert not secure.exchange.backend.requests


# -- whom we call


@pytest.mark.parametrize(
    ("number", "mode", "encrypted"),
    [
        (NUMBER, MUST, True),
        (NUMBER, CAN, True),
        (OFFERING, CAN, True),
        (OFFERING, "", False),
        (PLAIN, "", False),
        (BY_TLS, MUST, True),
    ],
    ids=["required", "required-and-optional", "offered", "offered-and-not-taken", "off", "over-tls"],
)
async def test_a_telephone_that_we_call(secure: SecureHouse, tmp_path: Path, number: str, mode: str, encrypted: bool) -> None:
    """Agent and party hear each other, encrypted as the trunk and the telephone agree."""
    identity = secure.authority.vouch_for("127.0.0.1")
    async with Model() as model, telephone_at(secure.exchange, tmp_path, parameters=mode, identity=identity) as phone:
        secure.exchange.answer_with(model)
        guid = await secure.exchange.place(number, calledNumber=DESTINATION)
        session = await model.session()
        await session.got("response.create")
        session.speaks(agent_tone(2000), "Hello!")
        await telephone_hears(phone, AGENT_HZ, A_SECOND_MS)
        await model_hears(session, DESTINATION_HZ)
        assert encrypts(phone) is encrypted
        phone.command("hangup")
        end = await secure.exchange.end_of(guid)
    assert (end["status"], end["outboundCallResult"], end["errorMessage"]) == (0, "Connected", "No Errors")


@pytest.mark.parametrize(("number", "mode"), [(NUMBER, ""), (PLAIN, MUST)], ids=["it-does-not", "we-do-not"])
async def test_a_telephone_that_will_not_agree(secure: SecureHouse, tmp_path: Path, number: str, mode: str) -> None:
    """No sound goes in the clear where one side insists: the call has failed, and CallEnd says why."""
    async with Model() as model, telephone_at(secure.exchange, tmp_path, parameters=mode) as phone:
        secure.exchange.answer_with(model)
        guid = await secure.exchange.place(number, calledNumber=DESTINATION)
        end = await secure.exchange.end_of(guid)
        assert "SIP/2.0 488" in "".join(phone.messages("SIP/2.0"))
    assert (end["status"], end["outboundCallResult"], end["callConnected"]) == (0, "Failed", None)
