"""Who answered a call that a customer ordered, and what each `on_machine` does about it: from sound to CallEnd and record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from switchhook_demo.sound import tone
from tests.peers.flite import spoken
from tests.peers.party import Party, PartyCall
from tests.peers.vns_backend import start_reply
from tests.server.call_end import log_texts
from tests.server.exchange import (
    HANGS_UP_ON_MACHINES,
    LEAVES_MESSAGES,
    LONG_MS,
    TELLS_OF_MACHINES,
    Exchange,
    agent_is_heard,
    model_hears,
)
from tests.server.house import function
from tests.server.listening import AGENT_HZ, CALLER_HZ, caller_tone, heard_tone
from tests.server.model import LiveSession, Model
from tests.server.waiting import DEADLINE_S

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("flite")]

EVERY_ACTION = (HANGS_UP_ON_MACHINES, LEAVES_MESSAGES, TELLS_OF_MACHINES)
GREETING = "You have reached Ann. I cannot come to the phone right now. Please leave a message after the tone."
SCREENING = "Please state your name and why you are calling."
LONG_SCREENING = (
    "Hi the person you are calling is using a screening service and will get a copy of this conversation "
    "please state your name and why you are calling"
)
NOBODY = "The number you have dialled is not in service. Please check the number and dial again."


def special_tones() -> bytes:
    """The three special information tones of ITU-T E.180, 330 ms each."""
    return b"".join(tone(hz, 330) for hz in (950, 1400, 1800))


def pause(duration_ms: int) -> bytes:
    """Silence."""
    return b"\xff" * (8 * duration_ms)


@dataclass(frozen=True)
class Ordered:
    """A call that was ordered, and that somebody or something has answered."""

    exchange: Exchange
    number: str
    guid: str
    call: PartyCall
    session: LiveSession

    def told(self) -> list[str]:
        """What the server told the model about the party."""
        return [text for role, text in self.session.texts() if role == "system"]

    async def is_told(self, word: str) -> None:
        """Wait until the model knows."""
        await self.session.until(lambda: any(word in text for text in self.told()), f"the agent is told of a {word}")

    async def agent_hangs_up(self) -> None:
        """The agent says goodbye."""
        asked = self.session.requests
        self.session.calls_tool("call_g", "vns_end_conversation", {"user_input": "bye"})
        await self.session.until(lambda: self.session.requests > asked, "the agent's goodbye")
        self.session.speaks(tone(AGENT_HZ, 100), "Bye.")
        assert await self.call.ended() == "them"

    async def comes_to(self, result: str, reason: str, answerer: str) -> dict[str, Any]:
        """CallEnd, its log and the record agree; gives the CallEnd."""
        end = await self.exchange.end_of(self.guid)
        assert (end["outboundCallResult"], end["status"], end["errorMessage"]) == (result, 0, "No Errors"), self.number
        verdicts = [line for line in log_texts(end) if line.startswith("Answer: ")]
        assert verdicts[-1].startswith(f"Answer: {answerer} ("), verdicts
        assert await self.exchange.row("reason", "call_id = ?", self.guid) == reason
        return end


Story = Callable[[Ordered], Awaitable[None]]


async def on_each(exchange: Exchange, *numbers: str, story: Story) -> None:
    """The same happens to a call of each number, at once."""
    async with Model() as model, exchange.party() as party, asyncio.TaskGroup() as group:
        tools = [function("vns_end_conversation")]

        def reply(asked: dict[str, Any]) -> dict[str, Any]:
            given = start_reply(model.url, f"{exchange.backend.url}/tools", tools)
            given["VoiceElements_Instructions"]["aiUrl"]["headers"]["X-Line"] = asked["callerId"]
            return given

        exchange.backend.start_reply = reply
        for number in numbers:
            group.create_task(_live(exchange, model, party, number, story))


async def _live(exchange: Exchange, model: Model, party: Party, number: str, story: Story) -> None:
    guid = await exchange.place(number)
    while (call := next((call for call in party.taken if call.caller == number), None)) is None:
        await party.call(len(party.taken) + 1)
    call.answer()
    session = await model.until(lambda: _of(model, number), f"the session of {number}")
    await session.got("response.create")
    await story(Ordered(exchange, number, guid, call, session))


def _of(model: Model, number: str) -> LiveSession | None:
    shown = number.removeprefix("+1")
    return next((session for session in model.sessions if session.headers["X-Line"] == shown), None)


async def test_a_person_talks_with_the_agent(exchange: Exchange) -> None:
    """A hello and a pause: whatever is done about machines, nothing is done here."""

    async def story(made: Ordered) -> None:
        await made.call.say(spoken("Hello?"), pause(1500))
        await agent_is_heard(made.call, made.session)
        made.call.start_saying(caller_tone(LONG_MS))  # one that ended soon would be a beep
        await model_hears(made.session, CALLER_HZ)
        assert made.told() == []
        await made.agent_hangs_up()
        await made.comes_to("HumanDetected", "agent-ended", "human")

    await on_each(exchange, *EVERY_ACTION, story=story)


async def test_a_voicemail_is_hung_up_on(exchange: Exchange) -> None:
    """hang_up: after the beep, or on the words, the call ends; nothing is said to the machine."""

    async def story(made: Ordered) -> None:
        made.call.start_saying(pause(300) + spoken(GREETING) + pause(500) + tone(1000, 400) + pause(60_000))
        assert await made.call.ended(30) == "them"
        assert not any(packet.voiced for packet in made.call.ear.packets)
        await made.session.until(lambda: made.session.closed, "the model's socket is closed")
        await made.comes_to("MachineDetected", "voicemail", "voicemail")

    await on_each(exchange, HANGS_UP_ON_MACHINES, story=story)


async def test_the_agent_is_told_of_a_voicemail(exchange: Exchange) -> None:
    """tell_agent: the agent is heard by the machine, and hangs up when it has said its message."""

    async def story(made: Ordered) -> None:
        await made.call.say(pause(300), spoken(GREETING), pause(500) + tone(1000, 400), pause(1000))
        await made.is_told("A voicemail has answered")
        await agent_is_heard(made.call, made.session, "This is Acme.")
        await made.agent_hangs_up()
        assert sum("A voicemail has answered" in text for text in made.told()) == 1
        await made.comes_to("MachineDetected", "agent-ended", "voicemail")

    await on_each(exchange, TELLS_OF_MACHINES, story=story)


@pytest.mark.parametrize("said", [SCREENING, LONG_SCREENING], ids=["short", "long"])
async def test_a_call_screener_is_left_to_the_agent(exchange: Exchange, said: str) -> None:
    """Asked for its name and reason, the agent is told what asks, gives them, and talks with the person who comes then.

    A long greeting is a voicemail's for `leave_message` until its words are known: then the agent speaks all the same.
    """

    async def story(made: Ordered) -> None:
        made.session.speaks(tone(AGENT_HZ, 100), "Hello!")
        await made.call.say(pause(300), spoken(said))  # who pauses for long after it is left the message
        made.session.caller_spoke(said)
        await made.is_told("screener")
        await agent_is_heard(made.call, made.session, "This is Acme, about your order.")
        await made.call.say(pause(3500))  # somebody is looked for
        made.call.start_saying(caller_tone(600))
        await model_hears(made.session, CALLER_HZ)
        await agent_is_heard(made.call, made.session, "Hello!")
        await made.agent_hangs_up()
        await made.comes_to("MachineDetected", "agent-ended", "screener")

    await on_each(exchange, *EVERY_ACTION, story=story)


@pytest.mark.parametrize("evidence", ["tones", "words"])
async def test_the_networks_announcement_ends_the_call(exchange: Exchange, evidence: str) -> None:
    """Answered by the network: by its tones, or by its words. Nothing is said to it, and no message is left."""

    async def story(made: Ordered) -> None:
        if evidence == "tones":
            made.call.start_saying(special_tones() + spoken(NOBODY) + pause(60_000))
        else:
            await made.call.say(pause(300), spoken(NOBODY))
            made.session.caller_spoke(NOBODY)
        assert await made.call.ended(30) == "them"
        assert not any(packet.voiced for packet in made.call.ear.packets)
        await made.comes_to("OperatorIntercept", "announcement", "announcement")

    await on_each(exchange, *EVERY_ACTION, story=story)


@pytest.mark.parametrize("status", [404, 480, None])
async def test_an_announcement_before_the_answer(exchange: Exchange, status: int | None) -> None:
    """183 with the network's tones, then a refusal or nothing more: whatever the status, the number cannot be reached."""
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place(HANGS_UP_ON_MACHINES)
        call = await party.call()
        call.ring(183, early=True)
        await call.say(special_tones(), pause(400))
        if status is not None:
            call.refuse(status)
        else:
            await asyncio.wait_for(call.cancelled.wait(), DEADLINE_S)
        end = await exchange.end_of(guid)
        assert call.cancelled.is_set() is (status is None)
        for session in model.sessions:
            assert not heard_tone(bytes(session.audio), 950, 20)
    assert (end["callConnected"], end["transcription"]) == (None, [])
    assert (end["outboundCallResult"], end["status"]) == ("OperatorIntercept", 0)
    assert "Answer: announcement (the special information tones before the answer)" in log_texts(end)


async def test_sound_before_the_answer_tells_nothing_of_who_answers(exchange: Exchange) -> None:
    """A tune instead of ringing, the network's tones even: then a person answers, and the agent talks with that person."""
    async with Model() as model, exchange.party() as party:
        exchange.answer_with(model)
        guid = await exchange.place(HANGS_UP_ON_MACHINES)
        call = await party.call()
        call.ring(183, early=True)
        await call.say(special_tones(), pause(300), tone(440, 800))
        call.answer()
        session = await model.session()
        await session.got("response.create")
        await call.say(pause(200), spoken("Hello?"), pause(1500))
        await agent_is_heard(call, session)
        await call.hang_up()
        end = await exchange.end_of(guid)
    assert (end["outboundCallResult"], end["status"]) == ("HumanDetected", 0)
