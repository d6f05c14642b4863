"""Places calls over an account's trunks: which of them, in what order, at which addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from switchhook.domain.dialling import DialRequest
from switchhook.domain.model import Trunk
from switchhook.domain.ports import Leg
from switchhook.telephony.caller_identity import identify_call
from switchhook.telephony.route import Route
from switchhook.telephony.sip_targets import Target, TargetNotFound
from switchhook.telephony.trunk_load import TrunkLoad
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.uri import SipUri

logger = logging.getLogger(__name__)

LATE_S = 1.0
"""How long a call waits for the addresses of further trunks once it has those of one."""
MAX_ROUTES = 12
_NO_TRUNK = "trunk-failed"


class RouteHook(Protocol):
    """Whom a leg tells how its routes do. For each route: `trying`, and when that said yes, `answered` and `released` once each."""

    def trying(self, route: Route) -> bool:
        """An INVITE is about to go there. False: not now, take the next route."""

    def answered(self, route: Route, status: int | None, retry_after_s: float | None) -> None:
        """What the INVITE came to: the final status, or None when nothing came or the address could not be reached."""

    def released(self, route: Route) -> None:
        """The attempt has failed, or the call that it became is over."""


class DialledLeg(Leg, Protocol):
    """A leg that waits for its routes."""

    def begin(self, routes: Sequence[Route]) -> None:
        """Try these in order. A leg that was hung up meanwhile does nothing."""

    def fail(self, reason: str, detail: str) -> None:
        """There is nothing to try: end with this."""


LegMaker = Callable[[DialRequest, RouteHook], DialledLeg]


class SipDialer:
    """Implements `domain.ports.Dialer` for SIP, and the `RouteHook` of its legs."""

    def __init__(self, trunks: TrunkDirectory, watch: TrunkWatch, new_leg: LegMaker, our_host: Callable[[Flow], str]) -> None:
        self._trunks = trunks
        self._watch = watch
        self._new_leg = new_leg
        self._our_host = our_host
        self._loop = asyncio.get_running_loop()
        self.load = TrunkLoad()
        self._turns: dict[str, int] = {}
        # `dial` returns at once; the lookups it begins are owned here until `close`.
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, request: DialRequest) -> Leg:
        """Begin at once; the leg ends as `trunk-failed` when no trunk can carry the call."""
        leg = self._new_leg(request, self)
        self._spawn(self._route(request, leg))
        return leg

    async def close(self) -> None:
        """Give up the lookups under way; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the hook

    def trying(self, route: Route) -> bool:
        """Count the call against its trunk."""
        return self.load.take(route.trunk, self._loop.time())

    def answered(self, route: Route, status: int | None, retry_after_s: float | None) -> None:
        """Learn from it for the next call."""
        health, now = self._watch.health(route.trunk), self._loop.time()
        health.tried(_target_of(route), status, retry_after_s, now)

    def released(self, route: Route) -> None:
        """The trunk has room again."""
        self.load.give_back(route.trunk)

    # -- inside

    async def _route(self, request: DialRequest, leg: DialledLeg) -> None:
        try:
            routes, why_not = await self._routes(request)
        except Exception:
            # The edge of the task: the leg owes its end to somebody.
            logger.exception("sip.dial: no route could be worked out", extra={"call_id": request.call_id})
            leg.fail(_NO_TRUNK, "no route could be worked out")
            return
        for line in why_not:
            logger.info("sip.dial: %s", line, extra={"call_id": request.call_id})
        if routes:
            leg.begin(routes)
        else:
            leg.fail(_NO_TRUNK, "; ".join(why_not))

    async def _routes(self, request: DialRequest) -> tuple[list[Route], list[str]]:
        """The ways to try, best first, and a line on each trunk that is left out."""
        trunks, why_not = self._usable(request)
        found: dict[int, list[Route]] = {}
        tasks = {self._spawn(self._locate(request, trunk, found, place, why_not)): place for place, trunk in enumerate(trunks)}
        if tasks:
            # One trunk whose name DNS is slow about must not hold the call up.
            _, late = await asyncio.wait(tasks, timeout=LATE_S)
            if late and not found:
                await asyncio.wait(late)
        now = self._loop.time()
        routes = [route for place in sorted(found) for route in found[place]]
        routes.sort(key=lambda route: self._watch.health(route.trunk).avoids(_target_of(route), now))
        return routes[:MAX_ROUTES], why_not

    def _usable(self, request: DialRequest) -> tuple[list[Trunk], list[str]]:
        trunks = self._in_turn(request.account)
        if not trunks:
            return [], [f"account {request.account} has no trunk: add one with switchhook apply"]
        host = _host_of(request.called)
        if host is not None:
            trunks = [trunk for trunk in trunks if SipUri.parse(trunk.address).host.lower() == host]
            if not trunks:
                return [], [f"no trunk of account {request.account} leads to {host or 'that address'}"]
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
        uri = SipUri.parse(request.called) if _host_of(request.called) is not None else None
        try:
            targets = await self._watch.locate(trunk, uri)
            found[place] = [self._route_to(request, trunk, target) for target in targets]
        except (TargetNotFound, GrammarError) as error:
            why_not.append(f"trunk {trunk.name}: {error}")

    def _route_to(self, request: DialRequest, trunk: Trunk, target: Target) -> Route:
        flow = Flow(target.transport, target.host, target.port, trunk=trunk.name)
        identity = identify_call(request, trunk, self._our_host(flow))
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
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _host_of(called: str) -> str | None:
    """The host of a called SIP URI; None for a number, empty for a URI that cannot be read."""
    if not called.lower().startswith(("sip:", "sips:")):
        return None
    try:
        return SipUri.parse(called).host.lower()
    except GrammarError:
        return ""


def _target_of(route: Route) -> Target:
    flow = route.flow
    return Target(flow.transport, flow.host, flow.port, SipUri.parse(route.trunk.address).host)
