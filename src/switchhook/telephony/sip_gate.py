"""Who may speak SIP to us: trunks by address, trunks by digest, and nobody else; and how little strangers may cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.digest import Account, Credentials, NonceCounts, NonceMint, Verdict, challenges, verify
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.user_agent import Admission, Admitted, Refused, Silenced

MAX_SOURCES = 4096
"""Strangers whose budgets are kept; when full, the one unseen for longest is forgotten."""
STRANGER_RATE = 20.0
STRANGER_BURST = 40.0
"""Messages a second of one unknown address that are looked at, and how many at once."""
ALL_STRANGERS_RATE = 500.0
"""The same for all of them together."""
FAILURE_RATE = 1 / 30
FAILURE_BURST = 10.0
"""Wrong passwords of one address: ten at once, then one in 30 s; beyond, it hears nothing."""

PROOF_HOLDS_S = 600.0
"""For so long after a right password every message of its address is read."""


class Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def spend(self, now: float) -> bool:
        """Take a token, if there is one."""
        tokens = self.level(now)
        if tokens < 1:
            return False
        self._tokens = tokens - 1
        return True

    def level(self, now: float) -> float:
        """Tokens that are there."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens


class SourceBuckets:
    """One bucket for each source, for a bounded number of sources."""

    def __init__(self, rate: float, burst: float, capacity: int = MAX_SOURCES) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, source: str, now: float) -> Bucket:
        """The bucket of a source."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        return bucket

    def exhausted(self, source: str, now: float) -> bool:
        """Whether a source has used its budget up; asking costs nothing."""
        bucket = self._buckets.get(source)
        return bucket is not None and bucket.level(now) < 1


class ProvenSources:
    """Addresses that gave a right password lately, a bounded number: when full, the oldest proof is forgotten."""

    def __init__(self, capacity: int = MAX_SOURCES) -> None:
        self._capacity = capacity
        self._until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, source: str, now: float) -> None:
        """A right password came from there."""
        self._until[source] = now + PROOF_HOLDS_S
        self._until.move_to_end(source)
        if len(self._until) > self._capacity:
            self._until.popitem(last=False)

    def holds(self, source: str, now: float) -> bool:
        """Whether one came lately."""
        until = self._until.get(source)
        return until is not None and now < until


class SipGate:
    """Judges sources. Implements the user agent's `Gatekeeper`."""

    def __init__(
        self,
        trunks: TrunkDirectory,
        realm: str,
        refuse_unknown: bool,
        entropy: Callable[[int], bytes],
        algorithms: Sequence[str] = ("MD5",),
    ) -> None:
        self._trunks = trunks
        self._realm = realm
        self._refuse_unknown = refuse_unknown
        self._entropy = entropy
        self._algorithms = algorithms
        self._nonces = NonceMint(entropy(32))
        self._counts = NonceCounts()
        self._strangers = SourceBuckets(STRANGER_RATE, STRANGER_BURST)
        self._all_strangers: Bucket | None = None
        self._failures = SourceBuckets(FAILURE_RATE, FAILURE_BURST)
        self._proven = ProvenSources()
        self.dropped = 0
        """Messages of strangers that were not even read."""

    def knows(self, host: str) -> bool:
        """Whether a trunk allows this address."""
        return self._trunks.by_address(host) is not None

    @property
    def answers_strangers(self) -> bool:
        """Whether an address that no trunk allows can get anywhere: by digest, or to a 403."""
        return self._trunks.has_credentials or self._refuse_unknown

    def reads(self, host: str, now: float) -> bool:
        """Whether a message from this address is read at all. Strangers have a budget: it may belong to a live call."""
        if self._trunks.by_address(host) is not None or self._trunks.is_peer(host) or self._proven.holds(host, now):
            return True
        if self._all_strangers is None:
            self._all_strangers = Bucket(ALL_STRANGERS_RATE, ALL_STRANGERS_RATE, now)
        if self._strangers.of(host, now).spend(now) and self._all_strangers.spend(now):
            return True
        self.dropped += 1
        return False

    def admit(self, request: Request, flow: Flow, now: float) -> Admission:
        """By address first; then by digest where a trunk has credentials. An INVITE without proof is challenged."""
        origin = self._trunks.by_address(flow.host)
        if origin is not None:
            return Admitted(origin.trunk, SrtpMode(origin.srtp.value))
        if self._trunks.has_credentials:
            written = request.headers.get("Authorization")
            if written is not None:
                return self._judge_proof(written, request, flow, now)
            if request.method == "INVITE":
                return Silenced() if self._failures.exhausted(flow.host, now) else self._challenge(now, stale=False)
        return Refused(403) if self._refuse_unknown else Silenced()

    def _judge_proof(self, written: str, request: Request, flow: Flow, now: float) -> Admission:
        if self._failures.exhausted(flow.host, now):
            return Silenced()
        try:
            credentials = Credentials.parse(written)
        except GrammarError:
            self._failures.of(flow.host, now).spend(now)
            return self._challenge(now, stale=False)
        for trunk in self._trunks.by_username(credentials.username):
            account = Account(trunk.username or "", trunk.password or "", self._realm)
            verdict = verify(credentials, account, request.method, self._nonces, self._counts, now)
            if verdict is Verdict.GOOD:
                self._proven.add(flow.host, now)
                return Admitted(trunk.name, SrtpMode(trunk.srtp.value))
            if verdict is Verdict.STALE:
                return self._challenge(now, stale=True)
        self._failures.of(flow.host, now).spend(now)
        return self._challenge(now, stale=False)

    def _challenge(self, now: float, stale: bool) -> Refused:
        nonce = self._nonces.mint(now, self._entropy(8).hex())
        offered = challenges(self._realm, nonce, self._algorithms, stale)
        return Refused(401, tuple(("WWW-Authenticate", str(challenge)) for challenge in offered))
