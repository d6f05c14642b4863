"""The test button, and the tool matrix of contract §1.4, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from switchhook.api.app import HttpDoor, application
from switchhook.api.vns.webhook_test import try_webhook
from switchhook.domain.addresses import networks
from switchhook.domain.model import CallId, ToolCall
from switchhook.egress import Egress
from tests.api.vns.cases import DATA, STARTED, VNS, attempt, number, plan_of, recorded, reply_with

FRESH = CallId("00000000-0000-4000-8000-000000000001")


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime(2026, 3, 12, tzinfo=UTC)


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(networks(["127.0.0.0/8"]), LoopClock()) as way_out:
        yield way_out


@asynccontextmanager
async def backend(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    door = HttpDoor("127.0.0.1", 0, application([[web.post("/{path:.*}", answer)]]), grace_s=0.1)
    await door.start()
    try:
        yield f"http://127.0.0.1:{door.port}"
    finally:
        await door.stop()


async def test_call_start_is_tried_with_the_real_headers(egress: Egress) -> None:
    seen: list[tuple[str | None, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Token"), await request.json()))
        return web.Response(body=(DATA / "call_start_reply_sloppy.txt").read_bytes())

    async with backend(answer) as url:
        webhook = {"url": f"{url}/start", "headers": {"Token": "abc"}}
        trial = await try_webhook(egress, number(call_start=webhook), "call_start", FRESH, STARTED)
    [(token, body)] = seen
    assert token == "abc"
    assert (body["callerId"], body["callerIdName"], body["sessionGuid"]) == ("5550100000", "Webhook Test", FRESH)
    assert body["calledNumber"] == "7206999999"
    assert (trial.passed, trial.status) == (True, 200)
    text = "\n".join(trial.lines())
    assert text.startswith("call_start: passed, HTTP 200, ")
    for line in (
        "maxSeconds: coerced",
        "favouriteColour: ignored",
        "the reply: mended",
        "aiUrl.url: coerced",
        "session: understood",
        "no User lines",
    ):
        assert line in text
    assert "canary" not in text


async def test_a_good_reply_lists_what_was_understood(egress: Egress) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=(DATA / "call_start_reply.json").read_bytes())

    async with backend(answer) as url:
        trial = await try_webhook(egress, number(call_start={"url": url}), "call_start", FRESH, STARTED)
    understood = [finding.field for finding in trial.findings if finding.judgement.value == "understood"]
    assert {"aiUrl", "maxSeconds", "recordCallPassword", "transcriptionToolName", "session"} <= set(understood)
    assert len(understood) == len(trial.findings)


@pytest.mark.parametrize(
    ("status", "body", "summary"),
    [(500, b"{}", "HTTP 500"), (200, b"{}", "VoiceElements_Instructions is missing"), (200, b"<", "not JSON")],
)
async def test_a_bad_call_start_fails_the_trial(egress: Egress, status: int, body: bytes, summary: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    async with backend(answer) as url:
        at_number = number(call_start={"url": url}, fallback={"message": "Sorry."})
        trial = await try_webhook(egress, at_number, "call_start", FRESH, STARTED)
    assert (trial.passed, trial.status) == (False, status)
    assert summary in trial.summary


async def test_call_end_is_tried(egress: Egress) -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return web.json_response({"status": 0, "errorMessage": "Success"}, status=200 if request.path == "/good" else 503)

    async with backend(answer) as url:
        good = await try_webhook(egress, number(call_end={"url": f"{url}/good"}), "call_end", FRESH, STARTED)
        bad = await try_webhook(egress, number(call_end={"url": f"{url}/bad"}), "call_end", FRESH, STARTED)
    assert (good.passed, good.summary) == (True, "acknowledged")
    assert (bad.passed, bad.status) == (False, 503)
    assert set(seen[0]) == set(recorded("call_end_request.json"))
    assert seen[0]["callerIdName"] == "Webhook Test"


@pytest.mark.parametrize("webhook", ["call_start", "call_end"])
async def test_nobody_there(egress: Egress, webhook: Any) -> None:
    target = {"url": "http://10.0.0.1/canary"}
    trial = await try_webhook(egress, number(call_start=target, call_end=target), webhook, FRESH, STARTED)
    assert (trial.passed, trial.status) == (False, None)
    assert "SWITCHHOOK_EGRESS_ALLOW" in trial.summary
    assert "canary" not in str(trial.lines())


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("created", {"found": True, "order": "A-17", "state": "packed", "weight_kg": 1.5}),
        ("empty", {"status": "ok"}),
        ("text", {"result": "all good"}),
        ("error", {"error": "The tool returned HTTP 500.", "details": {"why": "broken"}}),
        ("late", {"error": "The tool did not answer in time."}),
        ("reset", {"error": "The tool could not be reached."}),
        ("moved", {"error": "The tool returned HTTP 307.", "details": "307: Temporary Redirect"}),
    ],
)
async def test_the_tool_matrix(egress: Egress, path: str, output: dict[str, object]) -> None:
    released = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        kind = request.match_info["path"]
        if kind == "late":
            await released.wait()
        if kind == "reset":
            assert request.transport is not None
            request.transport.abort()
        if kind == "moved":
            return web.Response(status=307, text="307: Temporary Redirect", headers={"Location": "/created"})
        if kind == "created":
            return web.Response(status=201, body=(DATA / "tool_reply.json").read_bytes())
        if kind == "text":
            return web.Response(text="all good")
        if kind == "error":
            return web.json_response({"why": "broken"}, status=500)
        return web.Response(status=204)

    async with backend(answer) as url:
        at_number = number(tool_timeout_s=1)
        plan = plan_of(reply_with({"defaultToolsUrlBase": {"url": f"{url}/{path}"}}), at_number)
        request = VNS.tool_request(plan, attempt(), ToolCall("c", "find_order", '{"order":"A-17"}'), STARTED)
        assert request is not None
        assert json.loads(VNS.tool_output(await egress.send(request))) == output
        released.set()


async def test_a_tool_reply_of_a_mebibyte_is_cut(egress: Egress) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"a": "x" * (1 << 20)})

    async with backend(answer) as url:
        plan = plan_of(reply_with({"defaultToolsUrlBase": {"url": url}}))
        request = VNS.tool_request(plan, attempt(), ToolCall("c", "x", "{}"), STARTED)
        assert request is not None
        output = json.loads(VNS.tool_output(await egress.send(request)))
    assert output["truncated"] is True
    assert len(output["result"]) == 256 << 10
