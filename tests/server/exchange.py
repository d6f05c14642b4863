"""A server with carriers behind it: calls it places, calls it puts through, and the parties at their other ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from switchhook_demo.phone import Call
from switchhook_demo.sound import tone
from tests.peers.outgoing_call import carrier as sipp_carrier
from tests.peers.party import Party, PartyCall
from tests.peers.ports import free_port, free_row
from tests.peers.processes import PeerProcess
from tests.peers.server import Server, config
from tests.peers.vns_backend import VnsBackend
from tests.server.house import NUMBER, House
from tests.server.listening import AGENT_HZ, CALLER_HZ, ToneDetector, agent_tone, caller_tone, linear, share_at
from tests.server.model import LiveSession, Model
from tests.server.waiting import DEADLINE_S, eventually

CALLED = "+17205550199"
"""Somebody whom the account may call."""
DESTINATION = "+17205550111"
DESTINATION_HZ = 900.0
RINGS_SHORTLY = "+17206999901"
"""Numbers of the account, each with a setting of its own: this one rings for a second."""
LEAVES_MESSAGES = "+17206999902"
WHOLE_CALL = "+17206999903"
"""`maxSeconds` covers transfers."""
UNRECORDED = "+17206999904"
"""Its recording stops when the caller is put through."""
HANGS_UP_ON_MACHINES = "+17206999906"
TELLS_OF_MACHINES = "+17206999907"
IMPATIENT = "+17206999905"
"""Waits a second for a tool."""
TWO_TRUNKS = "+17206999910"
PASSWORD = "+17206999911"
RATED = "+17206999912"
"""One call, and the next after 200 s."""
FOLLOWING = "+17206999913"
"""Its trunk's redirections are followed, to 127.0.0.4 too."""
REFERRING = "+17205550100"
"""Its trunk makes transfers by REFER."""
REFERRING_HOST = "127.0.0.3"
TRANSFER = "vns_transfer_call"
LONG_MS = 20_000
"""Longer than anybody listens."""
MESSAGE = "This is Acme. Please call us back."

_ACCOUNTS = {NUMBER: "acme", TWO_TRUNKS: "twice", PASSWORD: "secretive", RATED: "rated", REFERRING: "pbx", FOLLOWING: "following"}
_SETTINGS: dict[str, dict[str, Any]] = {
    RINGS_SHORTLY: {"ring_s": 1},
    LEAVES_MESSAGES: {"answer_detection": {"on_machine": "leave_message", "message": MESSAGE}},
    HANGS_UP_ON_MACHINES: {"ring_s": 8, "answer_detection": {"on_machine": "hang_up"}},
    TELLS_OF_MACHINES: {"answer_detection": {"on_machine": "tell_agent"}},
    WHOLE_CALL: {"max_seconds_scope": "call"},
    UNRECORDED: {"record_transfers": False},
    IMPATIENT: {"tool_timeout_s": 1},
}


