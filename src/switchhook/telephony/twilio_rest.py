"""What we ask of Twilio's REST API, or of a service with the same one (contract `vns-veevo` §4.5).

Errors come as `{code, message, more_info, status}`; their text is not passed on, since it repeats what was sent.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from switchhook.domain.contract import Http, HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.records import TwilioCredentials

TIMEOUT_S = 10.0
RETRY_S = 1.0
LONGEST_RETRY_S = 5.0
REPLY_BYTES = 1 << 16
STATUS_EVENTS = ("initiated", "ringing", "answered", "completed")
_OVER = ("canceled", "completed", "busy", "failed", "no-answer")
_GONE = (20404, 21220)
"""There is no such call, or it is over already."""

Form: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to be placed."""

    called: str
    caller: str
    twiml: str
    """What Twilio does once it is answered."""
    status_callback: str
    ring_s: int
    max_s: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """Twilio took the order."""

    call_sid: str
    call_status: str = ""
    """What Twilio says of the call now: `queued`, `in-progress`…"""


@dataclass(frozen=True, slots=True)
class Gone:
    """The call is over already; for a hang-up that is as good as done."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Twilio answered, but not with yes; asked again it would say the same."""

    status: int
    code: int

    def __str__(self) -> str:
        cure = ": check the account's twilio credentials in the apply file" if self.status in (401, 403) else ""
        return f"Twilio answered HTTP {self.status}, error {self.code}{cure}"


@dataclass(frozen=True, slots=True)
class Unreached:
    """No answer that could be used: nobody knows whether the order was carried out."""

    detail: str

    def __str__(self) -> str:
        return self.detail


RestOutcome: TypeAlias = Accepted | Gone | Refused | Unreached


class TwilioRest:
    """Sends orders through the guarded way out. Its methods never raise but for cancellation."""

    def __init__(self, http: Http, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._http = http
        self._sleep = sleep

    async def create_call(self, credentials: TwilioCredentials, call: NewCall) -> RestOutcome:
        """`POST /Calls.json`."""
        form = [
            ("To", call.called),
            ("From", call.caller),
            ("Twiml", call.twiml),
            ("Timeout", str(call.ring_s)),
            ("TimeLimit", str(call.max_s)),
            ("StatusCallback", call.status_callback),
            ("StatusCallbackMethod", "POST"),
            *(("StatusCallbackEvent", event) for event in STATUS_EVENTS),
        ]
        return await self._post(credentials, "Calls.json", form)

    async def end_call(self, credentials: TwilioCredentials, call_sid: str, answered: bool) -> RestOutcome:
        """Hang up, or stop dialling when it was not `answered`. A call that was answered just then is hung up all the same."""
        if not answered:
            outcome = await self._change(credentials, call_sid, [("Status", "canceled")])
            over = isinstance(outcome, Accepted) and outcome.call_status in _OVER
            if over or isinstance(outcome, Unreached) or (isinstance(outcome, Refused) and outcome.status in (401, 403)):
                return outcome
        return await self._change(credentials, call_sid, [("Status", "completed")])

    async def redirect(self, credentials: TwilioCredentials, call_sid: str, twiml: str) -> RestOutcome:
        """Let the call go on with this TwiML; what it was doing ends."""
        return await self._change(credentials, call_sid, [("Twiml", twiml)])

    async def _change(self, credentials: TwilioCredentials, call_sid: str, form: Form) -> RestOutcome:
        return await self._post(credentials, f"Calls/{quote(call_sid, safe='')}.json", form)

    async def _post(self, credentials: TwilioCredentials, path: str, form: Form) -> RestOutcome:
        request = _request(credentials, path, form)
        reply = await self._http.send(request)
        if isinstance(reply, HttpReply) and reply.status == 429:
            await self._sleep(_patience_s(reply))
            reply = await self._http.send(request)
        return read_outcome(reply)


def read_outcome(outcome: HttpOutcome) -> RestOutcome:
    """What came of an order."""
    if isinstance(outcome, HttpFailure):
        return Unreached(f"Twilio's API: {outcome.detail}")
    said = _object(outcome)
    if 200 <= outcome.status < 300:
        sid, status = said.get("sid"), said.get("status")
        if isinstance(sid, str) and sid:
            return Accepted(sid, status if isinstance(status, str) else "")
        return Unreached("Twilio's API answered what cannot be read")
    code = said.get("code")
    code = code if isinstance(code, int) else 0
    if outcome.status == 404 or code in _GONE:
        return Gone()
    return Refused(outcome.status, code)


def _request(credentials: TwilioCredentials, path: str, form: Form) -> HttpRequest:
    pair = f"{credentials.account_sid}:{credentials.auth_token}".encode()
    account = quote(credentials.account_sid, safe="")
    return HttpRequest(
        f"{credentials.rest_base_url.rstrip('/')}/2010-04-01/Accounts/{account}/{path}",
        urlencode(form).encode(),
        {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Authorization": f"Basic {b64encode(pair).decode()}",
        },
        timeout_s=TIMEOUT_S,
        max_reply_bytes=REPLY_BYTES,
        retry_unsent=True,
    )


def _patience_s(reply: HttpReply) -> float:
    asked = next((value for name, value in reply.headers.items() if name.lower() == "retry-after"), "")
    return min(float(asked), LONGEST_RETRY_S) if asked.isascii() and asked.isdigit() else RETRY_S


def _object(reply: HttpReply) -> Mapping[str, Any]:
    try:
        said = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}
