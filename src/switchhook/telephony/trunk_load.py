"""How many calls of ours a trunk carries, against its `max_calls` and `calls_per_second`."""

from __future__ import annotations

from switchhook.domain.model import Trunk
from switchhook.telephony.sip_gate import Bucket


class TrunkLoad:
    """Counts for all trunks by their names. Time is monotonic seconds."""

    def __init__(self) -> None:
        self._live: dict[str, int] = {}
        self._rates: dict[str, tuple[float, Bucket]] = {}

    def live(self, name: str) -> int:
        """Calls of ours that a trunk is asked for, or carries."""
        return self._live.get(name, 0)

    def objection(self, trunk: Trunk, now: float) -> str | None:
        """Why the trunk can take no call at this moment; None: it can. Asking costs nothing."""
        if trunk.max_calls is not None and self.live(trunk.name) >= trunk.max_calls:
            return f"it carries its {trunk.max_calls} calls (max_calls)"
        bucket = self._bucket(trunk, now)
        if bucket is not None and bucket.level(now) < 1:
            return f"it takes {trunk.calls_per_second:g} calls a second (calls_per_second)"
        return None

    def take(self, trunk: Trunk, now: float) -> None:
        """Count a call, whether there is room for it or not."""
        bucket = self._bucket(trunk, now)
        if bucket is not None:
            bucket.spend(now)
        self._live[trunk.name] = self.live(trunk.name) + 1

    def give_back(self, trunk: Trunk) -> None:
        """A call that was counted is over."""
        left = self.live(trunk.name) - 1
        if left > 0:
            self._live[trunk.name] = left
        else:
            self._live.pop(trunk.name, None)

    def _bucket(self, trunk: Trunk, now: float) -> Bucket | None:
        rate = trunk.calls_per_second
        if rate is None:
            self._rates.pop(trunk.name, None)
            return None
        known = self._rates.get(trunk.name)
        if known is None or known[0] != rate:
            # One second's calls at once, and at least one.
            known = self._rates[trunk.name] = (rate, Bucket(rate, max(1.0, rate), now))
        return known[1]
