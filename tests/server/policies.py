"""Accounts that each have one rule, or one kind of trunk, of their own, behind one running server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from switchhook_demo.sip_text import Message, parameter
from tests.peers.party import PartyCall
from tests.peers.ports import free_port
from tests.peers.server import Server, config
from tests.peers.vns_backend import VnsBackend
from tests.server.exchange import Exchange, hears, token
from tests.server.listening import AGENT_HZ, agent_tone
from tests.server.model import LiveSession


@dataclass(frozen=True)
class Tenant:
    """An account with numbers of its own, whose callers come from an address of its own."""

    name: str
    number: str
    host: str
    rules: dict[str, Any] = field(default_factory=dict)
    trunks: Sequence[dict[str, Any]] = ({},)
    """Keys of each; `second: True` leads to the exchange's second port, the others to its first."""
    other_number: str | None = None


LISTS = Tenant(
    "lists",
    "+17206999921",
    "127.0.1.1",
    {
        "countries": ["US", "GB"],
        "allow_prefixes": ["+1720555", "+17206660", "+1900", "+1911", "+44"],
        "deny_prefixes": ["+17205557"],
        "do_not_call": ["+1 (720) 555-0666"],
    },
)
"""Lists of whom it may call."""
ONE_CALL = Tenant("one-call", "+17206999922", "127.0.1.2", {"concurrent": 1})
SHORT_CALLS = Tenant("short-calls", "+17206999923", "127.0.1.3", {"max_seconds": 6})
SAVING = Tenant("saving", "+17206999924", "127.0.1.4", {"max_spend_per_day": 0.04, "price_per_minute": 0.05, "max_seconds": 30})
"""A call reserves 2.5 cents of its 4."""
MORNINGS = Tenant(
    "mornings", "+17206999925", "127.0.1.5", {"calling_hours": ["00:00", "12:00"], "countries": ["US", "GB", "NZ", "JP"]}
)
"""Calls people before their noon."""
SLOW = Tenant("slow", "+17206999926", "127.0.1.6", {"calls_per_second": 0.005})
"""One call, and the next after 200 s."""
SLOW_TRANSFERS = Tenant("slow-transfers", "+17206999927", "127.0.1.18", {"calls_per_second": 0.005})
BRITISH = Tenant("british", "+442079460999", "127.0.1.7", {"default_country": "GB", "countries": ["GB"]})
TRUNKLESS = Tenant("trunkless", "+17206999928", "127.0.1.8", trunks=())
FULL = Tenant("full", "+17206999929", "127.0.1.9", trunks=({"priority": 1, "max_calls": 1}, {"second": True, "max_calls": 1}))
"""Two calls in all."""
RATED_TRUNK = Tenant(
    "rated-trunk", "+17206999930", "127.0.1.10", trunks=({"priority": 1, "calls_per_second": 0.005}, {"second": True})
)
FAILING = Tenant("failing", "+17206999931", "127.0.1.11", trunks=({"priority": 1}, {"second": True}))
PROBED = Tenant("probed", "+17206999932", "127.0.1.12", trunks=({"priority": 1, "probe_s": 1}, {"second": True}))
CLOSED_PORT = Tenant("closed-port", "+17206999933", "127.0.1.13", trunks=({"priority": 1}, {"second": True}))
STRICT_TRUNK = Tenant(
    "strict-trunk",
    "+17206999934",
    "127.0.1.14",
    trunks=({"caller_ids": ["+17206999934", "+17206999935"], "default_caller_id": "+17206999935"},),
    other_number="+17206999936",
)
"""Its trunk shows the number, or else +17206999935; not the other number."""
PLAIN_TRUNK = Tenant("plain-trunk", "+17206999937", "127.0.1.15", trunks=({"number_form": "plain"},))
NATIONAL_TRUNK = Tenant(
    "national-trunk", "+17206999938", "127.0.1.16", {"countries": ["US", "GB"]}, ({"number_form": "national"},)
)
OVERLOADED = Tenant("overloaded", "+17206999939", "127.0.1.17", trunks=({"priority": 1}, {"second": True}))

