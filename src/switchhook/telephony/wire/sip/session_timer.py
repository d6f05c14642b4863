"""Session timers (RFC 4028): whether a session is still alive is asked with refreshes, and one that is not refreshed ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.headers import SessionExpires
from switchhook.telephony.wire.sip.message import Request, Response

SMALLEST_MIN_SE_S = 90
"""RFC 4028 §4: no Min-SE is smaller."""


@dataclass(frozen=True, slots=True)
class SessionTimerPolicy:
    """What we want of session timers."""

    interval_s: int = 1800
    """What we ask for when the peer supports timers and names no interval."""
    min_se_s: int = SMALLEST_MIN_SE_S
    """The smallest interval we take."""


class IntervalTooSmall(RemoteProtocolError):
    """422: the peer's interval is below our Min-SE."""

    def __init__(self) -> None:
        super().__init__(422, "Session Interval Too Small")


class Due(Enum):
    """What the timer asks for."""

    REFRESH = "refresh"
    EXPIRED = "expired"


class SessionTimer:
    """The timer of one session. Every 2xx to INVITE or UPDATE, in either direction, starts it again or takes it off."""

    def __init__(self, policy: SessionTimerPolicy) -> None:
        self._policy = policy
        self._interval_s: int | None = None
        self._min_se_s = policy.min_se_s
        self._we_refresh = False
        self._refresh_at: float | None = None
        self._expires_at: float | None = None

    @property
    def we_refresh(self) -> bool:
        """Whether the next refresh is ours to send."""
        return self._we_refresh

    @property
    def deadline(self) -> float | None:
        """When the next refresh or the end is due."""
        return self._expires_at if self._refresh_at is None else self._refresh_at

    def check(self, request: Request) -> None:
        """Judge a request's interval before anything else is done with it.

        Raises:
            IntervalTooSmall: only towards a peer that understands the 422 (RFC 4028 §9).
            RemoteProtocolError: 400.
        """
        asked, _ = request.session_expires, request.min_se
        if asked is not None and asked.interval_s < self._policy.min_se_s and "timer" in request.supported:
            raise IntervalTooSmall

    def accept(self, request: Request, now: float) -> list[tuple[str, str]]:
        """Agree on an interval as UAS of this request (RFC 4028 §9); returns the headers of its 2xx."""
        asked = request.session_expires
        supported = "timer" in request.supported
        if asked is None and not supported:
            self.stop()
            return []
        interval_s = max(asked.interval_s if asked else self._policy.interval_s, self._policy.min_se_s, request.min_se or 0)
        # RFC 4028 §9, table 2: a peer without support cannot refresh; otherwise its choice stands, and without one it refreshes.
        refresher = ((asked.refresher if asked else None) or "uac") if supported else "uas"
        if asked is None:
            refresher = "uas"
        self._start(interval_s, refresher == "uas", now)
        headers = [("Session-Expires", str(SessionExpires(interval_s, refresher)))]
        if refresher == "uac":
            headers.append(("Require", "timer"))
        return headers

    def proposal(self) -> list[tuple[str, str]]:
        """The headers of an INVITE that begins a session; who refreshes is left to the peer (RFC 4028 §7.1)."""
        interval_s = max(self._policy.interval_s, self._min_se_s)
        return [("Session-Expires", str(SessionExpires(interval_s))), ("Min-SE", str(self._min_se_s))]

    def request_headers(self) -> list[tuple[str, str]]:
        """The headers of our own refresh; the refresher stays who it is."""
        if self._interval_s is None:
            return []
        refresher = "uac" if self._we_refresh else "uas"
        return [("Session-Expires", str(SessionExpires(self._interval_s, refresher))), ("Min-SE", str(self._min_se_s))]

    def accepted(self, response: Response, now: float) -> None:
        """A 2xx to our INVITE or refresh (RFC 4028 §7.2). Without Session-Expires the peer wants no timer any more."""
        agreed = response.session_expires
        if agreed is None:
            self.stop()
        else:
            self._start(max(agreed.interval_s, SMALLEST_MIN_SE_S), agreed.refresher != "uas", now)

    def too_small(self, response: Response) -> None:
        """A 422 to our INVITE or refresh: ask for the interval it names (RFC 4028 §7.3)."""
        self._min_se_s = max(self._min_se_s, response.min_se or 0)
        if self._interval_s is not None:
            self._interval_s = max(self._interval_s, self._min_se_s)

    def due(self, now: float) -> Due | None:
        """What is due; a refresh is asked for once."""
        if self._refresh_at is not None and self._refresh_at <= now:
            self._refresh_at = None
            return Due.REFRESH
        if self._expires_at is not None and self._expires_at <= now:
            self.stop()
            return Due.EXPIRED
        return None

    def stop(self) -> None:
        """No timer."""
        self._interval_s = self._refresh_at = self._expires_at = None

    def _start(self, interval_s: int, we_refresh: bool, now: float) -> None:
        self._interval_s = interval_s
        self._we_refresh = we_refresh
        self._refresh_at = now + interval_s / 2 if we_refresh else None
        # RFC 4028 §10: the end is sent a little before the interval is over.
        self._expires_at = now + interval_s - min(32.0, interval_s / 3)
