"""Live delivery of a call's transcript to the customer: in order, one line at a time, never in anyone's way."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from switchhook.domain.contract import Contract, Http, HttpFailure, HttpRequest
from switchhook.domain.model import CallAttempt, Utterance
from switchhook.domain.plan import CallPlan

logger = logging.getLogger(__name__)

QUEUE_LINES = 100
"""The oldest line is dropped for one more."""
TIMEOUT_S = 5.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class LiveTranscript:
    """Sends the lines of one call. A task lives only while there is something to send; `spawn` starts it in its owner's group."""

    def __init__(self, plan: CallPlan, attempt: CallAttempt, contract: Contract, http: Http, spawn: Spawn) -> None:
        self._plan = plan
        self._attempt = attempt
        self._contract = contract
        self._http = http
        self._spawn = spawn
        self._queue: deque[HttpRequest] = deque()
        self._sending = False
        self.dropped = 0

    def put(self, utterance: Utterance) -> None:
        """Queue a line, if the customer asked for them."""
        request = self._contract.utterance_request(self._plan, self._attempt, utterance)
        if request is None:
            return
        if len(self._queue) == QUEUE_LINES:
            self._queue.popleft()
            self.dropped += 1
            logger.warning("live transcript falls behind", extra={"call_id": self._attempt.call_id, "dropped": self.dropped})
        self._queue.append(replace(request, timeout_s=min(request.timeout_s, TIMEOUT_S)))
        if not self._sending:
            self._sending = True
            self._spawn(self._send())

    async def _send(self) -> None:
        try:
            while self._queue:
                outcome = await self._http.send(self._queue.popleft())
                why = outcome.reason if isinstance(outcome, HttpFailure) else f"HTTP {outcome.status}"
                if isinstance(outcome, HttpFailure) or not 200 <= outcome.status < 300:
                    logger.warning("live transcript not taken", extra={"call_id": self._attempt.call_id, "why": why})
        finally:
            self._sending = False
