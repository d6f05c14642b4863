"""The keys that a Veevo reply brings live in memory for one call: none sings anywhere, also when a vendor repeats them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.peers.server import Server
from tests.peers.twilio_service import ACCOUNT_SID, CarriedCall, TwilioService
from tests.peers.veevo_backend import VeevoBackend
from tests.server.canaries import DATABASE_PASSWORD, singing, singing_files, singing_rows, with_password
from tests.server.house import function
from tests.server.listening import AGENT_HZ, agent_tone, heard_tone
from tests.server.model import LiveSession, Model
from tests.server.twilio_house import PUBLIC_SETTINGS, lead
from tests.server.veevo_house import CANARIES, MANAGEMENT_KEY, NUMBER, reply
from tests.server.veevo_twilio_house import without_pair
from tests.server.waiting import eventually
from tests.store.opening import PostgresDatabases, postgres_databases

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.peer("postgresql"), pytest.mark.peer("flite")]

ANOTHER_TOKEN = "canary-wrong-7d1e5b20"
SECRETS = CANARIES | {
    "database": DATABASE_PASSWORD,
    "wrong": ANOTHER_TOKEN,
    "pair": b64encode(f"{ACCOUNT_SID}:{CANARIES['twilio']}".encode()).decode(),
}
CALLER = "+14155550100"


class UnwiseTwilio(TwilioService):
    """Refuses what it is asked over REST, and repeats the credentials in its refusal."""

    refused = 0

    async def _answer(self, request: web.Request) -> web.Response:
        self.refused += 1
        header = request.headers["Authorization"]
        pair = b64decode(header.partition(" ")[2]).decode()
        said = {"code": 20003, "message": f"Authenticate {pair} {header}", "status": 401}
        return web.json_response(said, status=401, reason=f"Not {pair}")


@dataclass
class There:
    """A server on PostgreSQL, and the four around it."""

    server: Server
    twilio: UnwiseTwilio
    backend: VeevoBackend
    model: Model
    database_url: str

    async def talk(self) -> tuple[CarriedCall, LiveSession]:
        """A call on which the agent was heard."""
        count = len(self.model.sessions) + 1
        call = self.twilio.ring(CALLER, NUMBER)
        session = await self.model.session(count)
        await session.got("response.create")
        session.speaks(agent_tone(400), "Hello!")
        await call.party.until(lambda: heard_tone(bytes(call.party.heard), AGENT_HZ, 360), "the agent")
        return call, session

    async def sang(self) -> set[str]:
        """Secrets that are in a row, a file or the log at this moment."""
        rows = await singing_rows(SECRETS, self.database_url)
        return rows | singing_files(SECRETS, self.server.data_dir) | set(singing(SECRETS, self.server.log.read_bytes()))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


@asynccontextmanager
async def _house(folder: Path, url: str) -> AsyncIterator[There]:
    tools = [function("check_availability"), function("transfer_call"), function("end_call")]
    told = reply(twilioAccountSid=ACCOUNT_SID, tools=tools)
    twilio = UnwiseTwilio(auth_token=CANARIES["twilio"])
    async with (
        twilio,
        Model() as model,
        VeevoBackend(CANARIES["secret"], told) as backend,
    ):
        made = without_pair(backend, model)
        made["numbers"][0]["builtin_tools"] = ["end_call", "transfer_call"]
        settings = {
            "SWITCHHOOK_DATABASE_URL": url,
            "SWITCHHOOK_LOG_LEVEL": "debug",
            **PUBLIC_SETTINGS,
            "SWITCHHOOK_TWILIO_REST_URL": twilio.url,
            "SWITCHHOOK_DRAIN_S": "1",
        }
        async with Server(folder, made, **settings) as server:
            lead(twilio, server, status=None)
            yield There(server, twilio, backend, model, url)


async def _refused_by_the_carrier(there: There) -> set[str]:
    """The model repeats its key, the carrier its pair; gives what sang while the call lived."""
    call, session = await there.talk()
    error = {"type": "invalid_request_error", "code": "bad_key", "message": f"Incorrect key: {CANARIES['openai']}"}
    session.emit("error", error=error)
    session.calls_tool("call_1", "check_availability", {})
    await session.output_of("call_1")
    session.calls_tool("call_2", "transfer_call", {"number": "+12025550147"})
    output = await session.output_of("call_2")
    assert there.twilio.refused > 0, output
    assert singing(SECRETS, output.encode()) == []
    sang = await there.sang()
    asked = there.twilio.refused
    session.calls_tool("call_3", "end_call", {})
    await session.got("response.create", 4)
    session.speaks(agent_tone(200), "Goodbye.")

    async def hung_up_over_rest() -> bool:
        return there.twilio.refused > asked

    await eventually(hung_up_over_rest, "the carrier is asked to hang up", 30)
    call.party.hang_up()
    await call.party.ended()
    told = [event for event in session.events if event["type"] != "session.update"]
    assert singing({name: key for name, key in SECRETS.items() if name != "openai"}, repr(session.events).encode()) == []
    assert singing(SECRETS, repr(told).encode()) == []
    return sang


async def _refused_by_the_model(there: There) -> None:
    """In the midst of a call, and from its beginning."""
    call, session = await there.talk()
    there.model.refuse_with = 401
    session.die()
    await call.party.ended()
    await there.twilio.ring(CALLER, NUMBER).party.ended()
    assert there.model.handshakes == len(there.model.sessions) + 2
    there.model.refuse_with = None


async def _refused_by_us(there: There) -> None:
    """A reply that cannot be used, and one whose token does not prove the call."""
    good = dict(there.backend.start_reply)
    there.backend.start_reply["systemPrompt"] = None
    call = there.twilio.ring(CALLER, NUMBER)
    await call.party.ended()
    assert "<Reject" in call.twiml[0]
    there.backend.start_reply = {**good, "twilioAuthToken": ANOTHER_TOKEN}
    await there.twilio.ring(CALLER, NUMBER).party.ended()
    assert there.twilio.complaints == ["the voice webhook got 403"]
    there.twilio.complaints.clear()
    there.backend.start_reply = good


async def _replies_tell_nothing(there: There) -> None:
    """Of the REST surface to the call's own pair and to a wrong one, of the management API, of the operator's pages."""
    call, _ = await there.talk()
    url = f"{there.server.http_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{call.sid}"
    told: list[str] = []
    statuses = []
    async with aiohttp.ClientSession() as http:
        for token in (CANARIES["twilio"], ANOTHER_TOKEN):
            headers = {"Authorization": f"Basic {b64encode(f'{ACCOUNT_SID}:{token}'.encode()).decode()}"}
            async with http.get(f"{url}.json", headers=headers) as got:
                told += [await got.text(), repr(got.headers)]
                statuses.append(got.status)
            async with http.post(f"{url}.json", data={"Twiml": "<Response><Gather/>"}, headers=headers) as got:
                told += [await got.text(), repr(got.headers)]
        for key in (MANAGEMENT_KEY, "rtk_wrong"):
            headers = {"Authorization": f"Bearer {key}"}
            async with http.post(f"{there.server.http_url}/api/phone-numbers", data=b"{", headers=headers) as got:
                told += [await got.text(), repr(got.headers)]
        for page in ("/metrics", "/health", "/nowhere"):
            async with http.get(there.server.http_url + page) as got:
                told.append(await got.text())
    assert statuses == [200, 401]
    for command in (("webhook", "test", NUMBER), ("webhook", "parked")):
        told.append((await there.server.run(*command))[1])
    assert singing(SECRETS, "\n".join(told).encode()) == []
    call.party.hang_up()
    await call.party.ended()


async def test_no_key_of_a_call_is_kept_or_told(tmp_path: Path, postgres: PostgresDatabases) -> None:
    """Over Twilio, on PostgreSQL, at debug level, when the model refuses the key and the carrier the pair."""
    async with _house(tmp_path, with_password(await postgres.empty())) as there:
        there.backend.end_statuses = [500]
        sang = await _refused_by_the_carrier(there)
        await _refused_by_the_model(there)
        await _refused_by_us(there)
        await _replies_tell_nothing(there)
        await there.backend.wait_for("end", 5)
        assert there.backend.unsigned == []
        assert singing(SECRETS, b"\n".join(got.body for got in there.backend.callbacks)) == []
        assert sang | await there.sang() == set()
        assert "metadata in calls" in await singing_rows({"metadata": "cust_123"}, there.database_url), "a secret would be found"
        assert there.model.sessions[0].headers["Authorization"] == f"Bearer {CANARIES['openai']}"
    log = there.server.log.read_text()
    assert "Traceback" not in log
    assert '"level": "warning"' in log or '"level":"warning"' in log, "the refusals are in the log, without the keys"
