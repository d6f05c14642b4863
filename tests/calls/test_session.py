"""Whole calls on virtual time, with the real agent: whatever arrives, in whatever order, everything is given back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.agents.realtime.agent import RealtimeAgent
from switchhook.calls.parts import CallParts
from switchhook.calls.session import CallSession
from switchhook.calls.switchboard import Switchboard
from switchhook.calls.transfer import WaitingSound
from switchhook.domain.dialling import DialRefused
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.model import Direction, Encoding, Number, TransferMode
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    AgentSpec,
    Answer,
    BuiltinTool,
    CallPlan,
    Converse,
    HangUp,
    RecordingSpec,
    Refusal,
    RouteTo,
    Say,
)
from switchhook.domain.ports import (
    DigitPressed,
    LegAnswered,
    LegEnded,
    LegEvent,
    LegProgress,
    Playout,
    PlayoutDrained,
    ReferProgress,
    TransferAsked,
)
from tests.calls.fakes import (
    FakeAgents,
    FakeBook,
    FakeDialer,
    FakeGate,
    FakeJoining,
    FakeJournal,
    FakeLeg,
    FakePlayout,
    FakeRecorders,
    FakeRouting,
    FakeVoice,
    LoopClock,
    attempt,
)
from tests.peers.virtual_loop import run_virtual

NUMBER = Number("+17206999999", "acme", "vns", {})
UPDATE = json.dumps(
    {
        "type": "session.update",
        "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}},
    }
).encode()
SPEC = AgentSpec(
    "wss://model.example",
    {},
    UPDATE,
    {"vns_end_conversation": BuiltinTool.END_CONVERSATION, "transfer": BuiltinTool.TRANSFER_CALL},
)
TALK: tuple[Action, ...] = (Answer(), Converse(SPEC, (Say("sorry"), RouteTo("+13035551212"), HangUp())), HangUp())


class House:
    """Everything around a call, in memory."""

    def __init__(self, decision: CallPlan | Refusal | None = None, tool_s: float = 0.0, voice: bool = True) -> None:
        self.leg = FakeLeg()
        self.journal = FakeJournal(tool_s)
        self.book = FakeBook(self.journal)
        self.recorders = FakeRecorders()
        self.clock = LoopClock()
        self.count = 0

        def make(spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
            return RealtimeAgent(spec, playout, encoding, self.clock, self.next_id)

        self.agents = FakeAgents(make)
        plan = CallPlan(NUMBER, TALK, max_seconds=300, recording=RecordingSpec())
        self.dialer, self.gate, self.joining = FakeDialer(), FakeGate(), FakeJoining()
        self.parts = CallParts(
            FakeRouting(decision or plan),
            self.book,
            self.agents,
            self.recorders,
            FakeVoice(voice),
            self.clock,
            self.dialer,
            self.gate,
            self.joining,
        )
        self.session = CallSession(attempt(), self.leg, self.parts)
        self.replacing: list[FakeLeg] = []

    def next_id(self) -> str:
        self.count += 1
        return f"id{self.count}"

    def call_out(self) -> None:
        """The call is one that we place."""
        self.leg.closed = True  # no line has come in
        called = replace(attempt(), direction=Direction.OUTBOUND)
        self.session = CallSession(called, None, self.parts, self.gate.permit("+13035551212"))

    def model(self, kind: str, **fields: object) -> None:
        """The model says something, if its socket is open."""
        for link in self.agents.links[-1:]:
            if link.is_open:
                link.on_frame(json.dumps({"type": kind, "event_id": "e", **fields}).encode())

    def opened(self) -> None:
        for link in self.agents.links[-1:]:
            if link.is_open:
                link.on_open()

    def lost(self, retryable: bool = True) -> None:
        for link in self.agents.links[-1:]:
            if link.is_open:
                link.is_open = False
                link.on_lost(ModelLoss("gone", retryable))

    def establish(self) -> None:
        self.opened()
        self.model("session.created", session={})
        self.model("session.updated", session={})

    def sent(self, kind: str) -> list[dict[str, Any]]:
        frames = [json.loads(text) for link in self.agents.links for text in link.sent]
        return [frame for frame in frames if frame["type"] == kind]

    def callee(self, event: LegEvent) -> None:
        """The last line that was dialled tells something."""
        for leg in self.dialer.legs[-1:]:
            leg.emit(event)

    def replace(self, line: FakeLeg) -> FakeLeg | None:
        """Another line takes the place of one of the call's, if it is one; gives the other."""
        if not self.session.serves(line):
            return None
        line.confirms = True
        new = FakeLeg()
        self.replacing.append(new)
        self.session.replace_line(new, line)
        return new

    def new_line(self, event: LegEvent) -> None:
        """The last line that took another's place tells something."""
        for leg in self.replacing[-1:]:
            leg.emit(event)

    def check_nothing_is_left(self) -> None:
        assert len(self.book.reports) == 1
        assert self.leg.closed
        assert self.leg.tapped is None
        assert self.recorders.open_now == 0
        assert self.gate.live == set(), "every permit is given back"
        assert all(leg.closed for leg in self.dialer.legs)
        assert all(leg.closed or leg.ended for leg in self.replacing)
        assert self.joining.joined == []
        assert self.joining.waiting == {}
        assert not any(link.is_open for link in self.agents.links)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    @property
    def verdict(self) -> Verdict:
        return self.book.reports[0].verdict


