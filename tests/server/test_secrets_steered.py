"""A canary for every secret of calls that are steered: none may sing in a log, a reply, a webhook, TwiML, a figure or a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from twilio.twiml.voice_response import Connect, VoiceResponse

from switchhook_demo.phone import Phone
from tests.peers.party import Party
from tests.peers.twilio_service import Callee
from tests.server.canaries import DATABASE_PASSWORD, check_log, singing, singing_files, singing_rows, with_password
from tests.server.exchange import hears
from tests.server.listening import caller_tone
from tests.server.rest_house import ACCOUNT_PAIR, CALL_PAIRS, CALLED, NUMBER, PLAY_HZ, RestHouse, basic, do, open_house, refused
from tests.store.opening import PostgresDatabases, postgres_databases

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.peer("postgresql")]

WORDS = ("openai", "veevo", "management", "api", "trunk", "urlkey", "wrong")
CANARIES = {name: f"canary-{name}-4b7e19d0" for name in WORDS}
CANARIES |= {"account": ACCOUNT_PAIR[1], "one": CALL_PAIRS[0][1], "two": CALL_PAIRS[1][1], "database": DATABASE_PASSWORD}
KEY = f"?key={CANARIES['urlkey']}"
CHALLENGE = {"Proxy-Authenticate": 'Digest realm="carrier", nonce="c0ffee", algorithm=MD5, qop="auth"'}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


def _plant(made: dict[str, Any]) -> None:
    acme = made["accounts"][0]
    acme["tokens"][0]["value"] = CANARIES["api"]
    acme["veevo"] = {"webhook_secret": CANARIES["veevo"], "management_key": CANARIES["management"]}
    made["numbers"][0]["apology"] = "Sorry."
    for trunk in made["trunks"]:
        trunk |= {"username": "acme", "password": CANARIES["trunk"]}


def _key_of_the_model(house: RestHouse) -> None:
    house.backend.secret = CANARIES["veevo"]
    house.backend.start_reply["openaiApiKey"] = CANARIES["openai"]


async def _answers(house: RestHouse, sid: str, pair: tuple[str, str]) -> None:
    """Everything that the surface says of a call and of what it will not do."""
    wrong = (pair[0], CANARIES["wrong"])
    asked = [
        ("GET", pair, "/Calls.json", {}),
        ("GET", pair, f"/Calls/{sid}.json", {}),
        ("GET", pair, f"/Calls/{sid}/Recordings.json", {}),
        ("GET", wrong, f"/Calls/{sid}.json", {}),
        ("POST", pair, f"/Calls/{sid}.json", {"Twiml": "<Response><Gather/></Response>"}),
        ("POST", pair, f"/Calls/{sid}.json", {"Url": f"ftp://acme.example/{KEY}"}),
        ("POST", pair, f"/Calls/{sid}.json", {"Twiml": f"<Response><Play>/sound{KEY}</Play></Response>"}),
        ("POST", pair, "/Calls.json", {"To": CALLED, "From": "+17200000000", "Url": f"http://acme.example/{KEY}"}),
        ("DELETE", pair, "/Calls.json", {}),
        ("GET", pair, f"/Nothing{KEY}", {}),
    ]
    for method, known, path, form in asked:
        url = f"{house.server.http_url}/2010-04-01/Accounts/{pair[0]}{path}"
        async with aiohttp.ClientSession(headers=basic(*known)) as http, http.request(method, url, data=form) as reply:
            said = await reply.read() + str(reply.headers).encode()
            assert singing(CANARIES, said) == [], (method, path, said)


async def _told(house: RestHouse) -> None:
    """What left the server on its way to the customer, and what it tells its operator."""
    for url, form, _ in house.customer.got:
        # The customer's own addresses come back to it: the one that is asked, and in `ErrorUrl` the one that failed.
        own = [address.replace(KEY, "") for address in (url, form.get("ErrorUrl", ""))]
        assert singing(CANARIES, json.dumps([own, form | {"ErrorUrl": ""}]).encode()) == []
    assert singing(CANARIES, json.dumps(house.customer.bot_heard).encode()) == []
    for got in house.backend.callbacks:
        assert singing(CANARIES, got.body + json.dumps(got.headers).encode()) == []
    assert not house.backend.unsigned
    for command in (("check",), ("webhook", "test", NUMBER), ("webhook", "parked")):
        _, said = await house.server.run(*command)
        assert singing(CANARIES, said.encode()) == []
    async with aiohttp.ClientSession() as http:
        for path in ("/metrics", "/health"):
            async with http.get(house.server.http_url + path) as reply:
                assert singing(CANARIES, await reply.read()) == []


async def _nothing_is_written(house: RestHouse, url: str) -> None:
    assert await singing_rows(CANARIES, url) == set()
    assert "number in calls" in await singing_rows({"number": NUMBER}, url), "the rows are read"
    assert singing_files(CANARIES, house.server.data_dir) == set()


async def _lost_ways(house: RestHouse, sid: str, pair: tuple[str, str]) -> None:
    """Redirects to addresses with a key in them: one that fails, one that nobody answers, and one that plays at last.

    While the first two are lost, another page keeps the caller.
    """
    client = house.client(pair)
    house.customer.troubles["lost"] = [500]
    holding = VoiceResponse()
    holding.pause(length=600)
    house.customer.pages["held"] = holding
    second = VoiceResponse()
    second.play(f"{house.customer.url}/sound.wav{KEY}")
    second.pause(length=600)
    house.customer.pages["found"] = second
    held = len(house.customer.told("held"))
    for count, url in enumerate((f"{house.customer.url}/lost{KEY}", f"http://127.0.0.1:9/{KEY}"), start=held + 1):
        await do(lambda url=url: client.calls(sid).update(url=url, fallback_url=f"{house.customer.url}/held{KEY}"))  # type: ignore[misc]
        await house.customer.asked("held", count)
    await do(lambda: client.calls(sid).update(url=f"{house.customer.url}/found{KEY}"))
    await house.customer.asked("found")


async def _order(house: RestHouse, party: Party) -> None:
    """A call out over a trunk that asks for the password, and is refused in the end; the callbacks' address has a key."""
    client = house.client()
    made = await do(
        lambda: client.calls.create(
            to=CALLED, from_=NUMBER, url=f"{house.customer.url}/found{KEY}", status_callback=f"{house.customer.url}/told{KEY}"
        )
    )
    first = await party.call()
    first.refuse(407, CHALLENGE)
    second = await party.call(2)
    assert second.invite_got is not None
    assert 'username="acme"' in second.invite_got.get("proxy-authorization")
    second.refuse(403)
    [form] = await house.customer.asked("told")
    assert (form["CallSid"], form["CallStatus"]) == (made.sid, "failed")


