"""Keeps each trunk's registration and health: sends what their machines ask for, and knows where the peers are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

from switchhook.domain.model import Srtp, TransferMode, Trunk
from switchhook.driver import Driver
from switchhook.telephony.sip_targets import SipTargets, Target, TargetNotFound
from switchhook.telephony.trunk_health import HealthChanged, HealthEffect, Probe, TrunkHealth
from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.options_request import options_request
from switchhook.telephony.wire.sip.registration import (
    KEEPALIVE_S,
    Binding,
    KeepAlive,
    Register,
    Registration,
    RegistrationChanged,
    RegistrationEffect,
)
from switchhook.telephony.wire.sip.uri import SipUri

logger = logging.getLogger(__name__)

PROBE_PATIENCE_S = 5.0
REGISTER_PATIENCE_S = 10.0
"""How long one address of a registrar is waited for before the next is tried."""
UNREGISTER_S = 3.0
"""How long `stop` waits for the registrars."""
MAX_ADDRESSES = 4
"""Addresses of a peer that one probe or registration tries."""


class RequestLine(Protocol):
    """Sends requests outside of calls; `SipServer` is one."""

    def request(self, request: Request, flow: Flow) -> Awaitable[Response]:
        """The final response. Raises OSError (TimeoutError among them) when there will be none. Giving up waiting is allowed."""

    def contact(self, flow: Flow) -> tuple[str, int]:
        """Our address and port as the far end of this flow sees us."""


class TrunkWatch:
    """Watches the trunks of a directory between `start` and `stop`; follows its changes.

    `uniform` gives numbers in [0, 1) that keep many trunks from acting at once; `node` is this server's lasting name.
    """

    def __init__(
        self,
        trunks: TrunkDirectory,
        targets: SipTargets,
        line: RequestLine,
        entropy: Callable[[int], bytes],
        uniform: Callable[[], float],
        node: str,
    ) -> None:
        self._node = node
        self._trunks = trunks
        self._targets = targets
        self._line = line
        self._entropy = entropy
        self._uniform = uniform
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._ending: set[_Watched] = set()
        self._running = False
        # Machines ask for requests inside synchronous steps; their tasks are owned here until `stop`.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Register and probe."""
        self._running = True
        self._trunks.on_replaced = self._follow
        self._follow()

    async def stop(self) -> None:
        """Take every registration back, for a bounded time; idempotent. Calls can still be placed."""
        self._running = False
        for watched in self._watched.values():
            self._end(watched)
        self._watched.clear()
        if self._ending:
            await asyncio.wait([self._spawn(watched.ended()) for watched in self._ending], timeout=UNREGISTER_S)
        for watched in self._ending:
            watched.close()
            logger.info("sip.trunk: %s has not answered the end of the registration", watched.trunk.name)
        self._ending.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop, and give up the lookups of calls too; idempotent."""
        await self.stop()
        await self._targets.close()

    async def locate(self, trunk: Trunk) -> list[Target]:
        """Where a trunk is; the gate reads what comes from there. Raises TargetNotFound."""
        found = await self._targets.locate(SipUri.parse(trunk.address), trunk.transport)
        self._trunks.locate(trunk.name, (target.host for target in found))
        return found

    def health(self, trunk: Trunk) -> TrunkHealth:
        """A trunk's health; of one that is not watched, a blank one."""
        watched = self._watched.get(trunk.name)
        return watched.health if watched else TrunkHealth(None, self._uniform)

    def service_route(self, trunk: Trunk) -> tuple[str, ...]:
        """Proxies that the trunk's registrar wants our calls to pass (RFC 3608)."""
        watched = self._watched.get(trunk.name)
        return watched.registration.service_route if watched and watched.registration else ()

    def figures(self) -> Iterator[tuple[str, str, bool]]:
        """(`registered` or `healthy`, name of the trunk, whether it is) for metrics."""
        for name, watched in self._watched.items():
            if watched.registration is not None:
                yield "registered", name, watched.registration.registered
            yield "healthy", name, watched.health.up

    # -- following the directory

    def _follow(self) -> None:
        if not self._running:
            return
        wanted = {trunk.name: trunk for trunk in self._trunks.all}
        left: dict[str, _Watched] = {}
        for name, watched in list(self._watched.items()):
            trunk = wanted.get(name)
            if trunk is not None and _as_watched(trunk) == _as_watched(watched.trunk):
                watched.trunk = trunk
            else:
                left[name] = self._watched.pop(name)
                self._end(left[name])
        for name, trunk in wanted.items():
            if name not in self._watched:
                self._watched[name] = watched = _Watched(trunk, self)
                self._begin(watched, left.get(name))

    def _begin(self, watched: _Watched, before: _Watched | None) -> None:
        if before in self._ending and before is not None:
            self._spawn(self._begin_after(watched, before))
        else:
            watched.start()

    async def _begin_after(self, watched: _Watched, before: _Watched) -> None:
        """The end of the old registration must not overtake the beginning of the new one: it would take that binding back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNREGISTER_S):
                await before.ended()
        if self._watched.get(watched.trunk.name) is watched:
            watched.start()

    def _end(self, watched: _Watched) -> None:
        if watched.stop():
            self._ending.add(watched)
            self._spawn(self._forget(watched))
        else:
            watched.close()

    async def _forget(self, watched: _Watched) -> None:
        await watched.ended()
        self._ending.discard(watched)
        watched.close()

    # -- for the watched

    def new_registration(self, trunk: Trunk) -> Registration | None:
        """The machine of a trunk that registers."""
        if not trunk.register or not trunk.username or not trunk.password:
            return None
        uri = SipUri.parse(trunk.address)
        registrar = SipUri(uri.host, port=uri.port, scheme=uri.scheme)
        instance = uuid5(NAMESPACE_URL, f"{self._node}/{trunk.name}")
        binding = Binding(registrar, trunk.username, trunk.password, f"urn:uuid:{instance}")
        probed = trunk.probe_s is not None and trunk.probe_s <= KEEPALIVE_S
        return Registration(binding, self._entropy, self._uniform, keepalive=not probed)

    def new_health(self, trunk: Trunk) -> TrunkHealth:
        """The machine of a trunk's health."""
        return TrunkHealth(trunk.probe_s, self._uniform)

    async def register(self, trunk: Trunk, registration: Registration) -> tuple[Response, Flow]:
        """Send a due REGISTER to the first address that answers; the answer, and from where. Raises OSError or TargetNotFound."""
        failed: Exception = TargetNotFound(trunk.address)
        for target in (await self.locate(trunk))[:MAX_ADDRESSES]:
            flow = Flow(target.transport, target.host, target.port, trunk=trunk.name)
            request = registration.request(self._contact(trunk, flow))
            try:
                async with asyncio.timeout(REGISTER_PATIENCE_S):
                    return await self._line.request(request, flow), flow
            except OSError as error:
                failed = error
        raise failed

    async def keep_open(self, trunk: Trunk, flow: Flow) -> None:
        """Show that a flow is in use, by OPTIONS: whatever comes back, or nothing, the way through has been used. Never raises.

        The double CRLF of RFC 5626 §3.5.1 is for streams, which the transport pings itself; STUN (§3.5.2) few registrars speak.
        """
        options = options_request(SipUri.parse(trunk.address), self._contact(trunk, flow), self._entropy)
        try:
            await self._line.request(options, flow)
        except OSError as error:
            logger.debug("sip.trunk: %s does not answer OPTIONS on the registration's flow: %s", trunk.name, error)
        except Exception:
            # The edge of the task.
            logger.exception("sip.trunk: the flow of %s could not be kept open", trunk.name)

    async def probe(self, trunk: Trunk) -> int:
        """Ask a trunk's addresses in turn by OPTIONS until one answers; returns the status. Raises OSError or TargetNotFound."""
        failed: Exception = TargetNotFound(trunk.address)
        for target in (await self.locate(trunk))[:MAX_ADDRESSES]:
            flow = Flow(target.transport, target.host, target.port, trunk=trunk.name)
            options = options_request(SipUri.parse(trunk.address), self._contact(trunk, flow), self._entropy)
            try:
                async with asyncio.timeout(PROBE_PATIENCE_S):
                    return (await self._line.request(options, flow)).status
            except OSError as error:
                failed = error
        raise failed

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that ends with `stop` at the latest."""
        self._spawn(work)

    def _contact(self, trunk: Trunk, flow: Flow) -> SipUri:
        host, port = self._line.contact(flow)
        params = {} if flow.transport == "udp" else {"transport": flow.transport}
        return SipUri(host, trunk.username or "switchhook", port, params)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Watched:
    """One trunk with its machines."""

    def __init__(self, trunk: Trunk, watch: TrunkWatch) -> None:
        self.trunk = trunk
        self.health = watch.new_health(trunk)
        self.registration = watch.new_registration(trunk)
        self._watch = watch
        self._over = asyncio.Event()
        self._flow: Flow | None = None
        """Of the registration."""
        self._keeping = False
        self._health_driver = Driver(self.health, self._on_health, self._on_fault)
        self._registration_driver: Driver | None = None
        if self.registration is not None:
            self._registration_driver = Driver(self.registration, self._on_registration, self._on_fault)

    def start(self) -> None:
        """Set both going."""
        self._health_driver.feed(self.health.start)
        if self.registration is not None and self._registration_driver is not None:
            self._registration_driver.feed(self.registration.start)

    def stop(self) -> bool:
        """End both; whether the end of a registration must be waited for."""
        self._health_driver.close()
        if self.registration is None or self._registration_driver is None:
            return False
        self._registration_driver.feed(self.registration.stop)
        return not self.registration.over

    async def ended(self) -> None:
        """Wait for the end of the registration."""
        await self._over.wait()

    def close(self) -> None:
        """Nothing more is done."""
        self._health_driver.close()
        if self._registration_driver is not None:
            self._registration_driver.close()

    def _on_health(self, effect: HealthEffect) -> None:
        if isinstance(effect, Probe):
            self._watch.run(self._probe())
        else:
            self._log_health(effect)

    def _log_health(self, change: HealthChanged) -> None:
        level = logging.INFO if change.healthy else logging.WARNING
        logger.log(level, "sip.trunk: %s is %s: %s", self.trunk.name, "up" if change.healthy else "down", change.detail)

    async def _probe(self) -> None:
        status, detail = None, ""
        try:
            status = await self._watch.probe(self.trunk)
        except (OSError, TargetNotFound) as error:
            detail = _said(error)
        except Exception:
            # The edge of the task: a machine that waits must be told.
            logger.exception("sip.trunk: probing %s went wrong", self.trunk.name)
        self._health_driver.feed(lambda now: self.health.probed(status, detail, now))

    def _on_registration(self, effect: RegistrationEffect) -> None:
        if isinstance(effect, Register):
            self._watch.run(self._register())
        elif isinstance(effect, KeepAlive):
            self._keep_open()
        elif isinstance(effect, RegistrationChanged):
            if effect.registered:
                logger.info("sip.trunk: %s is registered", self.trunk.name)
            else:
                logger.warning("sip.trunk: %s is not registered: %s; it is tried again", self.trunk.name, effect.detail)
        else:
            self._over.set()

    async def _register(self) -> None:
        registration, driver = self.registration, self._registration_driver
        if registration is None or driver is None:
            return
        try:
            response, self._flow = await self._watch.register(self.trunk, registration)
        except (OSError, TargetNotFound) as error:
            said = _said(error)
            driver.feed(lambda now: registration.unanswered(said, now))
            return
        except Exception:
            # The edge of the task, as above.
            logger.exception("sip.trunk: registering %s went wrong", self.trunk.name)
            driver.feed(lambda now: registration.unanswered("it could not be sent", now))
            return
        driver.feed(lambda now: registration.answered(response, now))

    def _keep_open(self) -> None:
        # OPTIONS that nobody answers is repeated for half a minute: that keeps the flow open as well as the next one would.
        if self._flow is not None and self._flow.transport == "udp" and not self._keeping:
            self._keeping = True
            self._watch.run(self._use_flow(self._flow))

    async def _use_flow(self, flow: Flow) -> None:
        try:
            await self._watch.keep_open(self.trunk, flow)
        finally:
            self._keeping = False

    def _on_fault(self, fault: Exception) -> None:
        logger.error("sip.trunk: watching %s went wrong", self.trunk.name, exc_info=fault)


def _as_watched(trunk: Trunk) -> Trunk:
    """The trunk without what makes no difference to its registration and probes."""
    return replace(
        trunk,
        allow_from=(),
        srtp=Srtp.OFF,
        transfer=TransferMode.BRIDGE,
        priority=0,
        max_calls=None,
        calls_per_second=None,
        number_form="",
        caller_ids=(),
        default_caller_id=None,
        extensions=(),
        follow_redirects=False,
    )


def _said(error: Exception) -> str:
    return str(error) or "no answer in time"
