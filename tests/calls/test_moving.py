"""Lines that take the place of a call's lines: of the party's, or of that of a transfer's destination."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from switchhook.calls.switchboard import Switchboard
from switchhook.calls.transfer import REPLACED_S
from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import Action, Answer, CallPlan, HangUp, PlaySound, Say
from switchhook.domain.ports import DigitPressed, LegEnded, PlayoutDrained, ReferProgress, TransferAsked
from switchhook.media.playout import Playout
from tests.calls.fakes import EPOCH, FakeLeg, attempt
from tests.calls.house import NUMBER, House, bridged, briefings, consult_item, consulting, live, transferring
from tests.peers.virtual_loop import run_virtual

MESSAGE = b"".join(bytes([number]) * 160 for number in range(1, 201))
"""Four seconds, each frame of its own."""


async def replaced(house: House, line: FakeLeg) -> FakeLeg:
    """Another line has taken the place of this one; gives it."""
    new = house.replace(line)
    assert new is not None
    await asyncio.sleep(0.1)
    return new


# -- the destination's line is replaced -------------------------------------------------------------------------------


def test_a_line_that_replaces_the_destinations_talks_with_the_caller() -> None:
    house = House()

    async def story() -> None:
        old = await bridged(house)
        new = await replaced(house, old)
        assert new.done == ["answer"]
        assert house.joining.joined == [(house.leg, new)]
        assert old.done == ["hang up"]
        assert old.closed
        new.emit(DigitPressed("5"))
        house.leg.emit(DigitPressed("6"))
        assert house.joining.digits == ["5", "6"]
        new.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")
    assert [record.result for record in house.book.reports[0].transfers] == ["connected"]
    assert len(house.dialer.requests) == 1


def test_a_line_that_replaces_the_destinations_while_the_agent_talks_with_it() -> None:
    house = House()

    async def story() -> None:
        old = await consulting(house)
        new = await replaced(house, old)
        assert new.on_audio is not None, "the agent hears whoever is there"
        assert house.joining.joined == []
        assert [("is on hold" in text) for text in briefings(house)] == [True, True], "it may be somebody else"
        new.emit(DigitPressed("1"))
        assert house.joining.joined == [(house.leg, new)]
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")


def test_a_destination_that_was_replaced_and_leaves_gives_the_caller_back_to_the_agent() -> None:
    house = House()

    async def story() -> None:
        old = await consulting(house)
        new = await replaced(house, old)
        new.emit(LegEnded("caller-hung-up"))
        assert house.leg.on_audio is not None
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == ["dropped"]


def test_a_replacement_ends_the_destinations_own_move() -> None:
    house = House()

    async def story() -> None:
        old = await bridged(house)
        old.emit(TransferAsked("+13035550000"))
        await asyncio.sleep(0.1)
        new = house.replace(old)
        await asyncio.sleep(0.1)
        assert house.dialer.legs[1].closed, "nobody waits for it any more"
        assert house.joining.joined == [(house.leg, new)]
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


@pytest.mark.parametrize(
    ("state", "encoding", "answer"),
    [
        (consulting, Encoding.PCMA, "reject 488"),
        (bridged, Encoding.PCMA, "answer"),
    ],
)
def test_what_the_agent_cannot_speak_is_refused_and_a_bridge_translates(
    state: Callable[[House], Awaitable[FakeLeg]], encoding: Encoding, answer: str
) -> None:
    house = House()

    async def story() -> None:
        old = await state(house)
        new = FakeLeg()
        new.encoding = encoding
        house.session.replace_line(new, old)
        await asyncio.sleep(0.1)
        assert new.done == [answer]
        assert old.ended is (answer == "answer")
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_destination_that_still_rings_has_no_place_to_take() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=False)
        new = house.replace(house.dialer.legs[0])
        assert new is not None
        assert new.done == ["reject 481"]
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_the_switchboard_finds_the_call_by_the_destinations_line() -> None:
    house = House()

    async def main() -> None:
        board = Switchboard(house.parts, max_calls=1)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(board.run(ready))
            await ready.wait()
            board.offer(attempt(), house.leg)
            old = await bridged(house)
            new, late = FakeLeg(), FakeLeg()
            board.replace(attempt("another"), new, old)
            await asyncio.sleep(0.1)
            assert house.joining.joined == [(house.leg, new)]
            board.replace(attempt("late"), late, old)
            assert late.done == ["reject 481"], "its place is taken already"
            house.leg.emit(LegEnded("caller-hung-up"))
            await asyncio.sleep(1)
            assert new.closed
            board.close()

    run_virtual(main())
    reasons = sorted(report.verdict.reason for report in house.book.reports)
    assert reasons == ["caller-hung-up", "line-refused-481"]


def test_a_call_that_is_ending_has_no_place_to_take() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.leg.confirms = False
        house.session.stop(Verdict(Ending.COMPLETED, "hung-up-by-us"))
        late = house.replace(house.leg)
        assert late is not None
        assert late.done == ["reject 481"]

    live(house, story)


# -- an attended REFER whose peer leaves at once -----------------------------------------------------------------------


async def handed_over(house: House) -> FakeLeg:
    """The caller's peer has taken our REFER and ended the call; gives the destination's line."""
    callee = await consulting(house)
    house.model("response.created", response={"id": "r2"})
    house.model("response.output_item.done", response_id="r2", item=consult_item("complete_transfer"))
    house.model("response.done", response={"id": "r2", "status": "completed", "output": []})
    assert house.leg.done[-1] == "refer +13035551212 attended"
    house.leg.emit(ReferProgress(202, final=False))
    house.leg.emit(LegEnded("referred"))
    return callee


def referring() -> House:
    house = House()
    house.leg.transfer_mode = TransferMode.REFER
    return house


def test_a_destination_is_kept_until_the_new_call_has_taken_its_place() -> None:
    house = referring()

    async def story() -> None:
        callee = await handed_over(house)
        await asyncio.sleep(REPLACED_S - 1)
        assert not callee.closed
        assert callee.done == []
        callee.emit(LegEnded("callee-hung-up"))

    live(house, story)
    [report] = house.book.reports
    [transfer] = report.transfers
    assert (transfer.result, transfer.referred, report.referred_out) == ("referred", True, True)
    assert house.verdict == Verdict(Ending.COMPLETED, "referred")
    assert report.ended_at < EPOCH + timedelta(seconds=1), "the call ended with the caller's line"


def test_a_destination_whose_place_nobody_takes_is_let_go_and_the_record_says_so() -> None:
    house = referring()

    async def story() -> None:
        callee = await handed_over(house)
        assert house.session.serves(callee)
        late = house.replace(callee)
        assert late is not None
        assert late.done == ["reject 481"], "there is nobody to talk with"
        await asyncio.sleep(REPLACED_S + 0.5)
        assert callee.closed

    live(house, story)
    [report] = house.book.reports
    [transfer] = report.transfers
    assert (transfer.result, transfer.sip_status, transfer.referred, report.referred_out) == ("cancelled", 202, False, False)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")


def test_a_destination_whose_line_fails_meanwhile_was_dropped() -> None:
    house = referring()

    async def story() -> None:
        (await handed_over(house)).emit(LegEnded("media-timeout"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == ["dropped"]


def test_a_server_that_stops_does_not_wait_for_the_new_call() -> None:
    house = referring()

    async def story() -> None:
        await handed_over(house)
        house.session.stop(Verdict(Ending.INTERNAL_ERROR, "server-draining"))
        await asyncio.sleep(0.1)
        assert house.book.reports

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == ["cancelled"]


# -- a message under way ----------------------------------------------------------------------------------------------


class PacedLeg(FakeLeg):
    """A line whose sound takes its time, from `plays` on; `heard` is what its party heard but silence."""

    def __init__(self) -> None:
        super().__init__()
        self.sound = Playout(on_drained=lambda: self._soon(PlayoutDrained()))
        self.playout = self.sound
        self.heard = bytearray()

    async def plays(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.ended:
            self.heard += (self.sound.next_frame(loop.time()) or b"").rstrip(b"\xff")
            await asyncio.sleep(0.02)


def speaking(action: Action) -> House:
    """Says four seconds and hangs up."""
    house = House(CallPlan(NUMBER, (Answer(), action, HangUp())))

    async def says(text: str, encoding: Encoding) -> bytes:
        return MESSAGE

    house.parts.voice.synthesize = says  # type: ignore[method-assign]  # four seconds that are told apart
    return house


@pytest.mark.parametrize("at_s", [0.0, 0.51, 3.97])
def test_a_message_goes_on_where_the_party_has_gone(at_s: float) -> None:
    house = speaking(Say("Our offices are closed."))
    old, new = PacedLeg(), PacedLeg()
    house.leg = old
    house.session = type(house.session)(attempt(), old, house.parts)

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(old.plays())
            tasks.create_task(new.plays())
            await asyncio.sleep(0.15 + at_s)
            house.session.replace_line(new, old)
            await asyncio.sleep(6)
            assert len(house.book.reports) == 1, "the call ends when the message does"

    live(house, story)
    heard = bytes(old.heard + new.heard)
    assert [frame for frame in dict.fromkeys(heard)] == list(dict.fromkeys(MESSAGE)), "each frame, in order"
    assert abs(len(heard) - len(MESSAGE)) <= 160, "at most the frame in the air is heard twice"
    assert house.verdict.reason == "flow-ended"


def test_a_repeated_sound_keeps_its_count_over_a_move() -> None:
    house = speaking(PlaySound("https://backend.example/jingle", times=2))
    old, new, third = PacedLeg(), PacedLeg(), PacedLeg()

    class Sounds:
        async def fetch(self, url: str, encoding: Encoding) -> bytes:
            return MESSAGE

    house.leg = old
    object.__setattr__(house.parts, "greetings", Sounds())
    house.session = type(house.session)(attempt(), old, house.parts)

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            for leg in (old, new, third):
                tasks.create_task(leg.plays())
            await asyncio.sleep(1)
            house.session.replace_line(new, old)
            await asyncio.sleep(1)
            house.session.replace_line(third, new)
            await asyncio.sleep(10)

    live(house, story)
    assert abs(len(old.heard + new.heard + third.heard) - 2 * len(MESSAGE)) <= 320
