"""Which ways a call takes, and what becomes of it when there are none; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from switchhook.domain.dialling import DialRefused, DialRequest
from switchhook.domain.model import CallId, Trunk
from switchhook.telephony.route import Route
from switchhook.telephony.sip_dialer import SipDialer
from switchhook.telephony.sip_line import SipLine
from switchhook.telephony.sip_outgoing_leg import AttemptWatcher, CallPlacer, OutgoingSipLeg
from switchhook.telephony.sip_targets import Pointer, Service, SipTargets, Target
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.uri import SipUri
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.sip_callee import ASKED
from tests.peers.sip_caller import counting_entropy
from tests.peers.virtual_loop import run_virtual

FIRST = Trunk("first", "acme", "sip:192.0.2.1", priority=10)
SECOND = Trunk("second", "acme", "sip:192.0.2.2:5070;transport=tcp", priority=20)
NAMED = Trunk("named", "acme", "sip:carrier.test:5060", priority=5)
PBX = Trunk("pbx", "acme", "sip:192.0.2.7:5080", priority=900, username="u", password="p", extensions=("1000-1999",))
REQUEST = DialRequest(CallId("c1"), "acme", "+17205550100", "+17205550111")


class Names:
    """DNS as a test wants it."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.slower: dict[str, float] = {}
        self.known: dict[str, list[str]] = {}
        self.down = False

    async def pointers(self, domain: str) -> tuple[Sequence[Pointer], float]:
        return [], 0.0

    async def services(self, name: str) -> tuple[Sequence[Service], float]:
        return [], 0.0

    async def addresses(self, host: str) -> tuple[Sequence[str], float]:
        await asyncio.sleep(self.slower.get(host, self.delay_s))
        if self.down:
            raise OSError("network is unreachable")
        return self.known.get(host, []), 60.0


class Server:
    """A SIP server whose calls go nowhere."""

    def __init__(self) -> None:
        self.placed: list[str] = []

    def place(self, asked: OutgoingInvite, leg: SipLine) -> SessionId:
        self.placed.append(asked.flow.trunk)
        return SessionId(len(self.placed))

    def feed(self, change: Callable[[UserAgent, float], None]) -> None:
        """No user agent."""

    def local_media(self, flow: Flow, rtp_port: int, srtp: SrtpMode) -> LocalMedia:
        return LocalMedia("198.51.100.1", rtp_port)

    async def request(self, request: Request, flow: Flow) -> Response:
        raise OSError("no line")

    def contact(self, flow: Flow) -> tuple[str, int]:
        return "198.51.100.1", 5060


@dataclass
class StubLeg:
    """Remembers what it was told, and places its call as a leg does."""

    server: CallPlacer
    request: DialRequest
    hook: AttemptWatcher
    routes: list[Route] | None = None
    failure: str | None = None
    begun_at: float = -1.0

    def begin(self, routes: Sequence[Route], otherwise: str) -> None:
        self.begun_at = asyncio.get_running_loop().time()
        if not routes:
            self.failure = otherwise
            return
        self.routes = list(routes)
        self.next()

    def next(self) -> None:
        """Place the call over the first route that takes it."""
        assert self.routes is not None
        for route in self.routes:
            try:
                self.server.place(replace(ASKED, flow=route.flow), cast(SipLine, self))
            except ValueError as error:
                self.failure = str(error)
                continue
            self.hook.attempt_begun(route)
            self.failure = None
            return


@dataclass
class Dialling:
    """A dialer with its surroundings."""

    trunks: Sequence[Trunk]
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.directory = TrunkDirectory(self.trunks)
        targets = SipTargets(self.names, lambda: 0.0, loop.time)
        self.server = Server()
        self.watch = TrunkWatch(self.directory, targets, self.server, counting_entropy(), lambda: 0.5, "node")
        self.dialer = SipDialer(
            self.directory,
            self.watch,
            self.server,
            lambda server, request, hook: cast(OutgoingSipLeg, StubLeg(server, request, hook)),
            lambda account, number: DialRefused("number", "nobody is redirected"),
        )

    async def dial(self, **changes: Any) -> StubLeg:
        leg = cast(StubLeg, self.dialer.dial(replace(REQUEST, **changes)))
        async with asyncio.timeout(60):
            while leg.begun_at < 0:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
        return leg


def hosts(leg: StubLeg) -> list[str]:
    assert leg.routes is not None, leg.failure
    return [route.flow.host for route in leg.routes]


def test_trunks_are_tried_in_their_order_and_an_accounts_trunks_are_its_own() -> None:
    async def program() -> None:
        dialling = Dialling([SECOND, FIRST, replace(FIRST, name="foreign", account="b", address="sip:192.0.2.99")])
        leg = await dialling.dial()
        assert leg.routes is not None
        assert [route.flow for route in leg.routes] == [
            Flow("udp", "192.0.2.1", 5060, trunk="first"),
            Flow("tcp", "192.0.2.2", 5070, trunk="second"),
        ]
        assert leg.routes[0].request_uri == "sip:+17205550100@192.0.2.1"
        assert str(leg.routes[0].from_) == "<sip:+17205550111@198.51.100.1>"
        assert leg.routes[0].credentials is None

    run_virtual(program())


