"""Digest authentication (RFC 3261 §22, RFC 7616, RFC 8760): MD5 and SHA-256, quality of protection `auth`.

Server: `NonceMint` makes nonces that need no memory, `challenges` writes the 401 or 407, `verify` judges the answer. Client:
read a `Challenge`, then `respond`. Passwords and digests stay out of reprs and errors.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import is_token, quote, split_list, take_quoted

MAX_PARAMS = 32
"""Parameters of one challenge or of one set of credentials."""

_HASHES: Mapping[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
}
_NEVER_QUOTED = frozenset({"algorithm", "stale", "nc"})


class Verdict(Enum):
    """What `verify` found."""

    GOOD = "good"
    STALE = "stale"
    """Right password, but the nonce is too old, not ours or used before: challenge again with `stale=true`."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server asks a client to prove."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    """`MD5` or `SHA-256`; another one is kept, and `respond` refuses it."""
    qop: str | None = "auth"
    """`auth`; None for servers of RFC 2617 or older that offer no quality."""
    opaque: str | None = None
    stale: bool = False

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Read a `WWW-Authenticate` or `Proxy-Authenticate` value.

        Raises:
            GrammarError: another scheme, no realm or nonce, or only qualities other than `auth`.
        """
        params = _parse_digest(text)
        if "realm" not in params or "nonce" not in params:
            raise GrammarError("expected a realm and a nonce")
        qop = None
        if "qop" in params:
            if "auth" not in [word.strip().lower() for word in params["qop"].split(",")]:
                raise GrammarError("expected the quality of protection auth")
            qop = "auth"
        return cls(
            realm=params["realm"],
            nonce=params["nonce"],
            algorithm=params.get("algorithm", "MD5").upper(),
            qop=qop,
            opaque=params.get("opaque"),
            stale=params.get("stale", "").lower() == "true",
        )

    def __str__(self) -> str:
        params = {"realm": self.realm, "nonce": self.nonce, "algorithm": self.algorithm, "qop": self.qop, "opaque": self.opaque}
        return _format_digest({**params, "stale": "true" if self.stale else None}, bare=_NEVER_QUOTED)

    @property
    def supported(self) -> bool:
        """True if `respond` can answer it."""
        return self.algorithm in _HASHES


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's proof, from `Authorization` or `Proxy-Authorization`."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str = field(repr=False)
    algorithm: str = "MD5"
    qop: str | None = None
    cnonce: str = ""
    nc: str = ""
    """Eight hexadecimal digits, as sent."""
    opaque: str | None = None

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read an `Authorization` or `Proxy-Authorization` value.

        Raises:
            GrammarError: another scheme, or a part is missing.
        """
        params = _parse_digest(text)
        missing = [name for name in ("username", "realm", "nonce", "uri", "response") if name not in params]
        if missing:
            raise GrammarError(f"expected {missing[0]}")
        return cls(
            username=params["username"],
            realm=params["realm"],
            nonce=params["nonce"],
            uri=params["uri"],
            response=params["response"].lower(),
            algorithm=params.get("algorithm", "MD5").upper(),
            qop=params["qop"].lower() if "qop" in params else None,
            cnonce=params.get("cnonce", ""),
            nc=params.get("nc", ""),
            opaque=params.get("opaque"),
        )

    @property
    def count(self) -> int | None:
        """The nonce count, or None if there is none that can be read."""
        try:
            return int(self.nc, 16) if len(self.nc) == 8 and self.nc.isalnum() else None
        except ValueError:
            return None

    def __str__(self) -> str:
        params = {
            "username": self.username,
            "realm": self.realm,
            "nonce": self.nonce,
            "uri": self.uri,
            "response": self.response,
            "algorithm": self.algorithm,
            "cnonce": self.cnonce or None,
            "opaque": self.opaque,
            "qop": self.qop,
            "nc": self.nc or None,
        }
        return _format_digest(params, bare=_NEVER_QUOTED | {"qop"})


class NonceMint:
    """Makes nonces and knows its own again, without remembering any: a time, a salt, and their HMAC under the key.

    `key` is at least 16 random bytes that live as long as the clock behind `now` (monotonic seconds).
    """

    def __init__(self, key: bytes, lifetime_s: float = 300.0) -> None:
        if len(key) < 16:
            raise ValueError("the nonce key needs at least 16 bytes")
        self._key = key
        self._lifetime_s = lifetime_s

    def mint(self, now: float, salt: str) -> str:
        """A nonce for one challenge; `salt` (hexadecimal, random) keeps two of one instant apart."""
        stamped = f"{int(now * 1000):x}.{salt}"
        return f"{stamped}.{self._seal(stamped)}"

    def is_fresh(self, nonce: str, now: float) -> bool:
        """True if the nonce is ours and not too old."""
        stamped, _, seal = nonce.rpartition(".")
        if not hmac.compare_digest(seal.encode("utf-8", "surrogateescape"), self._seal(stamped).encode()):
            return False
        age_ms = now * 1000 - int(stamped.partition(".")[0], 16)
        return 0 <= age_ms <= self._lifetime_s * 1000

    def _seal(self, stamped: str) -> str:
        return hmac.new(self._key, stamped.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:32]


