"""A call has arrived, or is to be placed: find its number, write it down, ask the customer what to do with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from switchhook.domain.contract import Contract, Http
from switchhook.domain.model import CallAttempt, Direction, Number
from switchhook.domain.outcome import Ending
from switchhook.domain.phone import e164
from switchhook.domain.plan import CallPlan, Refusal
from switchhook.domain.ports import Clock
from switchhook.domain.records import CallRecord
from switchhook.usecases.model_names import ModelNames
from switchhook.usecases.repositories import CallStore, NumberFinder

logger = logging.getLogger(__name__)

STORE_PATIENCE_S = 5.0
"""A caller hears ringing meanwhile."""
NOT_FOUND = 404
UNAVAILABLE = 480
"""503 would make a carrier shun the trunk."""


class Incoming:
    """Routes calls under the contracts of their numbers; implements `domain.ports.CallRouting`."""

    def __init__(
        self,
        numbers: NumberFinder,
        calls: CallStore,
        contracts: Mapping[str, Contract],
        http: Http,
        clock: Clock,
        names: ModelNames | None = None,
    ) -> None:
        """`names` replaces the names of models that were retired; None: all stay as they are."""
        self._numbers = numbers
        self._calls = calls
        self._contracts = contracts
        self._http = http
        self._clock = clock
        self._names = names

    async def route(self, attempt: CallAttempt) -> CallPlan | Refusal:
        """The plan of the contract, or a refusal. Never raises but for cancellation."""
        number: Number | None = None
        try:
            async with asyncio.timeout(STORE_PATIENCE_S):
                decision = await self._find(attempt)
                if isinstance(decision, Refusal):
                    return decision
                number = decision
                await self._write_down(attempt, number)
        except Exception:
            # The row may be there all the same, written as patience ended. The refusal names the number, so that the record is
            # closed by what is known here and the customer, who heard nothing of the call, hears nothing of its end.
            logger.exception("a call is refused: the store failed", extra={"call_id": attempt.call_id})
            why = "The database could not be used"
            return Refusal(UNAVAILABLE, Ending.INTERNAL_ERROR, "store-unavailable", number, message=why)
        return await self._ask(attempt, number, self._contracts[number.contract])

    async def _find(self, attempt: CallAttempt) -> Number | Refusal:
        # An outbound call runs under the account's own number, which is the caller there.
        ours = attempt.caller if attempt.direction is Direction.OUTBOUND else attempt.called
        wanted = e164(ours.partition(";")[0])
        number = await self._numbers.find_number(wanted) if wanted is not None else None
        if number is None:
            return Refusal(NOT_FOUND, Ending.REJECTED, "unknown-number", message=f"{ours} is not configured")
        if attempt.account not in (None, number.account):
            # The line is not told that the number exists; the call record is.
            why = f"{number.number} belongs to account {number.account}, the trunk to {attempt.account}"
            return Refusal(NOT_FOUND, Ending.REJECTED, "unknown-number", message=why)
        if number.contract not in self._contracts:
            why = f"{number.number} names the contract {number.contract}, which this server does not have"
            return Refusal(UNAVAILABLE, Ending.INTERNAL_ERROR, "unknown-contract", number, message=why)
        return number

    async def _write_down(self, attempt: CallAttempt, number: Number) -> None:
        """The row is there before the customer hears of the call: after a crash the end webhook is owed.

        When the server dies or a fault ends the call in the milliseconds between the row and the request, an end webhook goes
        out without a start webhook: nobody can tell any more, and one too many is better than none.
        """
        await self._calls.begin(
            CallRecord(
                attempt,
                number.account,
                number.number,
                number.contract,
                call_start_sent_at=self._clock.utc(),
                customer_call_id=attempt.customer_call_id,
                end_webhook_owed=True,
            )
        )

    async def _ask(self, attempt: CallAttempt, number: Number, contract: Contract) -> CallPlan | Refusal:
        try:
            outcome = await self._http.send(contract.start_request(number, attempt))
            decision = contract.read_start_outcome(number, attempt, outcome)
        except Exception:
            # A fault in a contract's folder costs this call, with its record and end webhook, and no other.
            logger.exception("a contract failed at the start webhook", extra={"call_id": attempt.call_id})
            decision = Refusal(UNAVAILABLE, Ending.CALL_START_FAILED, "call-start-failed", message="CallStart could not be used")
        if isinstance(decision, Refusal):
            return replace(decision, number=number, end_webhook_owed=contract.tells_of_refused_calls)
        return decision if self._names is None else self._names.current(decision, self._clock.utc().date())