@pytest.mark.parametrize(("follow", "transport", "followed"), [(False, "tls", None), (True, "tls", False), (True, "udp", True)])
def test_redirections_are_judged_by_the_way_that_was_found(follow: bool, transport: str, followed: bool | None) -> None:
    """A call over TLS stays there, though it was DNS that named TLS: the trunk names no transport."""

    async def program() -> None:
        trunk = replace(FIRST, follow_redirects=follow)
        dialling = Dialling([trunk])
        request = DialRequest(CallId("c1"), trunk.account, "+17205550100", "+17205550111")
        redirects = dialling.dialer._route_to(request, trunk, Target(transport, "192.0.2.1", 5061)).redirects
        contact = SipUri.parse("sip:+17205550100@192.0.2.1;transport=udp")
        assert (None if redirects is None else redirects.may_follow(contact)) is followed

    run_virtual(program())


def test_trunks_of_one_priority_take_turns() -> None:
    async def program() -> None:
        dialling = Dialling([FIRST, replace(SECOND, priority=10), replace(SECOND, name="last", address="sip:192.0.2.3")])
        assert [hosts(await dialling.dial()) for _ in range(3)] == [
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            ["192.0.2.2", "192.0.2.1", "192.0.2.3"],
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ]

    run_virtual(program())


def test_an_address_that_failed_is_tried_last_until_it_is_forgiven() -> None:
    async def program() -> None:
        dialling = Dialling([FIRST, SECOND])
        dialling.watch.start()
        leg = await dialling.dial()
        assert leg.routes is not None
        leg.hook.attempt_over(leg.routes[0], "refused", 503)
        assert hosts(await dialling.dial()) == ["192.0.2.2", "192.0.2.1"]
        await asyncio.sleep(31)
        assert hosts(await dialling.dial()) == ["192.0.2.1", "192.0.2.2"]
        leg.hook.attempt_over(leg.routes[0], "trunk-failed", 408)
        assert hosts(await dialling.dial()) == ["192.0.2.2", "192.0.2.1"]
        leg.hook.attempt_over(leg.routes[0], "hung-up", None)
        assert hosts(await dialling.dial()) == ["192.0.2.2", "192.0.2.1"]
        leg.hook.attempt_over(leg.routes[0], "refused", 486)
        assert hosts(await dialling.dial()) == ["192.0.2.1", "192.0.2.2"]
        await dialling.watch.stop()

    run_virtual(program())


def test_an_address_that_redirects_to_a_dead_one_is_alive() -> None:
    async def program() -> None:
        dialling = Dialling([replace(FIRST, follow_redirects=True), SECOND])
        dialling.watch.start()
        for contact, order in (("192.0.2.1:5070", ["192.0.2.1", "192.0.2.2"]), ("203.0.113.1", ["192.0.2.2", "192.0.2.1"])):
            leg = await dialling.dial()
            assert leg.routes is not None
            redirects = leg.routes[0].redirects
            assert redirects is not None
            redirects.may_follow(SipUri.parse(f"sip:+17205550100@{contact}"))
            dialling.dialer.attempt_over(leg.routes[0], "trunk-failed", 408)
            assert hosts(await dialling.dial()) == order

    run_virtual(program())


def test_a_trunk_that_says_when_it_will_have_room_is_tried_last_until_then() -> None:
    async def program() -> None:
        dialling = Dialling([FIRST, SECOND])
        dialling.watch.start()
        leg = await dialling.dial()
        assert leg.routes is not None
        dialling.dialer.attempt_over(leg.routes[0], "refused", 503, 120)
        await asyncio.sleep(110)
        assert hosts(await dialling.dial()) == ["192.0.2.2", "192.0.2.1"]
        await asyncio.sleep(11)
        assert hosts(await dialling.dial()) == ["192.0.2.1", "192.0.2.2"]
        await dialling.watch.stop()

    run_virtual(program())


def test_a_full_trunk_is_passed_over_until_a_call_on_it_is_over() -> None:
    async def program() -> None:
        dialling = Dialling([replace(FIRST, max_calls=1), SECOND])
        first = await dialling.dial()
        assert hosts(first) == ["192.0.2.1", "192.0.2.2"]
        assert hosts(await dialling.dial()) == ["192.0.2.2"]
        assert first.routes is not None
        first.hook.attempt_over(first.routes[0], "callee-hung-up", 200)
        assert hosts(await dialling.dial()) == ["192.0.2.1", "192.0.2.2"]

    run_virtual(program())


def test_calls_that_wait_for_dns_together_share_the_room_there_is() -> None:
    async def program() -> None:
        names = Names()
        names.known["carrier.test"] = ["192.0.2.11"]
        names.delay_s = 0.5
        dialling = Dialling([replace(NAMED, max_calls=2)], names)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(dialling.dial()) for _ in range(5)]
        legs = [task.result() for task in tasks]
        assert dialling.server.placed == ["named", "named"]
        assert [leg.failure for leg in legs].count("trunk named: it carries its 2 calls (max_calls)") == 3

    run_virtual(program())


