"""`switchhook check`: what is in order on this machine and what is not, told before a caller finds out."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from switchhook.bootstrap import SystemClock, contracts, places_of, sip_targets
from switchhook.cli.commands import Opened
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import CallAttempt, CallId, Direction, Number, Trunk
from switchhook.egress import Egress
from switchhook.settings import Settings
from switchhook.telephony.trunk_check import certificate_problem, exposed_keys, trunk_state

REACH_S = 5.0
"""How long a webhook's host is waited for."""


async def check(settings: Settings) -> tuple[list[str], bool]:
    """`switchhook check`: what is in order and what is not."""
    lines: list[str] = []
    good = True
    wanted = [("HTTP", settings.http_host, settings.http_port, socket.SOCK_STREAM)]
    wanted.append(("media", settings.http_host, settings.media_listener_port, socket.SOCK_STREAM))
    if "udp" in settings.sip_transports:
        wanted.append(("SIP udp", settings.sip_host, settings.sip_port, socket.SOCK_DGRAM))
    if "tcp" in settings.sip_transports:
        wanted.append(("SIP tcp", settings.sip_host, settings.sip_port, socket.SOCK_STREAM))
    if "tls" in settings.sip_transports:
        wanted.append(("SIP tls", settings.sip_host, settings.sip_tls_port, socket.SOCK_STREAM))
    for name, host, port, kind in wanted:
        problem = _port_problem(host, port, kind)
        good = good and problem is None
        lines.append(f"{name} {host}:{port}: {problem or 'free'}")
    lines.append(f"as seen from outside: HTTP {settings.public_url or '-'}, media {settings.public_media_url or '-'}")
    lines.append(f"Twilio: {_twilio_line(settings)}")
    first, last = settings.rtp_ports
    lines.append(f"RTP {first}-{last}: {(last - first + 1) // 2} calls by ports, {settings.max_calls} by SWITCHHOOK_MAX_CALLS")
    async with Opened(settings) as opened:
        directory = await opened.store.directory.read()
    for number in directory.numbers.values():
        problem = await _webhook_problem(settings, number)
        good = good and problem is None
        lines.append(f"number {number.number}: {problem or 'its webhooks can be reached'}")
    told, reached = await _trunk_lines(settings, directory.trunks.values())
    lines, good = lines + told, good and reached
    lines.append(
        f"database: in order, {len(directory.tokens)} accounts, {len(directory.trunks)} trunks, {len(directory.numbers)} numbers"
    )
    lines += [f"{name}: {'present' if found else cure}" for name, found, cure in _optional_parts()]
    return lines, good


async def _trunk_lines(settings: Settings, trunks: Iterable[Trunk]) -> tuple[list[str], bool]:
    """Our TLS certificate, whether each trunk answers, and what is unwise about it."""
    lines, good = [], True
    if "tls" in settings.sip_transports:
        problem = certificate_problem(str(settings.tls_certificate), str(settings.tls_key))
        lines.append(f"TLS certificate: {problem or 'can be used'}")
        good = problem is None
    targets, listed = sip_targets(settings), list(trunks)
    states = await asyncio.gather(*(trunk_state(trunk, targets, os.urandom) for trunk in listed))
    lines += [f"trunk {trunk.name}: {said}" for trunk, (said, _) in zip(listed, states, strict=True)]
    lines += [f"warning: trunk {trunk.name}: {unwise}" for trunk in listed if (unwise := exposed_keys(trunk))]
    return lines, good and all(holds for _, holds in states)


def _port_problem(host: str, port: int, kind: socket.SocketKind) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As the server's own sockets: connections of a server that has just ended do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"cannot be bound ({error.strerror}); is a server running?"
    return None


async def _webhook_problem(settings: Settings, number: Number) -> str | None:
    """Whether the hosts of a number's webhooks resolve, are allowed and take connections."""
    contract = contracts().get(number.contract)
    if contract is None:
        return f"its contract {number.contract} is unknown"
    clock = SystemClock()
    attempt = CallAttempt(CallId("check"), Direction.INBOUND, number.number, "", None, number.account, "check", clock.utc())
    webhooks = {"start": contract.start_request(number, attempt).url, "end": contract.end_request(number, b"").url}
    async with Egress(settings.egress_allow, clock) as egress:
        for name, url in webhooks.items():
            try:
                async with asyncio.timeout(REACH_S):
                    target = await egress.pin(url)
                    _, writer = await asyncio.open_connection(target.addresses[0], target.port)
                    writer.close()
            except (SwitchhookError, OSError, TimeoutError) as error:
                # The host alone: a path or query may hold a secret.
                return f"its {name} webhook at {urlsplit(url).hostname} cannot be reached: {str(error) or type(error).__name__}"
    return None


def _twilio_line(settings: Settings) -> str:
    """What to enter at Twilio for a number of ours, or what keeps Twilio's calls out."""
    places = places_of(settings)
    if places is None:
        return "calls over it need SWITCHHOOK_PUBLIC_URL (https://…) and SWITCHHOOK_PUBLIC_MEDIA_URL (wss://…)"
    if not places.media.startswith("wss://") or not places.http.startswith("https://"):
        return f"opens media streams to wss:// alone, and should ask https:// alone: {places.http} and {places.media} will not do"
    return f"voice webhook {places.http}/twilio/voice, status callback {places.http}/twilio/status, streams {places.stream}"


def _optional_parts() -> Iterator[tuple[str, bool, str]]:
    import importlib.util
    import shutil

    def has(module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    yield (
        "embedded engine (pocketsphinx, webrtcvad)",
        has("pocketsphinx") and has("webrtcvad"),
        "absent: pip install switchhook[embedded]",
    )
    yield "voice flite", shutil.which("flite") is not None, "absent: apt-get install flite"
    yield "voice espeak-ng", shutil.which("espeak-ng") is not None, "absent: apt-get install espeak-ng"
    yield "voice espeak wheel", has("espeakng_loader"), "absent: pip install switchhook[espeak]"
    yield "PostgreSQL driver", has("asyncpg"), "absent: pip install switchhook[postgres]"