def live(house: House, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a call with its story beside it, to the end of both."""

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(story())
            await asyncio.wait_for(house.session.run(), 100_000)
        house.check_nothing_is_left()

    run_virtual(both())


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


def call_item(number: int) -> dict[str, object]:
    return {
        "id": f"i{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"c{number}",
        "name": "book" if number else "vns_end_conversation",
        "arguments": "{}",
    }


def transfer_item(attended: bool) -> dict[str, object]:
    name = "attended" if attended else "blind"
    arguments = json.dumps({"to": "+13035551212", "attended": attended})
    item: dict[str, object] = {"id": f"t-{name}", "type": "function_call", "status": "completed", "call_id": f"t-{name}"}
    return item | {"name": "transfer", "arguments": arguments}


def consult_item(name: str) -> dict[str, object]:
    return {"id": name, "type": "function_call", "status": "completed", "call_id": name, "name": name, "arguments": "{}"}


EVENTS: dict[str, Callable[[House], object]] = {
    "open": lambda h: h.opened(),
    "establish": lambda h: h.establish(),
    "lost": lambda h: h.lost(),
    "refused": lambda h: h.lost(retryable=False),
    "garbage": lambda h: h.model("nonsense"),
    "created": lambda h: h.model("response.created", response={"id": "r1"}),
    "audio": lambda h: h.model(
        "response.output_audio.delta", response_id="r1", item_id="m1", content_index=0, output_index=0, delta="/////w=="
    ),
    "audio done": lambda h: h.model("response.output_audio.done", response_id="r1", item_id="m1", content_index=0),
    "words": lambda h: h.model("response.output_audio_transcript.done", response_id="r1", item_id="m1", transcript="hello there"),
    "done": lambda h: h.model("response.done", response={"id": "r1", "status": "completed", "output": []}),
    "cancelled": lambda h: h.model("response.done", response={"id": "r1", "status": "cancelled", "output": []}),
    "speech": lambda h: h.model("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0),
    "quiet": lambda h: h.model("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=500),
    "tool": lambda h: h.model("response.output_item.done", response_id="r1", item=call_item(1)),
    "goodbye": lambda h: h.model("response.output_item.done", response_id="r1", item=call_item(0)),
    "error": lambda h: h.model("error", error={"type": "server_error", "message": "x"}),
    "digit": lambda h: h.leg.emit(DigitPressed("5")),
    "hash": lambda h: h.leg.emit(DigitPressed("#")),
    "hang up": lambda h: h.leg.emit(LegEnded("caller-hung-up")),
    "cancel": lambda h: h.leg.emit(LegEnded("caller-cancelled")),
    "dead": lambda h: h.leg.emit(LegEnded("media-timeout")),
    "failed": lambda h: h.leg.emit(LegEnded("line-failed")),
    "drain": lambda h: h.session.stop(Verdict(Ending.COMPLETED, "server-draining")),
    "transfer": lambda h: h.model("response.output_item.done", response_id="r1", item=transfer_item(False)),
    "attended": lambda h: h.model("response.output_item.done", response_id="r1", item=transfer_item(True)),
    "complete": lambda h: h.model("response.output_item.done", response_id="r1", item=consult_item("complete_transfer")),
    "do not": lambda h: h.model("response.output_item.done", response_id="r1", item=consult_item("cancel_transfer")),
    "early": lambda h: h.callee(LegProgress(183, True)),
    "callee answers": lambda h: h.callee(LegAnswered()),
    "callee presses": lambda h: h.callee(DigitPressed("1")),
    "callee busy": lambda h: h.callee(LegEnded("refused", "", 486)),
    "callee gone": lambda h: h.callee(LegEnded("callee-hung-up")),
    "refer taken": lambda h: h.leg.emit(ReferProgress(202, final=False)),
    "refer done": lambda h: h.leg.emit(ReferProgress(200, final=True)),
    "refer refused": lambda h: h.leg.emit(ReferProgress(603, final=True, accepted=False)),
    "moved": lambda h: h.leg.emit(TransferAsked("+13035550000")),
    "callee moved": lambda h: h.callee(TransferAsked("+13035550000")),
    "replaced": lambda h: [h.replace(leg) for leg in (h.leg, *h.replacing)],
    "callee replaced": lambda h: [h.replace(leg) for leg in h.dialer.legs],
    "new line gone": lambda h: h.new_line(LegEnded("caller-hung-up")),
    "frame": lambda h: h.leg.on_audio(b"\xff" * 160, h.clock.now()) if h.leg.on_audio else None,
}
DECISIONS = [
    None,
    Refusal(480, Ending.CALL_START_FAILED, "timeout", end_webhook_owed=True),
    CallPlan(NUMBER, (Answer(), Say("closed"), HangUp()), ending=Ending.CALL_START_FAILED),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(sorted(EVENTS))), max_size=20),
    decision=st.sampled_from(DECISIONS),
    answers=st.booleans(),
    confirms=st.booleans(),
    tool_s=st.sampled_from([0.0, 1.0, 100.0]),
    mode=st.sampled_from(TransferMode),
    outbound=st.booleans(),
)
def test_every_order_of_events_gives_everything_back(
    script: list[tuple[float, str]],
    decision: CallPlan | Refusal | None,
    answers: bool,
    confirms: bool,
    tool_s: float,
    mode: TransferMode,
    outbound: bool,
) -> None:
    house = House(decision, tool_s)
    house.leg.answers, house.leg.confirms, house.leg.transfer_mode = answers, confirms, mode
    if outbound:
        house.call_out()

    async def story() -> None:
        for gap, name in script:
            await asyncio.sleep(gap)
            EVENTS[name](house)

    live(house, story)
    outputs = [
        frame["item"]["call_id"]
        for frame in house.sent("conversation.item.create")
        if frame["item"].get("type") == "function_call_output"
    ]
    assert len(outputs) == len(set(outputs)), "a tool is answered once"


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


def asked_to_transfer(house: House, attended: bool) -> None:
    house.establish()
    house.model("response.created", response={"id": "r1"})
    house.model("response.output_item.done", response_id="r1", item=transfer_item(attended))
    house.model("response.done", response={"id": "r1", "status": "completed", "output": []})


def outputs(house: House) -> dict[str, Any]:
    items = [frame["item"] for frame in house.sent("conversation.item.create")]
    return {item["call_id"]: json.loads(item["output"]) for item in items if item.get("type") == "function_call_output"}


def test_a_blind_transfer_lets_the_caller_talk_with_the_destination() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        assert house.joining.waiting == {id(house.leg): WaitingSound.RINGBACK}
        assert house.dialer.requests[0].called == "+13035551212"
        assert house.leg.on_audio is None, "the agent hears nothing of the waiting"
        house.callee(LegAnswered())
        assert house.joining.joined == [(house.leg, house.dialer.legs[0])]
        assert house.joining.waiting == {}
        assert not house.agents.links[0].is_open
        await asyncio.sleep(1000)
        house.leg.emit(DigitPressed("7"))
        assert house.joining.digits == ["7"]
        house.callee(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")
    (record,) = house.book.reports[0].transfers
    assert (record.called, record.result, record.sip_status) == ("+13035551212", "connected", 200)
    assert house.leg.done[-1] == "hang up"


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (LegEnded("refused", "", 486), "busy"),
        (LegEnded("no-answer"), "no-answer"),
        (LegEnded("refused", "", 404), "unreachable"),
        (LegEnded("refused", "", 603), "declined"),
        (LegEnded("trunk-failed", "", 503), "trunk-error"),
    ],
)
def test_a_failed_transfer_returns_to_the_agent_with_what_came_of_it(end: LegEnded, result: str) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        asked = len(house.sent("response.create"))
        house.callee(end)
        assert outputs(house)["t-blind"] == {"status": "failed", "result": result}
        assert len(house.sent("response.create")) == asked + 1, "the agent goes on"
        assert house.leg.on_audio is not None, "and hears the caller"
        assert house.joining.waiting == {}
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == [result]


def test_an_attended_transfer_is_briefed_and_accepted() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        assert house.joining.waiting == {id(house.leg): WaitingSound.HOLD}
        house.callee(LegAnswered())
        callee = house.dialer.legs[0]
        assert callee.on_audio is not None, "the agent hears the destination"
        assert house.leg.on_audio is None
        tools = house.sent("session.update")[-1]["session"]["tools"]
        assert [tool["name"] for tool in tools] == ["complete_transfer", "cancel_transfer"]
        house.model("response.created", response={"id": "r2"})
        house.model(
            "response.output_audio.delta", response_id="r2", item_id="m2", content_index=0, output_index=0, delta="/////w=="
        )
        assert isinstance(callee.playout, FakePlayout)
        assert callee.playout.played, "the destination hears the agent"
        house.model("response.output_item.done", response_id="r2", item=consult_item("complete_transfer"))
        assert house.joining.joined == [(house.leg, callee)]
        assert not house.agents.links[0].is_open
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")
    assert [record.result for record in house.book.reports[0].transfers] == ["connected"]


@pytest.mark.parametrize("how", ["tool", "voicemail", "digit", "goodbye", "gone", "late"])
def test_an_attended_transfer_that_is_not_taken_returns_to_the_caller(how: str) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        house.model("response.created", response={"id": "r2"})
        if how == "tool":
            house.model("response.output_item.done", response_id="r2", item=consult_item("cancel_transfer"))
        elif how == "voicemail":
            item = consult_item("cancel_transfer") | {"arguments": '{"reason":"voicemail"}'}
            house.model("response.output_item.done", response_id="r2", item=item)
        elif how == "digit":
            house.callee(DigitPressed("2"))
        elif how == "goodbye":
            house.model("response.output_item.done", response_id="r2", item=call_item(0))
        elif how == "gone":
            house.callee(LegEnded("callee-hung-up"))
        else:
            house.model("response.done", response={"id": "r2", "status": "completed", "output": []})
            await asyncio.sleep(61)
        house.model("response.done", response={"id": "r2", "status": "completed", "output": []})
        assert outputs(house)["t-attended"]["result"] == {"gone": "dropped", "voicemail": "voicemail"}.get(how, "declined")
        assert house.leg.on_audio is not None
        assert house.sent("session.update")[-1]["session"]["tools"] == [], "the two tools are gone again"
        assert house.agents.links[0].is_open
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_caller_who_gives_up_on_hold_ends_the_call_of_the_destination() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.result for record in house.book.reports[0].transfers] == ["cancelled"]


@pytest.mark.parametrize(("status", "accepted", "result"), [(200, True, "connected"), (486, True, "busy")])
def test_a_line_whose_peer_transfers_is_asked_by_refer(status: int, accepted: bool, result: str) -> None:
    house = House()
    house.leg.transfer_mode = TransferMode.REFER

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        assert house.leg.done[-1] == "refer +13035551212"
        house.leg.emit(ReferProgress(202, final=False))
        house.leg.emit(ReferProgress(status, final=True, accepted=accepted))
        if result != "connected":
            assert outputs(house)["t-blind"]["result"] == result
            house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    report = house.book.reports[0]
    assert [record.result for record in report.transfers] == [result]
    assert report.referred_out is (result == "connected")


def test_a_refused_refer_becomes_a_bridge() -> None:
    house = House()
    house.leg.transfer_mode = TransferMode.REFER

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        house.leg.emit(ReferProgress(603, final=True, accepted=False))
        assert house.dialer.requests[0].called == "+13035551212"
        house.callee(LegAnswered())
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert not house.book.reports[0].referred_out


def test_a_number_that_the_policy_refuses_is_not_dialled() -> None:
    house = House()
    house.gate.refusal = DialRefused("country", "GB is not among the countries")

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        assert outputs(house)["t-blind"]["result"] == "policy"
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert not house.dialer.requests
    assert "country" in house.book.reports[0].transfers[0].detail


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


def asked_to_move(house: House) -> None:
    house.establish()
    house.leg.emit(TransferAsked("+13035551212", "abc;to-tag=1;from-tag=2"))


def test_a_phone_system_that_refers_us_moves_the_talk_to_another_line() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        [request] = house.dialer.requests
        assert (request.called, request.replaces) == ("+13035551212", "abc;to-tag=1;from-tag=2")
        house.callee(LegProgress(180, early_media=False))
        assert house.leg.on_audio is not None, "until the new line stands nothing changes"
        house.callee(LegAnswered())
        new = house.dialer.legs[0]
        assert new.on_audio is not None
        assert new.tapped is not None, "the recording goes on"
        await asyncio.sleep(0.1)
        assert house.leg.done[-3:] == ["refer result 180", "refer result 200", "hang up"]
        assert house.leg.closed
        new.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "callee-hung-up")


def test_a_move_that_fails_leaves_the_talk_where_it_is() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        house.callee(LegEnded("refused", "", 486))
        assert house.leg.done[-1] == "refer result 486"
        assert house.leg.on_audio is not None
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "caller-hung-up")


def test_a_call_that_we_end_does_not_wait_for_a_move_under_way() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        house.session.stop(Verdict(Ending.COMPLETED, "hung-up-by-us"))
        await asyncio.sleep(0.1)
        assert house.dialer.legs[0].closed, "nobody is rung for a call that is over"
        assert house.book.reports

    live(house, story)
    assert house.verdict.reason == "hung-up-by-us"


def test_a_call_that_we_end_after_its_phone_hung_up_during_a_move_ends_at_once() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(0.1)
        house.session.stop(Verdict(Ending.INTERNAL_ERROR, "server-draining"))
        await asyncio.sleep(0.1)
        assert house.book.reports, "there is no line that could end any more"
        assert house.dialer.legs[0].closed

    live(house, story)
    assert house.verdict.reason == "server-draining"


def test_a_call_that_breaks_begins_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        house.lost(retryable=False)
        house.session.fault(RuntimeError("broken"))
        await asyncio.sleep(30)

    live(house, story)
    assert len(house.dialer.requests) == 1
    assert [record.result for record in house.book.reports[0].transfers] == ["cancelled"]
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]] == [("broken",)]


@pytest.mark.parametrize("answered", [True, False])
def test_a_phone_that_hangs_up_once_its_refer_is_taken(answered: bool) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert house.book.reports == [], "somebody else is being called"
        if answered:
            house.callee(LegAnswered())
            assert house.dialer.legs[0].on_audio is not None
            house.callee(LegEnded("callee-hung-up"))
        else:
            house.callee(LegEnded("refused", "", 486))

    live(house, story)
    assert house.verdict.reason == ("callee-hung-up" if answered else "caller-hung-up")


def test_what_the_model_decides_too_late_is_not_the_customers_business() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        house.model("response.created", response={"id": "r2"})
        house.callee(LegEnded("callee-hung-up"))
        house.model("response.output_item.done", response_id="r2", item=consult_item("complete_transfer"))
        await asyncio.sleep(0.1)
        assert house.journal.ran == []
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_an_outbound_call_keeps_the_policys_limit_when_it_is_put_through() -> None:
    house = House()
    house.call_out()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.callee(LegAnswered())
        house.model("response.created", response={"id": "r1"})
        house.model("response.output_item.done", response_id="r1", item=transfer_item(False))
        house.model("response.done", response={"id": "r1", "status": "completed", "output": []})
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        await asyncio.sleep(3601)
        assert house.dialer.legs[0].done[-1] == "hang up"

    live(house, story)


def test_a_caller_who_leaves_while_a_route_rings_is_not_routed_further() -> None:
    house = House(CallPlan(NUMBER, (Answer(), RouteTo("+13035550001"), RouteTo("+13035550002"))))

    async def story() -> None:
        await asyncio.sleep(0.5)
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert [record.called for record in house.book.reports[0].transfers] == ["+13035550001"]


def test_a_move_stays_inside_the_dialling_policy() -> None:
    house = House()
    house.gate.refusal = DialRefused("country", "not allowed")

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        assert house.leg.done[-1] == "refer result 403"
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)
    assert house.dialer.requests == []


def test_a_line_that_replaces_anothers_goes_on_with_its_talk() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        new = FakeLeg()
        assert house.session.has(house.leg)
        house.session.replace_line(new, house.leg)
        await asyncio.sleep(0.1)
        assert new.done == ["answer"]
        assert house.leg.closed
        assert new.on_audio is not None
        new.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert new.closed

    live(house, story)


def test_the_destinations_phone_system_moves_the_caller() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        first = house.dialer.legs[0]
        house.callee(LegAnswered())
        first.emit(TransferAsked("+13035550000"))
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        second = house.dialer.legs[1]
        assert house.joining.joined == [(house.leg, second)]
        await asyncio.sleep(0.1)
        assert first.closed
        second.emit(LegEnded("callee-hung-up"))

    live(house, story)
    assert house.verdict.reason == "callee-hung-up"


def test_a_moved_line_has_the_limit_of_the_policy() -> None:
    spec = replace(SPEC, speaks_first=False, roll_over_after_ms=None)
    house = House(CallPlan(NUMBER, (Answer(), Converse(spec, ())), max_seconds=3 * 3600))

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_move(house)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        await asyncio.sleep(3601)
        assert house.dialer.legs[0].done == ["hang up"]

    live(house, story)
    assert house.verdict == Verdict(Ending.COMPLETED, "max-duration", "Maximum call duration reached")


@pytest.mark.parametrize("answered", [True, False])
def test_a_destination_that_refers_the_caller_and_hangs_up(answered: bool) -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        first = house.dialer.legs[0]
        house.callee(LegAnswered())
        first.emit(TransferAsked("+13035550000"))
        await asyncio.sleep(0.1)
        first.emit(LegEnded("callee-hung-up"))
        assert house.joining.waiting == {id(house.leg): WaitingSound.RINGBACK}
        third = house.dialer.legs[1]
        if answered:
            third.emit(LegAnswered())
            assert house.joining.joined == [(house.leg, third)]
            assert house.joining.waiting == {}
        house.leg.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)
        assert third.closed, "nobody is left for whom it rings"

    live(house, story)


def test_a_caller_who_is_moved_while_a_transfer_rings_hears_the_agent_again_on_the_new_line() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=False)
        await asyncio.sleep(0.1)
        new = FakeLeg()
        house.session.replace_line(new, house.leg)
        await asyncio.sleep(0.1)
        house.callee(LegEnded("refused", "", 486))
        house.model("response.created", response={"id": "r2"})
        house.model(
            "response.output_audio.delta", response_id="r2", item_id="m2", content_index=0, output_index=0, delta="/////w=="
        )
        assert isinstance(new.playout, FakePlayout)
        assert new.playout.played
        assert new.on_audio is not None
        new.emit(LegEnded("caller-hung-up"))
        await asyncio.sleep(1)

    live(house, story)


def test_a_goodbye_that_a_transfer_overtakes_does_not_end_the_call() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        house.establish()
        house.model("response.created", response={"id": "r1"})
        house.model("response.output_item.done", response_id="r1", item=call_item(0))
        house.model("response.output_item.done", response_id="r1", item=transfer_item(False))
        house.model("response.done", response={"id": "r1", "status": "completed", "output": []})
        await asyncio.sleep(0.1)
        house.model("response.created", response={"id": "r2"})
        house.model("response.done", response={"id": "r2", "status": "cancelled", "output": []})
        asked = len(house.sent("response.create"))
        await asyncio.sleep(20)
        assert len(house.sent("response.create")) == asked, "nobody would hear it"
        house.callee(LegEnded("refused", "", 486))
        assert outputs(house)["t-blind"]["result"] == "busy"
        assert len(house.sent("response.create")) > asked, "the agent goes on"
        assert house.agents.links[0].is_open
        assert house.leg.on_audio is not None
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def test_a_model_that_is_replaced_while_the_destination_is_briefed_is_told_with_whom_it_talks() -> None:
    house = House()

    async def story() -> None:
        await asyncio.sleep(0.2)
        asked_to_transfer(house, attended=True)
        await asyncio.sleep(0.1)
        house.callee(LegAnswered())
        house.lost()
        for link in house.agents.links:
            link.sent.clear()
        house.establish()
        told = [
            item["item"]["content"][0]["text"] for item in house.sent("conversation.item.create") if "content" in item["item"]
        ]
        assert any("is on hold" in text for text in told)
        assert [tool["name"] for tool in house.sent("session.update")[-1]["session"]["tools"]] == [
            "complete_transfer",
            "cancel_transfer",
        ]
        house.leg.emit(LegEnded("caller-hung-up"))

    live(house, story)


def sabotage(house: House, what: str) -> None:
    """Make one collaborator raise whenever it is asked."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{what} is broken")

    owner, _, name = what.partition(".")
    targets: dict[str, object] = {"leg": house.leg, "playout": house.leg.playout, "recorders": house.recorders}
    if owner == "link":
        link = house.agents.link

        def bad_link(*args: Any) -> Any:
            made = link(*args)
            setattr(made, name, broken)
            return made

        setattr(house.agents, "link", bad_link)  # noqa: B010 - the type checker need not know
    elif owner == "journal":
        setattr(house.journal, name, broken)
    else:
        setattr(targets[owner], name, broken)


BREAKABLE = [
    *(f"leg.{name}" for name in ("ring", "answer", "reject", "hang_up", "close", "listen", "tap")),
    *(f"link.{name}" for name in ("open", "send", "close")),
    *(f"playout.{name}" for name in ("enqueue", "finish", "interrupt")),
    *(f"journal.{name}" for name in ("utterance", "log", "answered")),
    *("recorders.open", "recorders.stop"),
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    what=st.sampled_from(BREAKABLE),
    script=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(sorted(EVENTS))), max_size=12),
)
def test_a_broken_part_costs_one_call_and_still_gives_it_a_record(what: str, script: list[tuple[float, str]]) -> None:
    house = House()
    sabotage(house, what)

    async def story() -> None:
        for gap, name in script:
            await asyncio.sleep(gap)
            EVENTS[name](house)

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(story())
            await asyncio.wait_for(house.session.run(), 100_000)
        assert len(house.book.reports) == 1
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    run_virtual(both())


class FakeGreetings:
    """Has one second of sound, or nothing."""

    def __init__(self, works: bool) -> None:
        self.works = works
        self.fetched: list[str] = []

    async def fetch(self, url: str, encoding: Encoding) -> bytes:
        self.fetched.append(url)
        await asyncio.sleep(0.05)
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
