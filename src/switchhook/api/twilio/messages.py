"""`domain.messaging.Messaging` through Twilio's Messages API (contract `vns-veevo` §4.5): one POST for each message.

It stands in `api` because rendering and reading a vendor's wire form is a contract folder's work; the request itself leaves
through the injected `domain.contract.Http`, which guards the way out.
"""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from switchhook.domain.contract import Http, HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.messaging import MessageFailed, MessageSent, TextMessage, Unsent
from switchhook.domain.records import TwilioCredentials

log = logging.getLogger(__name__)

TIMEOUT_S = 15.0
REPLY_BYTES = 1 << 16
NOT_CONFIGURED = "The account has no Twilio credentials: add twilio: {account_sid: …, auth_token: …} to it in the apply file"
_TOO_LONG = 21617
_NO_SUCH_NUMBER = (21211, 21614)
_NO_SENDER = (21212, 21606, 21660, 21659)
_OPTED_OUT = 21610


CredentialsOf = Callable[[str], Awaitable[TwilioCredentials | None]]
"""Account → its credentials. May raise StoreUnavailable."""


class TwilioMessages:
    """Sends messages with each account's own credentials."""

    def __init__(self, http: Http, credentials_of: CredentialsOf) -> None:
        self._http = http
        self._credentials_of = credentials_of

    async def configured(self, account: str) -> bool:
        """Whether the account has credentials."""
        return await self._credentials_of(account) is not None

    async def send(self, message: TextMessage) -> MessageSent | MessageFailed:
        """Post once; a request that left is not repeated, since Twilio would send the message twice."""
        credentials = await self._credentials_of(message.account)
        if credentials is None:
            return MessageFailed(Unsent.NOT_CONFIGURED, NOT_CONFIGURED)
        result = read_outcome(await self._http.send(request_of(message, credentials)))
        if isinstance(result, MessageFailed):
            log.warning("message not sent: %s", result.detail, extra={"account": message.account})
        return result


def request_of(message: TextMessage, credentials: TwilioCredentials) -> HttpRequest:
    """`POST /2010-04-01/Accounts/{AccountSid}/Messages.json`."""
    pair = f"{credentials.account_sid}:{credentials.auth_token}".encode()
    sid = quote(credentials.account_sid, safe="")
    return HttpRequest(
        f"{credentials.rest_base_url.rstrip('/')}/2010-04-01/Accounts/{sid}/Messages.json",
        urlencode({"From": message.sender, "To": message.recipient, "Body": message.text}).encode(),
        {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Authorization": f"Basic {b64encode(pair).decode()}",
        },
        timeout_s=TIMEOUT_S,
        max_reply_bytes=REPLY_BYTES,
        retry_unsent=True,
    )


def read_outcome(outcome: HttpOutcome) -> MessageSent | MessageFailed:
    """What came of it. Errors are `{code, message, more_info, status}`; their text is not passed on, it may repeat anything."""
    if isinstance(outcome, HttpFailure):
        if outcome.reason == "refused":
            return MessageFailed(Unsent.NOT_CONFIGURED, f"The address of Twilio's API is not allowed: {outcome.detail}")
        return MessageFailed(Unsent.UNKNOWN, "Twilio did not answer; the message may have been sent")
    said = _object(outcome)
    if 200 <= outcome.status < 300:
        sid = said.get("sid")
        if isinstance(sid, str) and sid:
            return MessageSent(sid)
        return MessageFailed(Unsent.UNKNOWN, "Twilio's answer could not be read; the message may have been sent")
    code = said.get("code")
    return _failed(outcome.status, code if isinstance(code, int) else 0)


def _failed(status: int, code: int) -> MessageFailed:
    shown = f"Twilio answered HTTP {status}" + (f", error {code}" if code else "")
    if status in (401, 403):
        return MessageFailed(Unsent.UNAUTHORIZED, f"{shown}: check the account's twilio credentials in the apply file")
    if status == 429:
        return MessageFailed(Unsent.TOO_MANY, f"{shown}: too many messages; try again later")
    if status >= 500:
        return MessageFailed(Unsent.UNAVAILABLE, f"{shown}; try again later")
    return MessageFailed(Unsent.BAD_REQUEST, f"{_reason(code)} ({shown})")


def _reason(code: int) -> str:
    if code in _NO_SUCH_NUMBER:
        return "to: Twilio cannot send to this number"
    if code in _NO_SENDER:
        return "from: Twilio does not let the account send from this number"
    if code == _OPTED_OUT:
        return "to: the recipient does not want messages from this number"
    if code == _TOO_LONG:
        return "message: is too long for Twilio"
    return "Twilio refused the message"


def _object(reply: HttpReply) -> Mapping[str, Any]:
    try:
        said = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}
