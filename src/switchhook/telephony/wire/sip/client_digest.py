"""Answering challenges as client: the proofs that go with requests of ours (RFC 3261 §22, RFC 7616, RFC 8760)."""

from __future__ import annotations

from collections.abc import Callable

from switchhook.telephony.wire.sip.digest import Account, Challenge, choose, respond
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.message import Request, Response

MAX_TRIES = 2
"""Proofs for one request: the second when the nonce was stale, or for another server on the way."""
PROOFS = ("Authorization", "Proxy-Authorization")
_FIELDS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}


class ClientDigest:
    """Proves one request after another. Without an account no challenge is answered. Nonces are not used again."""

    def __init__(self, account: Account | None, entropy: Callable[[int], bytes]) -> None:
        self._account = account
        self._entropy = entropy
        self._tries = 0
        self._proven: set[tuple[str, str]] = set()

    def renewed(self, request: Request, response: Response) -> Request | None:
        """The request again, with a proof and without Via; its CSeq is the caller's to raise. None: the response stands.

        A second challenge of one realm means that the password is wrong, unless the nonce was stale.
        """
        if response.status not in _FIELDS or self._account is None:
            return None
        asked, answered = _FIELDS[response.status]
        challenge = choose(_challenges(response, asked))
        if challenge is None:
            return None
        proof = (answered, challenge.realm)
        if not any(name in request.headers for name in PROOFS):
            self._tries = 0  # another request than the last
            self._proven.clear()
        if self._tries >= MAX_TRIES or (proof in self._proven and not challenge.stale):
            return None
        self._tries += 1
        self._proven.add(proof)
        again = Request(request.method, request.uri, request.headers.copy(), request.body)
        again.headers.remove("Via")
        credentials = respond(challenge, self._account, request.method, request.uri, self._entropy(8).hex())
        again.headers.set(answered, str(credentials))
        return again


def _challenges(response: Response, name: str) -> list[Challenge]:
    found = []
    for text in response.headers.get_all(name):
        try:
            found.append(Challenge.parse(text))
        except GrammarError:
            continue  # another scheme, or a quality that is not ours: the next may do
    return found
