"""The one guarded way out for HTTP and WebSocket.

Customers name the addresses, so each is looked up here, checked against the address policy of `domain.addresses`, and the
checked address is the one that is connected to: a name that answers differently a moment later changes nothing. Redirects,
proxies from the environment and cookies are off; replies have a size and a time limit.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from switchhook import __version__
from switchhook.domain.addresses import Network, literal, permitted
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import EgressRefused
from switchhook.domain.ports import Clock

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host name, port) → addresses as text; raises OSError."""

CONNECTIONS = 1024
CONNECTIONS_PER_HOST = 256
# Below the 5 s after which common servers (Node, uvicorn) close an idle connection: a request written into a connection that the
# server is just closing is lost, and a POST must not be repeated on its own (RFC 9110 §9.2.2).
KEEP_ALIVE_S = 4.0
LOOKUP_CACHE_S = 10
_READ_BYTES = 1 << 16
_TRIES = 2

_URL_TEXT = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# The body's framing is ours alone.
_OUR_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "trailer", "te", "upgrade", "expect"})


@dataclass(frozen=True, slots=True)
class Pinned:
    """A target whose addresses have been checked: connect to one of `addresses`, with `host` for SNI and Host."""

    host: str
    port: int
    addresses: tuple[str, ...]
    tls: bool


class Egress:
    """Sends requests and pins WebSocket targets; implements `domain.contract.Http`.

    `allow` lists blocks beyond the public Internet. One instance serves the process: connections are pooled and bounded, a
    request that finds no free one waits within its own time limit. Call `close` at the end.
    """

    def __init__(self, allow: Sequence[Network], clock: Clock, lookup: Lookup | None = None) -> None:
        self._clock = clock
        self._resolver = _GuardedResolver(tuple(allow), lookup or _system_lookup)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Egress:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def send(self, request: HttpRequest) -> HttpOutcome:
        """Send and wait for the whole reply. Never raises but for cancellation; no secret in a failure's detail."""
        began = self._clock.now()
        where = "the address"
        try:
            url = _parse(request.url, ("http", "https"))
            where = f"{url.host}:{url.port}"
            self._resolver.check_literal(url)
            _check_headers(request)
            async with asyncio.timeout(request.timeout_s):
                return await self._send(request, url, began)
        except TimeoutError:
            return HttpFailure("timeout", f"{where} did not answer in {request.timeout_s:g} s", self._elapsed_ms(began))
        except EgressRefused as error:
            return HttpFailure("refused", str(error), self._elapsed_ms(began))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return HttpFailure("unreachable", f"{where}: {_reason(error)}", self._elapsed_ms(began))

    async def pin(self, url: str) -> Pinned:
        """Look up and check the host of a WebSocket or HTTP URL. Raises EgressRefused, or OSError when it has no address."""
        target = _parse(url, ("ws", "wss", "http", "https"))
        assert target.host is not None
        assert target.port is not None
        address = self._resolver.check_literal(target)
        addresses = (address,) if address else await self._resolver.addresses(target.host, target.port)
        return Pinned(target.host, target.port, addresses, target.scheme in ("wss", "https"))

    async def close(self) -> None:
        """Close the pooled connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, request: HttpRequest, url: URL, began: float) -> HttpReply:
        for left in range(_TRIES if request.retry_unsent else 1, 0, -1):
            try:
                return await self._exchange(request, url, began)
            except aiohttp.ClientConnectorError:
                # DNS, TCP or TLS failed: no byte of the request has left.
                if left == 1:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _exchange(self, request: HttpRequest, url: URL, began: float) -> HttpReply:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OUR_HEADERS}
        if url.user is not None and any(name.lower() == "authorization" for name in headers):
            url = url.with_user(None)
        async with self._opened().request(
            request.method, url, data=request.body, headers=headers, allow_redirects=False
        ) as response:
            body = bytearray()
            while len(body) <= request.max_reply_bytes and (chunk := await response.content.read(_READ_BYTES)):
                body += chunk
            truncated = len(body) > request.max_reply_bytes
            if truncated:
                response.close()
            return HttpReply(
                response.status,
                bytes(body[: request.max_reply_bytes]),
                {name.lower(): value for name, value in response.headers.items()},
                truncated,
                self._elapsed_ms(began),
            )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._resolver,
                ttl_dns_cache=LOOKUP_CACHE_S,
                limit=CONNECTIONS,
                limit_per_host=CONNECTIONS_PER_HOST,
                keepalive_timeout=KEEP_ALIVE_S,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={"User-Agent": f"Switchhook/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._session

    def _elapsed_ms(self, began: float) -> int:
        return round((self._clock.now() - began) * 1000)


class _GuardedResolver(AbstractResolver):
    """Gives the connector only addresses that the policy permits."""

    def __init__(self, allow: tuple[Network, ...], lookup: Lookup) -> None:
        self._allow = allow
        self._lookup = lookup

    def check_literal(self, url: URL) -> str | None:
        """The address that the URL spells out, None for a name: a connector resolves names only. Raises EgressRefused."""
        address = literal(url.host or "")
        if address is None:
            return None
        if not permitted(address, self._allow):
            raise EgressRefused(_refusal(str(address)))
        return str(address)

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The permitted addresses of a name; raises EgressRefused when it has none but others."""
        found = tuple(dict.fromkeys(await self._lookup(host, port)))
        usable = tuple(text for text in found if (address := literal(text)) is not None and permitted(address, self._allow))
        if not found:
            raise OSError("the name has no address")
        if not usable:
            raise EgressRefused(_refusal(host))
        return usable

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """What aiohttp's connector asks."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self.addresses(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _system_lookup(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


def _parse(text: str, schemes: tuple[str, ...]) -> URL:
    """Raises EgressRefused. Plain text is taken byte for byte; yarl would otherwise fold `%2E%2E` into the path."""
    try:
        url = URL(text, encoded=_URL_TEXT.fullmatch(text) is not None)
        usable = url.scheme in schemes and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise EgressRefused(
            f"the URL is not usable: it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host"
        )
    return url


def _check_headers(request: HttpRequest) -> None:
    for name, value in request.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise EgressRefused("a header's name or value has a character that HTTP does not allow (RFC 9110 §5)")


def _refusal(target: str) -> str:
    cure = "list its block in SWITCHHOOK_EGRESS_ALLOW if it is meant"
    return f"{target} is a private, loopback, link-local or reserved address; {cure}"


def _reason(error: Exception) -> str:
    """What went wrong, without the URL, which may hold a secret."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name could not be looked up"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed: the certificate or the handshake was not acceptable"
    if isinstance(error, aiohttp.ClientOSError):
        return f"the connection failed ({error.strerror or type(error).__name__})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before a reply came"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed inside the reply"
    return type(error).__name__
