"""A SIP line that we dial, as the rest of the house sees it: one leg, however many routes it takes to reach the party."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from switchhook.domain.dialling import DialRequest
from switchhook.domain.ports import FrameTap, LegAnswered, LegProgress
from switchhook.telephony.route import Route
from switchhook.telephony.rtp_media import RtpMedia, rtp_media
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_link import MediaDoor
from switchhook.telephony.sip_transfer import LegTransfer
from switchhook.telephony.wire.offer_answer import Negotiated
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import SessionId

logger = logging.getLogger(__name__)

SILENCE_S = 6.0
"""A trunk that has said nothing for so long, not even 100 Trying, is given up for the next route: by then it has been asked four
times over UDP. Should it answer all the same, it gets CANCEL."""
MAX_REDIRECTS = 3


class CallPlacer(MediaDoor, Protocol):
    """What the leg asks of the SIP server."""

    def place(self, asked: OutgoingInvite, leg: SipLine) -> SessionId:
        """Send the INVITE; what follows is told to the leg. Raises ValueError, or GrammarError, for what cannot be sent."""


class AttemptWatcher(Protocol):
    """Who wants to know of each INVITE: the dialer, for the health of its trunks and their concurrency."""

    def attempt_begun(self, route: Route) -> None:
        """The INVITE is sent."""

    def attempt_over(self, route: Route, reason: str, status: int | None, retry_after_s: int | None = None) -> None:
        """Its session is over, with the reason of `domain.ports.LegEnded`; once for each begun, answered or not. `status` is the
        final answer: 200 for one that was answered, 408 for a trunk that was silent, None for one that could not be reached.
        `retry_after_s` is what that answer says of when to ask again."""


class OutgoingSipLeg(SipLine):
    """Implements `domain.ports.Leg`. Nothing happens until `begin`; a hang-up before it ends the leg.

    The leg speaks `request.encoding` for all its life. Ports are leased by `begin`, or when `playout` is first asked for, and
    serve every attempt. When none is free the leg ends as `line-failed`. The next route is tried when a trunk is silent, cannot
    be reached or answers 5xx before it has told that it rings; any other answer is the party's, or would be the same elsewhere.
    """

    def __init__(
        self,
        server: CallPlacer,
        streams: Callable[[], RtpStream],
        request: DialRequest,
        watcher: AttemptWatcher,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """`headers` go with every INVITE, as Replaces."""
        super().__init__(streams, request.encoding, None)
        self.request = request
        self._server = server
        self._watcher = watcher
        self._headers = headers + _referred_by(request) + _replaces(request)
        self._routes: deque[Route] = deque()
        self._route: Route | None = None
        """The one being tried."""
        self._session: SessionId | None = None
        self._rang = False
        self._early_media = False
        self._answered = False
        self._answered_at = 0
        """Samples of the stream's time line that lie before the answer."""

    @property
    def encrypted(self) -> bool:
        """Whether signalling is over TLS and sound, as agreed now, over SRTP."""
        return self._protected and self._route is not None and self._route.flow.transport == "tls"

    @property
    def route(self) -> Route | None:
        """The route that is being tried, or carries the call."""
        return self._route

    def begin(self, routes: Sequence[Route], otherwise: str = "no trunk can carry the call") -> None:
        """Dial, the first route first. Without any, the leg ends as `trunk-failed` with `otherwise` as its detail. Once only."""
        self._routes.extend(routes)
        self._try_next("trunk-failed", otherwise, None)

    def hang_up(self) -> None:
        """BYE after the answer; CANCEL before it. No other route is tried."""
        self._routes.clear()
        self._fail("hung-up", "")

    def tap(self, tap: FrameTap | None) -> None:
        """Attach the recorder, or take it off; its positions count from the answer."""
        super().tap(_FromAnswer(tap, self._answered_at) if tap is not None and self._answered_at else tap)

    # -- what the server tells

    def on_progress(self, status: int, early_media: Negotiated | None) -> None:
        """It rings, or the far side plays something."""
        self._rang = self._rang or 180 <= status < 190
        if early_media is not None:
            self._early_media = True
            self.on_media(early_media)
        self._tell(LegProgress(status, self._early_media))

    def on_answered(self) -> None:
        """The 200 came; what was agreed on follows."""
        self._answered = True
        if self._early_media and self._stream is not None:
            self._answered_at = self._stream.position
            self.tap(self._tap)
        self._tell(LegAnswered())

    def on_ended(self, reason: str, detail: str, status: int | None, retry_after_s: int | None = None) -> None:
        """The attempt is over: try the next route, or end the leg."""
        route, self._session = self._route, None
        answered = self._answered
        if answered or not self._fails_over(reason, status):
            self._routes.clear()
        try:
            if route is not None:
                self._watcher.attempt_over(route, reason, 200 if answered else status, retry_after_s)
        finally:
            told = route.redirects.refused if route is not None and route.redirects is not None else None
            if told is not None and status is not None and 300 <= status < 400:
                reason, detail = told.reason, f"{detail}; {told.detail}"
            self._try_next(reason, detail, status)

    # -- inside

    def _fails_over(self, reason: str, status: int | None) -> bool:
        if self._rang or self._closed:
            return False
        return reason == "trunk-failed" or (reason == "refused" and status is not None and 500 <= status < 600)

    def _try_next(self, reason: str, detail: str, status: int | None) -> None:
        """Send the next INVITE; without a further route this is the end, for the reason of the last."""
        while self._routes and not self._over:
            stream = self._open_stream()
            if stream is None:
                return
            self._route = route = self._routes.popleft()
            try:
                self._session = self._server.place(self._invite(route, stream.local_port), self)
            except ValueError as error:
                logger.warning("sip.place: trunk %s: the call cannot be placed: %s", route.trunk.name, error)
                reason, detail, status = "trunk-failed", f"the call cannot be placed: {error}", None
                continue
            self.transfer = LegTransfer(self._server, self._session, route.trunk, route.flow)
            self._watcher.attempt_begun(route)
            return
        super().on_ended(reason, detail, status)

    def _invite(self, route: Route, rtp_port: int) -> OutgoingInvite:
        media = self._server.local_media(route.flow, rtp_port, SrtpMode(route.trunk.srtp.value))
        # What the house speaks goes first, so that nothing need be translated where the far side has no wish of its own.
        encodings = sorted(media.encodings, key=lambda name: name != self._encoding.name)
        invite = OutgoingInvite(
            flow=route.flow,
            request_uri=route.request_uri,
            from_=route.from_,
            to=route.to,
            media=replace(media, encodings=tuple(encodings)),
            proxies=route.proxies,
            credentials=route.credentials,
            headers=(*route.identity_headers, *self._headers),
            ring_s=self.request.ring_s,
            silence_s=SILENCE_S if self._routes else None,
        )
        if route.redirects is None:
            return invite
        return replace(invite, redirects=MAX_REDIRECTS, may_follow=route.redirects.may_follow)

    def _fail(self, reason: str, detail: str) -> None:
        session = self._session
        if session is not None:
            self._server.feed(lambda agent, now: agent.fail(session, reason, detail, now))
        else:
            super().on_ended(reason, detail, None)

    def _media(self, agreed: Negotiated) -> RtpMedia:
        return replace(rtp_media(agreed), spoken=self._encoding, early=not self._answered)


class _FromAnswer:
    """A tap that sees what was said after the answer, on a time line that begins there."""

    def __init__(self, tap: FrameTap, start: int) -> None:
        self._tap = tap
        self._start = start

    def received(self, payload: bytes, position: int) -> None:
        """Sound from the party."""
        if position >= self._start:
            self._tap.received(payload, position - self._start)

    def sent(self, payload: bytes, position: int) -> None:
        """Sound to the party."""
        if position >= self._start:
            self._tap.sent(payload, position - self._start)


def _referred_by(request: DialRequest) -> tuple[tuple[str, str], ...]:
    """The Referred-By header (RFC 3892), when the request names a SIP address."""
    if request.referred_by is None:
        return ()
    try:
        return (("Referred-By", str(NameAddr.parse(request.referred_by))),)
    except GrammarError:
        return ()


def _replaces(request: DialRequest) -> tuple[tuple[str, str], ...]:
    """RFC 3891 §3: the call this one takes the place of; whoever does not know the extension must refuse it."""
    if request.replaces is None:
        return ()
    return (("Replaces", request.replaces), ("Require", "replaces"))
