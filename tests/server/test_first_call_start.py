"""CallStart as customers really answer it: in time and late, well and badly, or not at all (contract §1.2, §1.3, §6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from switchhook_demo.phone import CallRefusedError, Phone
from tests.peers.ports import free_port
from tests.peers.vns_backend import VnsBackend
from tests.server.call_end import FIELDS, TICKS, log_texts
from tests.server.desk import Answer, Desk, breaks, never, redirects, replies, replies_json
from tests.server.house import House, greeted, house_config, open_house
from tests.server.model import Model
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_DESK = "+17206999807"
"""Its CallStart goes to the desk."""
NOBODY = "+17206999806"
"""Nobody listens at its CallStart's address."""
FORBIDDEN = "+17206999805"
"""Its CallStart's address may not be reached."""
EVERY_FORM = "+17206999804"
"""Shows numbers as E.164."""


@dataclass
class Office(House):
    """A house with a desk."""

    desk: Desk = field(default_factory=Desk)

    async def end_of_caller(self, caller: str) -> dict[str, Any]:
        """Wait for the CallEnd of a caller whose CallStart nobody may have seen."""

        async def find() -> dict[str, Any] | None:
            shown = (caller, caller.removeprefix("+1"))
            return next((got.json for got in self.backend.of("/callend") if got.json["callerId"] in shown), None)

        return await eventually(find, f"a CallEnd of {caller}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """A server of this file."""
    async with Desk() as desk:

        def content(backend: VnsBackend) -> dict[str, Any]:
            made = house_config(backend)
            number = made["numbers"][0]
            for own, url, more in (
                (AT_DESK, f"{desk.url}/start", {}),
                (NOBODY, f"http://127.0.0.1:{free_port()}/start", {}),
                (FORBIDDEN, "http://10.0.0.1/start", {}),
                (EVERY_FORM, number["call_start"]["url"], {"number_format": "e164"}),
            ):
                hook = {"url": url, "headers": {"X-Key": "own", "Authorization": "Basic dXNlcjpwYXNz"}}
                made["numbers"].append({**deepcopy(number), "number": own, "call_start": hook, **more})
            return made

        async with open_house(tmp_path_factory.mktemp("office"), content, SWITCHHOOK_DRAIN_S="1") as house:
            yield Office(house.server, house.backend, desk=desk)


def _bad(case: str) -> tuple[Answer, str]:
    """A reply that is of no use, and what CallEnd says of it."""
    instructions = {"aiUrl": {"url": "wss://ai.example/", "headers": {}}}
    cases: dict[str, tuple[Answer, str]] = {
        "server-error": (replies(503, "{}"), "HTTP 503"),
        "redirect": (redirects("/elsewhere"), "HTTP 302"),
        "no-json": (replies(200, "<html>Welcome</html>", "text/html"), "not JSON"),
        "empty": (replies(200), "not JSON"),
        "no-object": (replies(200, "[1]"), "not JSON"),
        "no-instructions": (
            replies_json({"type": "session.update", "session": {"type": "realtime"}}),
            "VoiceElements_Instructions is missing",
        ),
        "no-address": (
            replies_json({"type": "session.update", "session": {}, "VoiceElements_Instructions": {"maxSeconds": 60}}),
            "aiUrl.url is missing",
        ),
        "no-type": (replies_json({"session": {}, "VoiceElements_Instructions": instructions}), "type is missing"),
        "no-session": (
            replies_json({"type": "session.update", "VoiceElements_Instructions": instructions}),
            "session is missing",
        ),
        "two-mebibytes": (replies(200, b'{"a":"' + b"x" * (2 << 20) + b'"}'), "longer than 1 MiB"),
        "reset": (breaks, "could not be reached"),
        "never": (never, "did not answer in 10 seconds"),
    }
    return cases[case]


async def _refused(office: Office, number: str) -> tuple[int, dict[str, Any]]:
    """Dial in vain; gives the status that the caller sees and the CallEnd."""
    caller = office.new_caller()
    async with Phone(user=caller) as phone:
        call = await phone.dial(office.uri(number))
        with pytest.raises(CallRefusedError) as refused:
            await call.answered(30)
    end = await office.end_of_caller(caller)
    assert tuple(end) == FIELDS
    assert (end["status"], end["callConnected"], end["transfers"]) == (1, None, None)
    return refused.value.status, end


@pytest.mark.parametrize(
    "case",
    [
        *("server-error", "redirect", "no-json", "empty", "no-object", "no-instructions", "no-address", "no-type"),
        *("no-session", "two-mebibytes", "reset", "never"),
    ],
)
async def test_a_reply_that_is_of_no_use(office: Office, case: str) -> None:
    """The caller is refused with 480, unanswered and unbilled; CallEnd names what was wrong; CallStart is not asked twice."""
    office.desk.requests.clear()
    answer, why = _bad(case)
    office.desk.answers = {"/start": answer}
    status, end = await _refused(office, AT_DESK)
    assert status == 480
    assert why in end["errorMessage"]
    [start] = office.desk.requests
    assert start.json["sessionGuid"] == end["sessionGuid"]
    assert (start.headers["X-Key"], start.headers["Authorization"]) == ("own", "Basic dXNlcjpwYXNz")


@pytest.mark.parametrize(("number", "why"), [(NOBODY, "could not be reached"), (FORBIDDEN, "is not allowed")])
async def test_an_address_of_no_use(office: Office, number: str, why: str) -> None:
    status, end = await _refused(office, number)
    assert status == 480
    assert why in end["errorMessage"]


SLOPPY = """\ufeff{
  // our usual greeter
  "VoiceElements_Instructions" : {
    "aiUrl" : {"url": "%s", "headers": {"Authorization": "Bearer x", "OpenAI-Beta": "realtime=v1",}},
    "maxSeconds": "300", /* five minutes */
    "logTranscription": "true",
    "logToolCallRequests": 1,
    "favouriteColour": "blue",
    "recordCall": "no",
  },
  "type": "session.update",
  "session": {"type": "realtime", "instructions": "Two	lines", "audio": {"input": {"format": {"type": "audio/pcmu"},},
     "output": {"format": {"type": "audio/pcmu"}}}, "tools": [], "temperature": 0.80, },
}"""


async def test_a_sloppy_reply_is_a_call_all_the_same(office: Office) -> None:
    """BOM, comments, trailing commas, a raw tab and words for numbers; the model gets the session alone, its headers all."""
    async with Model() as model:
        office.desk.answers = {"/start": replies(200, SLOPPY % model.url)}
        caller = office.new_caller()
        async with Phone(user=caller) as phone:
            call = await phone.dial(office.uri(AT_DESK))
            await call.answered()
            session = await model.session()
            [update] = await session.got("session.update")
            assert list(update) == ["type", "session"]
            assert update["session"]["instructions"] == "Two\tlines"
            assert update["session"]["temperature"] == 0.8
            assert (session.headers["OpenAI-Beta"], session.headers["Authorization"]) == ("realtime=v1", "Bearer x")
            await greeted(session, call)
            await call.hang_up()
        end = await office.end_of_caller(caller)
    assert (end["status"], len(end["transcription"])) == (0, 1)
    assert any("favouriteColour" in text for text in log_texts(end)) or "favouriteColour" in office.server.log.read_text()


async def test_a_number_that_shows_e164(office: Office) -> None:
    """`number_format: e164`; the same in CallStart and CallEnd."""
    async with Model() as model:
        office.answer_with(model)
        caller = office.new_caller()
        async with Phone(user=caller) as phone:
            call = await phone.dial(office.uri(EVERY_FORM))
            await call.answered()
            await call.hang_up()
        end = await office.end_of_caller(caller)
    [start] = [got.json for got in office.backend.of("/callstart") if got.json["callerId"] == caller]
    for told in (start, end):
        assert (told["calledNumber"], told["callerId"]) == (EVERY_FORM, caller)
    assert TICKS.fullmatch(end["callEnd"])


async def test_a_caller_hears_ringing_until_call_start_has_answered(office: Office) -> None:
    """180 at once, the answer only with the reply; the model's socket is not opened before either."""
    async with Model() as model:
        office.answer_with(model)
        office.backend.start_gate.clear()
        caller = office.new_caller()
        async with Phone(user=caller) as phone:
            call = await phone.dial(office.uri())
            assert await call.ringing() == 180
            await office.start_of(caller)
            assert (call.answered_at, model.handshakes) == (None, 0)
            office.backend.start_gate.set()
            await call.answered()
            await model.session()
            await call.hang_up()
        await office.end_of_caller(caller)
