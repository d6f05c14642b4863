"""Twilio's Messages endpoint on loopback, as strict as the real one: what Twilio rejects is rejected with its own code."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qs

from aiohttp import web

from tests.peers.loopback import serve

ACCOUNT_SID = "AC" + "0123456789abcdef" * 2
AUTH_TOKEN = "canary-auth-token"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SECONDS_OF_SILENCE = 60


@dataclass(frozen=True)
class Texted:
    """One message that was taken."""

    sender: str
    recipient: str
    body: str


@dataclass
class TwilioMessages:
    """`async with TwilioMessages() as twilio`; `owned` are the numbers that may send."""

    owned: frozenset[str] = frozenset({"+17206999999"})
    opted_out: frozenset[str] = frozenset()
    taken: list[Texted] = field(default_factory=list)
    requests: int = 0
    overloaded: int | None = None
    """Answer this status to everything."""
    silent: bool = False
    """Take the message and answer nothing."""
    url: str = ""

    async def __aenter__(self) -> TwilioMessages:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner, port = await serve(app)
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.overloaded is not None:
            return _error(self.overloaded, 20429 if self.overloaded == 429 else 20500, "Overloaded")
        if request.path != f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json":
            return _error(404, 20404, f"The requested resource {request.path} was not found")
        if request.method != "POST":
            return _error(405, 20004, "Method not allowed")
        if not _authorized(request.headers.get("Authorization", "")):
            return _error(401, 20003, "Authenticate")
        if request.content_type != "application/x-www-form-urlencoded":
            return _error(400, 20001, "The body is no form")
        return await self._take(parse_qs((await request.text()), keep_blank_values=True, strict_parsing=True))

    async def _take(self, form: dict[str, list[str]]) -> web.Response:
        sender, recipient, body = (form.get(name, [""])[0] for name in ("From", "To", "Body"))
        for refused, code, message in (
            (not recipient, 21604, "A 'To' phone number is required."),
            (not sender, 21603, "A 'From' phone number is required."),
            (not body, 21602, "Message body is required."),
            (len(body) > 1600, 21617, "The concatenated message body exceeds the 1600 character limit."),
            (_E164.fullmatch(recipient) is None, 21211, f"Invalid 'To' Phone Number: {recipient}"),
            (_E164.fullmatch(sender) is None, 21212, f"Invalid 'From' Phone Number: {sender}"),
            (sender not in self.owned, 21606, "The 'From' phone number is not a valid, SMS-capable number of your account."),
            (recipient in self.opted_out, 21610, "Attempt to send to unsubscribed recipient"),
        ):
            if refused:
                return _error(400, code, message)
        self.taken.append(Texted(sender, recipient, body))
        if self.silent:
            await asyncio.sleep(_SECONDS_OF_SILENCE)
        sid = f"SM{len(self.taken):032x}"
        return web.json_response({"sid": sid, "status": "queued", "from": sender, "to": recipient, "body": body}, status=201)


def _authorized(header: str) -> bool:
    scheme, _, pair = header.partition(" ")
    try:
        return scheme == "Basic" and b64decode(pair, validate=True).decode() == f"{ACCOUNT_SID}:{AUTH_TOKEN}"
    except ValueError:
        return False


def _error(status: int, code: int, message: str) -> web.Response:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return web.json_response({"code": code, "message": message, "more_info": more, "status": status}, status=status)
