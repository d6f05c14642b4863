"""A call and everything around it, in memory, on virtual time, with the real agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.agents.realtime.agent import RealtimeAgent
from switchhook.calls.parts import CallParts
from switchhook.calls.session import CallSession
from switchhook.domain.model import Direction, Encoding, Number
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

    def speaks(self, response: str, item: str) -> None:
        """A piece of the agent's sound."""
        place = {"response_id": response, "item_id": item, "content_index": 0, "output_index": 0}
        self.model("response.output_audio.delta", **place, delta="/////w==")

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

    def move(self) -> None:
        """The party asks to be put through to somebody else. A line that is left then ends by itself, as every line does."""
        self.leg.confirms = True
        self.leg.emit(TransferAsked("+13035550000"))

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


CALLER_TEXT = "conversation.item.input_audio_transcription"
EVENTS: dict[str, Callable[[House], object]] = {
    "open": lambda h: h.opened(),
    "establish": lambda h: h.establish(),
    "lost": lambda h: h.lost(),
    "refused": lambda h: h.lost(retryable=False),
    "garbage": lambda h: h.model("nonsense"),
    "created": lambda h: h.model("response.created", response={"id": "r1"}),
    "audio": lambda h: h.speaks("r1", "m1"),
    "audio done": lambda h: h.model("response.output_audio.done", response_id="r1", item_id="m1", content_index=0),
    "words": lambda h: h.model("response.output_audio_transcript.done", response_id="r1", item_id="m1", transcript="hello there"),
    "done": lambda h: h.model("response.done", response={"id": "r1", "status": "completed", "output": []}),
    "cancelled": lambda h: h.model("response.done", response={"id": "r1", "status": "cancelled", "output": []}),
    "speech": lambda h: h.model("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0),
    "quiet": lambda h: h.model("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=500),
    "committed": lambda h: h.model("input_audio_buffer.committed", item_id="u1"),
    "cleared": lambda h: h.model("input_audio_buffer.cleared"),
    "text": lambda h: h.model(f"{CALLER_TEXT}.completed", item_id="u1", transcript="the caller's words"),
    "no text": lambda h: h.model(f"{CALLER_TEXT}.failed", item_id="u1", error={"type": "x"}),
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
    "moved": lambda h: h.move(),
    "callee moved": lambda h: h.callee(TransferAsked("+13035550000")),
    "replaced": lambda h: [h.replace(leg) for leg in (h.leg, *h.replacing)],
    "callee replaced": lambda h: [h.replace(leg) for leg in h.dialer.legs],
    "new line gone": lambda h: h.new_line(LegEnded("caller-hung-up")),
    "frame": lambda h: h.leg.on_audio(b"\xff" * 160, h.clock.now()) if h.leg.on_audio else None,
}


def asks_for_transfer(house: House, attended: bool) -> None:
    house.model("response.created", response={"id": "r1"})
    house.model("response.output_item.done", response_id="r1", item=transfer_item(attended))
    house.model("response.done", response={"id": "r1", "status": "completed", "output": []})


def asked_to_transfer(house: House, attended: bool) -> None:
    house.establish()
    asks_for_transfer(house, attended)


async def transferring(house: House, attended: bool) -> None:
    """From the beginning of a call to the destination's telephone that rings."""
    await asyncio.sleep(0.2)
    asked_to_transfer(house, attended)
    await asyncio.sleep(0.1)


async def consulting(house: House) -> FakeLeg:
    """The agent talks with the destination; gives its line."""
    await transferring(house, attended=True)
    house.callee(LegAnswered())
    return house.dialer.legs[0]


async def bridged(house: House) -> FakeLeg:
    """The caller talks with the destination; gives its line."""
    await transferring(house, attended=False)
    house.callee(LegAnswered())
    return house.dialer.legs[0]


def outputs(house: House) -> dict[str, Any]:
    items = [frame["item"] for frame in house.sent("conversation.item.create")]
    return {item["call_id"]: json.loads(item["output"]) for item in items if item.get("type") == "function_call_output"}


def briefings(house: House) -> list[str]:
    """What the model was told in words."""
    items = [frame["item"] for frame in house.sent("conversation.item.create")]
    return [item["content"][0]["text"] for item in items if "content" in item]
