"""What the caller and the customer see when something does not work."""

from __future__ import annotations

import asyncio

import pytest

from switchhook_demo.phone import Call, CallRefusedError, Phone
from tests.server.call_end import log_texts, spoken_lines
from tests.server.house import FALLBACK_NUMBER, House, ear_has
from tests.server.listening import frames_heard, of_turn, speech
from tests.server.model import LiveSession, Model

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGE = "The assistant is not available."
MESSAGE_MS = 700
"""Any local voice takes longer than this for a message of ours."""


async def _refusal(phone: Phone, uri: str) -> CallRefusedError:
    call = await phone.dial(uri)
    with pytest.raises(CallRefusedError) as refused:
        await call.answered()
    return refused.value


def _voiced_ms(call: Call) -> int:
    return 20 * sum(packet.voiced for packet in call.ear.packets)


async def test_an_unknown_number_is_404(house: House) -> None:
    caller = house.new_caller()
    async with house.phone(caller) as phone:
        assert (await _refusal(phone, house.uri("+17205559999"))).status == house.refusal(404)
    assert await house.record_of(caller) == ("client-error", "unknown-number")
    assert not house.backend.requests


async def test_a_source_that_no_trunk_allows_hears_nothing(house: House) -> None:
    """Not even 100; the same call from an allowed address gets its answer meanwhile."""
    async with Phone("127.0.0.2") as stranger, Phone() as phone:
        call = await stranger.dial(house.uri())
        assert (await _refusal(phone, house.uri("+17205559999"))).status == 404
        assert not call.provisionals
        with pytest.raises(TimeoutError):
            await call.answered(1)
        assert not call.provisionals
    assert not house.backend.requests


async def test_a_failed_call_start_is_480_and_told(house: House) -> None:
    """The caller is refused unanswered, and CallEnd says why."""
    house.backend.start_status = 500
    caller = house.new_caller()
    async with house.phone(caller) as phone:
        assert (await _refusal(phone, house.uri())).status == house.refusal(480)
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    assert (end["status"], end["callConnected"], end["transcription"]) == (1, None, None)
    assert await house.record_of(caller) == ("upstream-error", "call-start-http-error")
    assert "500" in end["errorMessage"]


@pytest.mark.peer("flite")
async def test_the_fallback_message_is_spoken(house: House) -> None:
    """The number's own fallback: answered, spoken by the local voice, hung up."""
    house.backend.start_status = 500
    caller = house.new_caller()
    async with house.phone(caller) as phone:
        call = await phone.dial(house.uri(FALLBACK_NUMBER))
        await call.answered()
        assert await call.ended() == "them"
    assert _voiced_ms(call) > MESSAGE_MS
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    assert end["status"] == 1
    assert end["callConnected"] is not None


@pytest.mark.peer("flite")
async def test_a_model_that_refuses_us_leads_to_the_message(house: House) -> None:
    """401 on the handshake is not tried again."""
    caller = house.new_caller()
    async with Model(refuse_with=401) as model, house.phone(caller) as phone:
        house.answer_with(model, messageToPlayOnFailure=MESSAGE)
        call = await phone.dial(house.uri())
        await call.answered()
        assert await call.ended() == "them"
        assert model.handshakes == 1
    assert _voiced_ms(call) > MESSAGE_MS
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    assert end["status"] == 2
    assert any("AI Session:" in line for line in end["logInformation"])


@pytest.mark.peer("flite")
async def test_a_failure_route_that_is_not_allowed_is_noted_and_its_message_spoken(house: House) -> None:
    """The message, a Failed entry, the reason in the log; a number abroad is not dialled."""
    caller = house.new_caller()
    async with Model(refuse_with=403) as model, house.phone(caller, display_name="Ada") as phone:
        house.answer_with(model, messageToPlayOnFailure=MESSAGE, routeToNumberOnFailure="+441632960123")
        call = await phone.dial(house.uri())
        await call.answered()
        assert await call.ended() == "them"
    assert _voiced_ms(call) > MESSAGE_MS
    end = await house.end_of((await house.start_of(caller))["sessionGuid"])
    [entry] = end["transfers"]
    assert entry["transferCallResult"] == "Failed"
    assert entry["transferCalledNumber"] == "+441632960123"
    assert entry["transferCallerId"].endswith(caller.removeprefix("+1"))
    assert entry["transferCallerIdName"] == "Ada"
    assert any(line.startswith("Transfer:") for line in log_texts(end))
    assert (end["status"], end["callReferredOut"]) == (2, False)


