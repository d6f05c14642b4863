"""A Media Streams leg as the call core sees it: sound, digits, the recording, transfers and its one end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain import ports
from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, LegProgress, PlayoutDrained, ReferProgress
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_leg import CarrierOrders, TwilioLeg
from switchhook.telephony.twilio_legs import TwilioLegs
from tests.peers.virtual_loop import run_virtual
from tests.telephony.twilio_carrier import Line, Orders, Stream


def run(work: Coroutine[Any, Any, None]) -> None:
    run_virtual(work)


class Tape:
    """A recorder's two tracks."""

    def __init__(self) -> None:
        self.tracks = {"in": bytearray(), "out": bytearray()}
        self.places: dict[str, list[tuple[int, int]]] = {"in": [], "out": []}

    def received(self, payload: bytes, position: int) -> None:
        self._put("in", payload, position)

    def sent(self, payload: bytes, position: int) -> None:
        self._put("out", payload, position)

    def _put(self, name: str, payload: bytes, position: int) -> None:
        track = self.tracks[name]
        track.extend(b"\xff" * (position - len(track)))
        track[position : position + len(payload)] = payload
        self.places[name].append((position, len(payload)))


def fits(leg: TwilioLeg, orders: CarrierOrders) -> ports.OfferedLeg:
    """The leg is what the domain asks for; the type checker says so."""
    return leg


def test_an_offered_leg_is_answered_heard_and_hung_up() -> None:
    async def call() -> None:
        line = Line()
        leg = fits(line.leg, line.orders)
        leg.ring()
        leg.answer()
        await asyncio.sleep(0.3)
        assert line.events == []
        stream = line.open()
        heard: list[tuple[bytes, float]] = []
        leg.listen(lambda payload, now: heard.append((payload, now)))
        stream.say(b"\x05" * 160, 20)
        line.leg.on_digit("7")
        assert heard == [(b"\x05" * 160, line.loop.time())]
        assert (leg.encoding, leg.transfer_mode, leg.encrypted) == (Encoding.PCMU, TransferMode.CARRIER, True)
        leg.playout.enqueue("a", b"\x01" * 8_000, line.loop.time())
        leg.hang_up()
        assert stream.closed
        stream.say(b"\x05" * 160, 40)
        assert len(heard) == 1, "nobody listens to a line that is over"
        await asyncio.sleep(10)
        leg.close()
        assert line.events == [LegAnswered(), DigitPressed("7"), LegEnded("hung-up")]
        assert line.orders.asked == ["answer", "complete"]
        assert leg.figures["packets_in"] == 2
        assert len(line.pacer._ring) == 0

    run(call())


def test_what_happens_before_anybody_asks_is_kept() -> None:
    async def call() -> None:
        line = Line(ring_s=20.0)
        leg = TwilioLeg(line.orders, line.pacer, ring_s=20.0)
        leg.on_status("ringing")
        leg.on_status("busy")
        told: list[ports.LegEvent] = []
        leg.subscribe(told.append)
        await asyncio.sleep(0)
        assert told == [LegProgress(180, early_media=False), LegEnded("refused", status=486)]

    run(call())


def test_both_sides_are_recorded_where_they_were_heard_and_nothing_that_was_cleared() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        tape = Tape()
        line.leg.tap(tape)
        origin = line.loop.time() - 0.001
        await asyncio.sleep(1.0)
        for frame in range(50):
            stream.say(b"\x07" * 160, 1_000 + 20 * frame)
            await asyncio.sleep(0.02)
        stream.say(b"\x08" * 160, 2_500)  # 500 ms are missing
        line.leg.playout.enqueue("a", b"\x01" * 40_000, line.loop.time())
        began = line.loop.time() - origin
        await asyncio.sleep(0.7335)
        line.leg.playout.interrupt(line.loop.time())
        await asyncio.sleep(1.0)
        line.leg.playout.enqueue("b", b"\x02" * 4_000, line.loop.time())
        resumed = line.loop.time() - origin
        await asyncio.sleep(0.25)
        line.leg.hang_up()
        out = tape.tracks["out"]
        assert abs(out.count(1) - 5_868) <= 2
        assert abs(out.index(1) - began * 8_000) <= 2
        assert abs(out.count(2) - 2_000) <= 2, "what was not heard any more is not recorded"
        assert abs(out.index(2) - resumed * 8_000) <= 2
        heard = tape.tracks["in"]
        first = heard.index(7)
        assert abs(first - 7_850) < 10, "the first frame ended when it came, a second after the answer"
        assert heard[first : first + 8_000] == b"\x07" * 8_000
        assert heard.index(8) == first + 12_000

    run(call())


def test_a_time_that_cannot_be_is_replaced_by_the_clocks() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        tape = Tape()
        line.leg.tap(tape)
        for stamp in (20, 41, 59, 80, 80, 80, 10**12, 10**12 + 20, 5, 25):
            stream.say(b"\x07" * 160, stamp)
            await asyncio.sleep(0.02)
        line.leg.hear(b"\x07" * 160, b"{}")
        places = tape.places["in"]
        assert places[0] == (0, 160)
        assert all(later >= place + size for (place, size), (later, _) in pairwise(places))
        assert places[-1][0] <= 12 * 160
        assert places[1:4] == [(160, 160), (320, 160), (480, 160)], "a millisecond this way or that leaves no hole"

    run(call())