def test_a_call_that_fails_over_does_not_crowd_the_next_trunk() -> None:
    async def program() -> None:
        dialling = Dialling([FIRST, replace(SECOND, max_calls=1)])
        legs = [await dialling.dial() for _ in range(3)]
        for leg in legs:
            assert leg.routes is not None
            leg.hook.attempt_over(leg.routes.pop(0), "trunk-failed", 408)
            leg.next()
        assert dialling.server.placed == ["first", "first", "first", "second"]
        assert [leg.failure for leg in legs] == [None, *["trunk second: it carries its 1 calls (max_calls)"] * 2]

    run_virtual(program())


@pytest.mark.parametrize(
    ("trunks", "called", "detail"),
    [
        ([], "+17205550100", "account acme has no trunk: add one with switchhook apply"),
        ([NAMED], "+17205550100", "trunk named: carrier.test: there is no such name in DNS"),
        ([replace(FIRST, max_calls=0)], "+17205550100", "trunk first: it carries its 0 calls (max_calls)"),
        ([PBX], "sip:1001@elsewhere.test", "no trunk of account acme has that address among its extensions"),
        ([PBX], "sip:1001@192.0.2.7:5090", "no trunk of account acme has that address among its extensions"),
        ([PBX], "sip:2001@192.0.2.7:5080", "no trunk of account acme has that address among its extensions"),
        (
            [replace(PBX, extensions=())],
            "sip:1001@192.0.2.7:5080",
            "no trunk of account acme has that address among its extensions",
        ),
        ([PBX], "sip:1001@", "no trunk of account acme has that address among its extensions"),
        ([FIRST], "", "trunk first: the called number is empty or holds what no number holds"),
    ],
)
def test_a_call_that_no_trunk_can_carry_says_why(trunks: list[Trunk], called: str, detail: str) -> None:
    async def program() -> None:
        leg = await Dialling(trunks).dial(called=called)
        assert leg.failure == detail

    run_virtual(program())


def test_an_extension_goes_to_its_trunk_alone() -> None:
    async def program() -> None:
        twin = replace(PBX, name="twin", priority=1, extensions=())
        leg = await Dialling([FIRST, twin, PBX]).dial(called="sip:1001@192.0.2.7:5080")
        assert leg.routes is not None
        [route] = leg.routes
        assert (route.trunk.name, route.flow.port, route.request_uri) == ("pbx", 5080, "sip:1001@192.0.2.7:5080")
        assert route.credentials is not None
        assert (route.credentials.username, route.credentials.password) == ("u", "p")

    run_virtual(program())


def test_every_address_of_a_name_is_a_route() -> None:
    async def program() -> None:
        names = Names()
        names.known["carrier.test"] = ["192.0.2.11", "192.0.2.12"]
        dialling = Dialling([NAMED, FIRST], names)
        assert hosts(await dialling.dial()) == ["192.0.2.11", "192.0.2.12", "192.0.2.1"]
        assert dialling.directory.is_peer("192.0.2.11")
        assert not dialling.directory.is_peer("192.0.2.99")

    run_virtual(program())


def test_a_name_that_dns_is_slow_about_does_not_hold_up_a_call_that_has_another_way() -> None:
    async def program() -> None:
        names = Names()
        names.known["carrier.test"] = ["192.0.2.11"]
        names.delay_s = 3.0
        leg = await Dialling([NAMED, FIRST], names).dial()
        assert hosts(leg) == ["192.0.2.1"]
        assert leg.begun_at == pytest.approx(1.0, abs=0.1)
        alone = await Dialling([NAMED], names).dial()
        assert hosts(alone) == ["192.0.2.11"]

    run_virtual(program())


def test_of_names_that_dns_is_slow_about_the_first_that_is_found_takes_the_call() -> None:
    async def program() -> None:
        names = Names()
        names.known = {"carrier.test": ["192.0.2.11"], "other.test": ["192.0.2.12"]}
        names.slower = {"carrier.test": 8.0, "other.test": 2.0}
        leg = await Dialling([NAMED, Trunk("other", "acme", "sip:other.test", priority=9)], names).dial()
        assert hosts(leg) == ["192.0.2.12"]
        assert leg.begun_at == pytest.approx(2.0, abs=0.1)

    run_virtual(program())


def test_a_dialer_that_closes_while_dns_is_asked_leaves_no_task_behind() -> None:
    async def program() -> None:
        names = Names()
        names.delay_s = 3.0
        dialling = Dialling([NAMED], names)
        leg = cast(StubLeg, dialling.dialer.dial(REQUEST))
        await asyncio.sleep(0.1)
        await dialling.dialer.close()
        await dialling.watch.close()
        assert leg.failure == "the server is stopping"
        assert len(asyncio.all_tasks()) == 1

    run_virtual(program())
