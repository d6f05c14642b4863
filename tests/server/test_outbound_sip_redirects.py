"""A carrier answers 3xx: a refusal, or followed to the trunk's own addresses and within the dialling policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.peers.outgoing_call import carrier, content
from tests.peers.party import Party
from tests.peers.processes import PeerProcess
from tests.server.exchange import CALLED, DESTINATION, FOLLOWING, Exchange, agent_is_heard
from tests.server.house import NUMBER
from tests.server.model import Model

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("sipp")]
TRUNKS_OTHER_HOST = "127.0.0.4"
FOREIGN_HOST = "127.0.0.9"
BRITISH = "+442079460000"
MOVED = "The far side answered 302 Moved Temporarily"


@asynccontextmanager
async def redirecting(exchange: Exchange, folder: Path, contact: str) -> AsyncIterator[PeerProcess]:
    """A carrier that sends its one call elsewhere."""
    async with exchange.sipp("uas_redirects", folder, "-key", "contact", contact) as process:
        yield process


@pytest.mark.parametrize(("host", "user"), [("127.0.0.1", CALLED), (TRUNKS_OTHER_HOST, CALLED), ("127.0.0.1", DESTINATION)])
async def test_followed_to_an_address_of_the_trunk(exchange: Exchange, tmp_path: Path, host: str, user: str) -> None:
    """Another port of its own, an address of its allow_from, and another number that may be dialled: answered, and heard."""
    async with Model() as model, Party(host, user, answers=True) as party:
        async with redirecting(exchange, tmp_path, f"sip:{user}@{host}:{party.port}") as process:
            exchange.answer_with(model)
            guid = await exchange.place(FOLLOWING)
            call, session = await party.call(), await model.session()
            await content(process, tmp_path)
        await session.got("response.create")
        await agent_is_heard(call, session)
        assert call.invite_got is not None
        assert call.invite_got.uri == f"sip:{user}@{host}:{party.port}"
        await call.hang_up()
        end = await exchange.end_of(guid)
    assert (end["status"], end["outboundCallResult"], end["calledNumber"]) == (0, "Connected", CALLED.removeprefix("+1"))
    assert len(exchange.backend.of("/callstart")) == 1


async def test_what_the_second_place_answers_is_the_result(exchange: Exchange, tmp_path: Path) -> None:
    async with Model() as model, exchange.party(second=True) as party:
        async with redirecting(exchange, tmp_path, f"sip:{CALLED}@127.0.0.1:{party.port}") as process:
            exchange.answer_with(model)
            guid = await exchange.place(FOLLOWING)
            (await party.call()).refuse(486)
            await content(process, tmp_path)
        await _check_refused(exchange, guid, "Busy", "busy", "The far side answered 486 Busy Here")


async def test_refused_without_the_key(exchange: Exchange, tmp_path: Path) -> None:
    """By default a redirection is a refusal, wherever it leads."""
    await _refused(exchange, tmp_path, "127.0.0.1", CALLED, NUMBER, "failed", MOVED)


async def test_refused_to_a_host_that_is_not_the_trunks(exchange: Exchange, tmp_path: Path) -> None:
    said = f"{MOVED}; redirected to {FOREIGN_HOST}, which is no address of trunk following"
    await _refused(exchange, tmp_path, FOREIGN_HOST, CALLED, FOLLOWING, "failed", said)


@pytest.mark.parametrize(("user", "rule"), [(BRITISH, "country"), ("+19005550100", "premium"), ("+17205550666", "do-not-call")])
async def test_refused_to_a_number_that_the_policy_refuses(exchange: Exchange, tmp_path: Path, user: str, rule: str) -> None:
    """The record names the rule, as for a number that was asked for; the metric counts it; the customer is told that and why."""
    sample = f'switchhook_dialling_refused_total{{rule="{rule}"}}'
    before = (await exchange.metrics())[sample]
    said = f"{MOVED}; redirected to {user}: {user} "
    end = await _refused(exchange, tmp_path, "127.0.0.1", user, FOLLOWING, f"policy-{rule}", said, 4)
    assert end["errorMessage"].startswith(said)
    assert (await exchange.metrics())[sample] == before + 1


async def _refused(
    exchange: Exchange, folder: Path, host: str, user: str, caller: str, reason: str, said: str, status: int = 0
) -> dict[str, Any]:
    """Nobody is called there; gives the CallEnd."""
    async with Model() as model, Party(host, user) as party:
        async with redirecting(exchange, folder, f"sip:{user}@{host}:{party.port}") as process:
            exchange.answer_with(model)
            guid = await exchange.place(caller)
            await content(process, folder)
        end = await _check_refused(exchange, guid, "Failed", reason, said, status)
        assert not party.taken
    return end


async def _check_refused(exchange: Exchange, guid: str, result: str, reason: str, said: str, status: int = 0) -> dict[str, Any]:
    end = await exchange.end_of(guid)
    assert (end["status"], end["outboundCallResult"], end["callConnected"]) == (status, result, None)
    assert await exchange.row("reason", "call_id = ?", guid) == reason
    assert (await exchange.row("message", "call_id = ?", guid)).startswith(said)
    return end


async def test_two_carriers_that_name_each_other(exchange: Exchange, tmp_path: Path) -> None:
    """Each is asked once."""
    here, there = (f"sip:{CALLED}@127.0.0.1:{port}" for port in (exchange.port, exchange.second_port))
    other = tmp_path / "other"
    other.mkdir()
    extra = ("-key", "contact", here)
    async with (
        Model() as model,
        redirecting(exchange, tmp_path, there) as process,
        carrier("uas_redirects", other, extra, port=exchange.second_port) as (_, second),
    ):
        exchange.answer_with(model)
        guid = await exchange.place(FOLLOWING)
        await asyncio.gather(content(process, tmp_path), content(second, other))
        await _check_refused(exchange, guid, "Failed", "failed", MOVED)


async def test_no_more_than_three_are_followed(exchange: Exchange, tmp_path: Path) -> None:
    """Each answer names somebody new: the INVITE goes out four times."""
    async with Model() as model, exchange.sipp("uas_redirects_on", tmp_path) as process:
        exchange.answer_with(model)
        guid = await exchange.place(FOLLOWING)
        await content(process, tmp_path)
        await _check_refused(exchange, guid, "Failed", "failed", MOVED)