def test_an_extension_is_not_asked_of_the_carrier() -> None:
    async def call() -> None:
        line = Line()
        await line.talk()
        line.leg.refer("sip:1001@pbx.test")
        await asyncio.sleep(1)
        assert line.events == [LegAnswered(), ReferProgress(404, final=True, accepted=False)]
        assert line.orders.asked == ["answer"]

    run(call())


def test_a_transfer_and_the_way_back() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        line.leg.playout.enqueue("a", b"\x01" * 1_600, line.loop.time())
        line.leg.playout.finish("a", line.loop.time())
        await asyncio.sleep(1)
        line.leg.refer("+15550001111")
        line.leg.lose_stream(stream, stopped=True)
        line.leg.lose_stream(stream, stopped=False)
        await asyncio.sleep(40)
        assert line.leg.on_dial_over("busy") is True
        line.leg.playout.enqueue("back", b"\x02" * 1_600, line.loop.time())
        again = line.open()
        again.stream_sid = "MZ1"
        await asyncio.sleep(1)
        assert again.heard_bytes() == 1_600
        line.leg.lose_stream(again, stopped=True)
        await asyncio.sleep(1)
        assert line.events == [
            LegAnswered(),
            PlayoutDrained(),
            ReferProgress(486, final=True),
            PlayoutDrained(),
            LegEnded("caller-hung-up"),
        ]
        assert line.orders.asked == ["answer", "redirect +15550001111"]

    run(call())


def test_a_second_stream_for_a_talking_leg_is_not_taken() -> None:
    async def call() -> None:
        line = Line()
        stream = await line.talk()
        other = Stream(line.leg)
        assert line.leg.open_stream(other, encrypted=True) is False
        line.leg.lose_stream(other, stopped=False)
        line.leg.playout.enqueue("a", b"\x01" * 160, line.loop.time())
        await asyncio.sleep(1)
        assert stream.heard_bytes() == 160
        assert other.frames == []

    run(call())


def test_legs_are_found_by_their_id_as_long_as_something_is_owed() -> None:
    async def call() -> None:
        legs = TwilioLegs(Pacer(asyncio.get_running_loop().time))
        offered, dialled = legs.offered(Orders(), "CA1"), legs.dialled(Orders(), 20.0)
        assert len({offered.stream_id, dialled.stream_id}) == len(legs) == 2
        assert legs.claim(offered.stream_id, "CA1") is offered
        assert legs.claim(offered.stream_id, "CA2") is None
        assert legs.claim(dialled.stream_id, "CA3") is dialled
        assert legs.claim("", "CA1") is None
        offered.reject(486)
        dialled.hang_up()
        assert len(legs) == 0

    run(call())


Act = Callable[[Line], object]


def _lose(line: Line, stopped: bool) -> None:
    for stream in line.streams[-1:]:
        line.leg.lose_stream(stream, stopped)


def _open(line: Line) -> None:
    stream = Stream(line.leg, 0.03)
    if not line.leg.open_stream(stream, encrypted=True):
        stream.close()
    else:
        line.streams.append(stream)


ACTS: dict[str, Act] = {
    "answer": lambda line: line.leg.answer(),
    "reject": lambda line: line.leg.reject(503, 5),
    "hang up": lambda line: line.leg.hang_up(),
    "close": lambda line: line.leg.close(),
    "open": _open,
    "lose": lambda line: _lose(line, False),
    "stop": lambda line: _lose(line, True),
    "say": lambda line: line.leg.playout.enqueue("a", b"\x01" * 3_000, line.loop.time()),
    "finish": lambda line: line.leg.playout.finish("a", line.loop.time()),
    "interrupt": lambda line: line.leg.playout.interrupt(line.loop.time()),
    "source": lambda line: line.leg.playout.play_from(Silent()),
    "no source": lambda line: line.leg.playout.play_from(None),
    "digit": lambda line: line.leg.send_digit("1"),
    "refer": lambda line: line.leg.refer("+15550001111"),
    "redirect failed": lambda line: line.leg.on_redirect_failed(),
    "dial answered": lambda line: line.leg.on_dial_answered(),
    "dial busy": lambda line: line.leg.on_dial_over("busy"),
    "dial completed": lambda line: line.leg.on_dial_over("completed"),
    "in-progress": lambda line: line.leg.on_status("in-progress"),
    "completed": lambda line: line.leg.on_status("completed"),
    "failed": lambda line: line.leg.on_failed("trunk-failed", ""),
    "choke": lambda line: line.leg.on_choked(True),
    "tap": lambda line: line.leg.tap(Tape()),
}


class Silent:
    """A source with nothing but frames."""

    def next_frame(self, now: float) -> bytes | None:
        return b"\xff" * 160


@settings(deadline=None)
@given(
    outbound=st.booleans(),
    acts=st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.sampled_from([0.0, 0.05, 0.4, 3.0])), max_size=20),
)
def test_whatever_comes_the_leg_ends_once_and_gives_everything_back(outbound: bool, acts: list[tuple[str, float]]) -> None:
    async def call() -> None:
        line = Line(ring_s=20.0 if outbound else None, media_timeout_s=10.0)
        over: list[TwilioLeg] = []
        line.leg.on_over = over.append
        for name, wait_s in acts:
            ACTS[name](line)
            await asyncio.sleep(wait_s)
        line.leg.close()
        await asyncio.sleep(100)
        assert [type(event) for event in line.events].count(LegEnded) == 1
        assert isinstance(line.events[-1], LegEnded)
        assert over == [line.leg]
        assert len(line.pacer._ring) == 0
        assert line.leg._stream is None or line.streams[-1].closed
        assert line.leg.playout._timer is None
        assert line.leg._driver._timer is None

    run(call())
