"""The guarded way out, against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web

from switchhook.domain.addresses import networks
from switchhook.domain.contract import HttpFailure, HttpReply, HttpRequest
from switchhook.domain.errors import EgressRefused
from switchhook.egress import Egress
from tests.peers.loopback import serve, stream_server

LOOPBACK = networks(["127.0.0.0/8", "::1"])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime(2026, 3, 12, 10, 42, 15, tzinfo=UTC)


def answers(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A name service that gives one address after another, the last one for ever."""
    left = list(addresses)

    async def lookup(host: str, port: int) -> Sequence[str]:
        return [left.pop(0) if len(left) > 1 else left[0]]

    return lookup


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    app = web.Application(client_max_size=4 << 20)
    app.router.add_route("*", "/{path:.*}", handler)
    runner, port = await serve(app)
    try:
        yield port
    finally:
        await runner.cleanup()


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(LOOPBACK, LoopClock()) as way_out:
        yield way_out


def request(url: str, **more: object) -> HttpRequest:
    return HttpRequest(url, b'{"a":1}', **{"headers": {"Content-Type": "application/json", "Token": "canary"}, **more})  # type: ignore[arg-type]  # free-form test arguments


async def echo(received: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"path": received.raw_path, "headers": {k.lower(): v for k, v in received.headers.items()}}, status=201
    )


async def test_a_reply_of_any_status_comes_back_whole(egress: Egress) -> None:
    async with serving(echo) as port:
        reply = await egress.send(request(f"http://127.0.0.1:{port}/v1/tool/%2E%2E/Call%201%2Fa?x=a%20b"))
    assert isinstance(reply, HttpReply)
    assert reply.status == 201
    assert b'"/v1/tool/%2E%2E/Call%201%2Fa?x=a%20b"' in reply.body, "the path is sent byte for byte"
    assert b'"token": "canary"' in reply.body
    assert b"switchhook/" in reply.body.lower()
    assert reply.headers["content-type"].startswith("application/json")
    assert not reply.truncated


async def test_redirects_are_not_followed(egress: Egress) -> None:
    seen: list[str] = []

    async def redirect(received: web.Request) -> web.StreamResponse:
        seen.append(received.path)
        raise web.HTTPFound("/elsewhere")

    async with serving(redirect) as port:
        reply = await egress.send(request(f"http://127.0.0.1:{port}/here"))
    assert isinstance(reply, HttpReply)
    assert reply.status == 302
    assert seen == ["/here"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "http://[::1]:9/",
        "http://[::ffff:127.0.0.1]:9/",
        "http://127.1:9/",
        "http://2130706433:9/",
        "http://0x7f000001:9/",
        "http://localhost:9/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1%25eth0]/",
        "http://0.0.0.0:9/",
    ],
)
async def test_addresses_inside_are_refused(url: str) -> None:
    async with Egress((), LoopClock()) as egress:
        failure = await egress.send(request(url))
        assert isinstance(failure, HttpFailure)
        assert failure.reason in ("refused", "unreachable")
        with pytest.raises((EgressRefused, OSError)):
            await egress.pin(url.replace("http", "ws"))


async def test_refusal_names_the_setting() -> None:
    async with Egress((), LoopClock()) as egress:
        failure = await egress.send(request("http://127.0.0.1/"))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "refused"
    assert "SWITCHHOOK_EGRESS_ALLOW" in failure.detail


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://h:99999/",
        "ws://h/",
        "http://[::1/",
    ],
)
async def test_unusable_urls_are_refused(egress: Egress, url: str) -> None:
    failure = await egress.send(request(url))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "refused"


async def test_a_name_that_changes_its_address_reaches_nothing() -> None:
    """DNS rebinding: the address that was checked is the one that is used; a later answer is checked again."""
    seen: list[str] = []

    async def note(received: web.Request) -> web.StreamResponse:
        seen.append(received.host)
        return web.Response()

    async with serving(note) as port:
        async with Egress((), LoopClock(), answers("127.0.0.1")) as egress:
            failure = await egress.send(request(f"http://rebind.example:{port}/"))
            assert isinstance(failure, HttpFailure)
            assert failure.reason == "refused"
        async with Egress(networks(["127.0.0.1/32"]), LoopClock(), answers("127.0.0.1", "127.0.0.9")) as egress:
            pinned = await egress.pin(f"wss://rebind.example:{port}/v1/realtime?model=x")
            assert (pinned.host, pinned.port, pinned.addresses, pinned.tls) == ("rebind.example", port, ("127.0.0.1",), True)
            with pytest.raises(EgressRefused):
                await egress.pin(f"wss://rebind.example:{port}/")
    assert seen == []