async def test_no_secret_of_a_call_over_sip(tmp_path: Path, postgres: PostgresDatabases) -> None:
    url = await postgres.empty()
    settings = {"SWITCHHOOK_DATABASE_URL": with_password(url), "SWITCHHOOK_LOG_LEVEL": "debug"}
    async with open_house(tmp_path, None, _plant, **settings) as house, Party(user=CALLED, port=house.trunk_port) as party:
        _key_of_the_model(house)
        async with house.talk(CALL_PAIRS[0]) as (call, session, sid):
            assert session.headers["Authorization"] == f"Bearer {CANARIES['openai']}"
            await _answers(house, sid, CALL_PAIRS[0])
            client = house.client(CALL_PAIRS[0])
            told = f"{house.customer.url}/recorded{KEY}"
            await do(lambda: client.calls(sid).recordings.create(recording_status_callback=told))
            await call.say(caller_tone(500))
            await _lost_ways(house, sid, CALL_PAIRS[0])
            await hears(call, PLAY_HZ)
            await call.hang_up()
        await house.customer.asked("recorded")
        async with house.talk(CALL_PAIRS[1]) as (call, session, sid):
            session.die()
            house.model.refuse_with = 401
            await call.ended()
        async with Phone(user="+19805551234") as telephone:
            call = await telephone.dial(f"sip:{NUMBER}@127.0.0.1:{house.server.sip_port}")
            await call.answered()
            await call.ended()
        await _answers(house, sid, ACCOUNT_PAIR)
        await _order(house, party)
        await house.backend.wait_for("end", 3)
        await _told(house)
        await _nothing_is_written(house, url)
    check_log(CANARIES, house.server.log.read_bytes())


async def test_no_secret_of_a_call_over_twilio(tmp_path: Path, postgres: PostgresDatabases) -> None:
    url = await postgres.empty()
    settings = {"SWITCHHOOK_DATABASE_URL": with_password(url), "SWITCHHOOK_LOG_LEVEL": "debug"}
    async with open_house(tmp_path, CALL_PAIRS[0], _plant, **settings) as house:
        assert house.twilio is not None
        _key_of_the_model(house)
        bot = VoiceResponse()
        connect = Connect()
        connect.stream(url=f"{house.customer.url.replace('http', 'ws')}/bot")
        bot.append(connect)
        client = house.client(CALL_PAIRS[0])
        async with house.ring() as (call, _):
            await _answers(house, call.sid, CALL_PAIRS[0])
            await _lost_ways(house, call.sid, CALL_PAIRS[0])
            house.twilio.callees[CALLED] = Callee("busy")
            house.customer.pages["after"] = bot
            dialling = f'<Response><Dial action="{house.customer.url}/after">{CALLED}</Dial></Response>'
            await do(lambda: client.calls(call.sid).update(twiml=dialling))
            await call.party.ended()
        assert house.customer.bot_heard, "the bot had the call"
        house.twilio.overloaded = 3
        async with house.ring() as (call, _):
            sid = call.sid
            await do(lambda: client.calls(sid).update(status="completed"))
            await call.party.ended()
        assert (await house.over(sid)).sid == sid, "Twilio's name finds the row"
        wrong = house.client((CALL_PAIRS[0][0], CANARIES["wrong"]))
        assert await refused(lambda: wrong.calls(sid).fetch()) == (401, 20003)
        await house.backend.wait_for("end", 2)
        carried = house.twilio.calls.values()
        documents = [text for one in carried for text in one.twiml]
        assert any("<Stream" in text for text in documents)
        parameters = [stream.parameters for one in carried for stream in one.streams]
        assert singing(CANARIES, json.dumps([documents, house.twilio.orders, parameters]).encode()) == []
        await _told(house)
        await _nothing_is_written(house, url)
    check_log(CANARIES, house.server.log.read_bytes())
