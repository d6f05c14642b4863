"""Signs requests on their way out.

The secret is looked up when a request leaves and lives in no plan, row or log; an event that waits in the outbox is signed anew
with each try, over the same stored bytes, also after a restart or a change of the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace

from switchhook.domain.contract import Http, HttpFailure, HttpOutcome, HttpRequest
from switchhook.domain.errors import SwitchhookError

FindSecret = Callable[[str], Awaitable[str | None]]
"""Account → its webhook secret, or None when it has none. May raise StoreUnavailable or SecretUnreadable."""


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 of the raw body under the secret as it is written: lower-case hex without a prefix (contract §2.2)."""
    return hmac.new(secret.encode("utf-8", "replace"), body, hashlib.sha256).hexdigest()


class SigningHttp:
    """Implements `domain.contract.Http`: adds the signature that a request asks for and passes it on.

    An account without a secret sends without a signature. When the secret cannot be looked up nothing is sent.
    """

    def __init__(self, http: Http, find_secret: FindSecret) -> None:
        self._http = http
        self._find_secret = find_secret

    async def send(self, request: HttpRequest) -> HttpOutcome:
        """Send and wait. Never raises but for cancellation."""
        sign = request.sign
        if sign is None:
            return await self._http.send(request)
        try:
            secret = await self._find_secret(sign.account)
        except SwitchhookError as error:
            return HttpFailure("unreachable", f"the account's webhook secret could not be read: {error.code}")
        if not secret:
            return await self._http.send(replace(request, sign=None))
        headers = {name: value for name, value in request.headers.items() if name.lower() != sign.header.lower()}
        signed = {**headers, sign.header: signature(secret, request.body)}
        return await self._http.send(replace(request, headers=signed, sign=None))
