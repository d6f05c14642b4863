"""A SIP server with a trivial switchboard: each call is treated the way the test says, and remembered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from switchhook.domain.model import CallAttempt, Trunk
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, LegEvent, OfferedLeg
from switchhook.media import tones
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_server import SipConfig, SipServer
from switchhook.telephony.trunks import TrunkDirectory
from tests.peers.ports import passing_row

LOCAL_TRUNK = Trunk("local", "acme", "sip:127.0.0.1:5070", allow_from=("127.0.0.0/8",))
TONE_HZ = 700.0
LOOPBACK = SipConfig(host="127.0.0.1", transports=("udp", "tcp"), stop_grace_s=0.1)


class WallClock:
    """The loop's time and the wall's."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class TakenCall:
    """One call as the switchboard saw it."""

    attempt: CallAttempt
    leg: OfferedLeg
    events: list[LegEvent] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)

    @property
    def endings(self) -> list[LegEnded]:
        """How it ended; must be one."""
        return [event for event in self.events if isinstance(event, LegEnded)]

    @property
    def digits(self) -> str:
        """Keys pressed."""
        return "".join(event.digit for event in self.events if isinstance(event, DigitPressed))


class AnsweringMachine:
    """Takes calls. `treat` decides on each; without one, calls are rung and answered, and a tone is played."""

    def __init__(self, trunks: Sequence[Trunk], treat: Callable[[TakenCall], None] | None) -> None:
        self.calls: list[TakenCall] = []
        self.directory = TrunkDirectory(trunks)
        self.ports: RtpPorts
        self.server: SipServer
        self.streams: Callable[[], RtpStream]
        self._treat = treat or play_tone

    def on_call(self, attempt: CallAttempt, leg: OfferedLeg) -> None:
        """The server's callback."""
        call = TakenCall(attempt, leg)
        self.calls.append(call)
        leg.subscribe(lambda event: self._on_event(call, event))
        self._treat(call)

    def _on_event(self, call: TakenCall, event: LegEvent) -> None:
        call.events.append(event)
        if isinstance(event, LegEnded):
            call.leg.close()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait for a condition, which is looked at often; the deadline only bounds a failure."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():  # noqa: ASYNC110 - conditions of outside programs have no event
                    await asyncio.sleep(0.01)
        except TimeoutError:
            events = [(call.attempt.line_call_id, call.events) for call in self.calls]
            raise AssertionError(f"it did not come to pass; calls: {events}; figures: {self.server.figures}") from None


def play_tone(call: TakenCall) -> None:
    """Ring, answer, play 700 Hz for longer than any test lasts, and listen."""
    leg = call.leg
    leg.listen(lambda payload, now: call.heard.extend(payload))
    leg.ring()
    leg.answer()
    sound = tones.tone([TONE_HZ], 30_000, leg.encoding)
    leg.playout.enqueue("tone", sound, asyncio.get_running_loop().time())
    leg.playout.finish("tone", asyncio.get_running_loop().time())


@asynccontextmanager
async def answering_machine(
    config: SipConfig | None = None,
    trunks: Sequence[Trunk] = (LOCAL_TRUNK,),
    treat: Callable[[TakenCall], None] | None = None,
    rtp_pairs: int = 50,
    media_timeout_s: float = 30.0,
) -> AsyncIterator[AnsweringMachine]:
    """A server with free ports, on 127.0.0.1 unless the configuration says otherwise; stopped at the end."""
    machine = AnsweringMachine(trunks, treat)
    rtp_ports = passing_row(2 * rtp_pairs)
    pacer = Pacer()
    machine.ports = RtpPorts("127.0.0.1", *rtp_ports)
    machine.streams = lambda: RtpStream(machine.ports, pacer, media_timeout_s)
    machine.server = SipServer(
        replace(config or LOOPBACK, port=0),
        machine.directory,
        machine.streams,
        machine.on_call,
        WallClock(),
        os.urandom,
    )
    await machine.server.start()
    try:
        yield machine
    finally:
        await machine.server.stop()
        pacer.close()
        await machine.until(lambda: not machine.server.figures["connections"])  # over TLS each says goodbye, and hears it


__all__ = ["LOCAL_TRUNK", "LOOPBACK", "TONE_HZ", "AnsweringMachine", "LegAnswered", "TakenCall", "answering_machine", "play_tone"]
