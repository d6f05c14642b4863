"""`/healthz` (the process is alive), `/readyz` (it can take calls) and `/metrics` (Prometheus text)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from switchhook.api.ops.metrics import Metrics

logger = logging.getLogger(__name__)

Check = Callable[[], Awaitable[str | None]]
"""None when all is well, else the reason in a few words."""

CHECK_TIMEOUT_S = 2.0


def routes(checks: Mapping[str, Check], metrics: Metrics) -> list[web.RouteDef]:
    """The operator's doors. `checks` by name: `database`, `sip`, `draining`…"""

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        reasons = await asyncio.gather(*(_run(name, check) for name, check in checks.items()))
        failed = {name: reason for name, reason in zip(checks, reasons, strict=True) if reason is not None}
        if failed:
            return web.json_response({"status": "not ready", "failed": failed}, status=503)
        return web.json_response({"status": "ready"})

    async def figures(request: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", figures)]


async def _run(name: str, check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return f"no answer in {CHECK_TIMEOUT_S:g} s"
    except Exception as error:  # noqa: BLE001 - the edge of the check; a message may hold a password, so the type alone is logged
        logger.warning("readiness check %s failed: %s", name, type(error).__name__)
        return type(error).__name__
