"""What the caller says just before hanging up is written down by the model just after: it belongs to the transcript."""

from __future__ import annotations

import pytest

from tests.peers.party import Party
from tests.server.call_end import spoken_lines
from tests.server.exchange import DESTINATION, TRANSFER, Caller, Exchange, talking
from tests.server.house import House, ear_has, greeted
from tests.server.listening import speech
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _cut_off(session: LiveSession) -> list[str]:
    return [event["item_id"] for event in session.sent("conversation.item.truncate")]


async def test_the_words_before_the_hang_up_reach_call_end(house: House) -> None:
    """One turn is being transcribed, and the next is cut off by the hang-up; CallEnd waits for both texts."""
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            session = talk.session
            await session.got("response.create")
            session.speaks(speech(200), "Shall I book it?")
            await ear_has(talk.call, 10)
            first = session.speech_started()
            session.speech_stopped(first)
            item_id = session.begins(speech(3000, turn=1))
            await ear_has(talk.call, 5, turn=1)
            second = session.speech_started()
            await session.until(lambda: item_id in _cut_off(session), "the reply is cut off")
            await talk.call.hang_up()
            await session.got("input_audio_buffer.commit")
            assert not house.ends_of(talk.guid)
            session.transcribed(second, "Bye!")
            session.transcribed(first, "Yes, do.")
            end = await house.end_of(talk.guid)
            await session.until(lambda: session.closed, "the model's socket is closed")
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert spoken_lines(end) == ["AI : Shall I book it?", "User: Yes, do.", "User: Bye!"]
    await house.quiet()


async def test_a_model_that_never_writes_them_down_holds_no_call_end_back(house: House) -> None:
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model) as talk:
            session = talk.session
            await greeted(session, talk.call)
            session.speech_stopped(session.speech_started())
            session.calls_tool("call_1", "vns_get_utc_datetime", {})
            await session.output_of("call_1")  # the server knows of the turn
            await talk.call.hang_up()
            end = await house.end_of(talk.guid)
            await session.until(lambda: session.closed, "the model's socket is closed")
    assert spoken_lines(end) == ["AI : Hello!"]


async def test_the_words_before_a_transfer_reach_call_end(exchange: Exchange) -> None:
    """The agent leaves when the caller is put through; the text of what the caller asked for comes later."""
    async with Model() as model, exchange.party(DESTINATION, answers=True) as party:
        exchange.answer_with(model, [TRANSFER])
        async with exchange.caller(model) as caller:
            await _is_put_through_and_transcribed(caller, party)
            end = await caller.end()
    assert "User: A person, please." in spoken_lines(end)


async def _is_put_through_and_transcribed(caller: Caller, party: Party) -> None:
    turn = caller.session.speech_started()
    caller.session.speech_stopped(turn)
    caller.transfers()
    call = await party.call()
    await talking(caller.call, call)
    caller.session.transcribed(turn, "A person, please.")
    await caller.session.until(lambda: caller.session.closed, "the model's socket is closed")
    await talking(caller.call, call)
    await call.hang_up()
