"""Whether a trunk's peer is alive: by OPTIONS that it answers (RFC 3261 §11), and by how its calls go.

A machine: it asks for probes and is told of their answers and of what came of calls. A trunk that is down, or an address that
lately failed, is not shut out: it is tried after the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from switchhook.telephony.sip_targets import Target

FAILURES_UNTIL_DOWN = 3
AVOID_S = 30.0
"""How long an address that was silent, or answered 503 without Retry-After, is tried last; doubled with each further failure."""
MIN_AVOID_S, MAX_AVOID_S = 1.0, 600.0
"""Also the least and the most that a Retry-After is taken for (RFC 3261 §21.5.4)."""
MAX_ADDRESSES = 32
_DEAD = (408, 503)
_EARLIEST, _LATEST = 0.9, 1.1


@dataclass(frozen=True, slots=True)
class Probe:
    """Effect: send OPTIONS; `probed` tells what came of it."""


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """Effect: the peer went down, or is back."""

    healthy: bool
    detail: str


HealthEffect: TypeAlias = Probe | HealthChanged


@dataclass(slots=True)
class _Avoided:
    until: float
    for_s: float
    silent: bool


class TrunkHealth:
    """The health of one trunk. `probe_s` is the interval of the probes, None for none; `uniform`, in [0, 1), spreads them."""

    def __init__(self, probe_s: float | None, uniform: Callable[[], float]) -> None:
        self._probe_s = probe_s
        self._uniform = uniform
        self._probe_at: float | None = None
        self._probing = False
        self._failures = 0
        self._down = False
        self._avoided: OrderedDict[Target, _Avoided] = OrderedDict()
        self._effects: list[HealthEffect] = []

    # -- machine

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return self._probe_at

    def tick(self, now: float) -> None:
        """Ask for a probe."""
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_at = None
            self._probing = True
            self._effects.append(Probe())

    def take(self) -> list[HealthEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    # -- inputs

    def start(self, now: float) -> None:
        """Begin to probe, soon: many trunks do not all ask at one instant."""
        if self._probe_s is not None and not self._probing:
            self._probe_at = now + self._uniform() * min(1.0, self._probe_s)

    def probed(self, status: int | None, detail: str, now: float) -> None:
        """What a probe came to: the final status, or None and why there was none. Any answer but 408 and 503 shows life."""
        if not self._probing:
            return
        self._probing = False
        if status is not None and status not in _DEAD:
            self._alive()
        else:
            self._failures += 1
            if self._failures >= FAILURES_UNTIL_DOWN and not self._down:
                self._down = True
                said = f"answered {status}" if status is not None else f"did not answer ({detail})"
                self._effects.append(HealthChanged(False, f"{self._failures} probes in a row: the peer {said}"))
        if self._probe_s is not None:
            self._probe_at = now + self._probe_s * (_EARLIEST + (_LATEST - _EARLIEST) * self._uniform())

    def tried(self, target: Target, status: int | None, retry_after_s: int | None, now: float) -> None:
        """What an INVITE to this address came to; None: nothing came, or the address could not be reached."""
        if status is not None and status not in _DEAD:
            self._avoided.pop(target, None)
            return
        # A 408 of the far side may mean that the called party did not answer; only our own timeout speaks of the peer.
        if status == 408:
            return
        before = self._avoided.pop(target, None)
        for_s = min(MAX_AVOID_S, max(AVOID_S, before.for_s * 2) if before else AVOID_S)
        if retry_after_s is not None:
            for_s = min(MAX_AVOID_S, max(MIN_AVOID_S, retry_after_s))
        self._avoided[target] = _Avoided(now + for_s, for_s, status is None)
        if len(self._avoided) > MAX_ADDRESSES:
            self._avoided.popitem(last=False)

    # -- what the dialler asks

    @property
    def up(self) -> bool:
        """Whether the probes found it alive, or have not found it dead yet."""
        return not self._down

    def avoids(self, target: Target, now: float) -> bool:
        """Whether this address is to be tried after others: it failed lately, or the trunk is down."""
        avoided = self._avoided.get(target)
        return self._down or (avoided is not None and now < avoided.until)

    def _alive(self) -> None:
        self._failures = 0
        # It speaks again; what it said of being overloaded stands.
        for target in [target for target, avoided in self._avoided.items() if avoided.silent]:
            del self._avoided[target]
        if self._down:
            self._down = False
            self._effects.append(HealthChanged(True, "the peer answers again"))
