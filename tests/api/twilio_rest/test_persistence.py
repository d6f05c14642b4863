"""Status callbacks are sent again while there is hope, for a moment, and never differently."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from switchhook.api.twilio_rest.persistence import BACK_OFF_S, PersistentHttp
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest

REQUEST = HttpRequest("https://acme/told?key=canary", b"CallStatus=completed", {"X-Twilio-Signature": "signed"})
AWAY, BUSY, BROKEN = HttpFailure("unreachable", "no route"), HttpReply(429, b""), HttpReply(503, b"")
TAKEN, LATE = HttpReply(204, b""), HttpFailure("timeout", "acme:443 did not answer in 10 s")


class Backend:
    """Answers in turn; the last answer stays."""

    def __init__(self, *outcomes: HttpOutcome) -> None:
        self._outcomes: Iterator[HttpOutcome] = iter(outcomes)
        self._last = outcomes[-1]
        self.got: list[HttpRequest] = []
        self.slept: list[float] = []

    async def send(self, request: HttpRequest) -> HttpOutcome:
        self.got.append(request)
        return next(self._outcomes, self._last)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize("trouble", [AWAY, LATE, BUSY, BROKEN])
async def test_a_backend_that_is_away_for_a_moment_is_told_with_the_same_bytes(trouble: HttpOutcome) -> None:
    backend = Backend(trouble, trouble, TAKEN)
    assert await PersistentHttp(backend, backend.sleep).send(REQUEST) is TAKEN
    assert backend.got == [REQUEST] * 3
    assert backend.slept == [0.5, 2.0]


async def test_it_is_given_up_after_a_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    backend = Backend(BROKEN)
    assert await PersistentHttp(backend, backend.sleep).send(REQUEST) is BROKEN
    assert (len(backend.got), backend.slept) == (4, list(BACK_OFF_S))
    assert sum(BACK_OFF_S) < 10
    assert "HTTP 503" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "final", [TAKEN, HttpReply(404, b""), HttpReply(302, b""), HttpFailure("refused", "10.0.0.1 is private")]
)
async def test_what_will_not_change_is_not_tried_again(final: HttpOutcome) -> None:
    backend = Backend(final)
    assert await PersistentHttp(backend, backend.sleep).send(REQUEST) is final
    assert (len(backend.got), backend.slept) == (1, [])