class NonceCounts:
    """The highest count seen of each nonce in use, so that no proof is taken twice (RFC 7616 §3.4).

    Bounded: when full, the nonce unused for longest is forgotten, and a replay of it would pass until that nonce expires. Only
    proofs with the right password get in.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._highest: OrderedDict[str, int] = OrderedDict()

    def accept(self, nonce: str, count: int) -> bool:
        """Note a count; False if it was seen or is lower than one seen."""
        if count <= self._highest.get(nonce, 0):
            return False
        self._highest[nonce] = count
        self._highest.move_to_end(nonce)
        if len(self._highest) > self._capacity:
            self._highest.popitem(last=False)
        return True


def challenges(realm: str, nonce: str, algorithms: Iterable[str] = ("SHA-256", "MD5"), stale: bool = False) -> list[Challenge]:
    """The challenges of one 401 or 407, preferred first (RFC 8760 §2.4); each is a header field of its own."""
    return [Challenge(realm=realm, nonce=nonce, algorithm=algorithm, stale=stale) for algorithm in algorithms]


def matches(credentials: Credentials, password: str, method: str) -> bool:
    """True if the response was made with this password for this method and the URI it names.

    The caller checks user name, realm and nonce; `verify` does all of it.
    """
    if credentials.algorithm not in _HASHES or credentials.qop not in (None, "auth"):
        return False
    return hmac.compare_digest(
        credentials.response.encode("utf-8", "surrogateescape"),
        _response(credentials, password, method).encode(),
    )


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a proof is to come from."""

    username: str
    password: str = field(repr=False)
    realm: str = ""
    """A client's needs none: the challenge names it."""


def verify(
    credentials: Credentials,
    account: Account,
    method: str,
    nonces: NonceMint,
    counts: NonceCounts | None,
    now: float,
) -> Verdict:
    """Judge the proof of a request.

    The digest's own URI is what was signed; it is not compared with the request URI, which proxies rewrite (RFC 3261 §22.4 item 6
    leaves that to the server). A client without quality of protection (RFC 2069) sends no count, so each nonce serves it once.
    Another user name or realm is as BAD as a wrong password.
    """
    known = credentials.username == account.username and credentials.realm == account.realm
    if not matches(credentials, account.password, method) or not known:
        return Verdict.BAD
    if not nonces.is_fresh(credentials.nonce, now):
        return Verdict.STALE
    count = 1 if credentials.qop is None else credentials.count
    if count is None:
        return Verdict.BAD
    if counts is None:
        return Verdict.GOOD
    return Verdict.GOOD if counts.accept(credentials.nonce, count) else Verdict.STALE


def respond(challenge: Challenge, account: Account, method: str, uri: str, cnonce: str, count: int = 1) -> Credentials:
    """Answer a challenge; `str()` of the result is the `Authorization` value.

    `account.realm` is not looked at: the challenge names the realm. `count` rises with each request under one nonce.

    Raises:
        GrammarError: an algorithm that is not ours.
    """
    if challenge.algorithm not in _HASHES:
        raise GrammarError("an unknown digest algorithm")
    unsigned = Credentials(
        username=account.username,
        realm=challenge.realm,
        nonce=challenge.nonce,
        uri=uri,
        response="",
        algorithm=challenge.algorithm,
        qop=challenge.qop,
        cnonce=cnonce if challenge.qop else "",
        nc=f"{count:08x}" if challenge.qop else "",
        opaque=challenge.opaque,
    )
    return replace(unsigned, response=_response(unsigned, account.password, method))


def choose(offered: Iterable[Challenge]) -> Challenge | None:
    """The first challenge we can answer: servers list the preferred one first (RFC 8760 §2.4)."""
    return next((challenge for challenge in offered if challenge.supported), None)


def _response(signed: Credentials, password: str, method: str) -> str:
    digest = _HASHES[signed.algorithm]
    secret = digest(_bytes(f"{signed.username}:{signed.realm}:{password}"))
    action = digest(_bytes(f"{method}:{signed.uri}"))
    if signed.qop is None:
        return digest(_bytes(f"{secret}:{signed.nonce}:{action}"))
    return digest(_bytes(f"{secret}:{signed.nonce}:{signed.nc}:{signed.cnonce}:{signed.qop}:{action}"))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parse_digest(text: str) -> dict[str, str]:
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() != "digest":
        raise GrammarError("expected the scheme Digest")
    parts = split_list(rest)
    if len(parts) > MAX_PARAMS:
        raise GrammarError("too many parameters")
    params: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), value.strip()
        if not equals or not is_token(name):
            raise GrammarError("expected name=value")
        params.setdefault(name, take_quoted(value)[0] if value.startswith('"') else value)
    return params


def _format_digest(params: Mapping[str, str | None], bare: frozenset[str]) -> str:
    written = [f"{name}={value if name in bare else quote(value)}" for name, value in params.items() if value is not None]
    return "Digest " + ", ".join(written)
