"""A bot on a Media Stream: what it is sent, what of it is heard, and when it is told so."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.conversation import AgentEffect, CloseModel, ConversationOver, Logged, ModelLoss, OpenModel, SendToModel
from switchhook.agents.media_stream.bot import StreamBot
from switchhook.domain.model import Encoding
from switchhook.domain.plan import AgentSpec, StreamSpec
from switchhook.media.playout import Playout

STREAM = StreamSpec("AC1", "CA1", "MZ1", {"guid": "42"})
SPEC = AgentSpec("wss://bot.example", {"X-Twilio-Signature": "s"}, stream=STREAM)
SOUND = b"\x11" * 160


class Line:
    """A bot whose sound is played frame by frame."""

    def __init__(self, encoding: Encoding = Encoding.PCMU) -> None:
        self.now = 100.0
        self.playout = Playout(encoding, on_drained=lambda: self.bot.drained(self.now))
        self.bot = StreamBot(SPEC, STREAM, self.playout, encoding)
        self.heard: list[bytes] = []
        self.effects: list[AgentEffect] = []

    def open(self) -> list[dict[str, Any]]:
        self.bot.start(self.now)
        assert self.bot.take() == [OpenModel(SPEC.url, SPEC.headers)]
        self.bot.model_opened(self.now)
        return self.sent()

    def says(self, event: str, **members: object) -> None:
        self.bot.model_frame(json.dumps({"event": event, **members}).encode(), self.now)

    def plays(self, frames: int, sound: bytes = SOUND) -> None:
        self.says("media", streamSid="MZ1", media={"payload": b64encode(sound * frames).decode()})

    def pass_frames(self, count: int) -> None:
        for _ in range(count):
            frame = self.playout.next_frame(self.now)
            if frame is not None:
                self.heard.append(frame)
            self.now += 0.02
            if self.bot.deadline is not None and self.bot.deadline <= self.now:
                self.bot.tick(self.now)

    def sent(self) -> list[dict[str, Any]]:
        taken = self.bot.take()
        self.effects += taken
        return [json.loads(effect.text) for effect in taken if isinstance(effect, SendToModel)]


def test_the_stream_begins_as_documented() -> None:
    connected, start = Line().open()
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "callSid": "CA1",
            "streamSid": "MZ1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"guid": "42"},
        },
    }


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
def test_sound_passes_both_ways(encoding: Encoding) -> None:
    line = Line(encoding)
    assert line.bot.hear(SOUND, line.now) is None
    line.open()
    line.now += 1
    frame = json.loads(line.bot.hear(SOUND, line.now) or b"{}")
    media = frame["media"]
    assert (media["track"], media["chunk"], media["timestamp"], frame["sequenceNumber"]) == ("inbound", "1", "1000", "2")
    assert (b64decode(media["payload"]) == SOUND) is (encoding is Encoding.PCMU)
    line.plays(3, b64decode(media["payload"]))
    line.pass_frames(5)
    assert line.heard == [SOUND] * 3
    line.bot.digit("5", line.now)
    [digit] = line.sent()
    assert digit["dtmf"] == {"track": "inbound_track", "digit": "5"}


def test_a_mark_is_told_when_what_came_before_it_was_heard() -> None:
    line = Line()
    line.open()
    line.says("mark", mark={"name": "at once"})
    assert [told["mark"]["name"] for told in line.sent()] == ["at once"]
    line.plays(10)
    line.says("mark", mark={"name": "one"})
    line.plays(10)
    line.says("mark", mark={"name": "two"})
    line.pass_frames(9)
    assert line.sent() == []
    line.pass_frames(4)
    assert [told["mark"]["name"] for told in line.sent()] == ["one"]
    line.pass_frames(12)
    assert [told["mark"]["name"] for told in line.sent()] == ["two"]


def test_clear_silences_and_tells_every_mark() -> None:
    line = Line()
    line.open()
    line.plays(100)
    line.says("mark", mark={"name": "never heard"})
    line.pass_frames(5)
    line.says("clear", streamSid="MZ1")
    assert [told["mark"]["name"] for told in line.sent()] == ["never heard"]
    line.pass_frames(20)
    assert len(line.heard) == 5
    line.plays(2)
    line.says("mark", mark={"name": "again"})
    line.pass_frames(6)
    assert len(line.heard) == 7
    assert [told["mark"]["name"] for told in line.sent()] == ["again"]


def test_the_flow_goes_on_when_the_bot_closes_or_never_comes() -> None:
    for opened in (True, False):
        line = Line()
        if opened:
            line.open()
        line.bot.model_lost(ModelLoss("closed"), line.now)
        line.bot.model_lost(ModelLoss("closed"), line.now)
        logged, over = line.bot.take()
        assert isinstance(logged, Logged)
        assert over == ConversationOver("stream-ended")
    late = Line()
    late.bot.start(late.now)
    assert late.bot.deadline is not None
    late.bot.tick(late.bot.deadline)
    assert late.bot.take()[-1] == ConversationOver("stream-ended")


def test_the_bot_is_told_of_the_end() -> None:
    line = Line()
    line.open()
    line.bot.stop(line.now)
    [close] = line.bot.take()
    assert isinstance(close, CloseModel)
    assert json.loads(close.last or b"{}")["stop"] == {"accountSid": "AC1", "callSid": "CA1"}
    assert line.bot.hear(SOUND, line.now) is None


def test_a_party_that_comes_back_on_another_line_hears_the_bot_there() -> None:
    line = Line()
    line.open()
    line.plays(5)
    line.says("mark", streamSid="MZ1", mark={"name": "half"})
    line.pass_frames(2)
    line.bot.pause(line.now)
    first, line.playout = line.playout, Playout(Encoding.PCMU)
    line.bot.resume(line.playout, line.now)
    assert [frame["mark"]["name"] for frame in line.sent() if frame["event"] == "mark"] == ["half"]
    assert first.next_frame(line.now) is None
    line.heard.clear()
    line.plays(2)
    line.pass_frames(4)
    assert line.heard == [SOUND, SOUND]


def test_a_bot_waits_for_the_party_that_is_called() -> None:
    line = Line()
    line.bot.start(line.now, waiting=True)
    assert line.bot.take() == []
    line.bot.party_arrived(line.now)
    assert line.bot.take() == [OpenModel(SPEC.url, SPEC.headers)]


MESSAGES = st.one_of(
    st.binary(max_size=50),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)).map(
        lambda value: json.dumps(value).encode()
    ),
    st.fixed_dictionaries(
        {
            "event": st.sampled_from(["media", "mark", "clear", "stop", "x"]),
            "media": st.one_of(st.none(), st.fixed_dictionaries({"payload": st.sampled_from(["", "AAAA", "!", "é", 5, None])})),
            "mark": st.one_of(
                st.none(), st.text(max_size=3), st.fixed_dictionaries({"name": st.one_of(st.text(), st.integers())})
            ),
        }
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(MESSAGES, max_size=30))
def test_whatever_a_bot_sends_the_line_lives(messages: list[bytes]) -> None:
    line = Line()
    line.open()
    for message in messages:
        line.bot.model_frame(message, line.now)
        line.pass_frames(1)
    line.pass_frames(200)
    assert line.bot.deadline is None, "every mark was told"