@dataclass
class Exchange(House):
    """`port` and `second_port` are where its trunks lead; a test starts there whom it wants called."""

    port: int = 0
    second_port: int = 0
    accounts: dict[str, str] = field(default_factory=lambda: dict(_ACCOUNTS))
    """Whose number it is."""

    # -- calls out

    async def ask(self, caller: str = NUMBER, **fields: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """POST makecall as the account of the number `caller`; gives status, body and headers."""
        account = self.accounts.get(caller, "acme")
        body = {"calledNumber": CALLED, "callerId": caller, "callerIdName": "Acme", "customerCallId": "order-7"} | fields
        url = f"{self.server.http_url}/api/customer/makecall"
        async with aiohttp.ClientSession() as http, http.post(url, json=body, headers={"Token": token(account)}) as reply:
            return reply.status, await reply.json(), dict(reply.headers)

    async def place(self, caller: str = NUMBER, **fields: Any) -> str:
        """Place a call that must be accepted; gives its sessionGuid."""
        status, body, _ = await self.ask(caller, **fields)
        assert (status, body["status"], body["errorMessage"]) == (200, 0, "Success")
        guid: str = body["sessionGuid"]
        return guid

    # -- parties

    def party(self, user: str = CALLED, answers: bool = False, second: bool = False) -> Party:
        """Whom the trunk leads to, not yet started."""
        return Party(user=user, port=self.second_port if second else self.port, answers=answers)

    def party_caller(self, host: str = "127.0.0.1") -> Party:
        """A telephone that no other call has, not yet started."""
        return Party(host, self.new_caller())

    @asynccontextmanager
    async def sipp(self, scenario: str, folder: Path, *extra: str) -> AsyncIterator[PeerProcess]:
        """sipp where the first trunk leads to."""
        async with sipp_carrier(scenario, folder, extra, port=self.port) as (_, process):
            yield process

    @asynccontextmanager
    async def caller(self, model: Model, number: str = NUMBER, host: str = "127.0.0.1") -> AsyncIterator[Caller]:
        """A caller who talks with the agent; whoever has not hung up at the end does."""
        count = len(model.sessions) + 1
        async with self.party_caller(host) as telephone:
            call = await telephone.dial(self.uri(number))
            await call.answered()
            session = await model.session(count)
            await session.got("response.create")
            guid = (await self.start_of(telephone.user))["sessionGuid"]
            yield Caller(self, call, session, guid, telephone.user)

    async def row(self, column: str, condition: str, *values: str) -> str:
        """Wait for one value of the calls table."""

        async def find() -> str | None:
            found = self._asked(f"SELECT {column} FROM calls WHERE {condition} AND ended_at IS NOT NULL", *values)
            return str(found[-1][0]) if found else None

        return await eventually(find, f"a record where {condition} {values}")

    @asynccontextmanager
    async def as_new(self) -> AsyncIterator[None]:
        """For one test: the customer's backend is as new, and afterwards nothing of any call may be left."""
        self.renew()
        yield
        await self.all_given_back()

    async def all_given_back(self) -> None:
        """Wait until nothing of any call is left, nor on its way to the customer."""
        await self.idle()
        await self.zero("rtp_ports_leased", "dialling_live", "sip_dialogs", deadline_s=60)


@dataclass
class Caller:
    """A caller in conversation with the agent."""

    exchange: Exchange
    call: PartyCall
    session: LiveSession
    guid: str
    number: str

    def transfers(self, to: str = DESTINATION, call_id: str = "call_t", **arguments: Any) -> None:
        """The model transfers the caller."""
        self.session.calls_tool(call_id, "vns_transfer_call", {"transferNumber": to, **arguments})

    async def end(self, deadline_s: float = 20.0) -> dict[str, Any]:
        """The CallEnd."""
        return await self.exchange.end_of(self.guid, deadline_s)


@asynccontextmanager
async def conversation(
    exchange: Exchange, number: str = NUMBER, host: str = "127.0.0.1", **instructions: Any
) -> AsyncIterator[tuple[Caller, Model]]:
    """A caller who talks with an agent that can transfer, and has greeted."""
    async with Model() as model:
        exchange.answer_with(model, [TRANSFER], **instructions)
        async with exchange.caller(model, number, host) as caller:
            caller.session.speaks(tone(AGENT_HZ, 100), "Hello!")
            yield caller, model


def token(account: str) -> str:
    """An account's API token."""
    return f"token-of-{account}"


def transfer_of(end: dict[str, Any]) -> dict[str, Any]:
    """The only transfer of a CallEnd."""
    assert end["transfers"] is not None, end
    [transfer] = end["transfers"]
    found: dict[str, Any] = transfer
    return found


# -- what is heard ----------------------------------------------------------------------------------------------------


def latest(call: Call, duration_ms: int) -> bytes:
    """What was heard last, µ-law."""
    return call.ear.ulaw()[-8 * duration_ms :]


async def hears(call: Call, frequency_hz: float, duration_ms: int = 400) -> None:
    """Wait until what is heard is this tone and nothing else for so long."""
    tone_in = ToneDetector(frequency_hz, duration_ms, call.ear.ulaw())
    await call.ear.until(lambda: tone_in.found(call.ear.ulaw()), DEADLINE_S, f"{frequency_hz:g} Hz for {duration_ms} ms")


async def hears_ringback(call: Call) -> None:
    """Wait until 440 and 480 Hz together are heard, and nothing else."""

    def ringing() -> bool:
        signal = linear(latest(call, 400))
        shares = [share_at(signal, hz) for hz in (440, 480)] if len(signal) == 3200 else [0, 0]
        return min(shares) > 0.2 and _both(signal) > 0.8

    await call.ear.until(ringing, DEADLINE_S, "ringback of 440 and 480 Hz")


def _both(signal: Any) -> float:
    """The share between 410 and 510 Hz; the two tones' own windows overlap."""
    return share_at(signal, 430) + share_at(signal, 490)


async def model_hears(session: LiveSession, frequency_hz: float, duration_ms: int = 400) -> None:
    """Wait until what the model hears is this tone for so long."""
    tone_in = ToneDetector(frequency_hz, duration_ms, bytes(session.audio))
    await session.hears(tone_in.found, f"{frequency_hz:g} Hz at the model")


async def agent_is_heard(call: Call, session: LiveSession, text: str = "Hello!") -> None:
    """The agent speaks, and the party hears its tone."""
    session.speaks(agent_tone(600), text)
    await hears(call, AGENT_HZ)


async def talking(caller: PartyCall, destination: PartyCall) -> None:
    """Both say their tone and hear the other's, and nothing else."""
    caller.line.hush()
    destination.line.hush()
    caller.start_saying(caller_tone(LONG_MS))
    destination.start_saying(destination_tone(LONG_MS))
    await asyncio.gather(hears(caller, DESTINATION_HZ), hears(destination, CALLER_HZ))


def destination_tone(duration_ms: int) -> bytes:
    """The destination's voice."""
    return tone(DESTINATION_HZ, duration_ms)


# -- the server -------------------------------------------------------------------------------------------------------


def exchange_config(backend: VnsBackend, port: int, second_port: int) -> dict[str, Any]:
    """Six accounts, so that each way of dialling has trunks of its own."""
    content = config(backend.url)
    [number] = content["numbers"]
    rules = {"calls_per_second": 100, "deny_prefixes": ["+17205557"], "do_not_call": ["+17205550666"]}
    content["accounts"] = [
        {"name": name, "tokens": [{"name": "main", "value": token(name)}], "dialling": dict(rules)} for name in _ACCOUNTS.values()
    ]
    content["accounts"][3]["dialling"]["calls_per_second"] = 0.005
    content["numbers"] += [
        {**deepcopy(number), "number": own, "account": account} for own, account in list(_ACCOUNTS.items())[1:]
    ]
    content["numbers"] += [{**deepcopy(number), "number": own, **settings} for own, settings in _SETTINGS.items()]
    address = f"sip:127.0.0.1:{port}"
    content["trunks"] = [
        {"name": "carrier", "account": "acme", "address": address, "allow_from": ["127.0.0.1/32"]},
        {"name": "second", "account": "twice", "address": f"sip:127.0.0.1:{second_port}", "priority": 2},
        {"name": "first", "account": "twice", "address": address, "priority": 1},
        {"name": "locked", "account": "secretive", "address": address, "username": "carrier", "password": "open sesame"},
        {"name": "rated", "account": "rated", "address": address},
        {"name": "pbx", "account": "pbx", "address": address, "allow_from": [f"{REFERRING_HOST}/32"], "transfer": "refer"},
        {
            "name": "following",
            "account": "following",
            "address": address,
            "allow_from": ["127.0.0.4/32"],
            "follow_redirects": True,
        },
    ]
    return content


@asynccontextmanager
async def open_exchange(folder: Path, **settings: str) -> AsyncIterator[Exchange]:
    """An exchange of its own for a test."""
    port, second_port = free_row(2), free_port()
    async with (
        VnsBackend({}) as backend,
        Server(folder, exchange_config(backend, port, second_port), **settings) as server,
    ):
        yield Exchange(server, backend, port=port, second_port=second_port)
