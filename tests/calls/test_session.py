"""Whole calls on virtual time, with the real agent: how they begin, talk, fail and end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from switchhook.calls.session import CallSession
from switchhook.calls.switchboard import Switchboard
from switchhook.domain.dialling import DialRefused
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.model import Encoding
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    Answer,
    CallPlan,
    Converse,
    HangUp,
    Refusal,
    RouteTo,
    Say,
)
from switchhook.domain.ports import (
    LegAnswered,
    LegEnded,
    LegProgress,
    PlayoutDrained,
)
from tests.calls.fakes import (
    FakePlayout,
    FakeRouting,
    attempt,
)
from tests.calls.house import (
    NUMBER,
    SPEC,
    UPDATE,
    House,
    asked_to_transfer,
    call_item,
    consult_item,
    live,
    transferring,
)
from tests.peers.virtual_loop import run_virtual


def test_a_conversation_from_ring_to_hang_up() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        assert house.leg.done == ["ring", "answer"]
        house.establish()
        assert house.leg.on_audio is not None
        house.leg.on_audio(b"\xff" * 160, house.clock.now())
        assert house.sent("input_audio_buffer.append")
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")
    assert house.sent("session.update")[0] == json.loads(UPDATE)
    assert house.sent("response.create")


def test_caller_audio_before_the_model_is_ready_is_kept() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        assert house.leg.on_audio is not None
        for _ in range(10):
            house.leg.on_audio(b"\x11" * 160, house.clock.now())
        assert not house.sent("input_audio_buffer.append")
        house.establish()
        appended = house.sent("input_audio_buffer.append")
        import base64

        assert b"".join(base64.b64decode(frame["audio"]) for frame in appended) == b"\x11" * 1600
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_model_that_cannot_be_reached_plays_the_message_and_fails_the_route() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.lost(retryable=False)

    house.gate.refusal = DialRefused("country", "GB is not among the countries")
    live(house, story)
    assert house.verdict.ending is Ending.AGENT_NOT_ESTABLISHED
    assert house.book.reports[0].transfers[0].result == "policy"
    assert house.leg.done[-1] == "hang up"


def test_missing_voice_does_not_keep_the_line_open() -> None:
    house = House(voice=False)

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.lost(retryable=False)

    live(house, story)
    assert house.verdict.ending is Ending.AGENT_NOT_ESTABLISHED


@pytest.mark.parametrize(("tool_s", "finished"), [(2.0, 1), (60.0, 0)])
def test_tool_under_way_at_the_hang_up_gets_five_seconds(tool_s: float, finished: int) -> None:
    house = House(tool_s=tool_s)

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.model("response.created", response={"id": "r1"})
        item = {"id": "i1", "type": "function_call", "status": "completed", "call_id": "c1", "name": "book", "arguments": "{}"}
        house.model("response.output_item.done", response_id="r1", item=item)
        await asyncio.sleep(0.1)
        assert len(house.journal.ran) == 1
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.journal.tools_finished == finished


def test_longest_duration_ends_the_call() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()

    live(house, story)
    assert house.verdict.reason in ("max-duration", "agent-lost")


def test_capacity_is_exact_and_the_refused_are_recorded() -> None:
    houses = [House() for _ in range(4)]
    parts = houses[0].parts

    async def main() -> None:
        board = Switchboard(parts, max_calls=2)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(board.run(ready))
            await ready.wait()
            for index, house in enumerate(houses):
                board.offer(attempt(f"call-{index}"), house.leg)
            assert board.live == 2
            assert [house.leg.done[:1] for house in houses[2:]] == [["reject 503"], ["reject 503"]]
            await asyncio.sleep(1)
            houses[0].leg.emit(LegEnded("caller-hung-up"))
            await asyncio.sleep(1)
            assert board.live == 1
            board.declined(attempt("declined"), 488, "Not Acceptable Here")
            await board.drain(5)
            board.close()
        assert board.live == 0

    run_virtual(main())
    reasons = sorted(report.verdict.reason for report in houses[0].book.reports)
    assert reasons == ["caller-hung-up", "line-refused-488", "over-capacity", "over-capacity", "server-draining"]


def test_a_fault_in_one_call_ends_that_call_with_a_record() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)

    class Broken(FakeRouting):
        async def route(self, attempt: object) -> CallPlan | Refusal:
            raise RuntimeError("a bug")

    parts = replace(house.parts, routing=Broken(Refusal(404, Ending.REJECTED, "x")))
    house.session = CallSession(attempt(), house.leg, parts)
    live(house, story)
    assert house.verdict.ending is Ending.INTERNAL_ERROR


def test_a_message_without_a_speakable_word_does_not_keep_the_line_open() -> None:
    house = House()

    async def nothing(text: str, encoding: Encoding) -> bytes:
        return b""

    house.gate.refusal = DialRefused("country", "not allowed")
    house.parts.voice.synthesize = nothing  # type: ignore[method-assign]  # the voice finds nothing to say

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.lost(retryable=False)
        await asyncio.sleep(1)
        assert house.leg.done[-1] == "hang up"

    live(house, story)


def test_the_agents_last_sound_does_not_end_the_failure_message() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.lost(retryable=False)
        await asyncio.sleep(0.055)
        assert isinstance(house.leg.playout, FakePlayout)
        assert not house.leg.playout.idle
        house.leg.emit(PlayoutDrained())
        assert house.leg.done[-1] != "hang up"

    live(house, story)


def test_a_voice_that_dies_leaves_the_agents_failure_as_the_verdict() -> None:
    house = House()

    async def broken(text: str, encoding: Encoding) -> bytes:
        raise RuntimeError("the worker died")

    house.parts.voice.synthesize = broken  # type: ignore[method-assign]  # the voice dies

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.lost(retryable=False)

    live(house, story)
    assert house.verdict.ending is Ending.AGENT_NOT_ESTABLISHED


def test_a_call_that_is_stopped_before_its_first_step_ends() -> None:
    house = House()
    house.session.stop(Verdict(Ending.COMPLETED, "server-draining"))

    async def story() -> None:
        await asyncio.sleep(0)

    live(house, story)
    assert house.verdict.reason == "server-draining"


def test_an_outbound_call_speaks_when_it_is_answered_and_not_before() -> None:
    house = House()
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        assert house.dialer.requests[0].called == "+13035551212"
        assert house.dialer.requests[0].caller == "+17206999999"
        house.establish()
        assert not house.sent("response.create")
        house.callee(LegProgress(180, early_media=False))
        house.callee(LegAnswered())
        assert house.sent("response.create")
        assert house.dialer.legs[0].on_audio is not None
        house.callee(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")


def test_an_outbound_call_that_is_busy_is_recorded_so() -> None:
    house = House()
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.callee(LegEnded("refused", "", 486))

    live(house, story)
    assert house.verdict.reason == "busy"
    assert house.book.reports[0].connected_at is None
    assert house.book.reports[0].end_webhook_owed


def test_what_the_model_decides_too_late_is_not_the_customers_business() -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=True)
        house.callee(LegAnswered())
        house.model("response.created", response={"id": "r2"})
        house.callee(LegEnded("callee-hung-up"))
        house.model("response.output_item.done", response_id="r2", item=consult_item("complete_transfer"))
        await asyncio.sleep(0.1)
        assert house.journal.ran == []
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_caller_who_leaves_while_a_route_rings_is_not_routed_further() -> None:
    house = House(CallPlan(NUMBER, (Answer(), RouteTo("+13035550001"), RouteTo("+13035550002"))))

    async def story() -> None:
        await asyncio.sleep(0.5)
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.called for record in house.book.reports[0].transfers] == ["+13035550001"]


class FakeGreetings:
    """Has one second of sound, or nothing."""

    def __init__(self, works: bool, takes_s: float = 0.05) -> None:
        self.works = works
        self.takes_s = takes_s
        self.fetched: list[str] = []

    async def fetch(self, url: str, encoding: Encoding) -> bytes:
        self.fetched.append(url)
        await asyncio.sleep(self.takes_s)
        if not self.works:
            raise GreetingUnavailable("the greeting could not be fetched: timeout")
        return encoding.silence * 8000


@pytest.mark.parametrize(("works", "outbound"), [(True, False), (False, False), (True, True)])
def test_the_customers_greeting_is_played_while_the_model_connects(works: bool, outbound: bool) -> None:
    quiet = replace(SPEC, speaks_first=False)
    flow: tuple[Action, ...] = (Answer(), Converse(quiet, greeting_url="https://backend.example/hello.mp3"), HangUp())
    house = House(CallPlan(NUMBER, flow))
    greetings = FakeGreetings(works)
    house.parts = replace(house.parts, greetings=greetings)
    house.session = CallSession(attempt(), house.leg, house.parts)
    if outbound:
        house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        leg = house.dialer.legs[0] if outbound else house.leg
        if outbound:
            assert greetings.fetched == [], "nobody is there to hear it"
            leg.emit(LegAnswered())
            await asyncio.sleep(0.1)
        assert isinstance(leg.playout, FakePlayout)
        assert [key for key, _ in leg.playout.played] == (["greeting"] if works else [])
        house.establish()
        assert bool(house.sent("response.create")) is not works, "without the greeting the agent speaks first"
        leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


@pytest.mark.parametrize("transferred", ["blind", "attended", None])
def test_a_greeting_that_comes_when_the_agent_has_left_the_line_is_not_played(transferred: str | None) -> None:
    flow: tuple[Action, ...] = (Answer(), Converse(SPEC, (Say("sorry"),), "https://backend.example/hello.mp3"), HangUp())
    house = House(CallPlan(NUMBER, flow))
    house.parts = replace(house.parts, greetings=FakeGreetings(True, takes_s=2))
    house.session = CallSession(attempt(), house.leg, house.parts)

    async def story() -> None:
        await asyncio.sleep(0.2)
        if transferred:
            asked_to_transfer(house, attended=transferred == "attended")
            await asyncio.sleep(0.1)
            house.callee(LegAnswered())
            await asyncio.sleep(5)
            house.leg.emit(LegEnded("caller-hung-up"))
        else:
            house.lost(retryable=False)

    live(house, story)
    for leg in (house.leg, *house.dialer.legs):
        assert isinstance(leg.playout, FakePlayout)
        assert "greeting" not in [key for key, _ in leg.playout.played]


def test_the_call_ends_when_the_line_does_and_not_when_its_last_tool_is_done() -> None:
    house = House(tool_s=3.0)

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.model("response.created", response={"id": "r1"})
        house.model("response.output_item.done", response_id="r1", item=call_item(1))
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    report = house.book.reports[0]
    assert report.connected_at is not None
    assert (report.ended_at - report.connected_at).total_seconds() < 1


def test_a_call_that_breaks_begins_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    async def story() -> None:
        await transferring(house, attended=False)
        house.lost(retryable=False)
        house.session.fault(RuntimeError("broken"))
        await asyncio.sleep(30)

    live(house, story)
    assert len(house.dialer.requests) == 1
    assert [record.result for record in house.book.reports[0].transfers] == ["cancelled"]
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]] == [("broken",)]
