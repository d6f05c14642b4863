"""Everybody whom the soak's server calls: telephones and carriers of every habit, behind trunks of every kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from switchhook_demo.sip_text import parse
from switchhook_demo.sound import tone
from tests.peers.baresip import BaresipLine, baresip_line
from tests.peers.certificates import Authority
from tests.peers.party import Party, PartyCall
from tests.peers.ports import free_port, free_row
from tests.peers.server import Server
from tests.peers.sipp import SippRun
from tests.peers.sound import write_wav
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import Exchange, exchange_config, token
from tests.server.house import NUMBER

ANSWERS = "+17205550110"
"""Numbers behind the trunk, each with its habit: answers and hangs up soon."""
STAYS = "+17205550112"
BUSY = "+17205550113"
RINGS = "+17205550114"
FAILS = "+17205550115"
"""503; over the second trunk sipp answers and hangs up."""
VANISHES = "+17205550116"
"""Answers, and is never heard of again."""
PRESSES_ONE = "+17205550117"
"""Answers and takes the caller with the key."""
TELEPHONE = "+17205550111"
"""The one behind the trunk over TLS."""
BY_TCP, BY_TLS, RELIABLE = "+17206999914", "+17206999915", "+17206999916"
"""Numbers of the server whose trunks are over TCP, over TLS with SRTP, and to a carrier that wants PRACK."""


class Network(Party):
    """Everybody behind the first trunk."""

    def __init__(self, port: int) -> None:
        super().__init__(user=ANSWERS, port=port)
        self._gone: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Whoever is gone hears nothing."""
        message = parse(data)
        if message is None or message.get("call-id") in self._gone:
            return
        before = len(self.taken)
        super().datagram_received(data, addr)
        for call in self.taken[before:]:
            task = asyncio.get_running_loop().create_task(self._live(call))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def called_by(self, number: str) -> None:
        """Wait until somebody's call rings here."""
        async with asyncio.timeout(30):
            while all(call.caller != number for call in self.taken):
                self._came.clear()
                await self._came.wait()

    async def all_gone(self) -> None:
        """Wait until everybody's call is over, as they see it."""
        if self._work:
            _, talking = await asyncio.wait(self._work, timeout=10)
            assert not talking, f"still on the line: {[call.uri for call in self.calls.values()]}"

    async def _live(self, call: PartyCall) -> None:
        number = call.uri.removeprefix("sip:").partition("@")[0]
        if number in (BUSY, FAILS):
            call.refuse(486 if number == BUSY else 503)
        else:
            call.ring()
            if number != RINGS:
                call.answer()
        if number == VANISHES:
            self._gone.add(call.call_id)
            call.vanish()
        with contextlib.suppress(TimeoutError):
            await self._talk(call, number)
        await call.close()

    async def _talk(self, call: PartyCall, number: str) -> None:
        if number == ANSWERS:
            call.start_saying(tone(900, 300))
            await call.line.said()
            await call.hang_up()
        elif number == PRESSES_ONE:
            await asyncio.wait_for(call.acknowledged.wait(), 60)
            call.line.press("1")
        if number in (ANSWERS, STAYS, RINGS, PRESSES_ONE):
            await call.ended(60)


@dataclass(frozen=True)
class Carriers:
    """The ports at which the other trunks end."""

    tcp: int
    tls: int
    reliable: int

    @property
    def names(self) -> dict[int, str]:
        """What a connection to them is."""
        return {self.tcp: "trunk over TCP", self.tls: "trunk over TLS"}


@asynccontextmanager
async def open_soak(folder: Path) -> AsyncIterator[tuple[Exchange, Carriers]]:
    """An exchange with three trunks more, and all carriers but those of the first trunk."""
    port, second_port, telephone = free_port(), free_port(), free_row(2)
    carriers = Carriers(free_port(), telephone + 1, free_port())
    authority = Authority(folder)
    ours = authority.vouch_for("127.0.0.1")
    settings = {
        "SWITCHHOOK_MEDIA_TIMEOUT_S": "5",
        "SWITCHHOOK_DRAIN_S": "1",
        "SWITCHHOOK_SIP_TRANSPORTS": "udp,tcp,tls",
        "SWITCHHOOK_SIP_TLS_PORT": str(free_port()),
        "SWITCHHOOK_TLS_CERTIFICATE": ours.certificate,
        "SWITCHHOOK_TLS_KEY": ours.key,
    }
    write_wav(folder / "source.wav", 900, 30_000)
    line = BaresipLine(
        TELEPHONE, sip_port=telephone, parameters=";mediaenc=srtp-mand", calls=16, identity=authority.vouch_for("127.0.0.1")
    )
    async with AsyncExitStack() as stack:
        for scenario, at, transport in (
            ("uas_hangs_up", second_port, "u1"),
            ("uas_hangs_up", carriers.tcp, "t1"),
            ("uas_slow_prack", carriers.reliable, "u1"),
        ):
            run = SippRun(
                scenario,
                ("127.0.0.1", 9),
                folder / f"carrier-{at}",
                calls=1_000_000,
                transport=transport,
                extra=("-p", str(at)),
                timeout_s=900,
            )
            await stack.enter_async_context(run.process())
        await stack.enter_async_context(baresip_line(folder / "telephone", folder / "source.wav", line))
        backend = await stack.enter_async_context(VnsBackend({}))
        content = exchange_config(backend, port, second_port)
        accounts = _add_trunks(content, carriers, authority.file)
        server = await stack.enter_async_context(Server(folder, content, **settings))
        exchange = Exchange(server, backend, port=port, second_port=second_port)
        exchange.accounts |= accounts
        yield exchange, carriers


def _add_trunks(content: dict[str, list[dict[str, object]]], carriers: Carriers, authority: str) -> dict[str, str]:
    """Whose the numbers of these trunks are."""
    [plain] = [number for number in content["numbers"] if number["number"] == NUMBER]
    tls = {"transport": "tls", "tls_ca": authority, "srtp": "required"}
    kinds = {
        BY_TCP: ("by-tcp", carriers.tcp, {"transport": "tcp"}),
        BY_TLS: ("by-tls", carriers.tls, tls),
        RELIABLE: ("reliable", carriers.reliable, {}),
    }
    for number, (name, port, keys) in kinds.items():
        tokens = [{"name": "main", "value": token(name)}]
        content["accounts"].append({"name": name, "tokens": tokens, "dialling": {"calls_per_second": 100}})
        content["numbers"].append({**plain, "number": number, "account": name})
        content["trunks"].append({"name": name, "account": name, "address": f"sip:127.0.0.1:{port}", **keys})
    return {number: name for number, (name, _, _) in kinds.items()}