async def test_a_model_that_dies_is_tried_once_more(house: House) -> None:
    """The second session knows what was said; when it dies too, the call ends with status 3."""
    async with Model() as model:
        reply = house.answer_with(model)
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(speech(200, turn=1), "Hello Ada!")
            await ear_has(talk.call, 10, turn=1)
            talk.session.die()
            second = await model.session(2)
            [update] = await second.got("session.update")
            assert update["session"] == reply["session"]
            await second.until(lambda: ("assistant", "Hello Ada!") in second.texts(), "the talk so far")
            second.speaks(speech(200, turn=2), "Here I am again.")
            await ear_has(talk.call, 10, turn=2)
            second.die()
            assert await talk.call.ended() == "them"
        assert model.handshakes == 2
        end = await house.end_of(talk.guid)
    assert end["status"] == 3
    assert spoken_lines(end) == ["AI : Hello Ada!", "AI : Here I am again."]
    assert [of_turn(talk.call.ear.packets, turn) for turn in (1, 2)] == [list(range(10))] * 2


async def test_max_seconds_ends_the_call(house: House) -> None:
    """Counted from the answer, in the middle of a sentence."""
    async with Model() as model:
        house.answer_with(model, maxSeconds=2)
        loop = asyncio.get_running_loop()
        house.backend.start_gate.clear()
        loop.call_later(1, house.backend.start_gate.set)  # the time before the answer does not count
        dialled_at = loop.time()
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(speech(30_000), "A very long story")
            assert await talk.call.ended() == "them"
            assert talk.call.ended_at is not None
            assert 3 <= talk.call.ended_at - dialled_at < 15
        end = await house.end_of(talk.guid)
    assert (end["status"], end["errorMessage"]) == (0, "Maximum call duration reached")


async def test_a_caller_whose_line_goes_dead(house: House) -> None:
    """No word and no sound of it: the call ends by itself, and the model is let go."""
    caller = house.new_caller()
    async with Model() as model:
        house.answer_with(model)
        async with house.talk(model, caller) as talk:
            await talk.session.got("response.create")
            talk.session.speaks(speech(200), "Hello?")
            await ear_has(talk.call, 10)
            talk.call.line.sending = False
            await talk.session.until(lambda: talk.session.closed, "the model's socket is closed")
            assert await talk.call.ended() == "them"
            end = await house.end_of(talk.guid)
    assert (end["status"], end["errorMessage"]) == (0, "No Errors")
    assert (await house.record_of(caller))[1] == "media-timeout"


async def test_a_caller_who_gives_up_before_the_answer(house: House) -> None:
    """CANCEL (487) while CallStart is under way, and CallEnd once CallStart has answered."""
    house.backend.start_gate.clear()
    caller = house.new_caller()
    async with Model() as model, house.phone(caller) as phone:
        house.answer_with(model)
        call = await phone.dial(house.uri())
        assert await call.ringing() == 180
        guid = (await house.start_of(caller))["sessionGuid"]
        await call.cancel()
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 487
        house.backend.start_gate.set()
        end = await house.end_of(guid)
        assert (end["status"], end["callConnected"]) == (0, None)
        assert await house.record_of(caller) == ("success", "caller-cancelled")
        assert model.handshakes == 0


async def test_a_failed_tool_does_not_end_the_talk(house: House) -> None:
    """The model gets an output and the caller goes on hearing it."""
    async with Model() as model:
        told = house.answer_with(model, ["book"])
        told["VoiceElements_Instructions"]["defaultToolsUrlBase"]["url"] = "http://127.0.0.1:9/tools"
        async with house.talk(model) as talk:
            await talk.session.got("response.create")
            talk.session.calls_tool("call_1", "book", {})
            assert await talk.session.output_of("call_1") == '{"error":"The tool could not be reached."}'
            await talk.session.got("response.create", 2)
            talk.session.speaks(speech(200), "Sorry, I cannot book that.")
            await ear_has(talk.call, 10)
            await talk.call.hang_up()
        assert (await house.end_of(talk.guid))["status"] == 0


async def _five_hundred_ms_of_one_voice(house: House) -> list[tuple[int, int]]:
    async with house.phone(house.new_caller()) as phone:
        call = await phone.dial(house.uri())
        await call.answered()
        await call.ear.until(lambda: len(frames_heard(call.ear.packets)) >= 25, 40, "the greeting")
        await call.hang_up()
    return frames_heard(call.ear.packets)


async def test_calls_at_the_same_time_keep_their_sound_apart(house: House) -> None:
    """Five callers, five sessions: each hears one of the voices, whole and alone."""

    async def speak(session: LiveSession) -> None:
        await session.got("response.create")
        session.speaks(speech(500, model.sessions.index(session)), "Hello!")

    async with Model(speak) as model:
        house.answer_with(model)
        heard = await asyncio.gather(*(_five_hundred_ms_of_one_voice(house) for _ in range(5)))
        assert sorted(heard) == [[(turn, frame) for frame in range(25)] for turn in range(5)]
        ends = await house.backend.wait_for("/callend", 5)
    assert [end.json["status"] for end in ends] == [0] * 5
