"""Calls placed by the SIP server of an answering machine, and sipp as the carrier that takes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import CallId, Encoding, Trunk
from switchhook.domain.ports import LegAnswered, LegEnded, LegEvent, LegProgress
from switchhook.telephony.caller_identity import identify_call
from switchhook.telephony.route import Route
from switchhook.telephony.sip_outgoing_leg import OutgoingSipLeg
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.flow import Flow
from tests.peers.answering_machine import AnsweringMachine
from tests.peers.ports import free_port
from tests.peers.processes import PeerProcess
from tests.peers.sipp import SippRun, messages

WAIT_S = 20.0
STARTS = 3
CALLED = "+17205550199"


@dataclass
class OutgoingCall:
    """One call, what it told and what was heard; also watches its attempts."""

    events: list[LegEvent] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    heard_early: bytearray = field(default_factory=bytearray)
    begun: list[str] = field(default_factory=list)
    """Names of trunks."""
    over: list[tuple[str, str, int | None]] = field(default_factory=list)
    retry_after_s: list[int | None] = field(default_factory=list)
    leg: OutgoingSipLeg = field(init=False)

    def attempt_begun(self, route: Route) -> None:
        self.begun.append(route.trunk.name)

    def attempt_over(self, route: Route, reason: str, status: int | None, retry_after_s: int | None = None) -> None:
        self.over.append((route.trunk.name, reason, status))
        self.retry_after_s.append(retry_after_s)

    def on_audio(self, payload: bytes, now: float) -> None:
        """The leg's listener."""
        (self.heard if self.answered else self.heard_early).extend(payload)

    @property
    def answered(self) -> bool:
        """Whether it was told."""
        return LegAnswered() in self.events

    @property
    def progress(self) -> list[tuple[int, bool]]:
        """Statuses, and whether there was early media."""
        return [(event.status, event.early_media) for event in self.events if isinstance(event, LegProgress)]

    @property
    def endings(self) -> list[LegEnded]:
        """How it ended; must be one."""
        return [event for event in self.events if isinstance(event, LegEnded)]


def waiting_call(machine: AnsweringMachine, encoding: Encoding = Encoding.PCMU, ring_s: float = 45.0) -> OutgoingCall:
    """A call without routes yet."""
    request = DialRequest(CallId("call"), "acme", CALLED, "+17205550100", "Acme", encoding, ring_s)
    call = OutgoingCall()
    call.leg = OutgoingSipLeg(machine.server, machine.streams, request, call)
    call.leg.subscribe(call.events.append)
    call.leg.listen(call.on_audio)
    return call


def route(
    leg: OutgoingSipLeg, port: int, name: str = "carrier", transport: str = "udp", credentials: Account | None = None
) -> Route:
    """The way to a carrier on this machine."""
    trunk = Trunk(name, "acme", f"sip:127.0.0.1:{port}", allow_from=("127.0.0.0/8",))
    identity = identify_call(leg.request, trunk, "127.0.0.1")
    flow = Flow(transport, "127.0.0.1", port)
    return Route(trunk, flow, str(identity.target), identity.from_, identity.to, identity.headers(), credentials=credentials)


def dial(machine: AnsweringMachine, *ports: int, encoding: Encoding = Encoding.PCMU, ring_s: float = 45.0) -> OutgoingCall:
    """Place a call to the carriers on these ports, named `carrier-1` and so on."""
    call = waiting_call(machine, encoding, ring_s)
    call.leg.begin([route(call.leg, port, f"carrier-{number}") for number, port in enumerate(ports, 1)])
    return call


@asynccontextmanager
async def carrier(
    scenario: str, folder: Path, extra: Sequence[str] = (), transport: str = "u1", port: int = 0, calls: int = 1, **keys: str
) -> AsyncIterator[tuple[int, PeerProcess]]:
    """sipp as a peer that takes calls; gives its port. `port` 0: a free one. One that ends without it is started again.

    Raises:
        AssertionError: it never got it; with its output.
    """
    kind = "udp" if transport == "u1" else "tcp"
    for left in reversed(range(STARTS)):
        at = port or free_port()
        words = ("-p", str(at), *extra)
        patience_s = int(WAIT_S) + 10
        run = SippRun(
            scenario, ("127.0.0.1", 9), folder, calls=calls, keys=keys, extra=words, transport=transport, timeout_s=patience_s
        )
        async with run.process() as process:
            if await _listens(process, at, kind):
                yield at, process
                return
        assert left, f"sipp could not take port {at}:\n{process.read()[-2000:]}{messages(folder)}"


async def _listens(process: PeerProcess, port: int, kind: str) -> bool:
    """Wait until sipp has its port; False when it has ended without."""
    async with asyncio.timeout(WAIT_S):
        while process.running:
            if _has_port(process.pid, port, kind):
                return True
            await asyncio.sleep(0.02)
    return False


def _has_port(pid: int, port: int, kind: str) -> bool:
    """Whether a process has this port, as the system tells (proc(5)): a probe that binds would itself be in the way."""
    rows = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
    found: set[str] = set()
    with contextlib.suppress(OSError):  # it has ended, or closed a file just now
        for file in Path(f"/proc/{pid}/fd").iterdir():
            found.add(str(file.readlink()))
    return not sockets.isdisjoint(found)


async def content(process: PeerProcess, folder: Path) -> None:
    """Wait until sipp is done; it must have seen what its scenario wants."""
    done = await process.finished(WAIT_S)
    assert done.returncode == 0, done.output + messages(folder)


async def all_given_back(machine: AnsweringMachine) -> None:
    """Ports and dialogs."""
    await machine.until(lambda: machine.ports.leased == 0 and machine.server.figures["dialogs"] == 0)