async def test_of_several_addresses_only_permitted_ones_are_used() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["10.0.0.1", "127.0.0.1", "::1"]

    async with serving(echo) as port, Egress(networks(["127.0.0.1"]), LoopClock(), lookup) as egress:
        reply = await egress.send(request(f"http://backend.example:{port}/"))
        assert isinstance(reply, HttpReply)
        assert f'"host": "backend.example:{port}"'.encode() in reply.body
        assert (await egress.pin("ws://backend.example/")).addresses == ("127.0.0.1",)


async def test_pin_gives_default_ports_and_checks_the_scheme(egress: Egress) -> None:
    assert (await egress.pin("wss://127.0.0.1/x")).port == 443
    assert (await egress.pin("ws://127.0.0.1/x")).port == 80
    with pytest.raises(EgressRefused):
        await egress.pin("gopher://127.0.0.1/")


async def test_unknown_names_are_unreachable() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    async with Egress(LOOPBACK, LoopClock(), lookup) as egress:
        failure = await egress.send(request("http://nowhere.example/"))
        assert isinstance(failure, HttpFailure)
        assert failure.reason == "unreachable"
        with pytest.raises(OSError, match="not known"):
            await egress.pin("ws://nowhere.example/")


async def test_a_slow_reply_and_a_slow_body_time_out(egress: Egress) -> None:
    released = asyncio.Event()

    async def slow(received: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if received.path == "/body":
            await response.prepare(received)
            await response.write(b"{")
        await released.wait()
        return response

    async with serving(slow) as port:
        for path in ("head", "body"):
            failure = await egress.send(request(f"http://127.0.0.1:{port}/{path}", timeout_s=0.1))
            assert isinstance(failure, HttpFailure)
            assert failure.reason == "timeout"
            assert failure.elapsed_ms >= 90
        released.set()


async def test_a_long_body_is_cut(egress: Egress) -> None:
    async def long(received: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * (1 << 20))

    async with serving(long) as port:
        url = f"http://127.0.0.1:{port}/"
        cut = await egress.send(request(url, max_reply_bytes=1 << 18))
        whole = await egress.send(request(url, max_reply_bytes=1 << 20))
    assert isinstance(cut, HttpReply)
    assert isinstance(whole, HttpReply)
    assert (len(cut.body), cut.truncated) == (1 << 18, True)
    assert (len(whole.body), whole.truncated) == (1 << 20, False)


async def test_an_endless_body_is_cut_at_once(egress: Egress) -> None:
    async def endless(received: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(received)
        while True:
            await response.write(b"x" * 4096)

    async with serving(endless) as port:
        reply = await egress.send(request(f"http://127.0.0.1:{port}/", max_reply_bytes=10_000))
    assert isinstance(reply, HttpReply)
    assert (len(reply.body), reply.truncated) == (10_000, True)


async def test_a_reset_is_unreachable_and_not_repeated(egress: Egress) -> None:
    connections = 0

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(10)
        writer.transport.abort()

    async with stream_server(reset) as port:
        failure = await egress.send(request(f"http://127.0.0.1:{port}/", retry_unsent=True))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "unreachable"
    assert connections == 1, "bytes were sent, so the customer may have acted on them"


async def test_a_reply_that_breaks_off_is_unreachable(egress: Egress) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    async with stream_server(half) as port:
        failure = await egress.send(request(f"http://127.0.0.1:{port}/"))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "unreachable"


@pytest.mark.parametrize(("retry", "reached"), [(True, True), (False, False)])
async def test_one_retry_when_nothing_was_sent(retry: bool, reached: bool) -> None:
    """The name service fails at first and answers when asked again."""
    lookups = 0

    async def lookup(host: str, port: int) -> Sequence[str]:
        nonlocal lookups
        lookups += 1
        if lookups == 1:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    async with serving(echo) as port, Egress(LOOPBACK, LoopClock(), lookup) as egress:
        outcome = await egress.send(request(f"http://flaky.example:{port}/", retry_unsent=retry))
    assert isinstance(outcome, HttpReply) is reached
    assert lookups == (2 if retry else 1)


async def test_never_more_than_one_retry() -> None:
    lookups = 0

    async def lookup(host: str, port: int) -> Sequence[str]:
        nonlocal lookups
        lookups += 1
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    async with Egress(LOOPBACK, LoopClock(), lookup) as egress:
        assert isinstance(await egress.send(request("http://flaky.example/", retry_unsent=True)), HttpFailure)
    assert lookups == 2


async def test_proxies_of_the_environment_and_cookies_are_ignored(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    cookies: list[str | None] = []

    async def bake(received: web.Request) -> web.StreamResponse:
        cookies.append(received.headers.get("Cookie"))
        response = web.Response()
        response.set_cookie("session", "1")
        return response

    async with serving(bake) as port:
        for _ in range(2):
            assert isinstance(await egress.send(request(f"http://127.0.0.1:{port}/")), HttpReply)
    assert cookies == [None, None]


async def test_connections_are_kept_for_the_next_request(egress: Egress) -> None:
    peers: set[object] = set()

    async def note(received: web.Request) -> web.StreamResponse:
        assert received.transport is not None
        peers.add(received.transport.get_extra_info("peername"))
        return web.Response()

    async with serving(note) as port:
        for _ in range(3):
            assert isinstance(await egress.send(request(f"http://127.0.0.1:{port}/")), HttpReply)
        assert len(peers) == 1
        await egress.close()


@pytest.mark.parametrize("headers", [{"X": "a\r\nEvil: 1"}, {"X\r\nEvil": "1"}, {"": "1"}, {"X Y": "1"}, {"X": "a\x00"}])
async def test_headers_cannot_smuggle(egress: Egress, headers: dict[str, str]) -> None:
    async with serving(echo) as port:
        failure = await egress.send(request(f"http://127.0.0.1:{port}/", headers=headers))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "refused"
    assert "Evil" not in failure.detail


async def test_framing_headers_of_a_customer_are_left_out(egress: Egress) -> None:
    async with serving(echo) as port:
        reply = await egress.send(
            request(f"http://127.0.0.1:{port}/", headers={"Content-Length": "3", "Transfer-Encoding": "chunked", "X": "1"})
        )
    assert isinstance(reply, HttpReply)
    assert b'"content-length": "7"' in reply.body
    assert b"chunked" not in reply.body


async def test_user_and_password_in_the_url(egress: Egress) -> None:
    async with serving(echo) as port:
        basic = await egress.send(request(f"http://user:pass@127.0.0.1:{port}/"))
        header = await egress.send(request(f"http://user:pass@127.0.0.1:{port}/", headers={"authorization": "Bearer t"}))
    assert isinstance(basic, HttpReply)
    assert b'"authorization": "Basic dXNlcjpwYXNz"' in basic.body
    assert isinstance(header, HttpReply)
    assert b'"authorization": "Bearer t"' in header.body


async def test_failures_tell_no_secret(egress: Egress) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://user:canary@127.0.0.1:{held.getsockname()[1]}/canary?key=canary"
        failure = await egress.send(request(url, retry_unsent=True))
    assert isinstance(failure, HttpFailure)
    assert failure.reason == "unreachable"
    assert "canary" not in repr(failure)
    assert "canary" not in repr(request(url))


async def test_cancellation_passes_through(egress: Egress) -> None:
    asked = asyncio.Event()

    async def hang(received: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    async with serving(hang) as port:
        sending = asyncio.ensure_future(egress.send(request(f"http://127.0.0.1:{port}/")))
        await asyncio.wait_for(asked.wait(), 20)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_target_that_speaks_no_tls_is_unreachable(egress: Egress) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with stream_server(plain) as port:
        failure = await egress.send(request(f"https://127.0.0.1:{port}/canary"))
    assert isinstance(failure, HttpFailure)
    assert (failure.reason, "TLS failed" in failure.detail, "canary" in failure.detail) == ("unreachable", True, False)
