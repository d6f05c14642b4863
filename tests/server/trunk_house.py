"""A server with the trunks that a test gives it: where they lead, what they are encrypted with, whose calls they take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.peers.party import Party, PartyCall
from tests.peers.server import Server, config
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import CALLED, Exchange, agent_is_heard, model_hears, token
from tests.server.house import NUMBER
from tests.server.listening import CALLER_HZ, caller_tone
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

Keys = dict[str, Any]
"""Of an entry of the apply file."""


def trunk(name: str, address: str, **keys: Any) -> Keys:
    """A trunk of the account acme, unless `account` says otherwise."""
    return {"name": name, "account": "acme", "address": address, **keys}


def at(port: int) -> str:
    """The address of a peer on this machine."""
    return f"sip:127.0.0.1:{port}"


def trunk_config(backend: VnsBackend, trunks: Sequence[Keys], numbers: Mapping[str, Keys]) -> Keys:
    """An account for each that a trunk names; `numbers` with their settings, of acme unless they say otherwise."""
    content = config(backend.url)
    [plain] = content["numbers"]
    accounts = dict.fromkeys(trunk["account"] for trunk in trunks)
    rules = {"calls_per_second": 100}
    content["accounts"] = [
        {"name": name, "tokens": [{"name": "main", "value": token(name)}], "dialling": rules} for name in accounts
    ]
    content["numbers"] = [{**deepcopy(plain), "number": number, **keys} for number, keys in numbers.items()]
    content["trunks"] = list(trunks)
    return content


@asynccontextmanager
async def open_trunks(
    folder: Path,
    trunks: Sequence[Keys],
    numbers: Mapping[str, Keys] | None = None,
    settings: Mapping[str, str] | None = None,
    settles: bool = True,
) -> AsyncIterator[Exchange]:
    """A server of its own for a test; at the end nothing of any call may be left.

    `settles` False leaves that out: an INVITE to a peer that is silent is given up after 32 s (RFC 3261 §17.1.1.2).
    """
    numbers = numbers or {NUMBER: {}}
    accounts = {number: keys.get("account", "acme") for number, keys in numbers.items()}
    async with (
        VnsBackend({}) as backend,
        Server(folder, trunk_config(backend, trunks, numbers), SWITCHHOOK_DRAIN_S="1", **(settings or {})) as server,
    ):
        exchange = Exchange(server, backend, accounts=accounts)
        yield exchange
        if settles and server.process is not None:
            await exchange.all_given_back()


async def talks_with_the_agent(call: PartyCall, session: LiveSession) -> None:
    """Party and agent hear each other, by frequency."""
    await session.got("response.create")
    await agent_is_heard(call, session)
    call.start_saying(caller_tone(800))
    await model_hears(session, CALLER_HZ)


async def call_reaches(exchange: Exchange, party: Party, caller: str = NUMBER) -> Keys:
    """Order a call: the party is rung, both hear each other, the party hangs up; gives the CallEnd."""
    count = len(party.taken)
    async with Model() as model:
        exchange.answer_with(model)
        guid = await exchange.place(caller)
        call = await party.call(count + 1)
        assert call.invite_got is not None
        assert CALLED in call.invite_got.uri
        call.answer()
        await talks_with_the_agent(call, await model.session())
        await call.hang_up()
        end = await exchange.end_of(guid)
    assert (end["status"], end["outboundCallResult"], end["errorMessage"]) == (0, "Connected", "No Errors")
    return end


async def trunk_fails(exchange: Exchange, caller: str = NUMBER) -> Keys:
    """Order a call that no trunk can carry: CallEnd and the record say so; gives the CallEnd."""
    async with Model() as model:
        exchange.answer_with(model)
        guid = await exchange.place(caller)
        end = await exchange.end_of(guid)
        assert not any(session.sent("response.create") for session in model.sessions)
    assert (end["status"], end["outboundCallResult"], end["callConnected"]) == (4, "Failed", None)
    assert await exchange.row("reason", "call_id = ?", guid) == "trunk-error"
    assert await exchange.row("message", "call_id = ?", guid) == end["errorMessage"]
    return end


async def figure(exchange: Exchange, name: str, trunk_name: str, value: float, deadline_s: float = 40.0) -> None:
    """Wait until `registered` or `healthy` of a trunk is this."""
    sample = f'switchhook_trunk_{name}{{trunk="{trunk_name}"}}'

    async def find() -> bool:
        return (await exchange.metrics()).get(sample) == value

    await eventually(find, f"{sample} is {value:g}", deadline_s)
