"""Telephones at Twilio with the words of those at a SIP trunk (`switchhook_demo.phone`, `tests.peers.party`), so that a test need
not know how its caller reaches the server."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from types import TracebackType
from typing import Self

from switchhook_demo.phone import CallRefusedError
from switchhook_demo.rtp_line import Heard
from switchhook_demo.sip_text import Message
from switchhook_demo.sound import loudness
from tests.peers.twilio_party import FRAME, Party
from tests.peers.twilio_service import FINAL, Callee, CarriedCall, TwilioService

REFUSED = {"busy": 486, "canceled": 487, "no-answer": 603}
"""How a call ended that was never answered: the SIP status that says the same. Twilio's `<Reject>` knows two reasons alone."""
DEADLINE_S = 20.0
FLOWING = 5 * FRAME


class PartyEar:
    """What a party has heard, in frames of 20 ms."""

    encoding = "PCMU"

    def __init__(self, party: Party) -> None:
        self._party = party
        self._packets: list[Heard] = []

    @property
    def packets(self) -> list[Heard]:
        """Each frame so far."""
        sound = self._party.heard
        for at in range(len(self._packets), len(sound) // FRAME):
            frame = bytes(sound[at * FRAME : (at + 1) * FRAME])
            self._packets.append(Heard(self._party.heard_at[at], at, at * FRAME, False, frame, loudness(frame)))
        return self._packets

    def ulaw(self, since: float = 0.0) -> bytes:
        """All sound that was played after a moment."""
        return bytes(self._party.heard[bisect_left(self._party.heard_at, since) * FRAME :])

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition on what was heard."""
        await self._party.until(condition, what, timeout_s)


class PartyLine:
    """The sound that a party sends."""

    def __init__(self, party: Party) -> None:
        self._party = party

    @property
    def sending(self) -> bool:
        """Whether Twilio gets anything."""
        return self._party.reachable

    @sending.setter
    def sending(self, wanted: bool) -> None:
        self._party.reachable = wanted

    def press(self, digit: str) -> None:
        """Press a key without waiting."""
        self._party.press(digit)

    def hush(self) -> None:
        """Forget what is still to be said."""
        self._party.hush()


class Unanswered:
    """That a call to a party ended before it was answered; to be waited for like an `asyncio.Event`."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def is_set(self) -> bool:
        """Whether it has."""
        return self._party.over and not self._party.picked_up.is_set()

    async def wait(self) -> None:
        """Until it has."""
        await self._party.until(self.is_set, f"nobody calls {self._party.number} any more")


class PartyCall:
    """A party's call, with the words of a telephone's. `carried` is the call at Twilio of who dialled himself."""

    def __init__(self, twilio: TwilioService, party: Party, carried: CarriedCall | None = None) -> None:
        self.ear = PartyEar(party)
        self.line = PartyLine(party)
        self.cancelled = Unanswered(party)
        self.provisionals: list[int] = []
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self._twilio = twilio
        self._party = party
        self._carried = carried

    # -- who dialled

    async def ringing(self) -> int:
        """Twilio lets it ring by itself."""
        return 180

    async def answered(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait for an answer, and until sound flows: only then the server knows of it, too. Raises CallRefusedError."""
        carried = self._carried
        assert carried is not None
        settled = ("in-progress", *FINAL)
        status = await self._twilio.until(
            lambda: carried.status if carried.status in settled else None, f"an answer for {self._party.number}", timeout_s
        )
        if status in REFUSED:
            await self._party.ended()
            raise CallRefusedError(REFUSED[status], status, Message())
        assert status == "in-progress", status
        self.answered_at = asyncio.get_running_loop().time()
        await self._party.until(
            lambda: self._party.over or len(self._party.heard) >= FLOWING, f"sound for {self._party.number}", timeout_s
        )

    async def cancel(self) -> None:
        """Give up."""
        self._party.hang_up()

    # -- who is called

    @property
    def caller(self) -> str:
        """The number we are shown."""
        [carried] = [call for call in self._twilio.calls.values() if call.party is self._party]
        return carried.form["From"]

    def ring(self) -> None:
        """It rings by itself."""

    def answer(self) -> None:
        """Lift the receiver."""
        self._party.answer()

    # -- whoever

    async def say(self, *lines: bytes) -> None:
        """Speak; returns when all was said."""
        for sound in lines:
            self._party.say(sound)
        await self._party.said()

    def start_saying(self, sound: bytes) -> None:
        """Speak without waiting."""
        self._party.say(sound)

    async def press(self, digits: str) -> None:
        """Press keys."""
        for digit in digits:
            self._party.press(digit)
            await self._party.said()

    async def heard(self, since: float | None = None, timeout_s: float = DEADLINE_S) -> None:
        """Wait for a voice, from the beginning (`since` 0) or from this moment on."""
        begins = 0 if since == 0 else len(self.ear.packets)
        await self.ear.until(lambda: any(packet.voiced for packet in self.ear.packets[begins:]), timeout_s, "a voice")

    async def ended(self, timeout_s: float = DEADLINE_S) -> str:
        """Wait for the end; gives who hung up, `us` or `them`."""
        await self._party.ended(timeout_s)
        self.ended_at = asyncio.get_running_loop().time()
        return "us" if self._party.hung_up.is_set() and not self._party.let_go else "them"

    async def hang_up(self) -> None:
        """Put the receiver down."""
        self._party.hang_up()
        await self._party.ended()


class TwilioPhone:
    """`async with TwilioPhone(twilio, user) as phone`: somebody who dials; at the end all his calls are over."""

    def __init__(self, twilio: TwilioService, user: str, display_name: str | None = None) -> None:
        self.user = user
        self._twilio = twilio
        self._display_name = display_name
        self._carried: list[CarriedCall] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for carried in self._carried:
            carried.party.hang_up()

    async def dial(self, uri: str) -> PartyCall:
        """Place a call to the user of a SIP address."""
        number = uri.removeprefix("sip:").partition("@")[0]
        carried = self._twilio.ring(self.user, number, self._display_name)
        self._carried.append(carried)
        return PartyCall(self._twilio, carried.party, carried)


class TwilioDestination:
    """`async with TwilioDestination(twilio, number) as party`: whom Twilio reaches; each call waits for the test's decision."""

    def __init__(self, twilio: TwilioService, number: str, answers: bool = False) -> None:
        """`answers`: every call is answered at once."""
        self._twilio = twilio
        self._number = number
        self._callee = Callee("answer" if answers else "waits")
        self._taken: list[PartyCall] = []

    async def __aenter__(self) -> Self:
        self._twilio.callees[self._number] = self._callee
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._twilio.callees[self._number]
        for party in self._callee.rung:
            party.hang_up()

    @property
    def taken(self) -> list[PartyCall]:
        """Calls that came."""
        self._taken += [PartyCall(self._twilio, party) for party in self._callee.rung[len(self._taken) :]]
        return self._taken

    async def call(self, count: int = 1) -> PartyCall:
        """Wait for the call of this number that comes in, the first being 1."""
        return await self._twilio.until(
            lambda: self.taken[count - 1] if len(self.taken) >= count else None, f"call {count} of {self._number}"
        )