TENANTS = (
    *(
        LISTS,
        ONE_CALL,
        SHORT_CALLS,
        SAVING,
        MORNINGS,
        SLOW,
        SLOW_TRANSFERS,
        BRITISH,
        TRUNKLESS,
        FULL,
        RATED_TRUNK,
        FAILING,
        PROBED,
    ),
    *(CLOSED_PORT, STRICT_TRUNK, PLAIN_TRUNK, NATIONAL_TRUNK, OVERLOADED),
)


async def explained(exchange: Exchange, tenant: Tenant, number: str) -> tuple[int, str]:
    """What `switchhook policy explain` says: exit code, and the line of the decision."""
    code, told = await exchange.server.run("policy", "explain", number, "--account", tenant.name)
    account, decision, *_ = told.splitlines()
    assert account == f"account {tenant.name}"
    return code, decision


def callees_by_noon(now: datetime) -> tuple[tuple[str, str], tuple[str, str]]:
    """Somebody before noon and somebody after, neither close to the border: number and time zone."""
    zones = {
        "+17205550199": "America/Denver",
        "+442079460123": "Europe/London",
        "+6493070000": "Pacific/Auckland",
        "+81332345678": "Asia/Tokyo",
    }
    halves: dict[bool, tuple[str, str]] = {}
    for number, zone in zones.items():
        local = now.astimezone(ZoneInfo(zone))
        minute = local.hour * 60 + local.minute
        if 5 < minute % 720 < 715:
            halves[minute < 720] = (number, zone)
    return halves[True], halves[False]


async def agent_is_clear(call: PartyCall, session: LiveSession, text: str = "Hello!") -> None:
    """The agent speaks for long enough that a busy machine does not matter, and the party hears its tone."""
    session.speaks(agent_tone(3000), text)
    await hears(call, AGENT_HZ)


def invite_of(call: PartyCall) -> Message:
    """The INVITE that the party got."""
    assert call.invite_got is not None
    return call.invite_got


def user_of(uri: str) -> str:
    """The user part of a SIP URI."""
    return uri.partition(":")[2].partition("@")[0]


def tagless(header: str) -> str:
    """A From header without its tag."""
    return header.removesuffix(f";tag={parameter(header, 'tag')}")


def policies_config(backend: VnsBackend, port: int, second_port: int) -> dict[str, Any]:
    """The apply file of all tenants."""
    content = config(backend.url)
    [number] = content["numbers"]
    content["accounts"] = [
        {
            "name": tenant.name,
            "tokens": [{"name": "main", "value": token(tenant.name)}],
            "dialling": {"calls_per_second": 100, **tenant.rules},
        }
        for tenant in TENANTS
    ]
    content["numbers"] = [
        {**deepcopy(number), "number": own, "account": tenant.name}
        for tenant in TENANTS
        for own in (tenant.number, tenant.other_number)
        if own is not None
    ]
    content["trunks"] = [
        _trunk(tenant, place, second_port if "second" in keys else port, keys)
        for tenant in TENANTS
        for place, keys in enumerate(tenant.trunks)
    ]
    return content


def _trunk(tenant: Tenant, place: int, port: int, keys: dict[str, Any]) -> dict[str, Any]:
    wanted = {name: value for name, value in keys.items() if name != "second"}
    name = f"{tenant.name}-{place + 1}"
    return {
        "name": name,
        "account": tenant.name,
        "address": f"sip:127.0.0.1:{port}",
        "allow_from": [f"{tenant.host}/32"],
    } | wanted


@asynccontextmanager
async def open_policies(folder: Path, **settings: str) -> AsyncIterator[Exchange]:
    """A server with all tenants."""
    port, second_port = free_port(), free_port()
    accounts = {own: tenant.name for tenant in TENANTS for own in (tenant.number, tenant.other_number) if own}
    async with VnsBackend({}) as backend, Server(folder, policies_config(backend, port, second_port), **settings) as server:
        yield Exchange(server, backend, port=port, second_port=second_port, accounts=accounts)
