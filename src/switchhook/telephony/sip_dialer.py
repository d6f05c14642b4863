"""Places calls over an account's trunks: which of them, in what order, at which addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from switchhook.domain.dialling import DialRequest, allows_extension
from switchhook.domain.model import Trunk
from switchhook.domain.ports import Leg
from switchhook.telephony.caller_identity import identify_call, request_uri
from switchhook.telephony.route import Route
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_outgoing_leg import AttemptWatcher, CallPlacer, OutgoingSipLeg
from switchhook.telephony.sip_targets import Target, TargetNotFound
from switchhook.telephony.trunk_load import TrunkLoad
from switchhook.telephony.trunk_redirects import Review, TrunkRedirects
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.uri import SipUri, is_sip_uri

logger = logging.getLogger(__name__)

LATE_S = 1.0
"""How long a call waits for the addresses of further trunks once it has those of one."""
MAX_ROUTES = 12


LegMaker = Callable[[CallPlacer, DialRequest, AttemptWatcher], OutgoingSipLeg]
"""Makes a leg that waits for its routes."""


class DialServer(CallPlacer, Protocol):
    """What the dialer asks of the SIP server."""

    def contact(self, flow: Flow) -> tuple[str, int]:
        """Our address and port as the far end of this flow sees us."""


class SipDialer:
    """Implements `domain.ports.Dialer` for SIP, and the `AttemptWatcher` of its legs."""

    def __init__(self, trunks: TrunkDirectory, watch: TrunkWatch, server: DialServer, new_leg: LegMaker, review: Review) -> None:
        """`review`: the dialling policy, for numbers that a trunk redirects to."""
        self._trunks = trunks
        self._watch = watch
        self._review = review
        self._server = server
        self._new_leg = new_leg
        self._loop = asyncio.get_running_loop()
        self.load = TrunkLoad()
        self._placer = _PlacerWithinLimits(server, self._objection)
        self._turns: dict[str, int] = {}
        # `dial` returns at once; the lookups it begins are owned here until `close`.
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, request: DialRequest) -> Leg:
        """Begin at once; the leg ends as `trunk-failed` when no trunk can carry the call."""
        leg = self._new_leg(self._placer, request, self)
        self._spawn(self._route(request, leg))
        return leg

    async def close(self) -> None:
        """Give up the lookups under way; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what its legs tell

    def attempt_begun(self, route: Route) -> None:
        """Count the call against its trunk."""
        self.load.take(route.trunk, self._loop.time())

    def attempt_over(self, route: Route, reason: str, status: int | None, retry_after_s: int | None = None) -> None:
        """The trunk has room again; learn from it for the next call."""
        self.load.give_back(route.trunk)
        health, now, target = self._watch.health(route.trunk), self._loop.time(), _target_of(route)
        if route.redirects is not None and route.redirects.followed:
            health.tried(target, 302, None, now)
        elif reason == "trunk-failed":
            health.tried(target, None, None, now)
        elif status is not None:
            health.tried(target, status, retry_after_s, now)

    # -- inside

    async def _route(self, request: DialRequest, leg: OutgoingSipLeg) -> None:
        try:
            routes, why_not = await self._routes(request)
        except asyncio.CancelledError:
            leg.begin([], "the server is stopping")
            raise
        except Exception:
            # The edge of the task: the leg owes its end to somebody.
            logger.exception("sip.dial: no route could be worked out", extra={"call_id": request.call_id})
            leg.begin([], "no route could be worked out")
            return
        for line in why_not:
            logger.info("sip.dial: %s", line, extra={"call_id": request.call_id})
        leg.begin(routes, "; ".join(why_not))

    async def _routes(self, request: DialRequest) -> tuple[list[Route], list[str]]:
        """The ways to try, best first, and a line on each trunk that is left out."""
        trunks, why_not = self._usable(request)
        found: dict[int, list[Route]] = {}
        tasks = {self._spawn(self._locate(request, trunk, found, place, why_not)): place for place, trunk in enumerate(trunks)}
        if tasks:
            # One trunk whose name DNS is slow about must not hold the call up.
            _, late = await asyncio.wait(tasks, timeout=LATE_S)
            while late and not found:
                _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
        now = self._loop.time()
        routes = [route for place in sorted(found) for route in found[place]]
        routes.sort(key=lambda route: self._watch.health(route.trunk).avoids(_target_of(route), now))
        return routes[:MAX_ROUTES], why_not

    def _usable(self, request: DialRequest) -> tuple[list[Trunk], list[str]]:
        trunks = self._in_turn(request.account)
        if not trunks:
            return [], [f"account {request.account} has no trunk: add one with switchhook apply"]
        if is_sip_uri(request.called):
            trunks = [trunk for trunk in trunks if _has_extension(trunk, request.called)]
            if not trunks:
                return [], [f"no trunk of account {request.account} has that address among its extensions"]
        now = self._loop.time()
        objections = {trunk.name: self.load.objection(trunk, now) for trunk in trunks}
        why_not = [f"trunk {name}: {objection}" for name, objection in objections.items() if objection]
        return [trunk for trunk in trunks if objections[trunk.name] is None], why_not

    def _in_turn(self, account: str) -> list[Trunk]:
        """The account's trunks in rising priority, those of one priority beginning with another one each time."""
        trunks = self._trunks.of_account(account)
        if len(trunks) < 2:
            return trunks
        turn = self._turns[account] = self._turns.get(account, -1) + 1
        ordered: list[Trunk] = []
        for priority in sorted({trunk.priority for trunk in trunks}):
            equal = [trunk for trunk in trunks if trunk.priority == priority]
            first = turn % len(equal)
            ordered += equal[first:] + equal[:first]
        return ordered

    async def _locate(
        self, request: DialRequest, trunk: Trunk, found: dict[int, list[Route]], place: int, why_not: list[str]
    ) -> None:
        try:
            targets = await self._watch.locate(trunk)
            found[place] = [self._route_to(request, trunk, target) for target in targets]
        except (TargetNotFound, GrammarError) as error:
            why_not.append(f"trunk {trunk.name}: {error}")
        except Exception:
            # One trunk that cannot be worked out must not cost the others.
            logger.exception("sip.dial: trunk %s could not be used", trunk.name, extra={"call_id": request.call_id})
            why_not.append(f"trunk {trunk.name}: it could not be used")

    def _route_to(self, request: DialRequest, trunk: Trunk, target: Target) -> Route:
        flow = Flow(target.transport, target.host, target.port, trunk=trunk.name)
        identity = identify_call(request, trunk, self._server.contact(flow)[0])
        credentials = Account(trunk.username, trunk.password, "") if trunk.username and trunk.password else None
        return Route(
            trunk=trunk,
            flow=flow,
            request_uri=str(identity.target),
            from_=identity.from_,
            to=identity.to,
            identity_headers=identity.headers(),
            proxies=self._watch.service_route(trunk),
            credentials=credentials,
            redirects=self._redirects(request, trunk, identity.target, target.transport),
        )

    def _redirects(self, request: DialRequest, trunk: Trunk, first: SipUri, transport: str) -> TrunkRedirects | None:
        if not trunk.follow_redirects:
            return None
        return TrunkRedirects(request, trunk, first, transport, lambda host: self._trunks.is_at(trunk.name, host), self._review)

    def _objection(self, flow: Flow) -> str | None:
        trunk = self._trunks.by_name(flow.trunk)
        objection = self.load.objection(trunk, self._loop.time()) if trunk else None
        return f"trunk {flow.trunk}: {objection}" if objection else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _PlacerWithinLimits:
    """The SIP server for legs: it places no call on a trunk that is full at that moment, be it the first try or a later one."""

    def __init__(self, server: CallPlacer, objection: Callable[[Flow], str | None]) -> None:
        self._server = server
        self._objection = objection
        # The server's own, so that legs on either side of a call know that one user agent has both.
        self.feed = server.feed

    def local_media(self, flow: Flow, rtp_port: int, srtp: SrtpMode) -> LocalMedia:
        """As the server."""
        return self._server.local_media(flow, rtp_port, srtp)

    def place(self, asked: OutgoingInvite, leg: SipLine) -> SessionId:
        """As the server; a full trunk is a ValueError, upon which the leg takes its next route."""
        objection = self._objection(asked.flow)
        if objection is not None:
            raise ValueError(objection)
        return self._server.place(asked, leg)


def _has_extension(trunk: Trunk, called: str) -> bool:
    """Whether a SIP URI is that of an extension at this trunk's own address, as the dialling policy writes it."""
    try:
        extension = SipUri.parse(called).user or ""
        return allows_extension(trunk.extensions, extension) and str(request_uri(extension, trunk)) == called
    except GrammarError:
        return False


def _target_of(route: Route) -> Target:
    return Target(route.flow.transport, route.flow.host, route.flow.port)
