"""After a restart: calls that the last process left open are closed, and their customers told."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from switchhook.domain.contract import Contract
from switchhook.domain.model import Number
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.ports import Clock
from switchhook.domain.records import CallRecord
from switchhook.domain.report import CallReport
from switchhook.usecases.ending import PROCESS_DIED, end_event, final_record
from switchhook.usecases.repositories import CallStore, NumberFinder

logger = logging.getLogger(__name__)

DIED = Verdict(Ending.INTERNAL_ERROR, PROCESS_DIED, "The server stopped during the call")


async def recover(calls: CallStore, numbers: NumberFinder, contracts: Mapping[str, Contract], clock: Clock) -> int:
    """Close every call of this node that has no end; call it before calls are taken. Gives how many there were.

    A call whose start webhook went out gets its end webhook, once: closing the record and queueing it are one transaction, and a
    call that has an end is not found again.
    """
    found = await calls.live()
    now = clock.utc()
    for begun, last_known in found:
        call_id = begun.attempt.call_id
        number = await numbers.find_number(begun.number) if begun.number is not None else None
        report = CallReport(
            attempt=begun.attempt,
            number=_of_then(begun, number),
            verdict=DIED,
            connected_at=begun.connected_at,
            ended_at=min(last_known, now),
            customer_call_id=begun.customer_call_id,
            journal=begun.journal,
        )
        record = final_record(report, begun)
        lines = await calls.journal(call_id)
        await calls.finish(record, (), end_event(record, report, lines, contracts, now))
        logger.warning("call closed after a restart", extra={"call_id": call_id, "webhook": record.end_webhook_owed})
    return len(found)


def _of_then(begun: CallRecord, number: Number | None) -> Number | None:
    """The number, unless it is another account's or another contract's by now."""
    if number is not None and (number.account, number.contract) == (begun.account, begun.contract):
        return number
    return None
