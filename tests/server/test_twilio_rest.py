"""The official Twilio client steers calls that came over SIP, by changing nothing but its base URL."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import soundfile
from aiohttp import web
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from switchhook_demo.phone import Call, Phone
from switchhook_demo.sound import tone
from tests.peers.party import Party, PartyCall
from tests.peers.server import Server, config, free_port
from tests.peers.sound import write_wav
from tests.peers.veevo_backend import VeevoBackend
from tests.server.exchange import hears
from tests.server.listening import caller_tone, heard_tone, loud_part, peak_hz, recorded
from tests.server.model import LiveSession, Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")
T = TypeVar("T")

NUMBER = "+17206999999"
CALLED = "+17205550199"
ACCOUNT_PAIR = ("AC" + "1" * 32, "canary-account-5c2f90aa")
CALL_PAIRS = [("AC" + "2" * 32, "canary-call-one-77d1e5b2"), ("AC" + "3" * 32, "canary-call-two-0b8e4a61")]
PLAY_HZ = 1100.0
PARTY_HZ = 900.0


@dataclass
class Customer:
    """The customer's own web server: TwiML, a sound, and what it was told."""

    folder: Path
    pages: dict[str, VoiceResponse] = field(default_factory=dict)
    got: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    """(URL, form, signature)"""
    bot_heard: list[dict[str, Any]] = field(default_factory=list)
    troubles: dict[str, list[int]] = field(default_factory=dict)
    """By page: the statuses of its next answers."""
    url: str = ""

    async def __aenter__(self) -> Customer:
        write_wav(self.folder / "tone.wav", PLAY_HZ, 1500)
        app = web.Application()
        app.router.add_route("*", "/sound.wav", self._sound)
        app.router.add_get("/bot", self._bot)
        app.router.add_route("*", "/{name}", self._page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def told(self, name: str) -> list[dict[str, str]]:
        return [form for url, form, _ in self.got if f"/{name}" in url]

    async def asked(self, name: str, count: int = 1) -> list[dict[str, str]]:
        async def find() -> list[dict[str, str]] | None:
            found = self.told(name)
            return found if len(found) >= count else None

        return await eventually(find, f"{count} requests of {name}")

    def all_signed_by(self, token: str) -> bool:
        validator = RequestValidator(token)
        return all(validator.validate(url, form, signature) for url, form, signature in self.got)

    async def _sound(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self.folder / "tone.wav")

    async def _bot(self, request: web.Request) -> web.WebSocketResponse:
        """Speaks at once, hears until its mark comes back, and closes."""
        url = self.url.replace("http", "ws") + request.path_qs
        self.got.append((url, {}, request.headers.get("X-Twilio-Signature", "")))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            told = message.json()
            self.bot_heard.append(told)
            if told["event"] == "start":
                sound = b64encode(tone(PLAY_HZ, 1000)).decode()
                await socket.send_json({"event": "media", "streamSid": told["streamSid"], "media": {"payload": sound}})
                await socket.send_json({"event": "mark", "streamSid": told["streamSid"], "mark": {"name": "said"}})
            elif told["event"] == "mark":
                break
        await socket.close()
        return socket

    async def _page(self, request: web.Request) -> web.Response:
        form = {str(name): str(value) for name, value in (await request.post()).items()}
        self.got.append((self.url + request.path_qs, form, request.headers.get("X-Twilio-Signature", "")))
        name = request.match_info["name"]
        if self.troubles.get(name):
            return web.Response(status=self.troubles[name].pop(0))
        page = self.pages.get(name, VoiceResponse())
        return web.Response(text=str(page), content_type="text/xml")


@dataclass
class RestHouse:
    server: Server
    backend: VeevoBackend
    model: Model
    customer: Customer
    trunk_port: int

    def client(self, pair: tuple[str, str] = ACCOUNT_PAIR) -> Client:
        client = Client(*pair)
        client.api.base_url = self.server.http_url
        return client

    def sid(self) -> str:
        """The name of the call whose start webhook came last."""
        sid: str = self.backend.of("start")[-1].json["callSid"]
        return sid

    @asynccontextmanager
    async def talk(self, pair: tuple[str, str] = CALL_PAIRS[0]) -> AsyncIterator[tuple[Call, LiveSession, str]]:
        """A call in conversation with the agent, whose start webhook gave this pair."""
        self.backend.start_reply |= {"twilioAccountSid": pair[0], "twilioAuthToken": pair[1]}
        count = len(self.model.sessions) + 1
        async with Phone(user="+19805551234") as telephone:
            call = await telephone.dial(f"sip:{NUMBER}@127.0.0.1:{self.server.sip_port}")
            await call.answered()
            session = await self.model.session(count)
            await session.got("response.create")
            yield call, session, self.sid()

    def play(self) -> VoiceResponse:
        response = VoiceResponse()
        response.play(f"{self.customer.url}/sound.wav")
        return response


def _content(backend: VeevoBackend, model: Model, port: int) -> dict[str, Any]:
    made = config(backend.url, port)
    made["accounts"] = [
        {
            "name": "acme",
            "tokens": [{"name": "main", "value": "secret-token"}],
            "dialling": {"countries": ["US"], "calls_per_second": 100},
            "twilio": {"account_sid": ACCOUNT_PAIR[0], "auth_token": ACCOUNT_PAIR[1]},
            "veevo": {"webhook_secret": "a secret"},
        },
        {"name": "other", "tokens": [], "twilio": {"account_sid": "AC" + "9" * 32, "auth_token": "of-somebody-else"}},
    ]
    made["numbers"] = [
        {
            "number": NUMBER,
            "account": "acme",
            "contract": "veevo",
            "on_call_start": {"url": f"{backend.url}/calls/start"},
            "on_call_end": {"url": f"{backend.url}/calls/end"},
            "openai_url": model.url.partition("?")[0],
        }
    ]
    return made


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[RestHouse]:
    reply = {"openaiApiKey": "sk-x", "systemPrompt": "You are a helpful assistant."}
    port = free_port()
    async with (
        Model() as model,
        VeevoBackend("a secret", reply) as backend,
        Customer(folder) as customer,
        Server(folder, _content(backend, model, port)) as server,
    ):
        yield RestHouse(server, backend, model, customer, port)


async def do(work: Callable[[], T]) -> T:
    """The official client waits; it does so beside the loop."""
    return await asyncio.to_thread(work)


async def refused(work: Callable[[], Any]) -> tuple[int, int]:
    """(HTTP status, code) of an error."""
    with pytest.raises(TwilioRestException) as told:
        await do(work)
    return told.value.status, told.value.code


async def talk_both_ways(call: Call, party: PartyCall) -> None:
    """Each hears the other's tone."""
    call.start_saying(caller_tone(2500))
    await hears(party, 440.0)

    party.start_saying(tone(PARTY_HZ, 2500))
    await hears(call, PARTY_HZ)


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
        ended = await _when_over(house, sid)
        assert (ended.status, ended.direction) == ("completed", "inbound")
        assert ended.end_time >= ended.start_time


async def _when_over(house: RestHouse, sid: str) -> Any:
    client = house.client()

    async def find() -> Any:
        call = await do(lambda: client.calls(sid).fetch())
        return call if call.status == "completed" and call.end_time else None

    return await eventually(find, "the call is over")


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
        ended = await _when_over(house, sid)
        assert int(ended.duration) >= 0
        assert await refused(lambda: client.calls(sid).update(status="completed")) == (400, 21220)
        assert await refused(lambda: client.calls(sid).update(twiml=page)) == (400, 21220)
        listed = await do(lambda: client.calls.list(status="completed", to=NUMBER, from_="+19805551234", page_size=1))
        assert [found.sid for found in listed] == [sid]
        assert await do(lambda: client.calls.list(status="busy")) == []
        assert await do(lambda: client.calls.list(start_time_after="2100-01-01T00:00:00Z")) == []
        (end,) = await house.backend.wait_for("end")
        assert end.json["callSid"] == sid


async def test_a_bot_takes_the_call_and_gives_it_back(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.talk() as (call, _, sid):
        client = house.client(CALL_PAIRS[0])
        connect = Connect()
        connect.stream(url=f"{house.customer.url.replace('http', 'ws')}/bot").parameter(name="guid", value="42")
        twiml = VoiceResponse()
        twiml.append(connect)
        twiml.hangup()
        call.start_saying(caller_tone(3000))
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
        statuses = ["queued", "ringing", "in-progress", "completed"]
        assert [form["CallStatus"] for form in forms] == statuses
        assert [form["SequenceNumber"] for form in forms] == ["0", "1", "2", "3"]
        assert {form["CallSid"] for form in forms} == {made.sid}
        assert house.customer.all_signed_by(ACCOUNT_PAIR[1])
        assert house.backend.of("start") == [], "TwiML decides, not the number's webhook"
        assert (await _when_over(house, str(made.sid))).status == "completed"
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
            begun, completed = await house.customer.asked("recorded", 2)
            assert (await do(lambda: client.recordings(str(made.sid)).fetch())).status == "completed", "its call goes on"
            await call.hang_up()
        assert (begun["RecordingStatus"], begun["RecordingSid"], begun["CallSid"]) == ("in-progress", made.sid, sid)
        assert (completed["RecordingStatus"], completed["RecordingChannels"]) == ("completed", "2")
        assert (await do(lambda: client.recordings(str(made.sid)).fetch())).duration == completed["RecordingDuration"]
        assert completed["RecordingUrl"].endswith(f"/Accounts/{CALL_PAIRS[0][0]}/Recordings/{made.sid}")
        async with aiohttp.ClientSession(headers=_basic(*CALL_PAIRS[0])) as http, http.get(completed["RecordingUrl"]) as reply:
            fetched = soundfile.info(io.BytesIO(await reply.read()))
        assert (reply.status, fetched.channels, str(round(fetched.duration))) == (200, 2, completed["RecordingDuration"])
        assert house.customer.all_signed_by(CALL_PAIRS[0][1])
        left, _, rate_hz = await _sound(house, str(made.sid), "wav", tmp_path)
        loud_s = len(loud_part(left, rate_hz)) / rate_hz
        assert 0.8 < loud_s < 1.6, "what was said before it began and while it paused is not in it"
        assert abs(peak_hz(loud_part(left, rate_hz), rate_hz) - 440) < 15
        await _sound(house, str(made.sid), "mp3", tmp_path)
        assert await do(lambda: client.recordings(str(made.sid)).delete())
        assert await refused(lambda: client.recordings(str(made.sid)).fetch()) == (404, 20404)


def _basic(account_sid: str, auth_token: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{account_sid}:{auth_token}'.encode()).decode()}"}


async def _sound(house: RestHouse, sid: str, kind: str, folder: Path) -> tuple[Any, Any, int]:
    pair = CALL_PAIRS[0]
    url = f"{house.server.http_url}/2010-04-01/Accounts/{pair[0]}/Recordings/{sid}.{kind}"
    async with aiohttp.ClientSession(headers=_basic(*pair)) as http, http.get(url) as reply:
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
        await house.backend.wait_for("end", 2)
        assert (await do(lambda: one.calls(first).fetch())).status == "completed", "it may still read its call"
        await _errors_have_twilios_shape(house)
    _check_nothing_is_written(tmp_path)


async def _errors_have_twilios_shape(house: RestHouse) -> None:
    base = f"{house.server.http_url}/2010-04-01/Accounts/{ACCOUNT_PAIR[0]}"
    async with aiohttp.ClientSession(headers=_basic(*ACCOUNT_PAIR)) as http:
        for method, path, status, code in (
            ("DELETE", "/Calls.json", 405, 20004),
            ("GET", "/Calls/CAxyz.json", 404, 20404),
            ("GET", "/Conferences.json", 404, 20404),
            ("GET", "/Calls?PageToken=x", 400, 20001),
            ("GET", "/Calls.json?Status=lost", 400, 20001),
            ("POST", "/Calls.json", 400, 21201),
        ):
            async with http.request(method, base + path) as reply:
                body = await reply.json()
                assert (reply.status, body["code"], body["status"]) == (status, code, status)
                assert set(body) == {"code", "message", "more_info", "status"}


def _check_nothing_is_written(folder: Path) -> None:
    tokens = [token.encode() for _, token in CALL_PAIRS]
    database = folder / "data" / "switchhook.db"
    with closing(sqlite3.connect(database)) as opened:
        rows = "\n".join(opened.iterdump()).encode()
    written = [rows, *(path.read_bytes() for path in folder.rglob("*") if path.is_file())]
    assert not any(token in text for token in tokens for text in written)
