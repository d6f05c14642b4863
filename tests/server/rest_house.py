"""A house that is steered from outside: the official Twilio client, the customer's web server, and calls over SIP or Twilio."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.voice_response import VoiceResponse

from switchhook_demo.phone import Call, Phone
from switchhook_demo.sound import tone
from tests.peers.loopback import Got, serve
from tests.peers.party import PartyCall
from tests.peers.ports import free_port
from tests.peers.server import Server, config
from tests.peers.sound import write_wav
from tests.peers.twilio_service import CarriedCall, TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.exchange import LONG_MS, hears
from tests.server.listening import caller_tone
from tests.server.model import LiveSession, Model
from tests.server.twilio_house import PUBLIC_SETTINGS, lead
from tests.server.waiting import eventually

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
        self._runner, port = await serve(app)
        self.url = f"http://127.0.0.1:{port}"
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
    twilio: TwilioService | None = None
    """Who carries calls, in a house that was opened with its pair."""

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
            await self._in_progress(self.sid())
            yield call, session, self.sid()

    @asynccontextmanager
    async def ring(self, pair: tuple[str, str] | None = None) -> AsyncIterator[tuple[CarriedCall, LiveSession]]:
        """The same over Twilio; without `pair` the start webhook gives Twilio's own."""
        assert self.twilio is not None
        account_sid, auth_token = pair or (self.twilio.account_sid, self.twilio.auth_token)
        self.backend.start_reply |= {"twilioAccountSid": account_sid, "twilioAuthToken": auth_token}
        count = len(self.model.sessions) + 1
        call = self.twilio.ring("+19805551234", NUMBER)
        try:
            session = await self.model.session(count)
            await session.got("response.create")
            await self._in_progress(call.sid)
            yield call, session
        finally:
            call.party.hang_up()
        await call.party.ended()

    async def _in_progress(self, sid: str) -> None:
        client = self.client()

        async def find() -> bool:
            return bool((await do(lambda: client.calls(sid).fetch())).status == "in-progress")

        await eventually(find, "the call is in progress")

    async def end_of(self, sid: str) -> Got:
        """Wait for the end webhook of a call."""
        return await self.backend.until(lambda: next(iter(self.ends_of(sid)), None))

    def ends_of(self, sid: str) -> list[Got]:
        """Every end webhook of a call that came."""
        return [end for end in self.backend.of("end") if end.json["callSid"] == sid]

    async def over(self, sid: str, pair: tuple[str, str] = ACCOUNT_PAIR) -> Any:
        """Wait until a call is over; gives what the client then reads."""
        client = self.client(pair)

        async def find() -> Any:
            call = await do(lambda: client.calls(sid).fetch())
            return call if call.status == "completed" and call.end_time else None

        return await eventually(find, "the call is over")

    def play(self) -> VoiceResponse:
        response = VoiceResponse()
        response.play(f"{self.customer.url}/sound.wav")
        return response


def content(backend: VeevoBackend, model: Model, port: int) -> dict[str, Any]:
    """Two accounts with a Twilio pair each, a trunk, a Veevo number."""
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


Tune = Callable[[dict[str, Any]], None]
"""Changes the content of the apply file."""


@asynccontextmanager
async def open_house(
    folder: Path, over_twilio: tuple[str, str] | None = None, tune: Tune = lambda made: None, /, **settings: str
) -> AsyncIterator[RestHouse]:
    """A house of its own for a test; `over_twilio` is the pair of the Twilio that carries its calls, and then it has no trunk."""
    reply = {"openaiApiKey": "sk-x", "systemPrompt": "You are a helpful assistant."}
    port = free_port()
    async with (
        Model() as model,
        VeevoBackend("a secret", reply) as backend,
        Customer(folder) as customer,
        AsyncExitStack() as opened,
    ):
        made, twilio = content(backend, model, port), None
        if over_twilio is not None:
            twilio = await opened.enter_async_context(TwilioService(*over_twilio))
            made["trunks"] = []
            made["accounts"][0]["twilio"]["rest_base_url"] = twilio.url
            settings = {**PUBLIC_SETTINGS, "SWITCHHOOK_TWILIO_REST_URL": twilio.url, "SWITCHHOOK_DRAIN_S": "1", **settings}
        tune(made)
        server = await opened.enter_async_context(Server(folder, made, **settings))
        if twilio is not None:
            lead(twilio, server)
        yield RestHouse(server, backend, model, customer, port, twilio)


async def do(work: Callable[[], T]) -> T:
    """The official client waits; it does so beside the loop."""
    return await asyncio.to_thread(work)


async def refused(work: Callable[[], Any]) -> tuple[int, int]:
    """(HTTP status, code) of an error."""
    with pytest.raises(TwilioRestException) as told:
        await do(work)
    return told.value.status, told.value.code


async def refusal(work: Callable[[], Any]) -> TwilioRestException:
    """An error as the client raises it."""
    with pytest.raises(TwilioRestException) as told:
        await do(work)
    return told.value


def basic(account_sid: str, auth_token: str) -> dict[str, str]:
    """The header that the client sends."""
    return {"Authorization": f"Basic {b64encode(f'{account_sid}:{auth_token}'.encode()).decode()}"}


async def talk_both_ways(call: Call, party: PartyCall) -> None:
    """Each hears the other's tone."""
    call.start_saying(caller_tone(LONG_MS))
    await hears(party, 440.0)
    party.start_saying(tone(PARTY_HZ, LONG_MS))
    await hears(call, PARTY_HZ)
    call.line.hush()
    party.line.hush()
