"""The official Twilio client steers calls that came over SIP, by changing nothing but its base URL."""

from __future__ import annotations

import io
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import soundfile
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from tests.peers.party import Party
from tests.server.exchange import LONG_MS, hears
from tests.server.listening import caller_tone, heard_tone, loud_part, peak_hz, recorded
from tests.server.rest_house import (
    ACCOUNT_PAIR,
    CALL_PAIRS,
    CALLED,
    NUMBER,
    PLAY_HZ,
    RestHouse,
    basic,
    do,
    open_house,
    refused,
    talk_both_ways,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_backend_redirects_its_call_to_dial_and_goes_on_afterwards(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, Party(user=CALLED, port=house.trunk_port, answers=True) as party:
        house.customer.pages["after"] = house.play()
        async with house.talk() as (call, session, sid):
            client = house.client(CALL_PAIRS[0])
            seen = await do(lambda: client.calls(sid).fetch())
            assert (seen.sid, seen.account_sid, seen.status) == (sid, CALL_PAIRS[0][0], "in-progress")
            assert (seen._from, seen.to, seen.direction) == ("+19805551234", NUMBER, "inbound")
            assert seen.start_time is not None
            assert seen.end_time is None

            session.calls_tool("call_1", "pending", {})
            dial = Dial(caller_id=NUMBER, timeout=20, action=f"{house.customer.url}/after")
            dial.number(CALLED)
            twiml = VoiceResponse()
            twiml.append(dial)
            assert (await do(lambda: client.calls(sid).update(twiml=twiml))).status == "in-progress"
            await session.until(lambda: session.closed, "the agent's socket is closed")
            taken = await party.call()
            assert taken.caller == NUMBER
            await talk_both_ways(call, taken)
            await taken.hang_up()

            await hears(call, PLAY_HZ)
            assert await call.ended() == "them"
        [form] = await house.customer.asked("after")
        assert (form["CallSid"], form["DialCallStatus"], form["DialBridged"]) == (sid, "completed", "true")
        assert int(form["DialCallDuration"]) >= 0
        assert house.customer.all_signed_by(CALL_PAIRS[0][1])
        assert not house.customer.all_signed_by(ACCOUNT_PAIR[1])
        ended = await house.over(sid)
        assert (ended.status, ended.direction) == ("completed", "inbound")
        assert ended.end_time >= ended.start_time


def _refers(made: dict[str, Any]) -> None:
    made["trunks"][0]["transfer"] = "refer"


async def test_a_dialled_caller_comes_back_over_a_trunk_that_refers(tmp_path: Path) -> None:
    """The customer is owed the rest of its document: the trunk is not asked to take the caller away."""
    async with (
        open_house(tmp_path, None, _refers) as house,
        Party(user=CALLED, port=house.trunk_port, answers=True) as party,
        house.talk() as (call, _, sid),
    ):
        twiml = VoiceResponse()
        twiml.dial(CALLED)
        twiml.play(f"{house.customer.url}/sound.wav")
        await do(lambda: house.client().calls(sid).update(twiml=twiml))
        taken = await party.call()
        await talk_both_ways(call, taken)
        await taken.hang_up()
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
        assert [request.method for request in call.requests] == ["BYE"]


async def test_redirect_by_url_and_hang_up(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        page = house.play()
        page.pause(length=600)
        house.customer.pages["next"] = page
        async with house.talk() as (call, _, sid):
            client = house.client()
            await do(lambda: client.calls(sid).update(url=f"{house.customer.url}/next"))
            await hears(call, PLAY_HZ)
            [form] = house.customer.told("next")
            assert (form["CallStatus"], form["Direction"], form["From"]) == ("in-progress", "inbound", "+19805551234")
            assert form["AccountSid"] == CALL_PAIRS[0][0]
            assert await do(lambda: [found.sid for found in client.calls.list(status="in-progress")]) == [sid]
            assert (await do(lambda: client.calls(sid).update(status="canceled"))).status == "in-progress"
            assert (await do(lambda: client.calls(sid).update(status="completed"))).status == "completed"
            assert await call.ended() == "them"
        ended = await house.over(sid)
        assert int(ended.duration) >= 0
        assert await refused(lambda: client.calls(sid).update(status="completed")) == (400, 21220)
        assert await refused(lambda: client.calls(sid).update(twiml=page)) == (400, 21220)
        listed = await do(lambda: client.calls.list(status="completed", to=NUMBER, from_="+19805551234", page_size=1))
        assert [found.sid for found in listed] == [sid]
        assert await do(lambda: client.calls.list(status="busy")) == []
        assert await do(lambda: client.calls.list(start_time_after="2100-01-01T00:00:00Z")) == []
        await house.end_of(sid)
        assert len(house.backend.of("end")) == 1


async def test_a_bot_takes_the_call_and_gives_it_back(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.talk() as (call, _, sid):
        client = house.client(CALL_PAIRS[0])
        connect = Connect()
        connect.stream(url=f"{house.customer.url.replace('http', 'ws')}/bot").parameter(name="guid", value="42")
        twiml = VoiceResponse()
        twiml.append(connect)
        twiml.hangup()
        call.start_saying(caller_tone(LONG_MS))
        await do(lambda: client.calls(sid).update(twiml=twiml))
        await hears(call, PLAY_HZ)
        assert await call.ended() == "them"
        connected, start, *rest = house.customer.bot_heard
        assert connected["event"] == "connected"
        assert (start["start"]["callSid"], start["start"]["accountSid"]) == (sid, CALL_PAIRS[0][0])
        assert start["start"]["customParameters"] == {"guid": "42"}
        heard = b"".join(b64decode(told["media"]["payload"]) for told in rest if told["event"] == "media")
        assert heard_tone(heard[-3200:], 440.0, 340)
        assert rest[-1]["mark"] == {"name": "said"}
        assert len(heard) >= 7000, "the mark came back when the bot's words had been heard"
        assert house.customer.all_signed_by(CALL_PAIRS[0][1])


async def test_an_outbound_call_with_its_twiml_and_its_callbacks(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, Party(user=CALLED, port=house.trunk_port) as party:
        house.customer.pages["hello"] = house.play()
        house.customer.troubles["told"] = [503]
        client = house.client()
        made = await do(
            lambda: client.calls.create(
                to=CALLED,
                from_=NUMBER,
                url=f"{house.customer.url}/hello",
                status_callback=f"{house.customer.url}/told",
                status_callback_event=["initiated", "ringing", "answered", "completed"],
                timeout=30,
            )
        )
        assert (made.status, made.direction) == ("queued", "outbound-api")
        taken = await party.call()
        assert taken.caller == NUMBER
        taken.ring()
        await house.customer.asked("told", 3)
        assert (await do(lambda: client.calls(str(made.sid)).fetch())).status == "ringing"
        assert house.customer.told("hello") == [], "nobody is there yet"
        taken.answer()
        await hears(taken, PLAY_HZ)
        assert await taken.ended() == "them"
        refused_first, *forms = await house.customer.asked("told", 5)
        assert refused_first == forms[0], "the backend was away for a moment"
        statuses = ["initiated", "ringing", "in-progress", "completed"]
        assert [form["CallStatus"] for form in forms] == statuses
        assert [form["SequenceNumber"] for form in forms] == ["0", "1", "2", "3"]
        assert {form["CallSid"] for form in forms} == {made.sid}
        assert house.customer.all_signed_by(ACCOUNT_PAIR[1])
        assert house.backend.of("start") == [], "TwiML decides, not the number's webhook"
        assert (await house.over(str(made.sid))).status == "completed"
        assert await refused(lambda: client.calls.create(to=CALLED, from_="+17200000000", twiml="<Response/>")) == (400, 21210)
        assert await refused(lambda: client.calls.create(to="+442071234567", from_=NUMBER, twiml="<Response/>")) == (400, 21215)
        assert await refused(lambda: client.calls.create(to=CALLED, from_=NUMBER, twiml="<Response><Gather/></Response>")) == (
            400,
            12200,
        )


async def test_a_recording_is_started_paused_stopped_fetched_and_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.talk() as (call, _, sid):
            client = house.client(CALL_PAIRS[0])
            await call.say(caller_tone(500))
            house.customer.troubles["recorded"] = [503]
            made = await do(
                lambda: client.calls(sid).recordings.create(
                    recording_channels="dual",
                    recording_status_callback=f"{house.customer.url}/recorded",
                    recording_status_callback_event=["in-progress", "completed"],
                )
            )
            assert (made.call_sid, made.status) == (sid, "in-progress")
            assert await refused(lambda: client.calls(sid).recordings.create(trim="trim-silence")) == (400, 20001)
            await call.say(caller_tone(600))
            current = client.calls(sid).recordings("Twilio.CURRENT")
            assert (await do(lambda: current.update(status="paused"))).status == "paused"
            await call.say(caller_tone(600))
            assert (await do(lambda: current.update(status="in-progress"))).status == "in-progress"
            await call.say(caller_tone(600))
            assert [one.sid for one in await do(lambda: client.calls(sid).recordings.list())] == [made.sid]
            async with aiohttp.ClientSession() as http, http.get(f"{house.server.http_url}/metrics") as page:
                assert "switchhook_recordings_making 0.0" in (await page.text()).splitlines(), "it is only followed"
            assert (await do(lambda: current.update(status="stopped"))).status == "stopped"
            assert await refused(lambda: client.calls(sid).recordings.create()) == (400, 21220)
            refused_first, begun, completed = await house.customer.asked("recorded", 3)
            assert refused_first == begun, "the backend was away for a moment"
            assert (await do(lambda: client.recordings(str(made.sid)).fetch())).status == "completed", "its call goes on"
            await call.hang_up()
        assert (begun["RecordingStatus"], begun["RecordingSid"], begun["CallSid"]) == ("in-progress", made.sid, sid)
        assert (completed["RecordingStatus"], completed["RecordingChannels"]) == ("completed", "2")
        assert (await do(lambda: client.recordings(str(made.sid)).fetch())).duration == completed["RecordingDuration"]
        assert completed["RecordingUrl"].endswith(f"/Accounts/{CALL_PAIRS[0][0]}/Recordings/{made.sid}")
        async with aiohttp.ClientSession(headers=basic(*CALL_PAIRS[0])) as http, http.get(completed["RecordingUrl"]) as reply:
            fetched = soundfile.info(io.BytesIO(await reply.read()))
        assert (reply.status, fetched.channels) == (200, 2)
        assert abs(fetched.duration - int(completed["RecordingDuration"])) <= 0.5
        assert house.customer.all_signed_by(CALL_PAIRS[0][1])
        left, _, rate_hz = await _sound(house, str(made.sid), "wav", tmp_path)
        loud_s = len(loud_part(left, rate_hz)) / rate_hz
        assert 0.8 < loud_s < 1.6, "what was said before it began and while it paused is not in it"
        assert abs(peak_hz(loud_part(left, rate_hz), rate_hz) - 440) < 15
        await _sound(house, str(made.sid), "mp3", tmp_path)
        assert await do(lambda: client.recordings(str(made.sid)).delete())
        assert await refused(lambda: client.recordings(str(made.sid)).fetch()) == (404, 20404)


async def _sound(house: RestHouse, sid: str, kind: str, folder: Path) -> tuple[Any, Any, int]:
    pair = CALL_PAIRS[0]
    url = f"{house.server.http_url}/2010-04-01/Accounts/{pair[0]}/Recordings/{sid}.{kind}"
    async with aiohttp.ClientSession(headers=basic(*pair)) as http, http.get(url) as reply:
        assert reply.status == 200, await reply.text()
        content = await reply.read()
    assert soundfile.info(io.BytesIO(content)).format == kind.upper()
    path = folder / f"fetched.{kind}"
    path.write_bytes(content)
    return recorded(path)


async def test_a_pair_of_one_call_sees_that_call_alone_and_is_written_nowhere(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.talk(CALL_PAIRS[0]) as (_, _, first), house.talk(CALL_PAIRS[1]) as (_, _, second):
            one, other = house.client(CALL_PAIRS[0]), house.client(CALL_PAIRS[1])
            assert (await do(lambda: one.calls(first).fetch())).sid == first
            assert (await do(lambda: other.calls(second).fetch())).sid == second
            assert await refused(lambda: one.calls(second).fetch()) == (404, 20404)
            assert await refused(lambda: other.calls(first).update(status="completed")) == (404, 20404)
            assert await do(lambda: [call.sid for call in one.calls.list()]) == [first]
            assert await refused(lambda: one.calls.create(to=CALLED, from_=NUMBER, twiml="<Response/>")) == (403, 20403)
            assert {call.sid for call in await do(house.client().calls.list)} == {first, second}
            stranger = house.client(("AC" + "9" * 32, "of-somebody-else"))
            assert await refused(lambda: stranger.calls(first).fetch()) == (404, 20404)
            for pair in ((CALL_PAIRS[0][0], "wrong"), (CALL_PAIRS[0][0], CALL_PAIRS[1][1]), ("AC" + "8" * 32, "x")):
                nobody = house.client(pair)
                assert await refused(lambda client=nobody: client.calls(first).fetch()) == (401, 20003)  # type: ignore[misc]
        assert (await house.over(first, CALL_PAIRS[0])).status == "completed", "it may still read its call"
        await house.backend.wait_for("end", 2)
    _check_nothing_is_written(tmp_path)


def _check_nothing_is_written(folder: Path) -> None:
    tokens = [token.encode() for _, token in CALL_PAIRS]
    database = folder / "data" / "switchhook.db"
    with closing(sqlite3.connect(database)) as opened:
        rows = "\n".join(opened.iterdump()).encode()
    written = [rows, *(path.read_bytes() for path in folder.rglob("*") if path.is_file())]
    assert not any(token in text for token in tokens for text in written)
