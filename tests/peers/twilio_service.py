"""Twilio on loopback: rejects over REST what the real one rejects, runs the TwiML it is given, signs what it sends.

Public addresses are reached through `routes` (public → local), so that what is signed is what a proxy would have passed on.
Who is called is played by `callees`; who is not there has no telephone. Whatever breaks the protocol ends up in `complaints`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import aiohttp
from aiohttp import web
from twilio.request_validator import RequestValidator

from tests.peers.loopback import serve
from tests.peers.twilio_party import Party, Stream
from tests.server.waiting import Watched

ACCOUNT_SID = "AC" + "0123456789abcdef" * 2
AUTH_TOKEN = "canary-twilio-token"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
FINAL = ("completed", "busy", "failed", "no-answer", "canceled")


@dataclass
class Callee:
    """What happens at a number that is called: `answer`, `waits` (it rings until its party answers), `rings` (for ever), `busy`,
    `no-answer` or `failed`."""

    does: str = "answer"
    sip_code: int | None = None
    rung: list[Party] = field(default_factory=list)
    """One for each time it rang."""
    parties: list[Party] = field(default_factory=list)
    """One for each time it has answered."""


@dataclass
class CarriedCall:
    """A call at Twilio."""

    sid: str
    party: Party
    form: dict[str, str]
    direction: str
    status: str = "queued"
    callback: str | None = None
    streams: list[Stream] = field(default_factory=list)
    twiml: list[str] = field(default_factory=list)
    """All that it was given."""
    task: asyncio.Task[None] | None = None
    living: asyncio.Task[None] | None = None
    sequence: int = 0


class TwilioService(Watched):
    """`async with TwilioService() as twilio`; then fill `routes`."""

    def __init__(self, account_sid: str = ACCOUNT_SID, auth_token: str = AUTH_TOKEN) -> None:
        super().__init__()
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.routes: dict[str, str] = {}
        self.voice_url = ""
        """The voice webhook of every number of ours."""
        self.status_url: str | None = None
        self.owned: set[str] = {"+17206999999", "+17206999998"}
        self.callees: dict[str, Callee] = {}
        self.calls: dict[str, CarriedCall] = {}
        self.orders: list[tuple[str, dict[str, list[str]]]] = []
        """(path, form) of each REST request."""
        self.complaints: list[str] = []
        self.url = ""
        self.overloaded = 0
        """So many requests are answered with 429."""
        self.lets_go = True
        """False: `<Hangup/>` is not carried out."""
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> TwilioService:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner, port = await serve(app)
        self.url = f"http://127.0.0.1:{port}"
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        tasks = [task for call in self.calls.values() for task in (call.living, call.task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()
        await self._runner.cleanup()
        if error is None:
            assert self.complaints == [], self.complaints

    # -- calls to us ------------------------------------------------------------------------------

    def ring(self, caller: str, called: str, name: str | None = None) -> CarriedCall:
        """Somebody calls a number of ours."""
        form = {"From": caller, "To": called, "Caller": caller, "Called": called}
        if name is not None:
            form["CallerName"] = name
        call = self._new_call(Party(caller), form, "inbound", "ringing")
        call.callback = self.status_url
        call.living = asyncio.create_task(self._live(call, self._ask_webhook(call)))
        return call

    async def ask(self, call: CarriedCall, url: str, fields: Mapping[str, str] = {}, sign: bool = True) -> tuple[int, str]:
        """Post a webhook as Twilio does."""
        form = {
            "AccountSid": self.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call.sid,
            "CallStatus": call.status,
            "Direction": call.direction,
            **call.form,
            **fields,
        }
        signature = RequestValidator(self.auth_token).compute_signature(url, form)
        headers = {"X-Twilio-Signature": signature} if sign else {}
        async with self._http.post(self._local(url), data=form, headers=headers) as reply:
            return reply.status, await reply.text()

    # -- the life of a call -----------------------------------------------------------------------

    def _new_call(self, party: Party, form: dict[str, str], direction: str, status: str) -> CarriedCall:
        sid = f"CA{next(self._numbers):032x}"
        call = self.calls[sid] = CarriedCall(sid, party, form, direction, status)
        self.changed()
        return call

    async def _live(self, call: CarriedCall, first: Any) -> None:
        """Run TwiML until the call is over, whoever ends it."""
        call.task = asyncio.create_task(first)
        hung_up = asyncio.create_task(call.party.hung_up.wait())
        while not hung_up.done() and call.status not in FINAL:
            task = call.task
            await asyncio.wait([task, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if task.done() and task is call.task:
                if not task.cancelled() and (error := task.exception()) is not None:
                    self.complaints.append(f"running TwiML failed: {error!r}")
                break
        hung_up.cancel()
        if call.task is not None:
            call.task.cancel()
            await asyncio.gather(call.task, return_exceptions=True)
        await self._end(call, "completed" if call.status == "in-progress" else "canceled")

    async def _end(self, call: CarriedCall, status: str) -> None:
        if call.status not in FINAL:
            call.status = status
        call.party.end()
        await self._tell(call)
        self.changed()

    async def _tell(self, call: CarriedCall, **fields: str) -> None:
        if call.callback is None:
            return
        call.sequence += 1
        told = {"SequenceNumber": str(call.sequence), "CallbackSource": "call-progress-events", **fields}
        if call.status == "completed":
            told["CallDuration"] = "1"
        try:
            status, _ = await self.ask(call, call.callback, told)
        except aiohttp.ClientError:
            return
        if status not in (200, 204):
            self.complaints.append(f"a status callback got {status}")

    async def _ask_webhook(self, call: CarriedCall) -> None:
        try:
            status, text = await self.ask(call, self.voice_url)
        except aiohttp.ClientError:  # nobody is there: no fault of what is said
            call.status = "failed"
            return
        if status != 200:
            self.complaints.append(f"the voice webhook got {status}")
            call.status = "failed"
            return
        await self._run(call, text)

    async def _run(self, call: CarriedCall, text: str) -> None:
        call.twiml.append(text)
        self.changed()
        response = ElementTree.fromstring(text)
        assert response.tag == "Response"
        for place, verb in enumerate(response):
            if verb.tag == "Reject":
                assert place == 0 and call.status == "ringing"
                assert verb.get("reason", "rejected") in ("rejected", "busy")
                call.status = "busy" if verb.get("reason") == "busy" else "no-answer"
                return
            await self._answered(call)
            if verb.tag == "Hangup":
                if not self.lets_go:
                    await asyncio.Event().wait()
                return
            if verb.tag == "Connect":
                await self._connect(call, verb)
            elif verb.tag == "Dial":
                await self._dial(call, verb)
                return
            else:
                self.complaints.append(f"an unknown verb {verb.tag}")

    async def _answered(self, call: CarriedCall) -> None:
        if call.status != "in-progress":
            call.status = "in-progress"
            await self._tell(call)
            self.changed()

    async def _connect(self, call: CarriedCall, connect: ElementTree.Element) -> None:
        [stream] = connect
        assert stream.tag == "Stream"
        url = stream.attrib["url"]
        assert url.startswith("wss://") and "?" not in url
        parameters = {item.attrib["name"]: item.attrib["value"] for item in stream}
        sid = f"MZ{next(self._numbers):032x}"
        live = Stream(call.party, sid, self.account_sid, call.sid, parameters, self.complaints)
        call.streams.append(live)
        self.changed()
        signature = RequestValidator(self.auth_token).compute_signature(url, {})
        await live.run(self._http, self._local(url), signature)

    async def _dial(self, call: CarriedCall, dial: ElementTree.Element) -> None:
        [number] = dial
        assert number.tag == "Number" and number.text is not None
        assert dial.get("answerOnBridge") == "true"
        callee = self.callees.get(number.text, Callee("failed"))
        child = {"From": dial.get("callerId", call.form["From"]), "To": number.text}
        result = {"busy": "busy", "no-answer": "no-answer", "failed": "failed"}.get(callee.does, "completed")
        if callee.does in ("answer", "waits"):
            assert number.get("statusCallbackEvent") == "answered"
            dialled = self._new_call(Party(number.text), child, "outbound-dial", "ringing")
            await self._put_through(call, dialled, callee, number.attrib["statusCallback"])
        elif callee.does == "rings":
            await asyncio.Event().wait()
        status, text = await self.ask(call, dial.attrib["action"], {"DialCallStatus": result, "DialCallDuration": "1"})
        assert status == 200
        await self._run(call, text)

    async def _put_through(self, call: CarriedCall, dialled: CarriedCall, callee: Callee, answered_url: str) -> None:
        """Until one of them hangs up."""
        party = dialled.party
        try:
            await self._picks_up(callee, party)
            dialled.status = "in-progress"
            callee.parties.append(party)
            await self.ask(dialled, answered_url, {"ParentCallSid": call.sid})
            self.changed()
            await call.party.talks_with(party)
        finally:
            dialled.status = "completed"
            party.end()

    async def _picks_up(self, callee: Callee, party: Party) -> None:
        callee.rung.append(party)
        self.changed()
        if callee.does == "waits":
            await party.picked_up.wait()

    def _local(self, url: str) -> str:
        for public, local in self.routes.items():
            if url.startswith(public):
                return local + url.removeprefix(public)
        self.complaints.append(f"{url} is no public address of ours")
        return url

    # -- REST -------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.Response:
        prefix = f"/2010-04-01/Accounts/{self.account_sid}/Calls"
        form = parse_qs(await request.text(), keep_blank_values=True)
        self.orders.append((request.path, form))
        self.changed()
        if self.overloaded:
            self.overloaded -= 1
            return _error(429, 20429, "Too Many Requests")
        if not self._authorized(request.headers.get("Authorization", "")):
            return _error(401, 20003, "Authenticate")
        if not request.path.startswith(prefix) or not request.path.endswith(".json"):
            return _error(404, 20404, f"The requested resource {request.path} was not found")
        if request.method == "POST" and request.content_type != "application/x-www-form-urlencoded":
            return _error(400, 20001, "The body is no form")
        sid = request.path.removeprefix(prefix).removesuffix(".json").strip("/")
        if not sid:
            return self._create(form)
        call = self.calls.get(sid)
        if call is None:
            return _error(404, 20404, f"The requested resource {request.path} was not found")
        return self._alter(call, form) if request.method == "POST" else _call_reply(call, 200)

    def _authorized(self, header: str) -> bool:
        kind, _, pair = header.partition(" ")
        return kind == "Basic" and b64decode(pair).decode() == f"{self.account_sid}:{self.auth_token}"

    def _create(self, form: dict[str, list[str]]) -> web.Response:
        one = {name: values[-1] for name, values in form.items()}
        called, caller = one.get("To", ""), one.get("From", "")
        for refused, code, message in (
            (not called, 21201, "No 'To' number is specified"),
            (_E164.fullmatch(called) is None, 21211, f"Invalid 'To' Phone Number: {called}"),
            (not caller, 21213, "No 'From' number is specified"),
            (caller not in self.owned, 21210, "'From' phone number not verified"),
            (not ({"Url", "Twiml", "ApplicationSid"} & set(one)), 21205, "Url parameter is required."),
            (not _is_xml(one.get("Twiml", "<Response/>")), 12100, "Document parse failure"),
            (not 1 <= int(one.get("Timeout", "60")) <= 600, 21218, "Invalid Timeout"),
            (not one.get("StatusCallback", "https://").startswith("https://"), 21609, "Invalid StatusCallback"),
        ):
            if refused:
                return _error(400, code, message)
        call = self._new_call(Party(called), {"From": caller, "To": called}, "outbound-api", "queued")
        call.callback = one.get("StatusCallback")
        call.living = asyncio.create_task(self._live(call, self._place(call, one["Twiml"])))
        return _call_reply(call, 201)

    async def _place(self, call: CarriedCall, text: str) -> None:
        callee = self.callees.get(call.form["To"], Callee("failed"))
        call.status = "ringing"
        await self._tell(call)
        if callee.does == "rings":
            await asyncio.Event().wait()
        if callee.does not in ("answer", "waits"):
            call.status = callee.does
            call.party.end()
            code = {"SipResponseCode": str(callee.sip_code)} if callee.sip_code is not None else {}
            await self._tell(call, **code)
            call.callback = None
            return
        await self._picks_up(callee, call.party)
        callee.parties.append(call.party)
        await self._run(call, text)

    def _alter(self, call: CarriedCall, form: dict[str, list[str]]) -> web.Response:
        one = {name: values[-1] for name, values in form.items()}
        if call.status in FINAL or call.party.hung_up.is_set():
            return _error(400, 21220, "Call is not in-progress. Cannot redirect.")
        status = one.get("Status")
        if status not in (None, "completed", "canceled"):
            return _error(400, 20001, "Invalid Status")
        if status == "completed" or (status == "canceled" and call.status in ("queued", "ringing")):
            call.status = status
            call.party.is_let_go()
        elif "Twiml" in one:
            if not _is_xml(one["Twiml"]):
                return _error(400, 12100, "Document parse failure")
            old, call.task = call.task, asyncio.create_task(self._run(call, one["Twiml"]))
            if old is not None:
                old.cancel()
        return _call_reply(call, 200)


def _is_xml(text: str) -> bool:
    try:
        return ElementTree.fromstring(text).tag == "Response"
    except ElementTree.ParseError:
        return False


def _call_reply(call: CarriedCall, status: int) -> web.Response:
    said = {"sid": call.sid, "status": call.status, "from": call.form["From"], "to": call.form["To"], "direction": call.direction}
    return web.json_response(said, status=status)


def _error(status: int, code: int, message: str) -> web.Response:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return web.json_response({"code": code, "message": message, "more_info": more, "status": status}, status=status)
