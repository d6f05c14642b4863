"""The HTTP door and the operator's routes, over a real socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from switchhook.api.app import HttpDoor, application
from switchhook.api.ops import health
from switchhook.api.ops.health import Check, routes
from switchhook.api.ops.metrics import Metrics, Sample
from switchhook.api.vns import routes as vns_routes
from switchhook.domain.errors import SettingError


async def fine() -> str | None:
    return None


@asynccontextmanager
async def door(checks: dict[str, Check] | None = None, metrics: Metrics | None = None, *more: web.RouteDef) -> AsyncIterator[str]:
    async def authenticate(token: str) -> str | None:
        return "acme" if token == "secret-token" else None

    metrics = metrics or Metrics()
    mounts = [routes(checks or {}, metrics), vns_routes.routes(authenticate), list(more)]
    opened = HttpDoor("127.0.0.1", 0, application(mounts, metrics.observe, max_body_bytes=1000), grace_s=1)
    await opened.start()
    try:
        yield f"http://127.0.0.1:{opened.port}"
    finally:
        await opened.stop()
        await opened.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_alive(client: aiohttp.ClientSession) -> None:
    async with door() as url, client.get(f"{url}/healthz") as response:
        assert response.status == 200
        assert await response.json() == {"status": "ok"}
        assert "Server" not in response.headers


async def test_ready_when_every_check_passes(client: aiohttp.ClientSession) -> None:
    async with door({"database": fine, "sip": fine}) as url, client.get(f"{url}/readyz") as response:
        assert response.status == 200
        assert await response.json() == {"status": "ready"}


async def test_not_ready_says_which_checks_failed_and_no_secret(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.05)

    async def draining() -> str | None:
        return "the server is draining"

    async def broken() -> str | None:
        raise ConnectionError("postgresql://user:canary@db")

    async def stuck() -> str | None:
        await asyncio.Event().wait()
        return None

    with caplog.at_level(logging.DEBUG):
        async with (
            door({"sip": fine, "draining": draining, "database": broken, "slow": stuck}) as url,
            client.get(f"{url}/readyz") as response,
        ):
            assert response.status == 503
            assert (await response.json())["failed"] == {
                "draining": "the server is draining",
                "database": "ConnectionError",
                "slow": "no answer in 0.05 s",
            }
    assert "canary" not in caplog.text


async def test_metrics_collect_at_each_scrape(client: aiohttp.ClientSession) -> None:
    calls = [0]

    def collect() -> list[Sample]:
        calls[0] += 1
        return [
            Sample("switchhook_calls_active", "Calls that are alive", calls[0]),
            Sample("switchhook_calls", "Calls ended", 3, "counter", {"outcome": "success"}),
            Sample("switchhook_calls", "Calls ended", 1, "counter", {"outcome": "server-error"}),
        ]

    async with door(metrics=Metrics(collect)) as url:
        for expected in (1, 2):
            async with client.get(f"{url}/metrics") as response:
                text = await response.text()
                assert response.headers["Content-Type"].startswith("text/plain")
            assert f"switchhook_calls_active {expected}.0" in text
        assert 'switchhook_calls_total{outcome="success"} 3.0' in text
        assert 'switchhook_calls_total{outcome="server-error"} 1.0' in text
        assert 'switchhook_http_requests_total{method="GET",route="/metrics",status="200"} 1.0' in text


async def test_routes_are_counted_by_template(client: aiohttp.ClientSession) -> None:
    metrics = Metrics()

    async def item(request: web.Request) -> web.Response:
        return web.Response()

    async with door(None, metrics, web.get("/items/{key}", item)) as url:
        for path in ("/items/1", "/items/2", "/nowhere/1", "/nowhere/2"):
            async with client.get(url + path):
                pass
    text = metrics.render()[0].decode()
    assert 'route="/items/{key}",status="200"} 2.0' in text
    assert 'route="unmatched",status="404"} 2.0' in text


async def test_errors_are_json_and_quiet(client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    async def bad(request: web.Request) -> web.Response:
        raise RuntimeError("broken")

    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async with door(None, None, web.get("/bad", bad), web.post("/read", read)) as url:
        async with client.get(f"{url}/missing") as response:
            assert (response.status, await response.json()) == (404, {"error": {"status": 404, "message": "Not Found"}})
        async with client.post(f"{url}/healthz") as response:
            assert response.status == 405
            assert "GET" in response.headers["Allow"]
        async with client.post(f"{url}/read", data=b"x" * 2000) as response:
            assert response.status == 413
        async with client.get(f"{url}/bad?key=canary") as response:
            assert (response.status, await response.json()) == (
                500,
                {"error": {"status": 500, "message": "Internal Server Error"}},
            )
            assert "Server" not in response.headers
    assert "request failed: GET /bad" in caplog.text
    assert "canary" not in caplog.text


async def test_customer_api_answers_in_the_contracts_error_shape(client: aiohttp.ClientSession) -> None:
    async with door() as url:
        for headers in ({}, {"Token": "wrong"}):
            async with client.post(f"{url}/api/customer/makecall", json={}, headers=headers) as response:
                assert (response.status, await response.json()) == (401, {"status": 401, "errorMessage": "Unauthorized"})
        for path, status in (("sms", 501), ("makecall", 501), ("recordings/abc", 501), ("nothing", 404)):
            async with client.post(f"{url}/api/customer/{path}", headers={"token": "secret-token"}) as response:
                assert response.status == status
                assert (await response.json())["status"] == status


async def test_a_taken_port_is_named_with_its_cure() -> None:
    first = HttpDoor("127.0.0.1", 0, application([]))
    await first.start()
    try:
        with pytest.raises(SettingError, match=rf"127\.0\.0\.1:{first.port}.*SWITCHHOOK_HTTP_PORT"):
            await HttpDoor("127.0.0.1", first.port, application([])).start()
    finally:
        await first.stop()


async def test_stop_lets_a_running_request_finish(client: aiohttp.ClientSession) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="done")

    opened = HttpDoor("127.0.0.1", 0, application([[web.get("/slow", slow)]]), grace_s=5)
    await opened.start()

    async def ask() -> str:
        async with client.get(f"http://127.0.0.1:{opened.port}/slow") as response:
            return await response.text()

    asking = asyncio.ensure_future(ask())
    await asyncio.wait_for(entered.wait(), 5)
    stopping = asyncio.ensure_future(opened.stop())
    await asyncio.sleep(0)
    go_on.set()
    assert await asking == "done"
    await stopping


async def test_malformed_http_is_answered_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with door() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(b"GET / HTTP/1.1\r\ncanary canary\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await writer.wait_closed()
    assert b" 400 " in head
    assert "canary" not in caplog.text
