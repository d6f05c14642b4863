"""After a restart: calls that the last process left open are closed, and their customers told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from switchhook.domain.contract import Contract
from switchhook.domain.errors import StoreUnavailable
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
    """Close every call of this node that has no end; call it before calls are taken. Gives how many were closed.

    A call whose start webhook went out gets its end webhook, once: closing the record and queueing it are one transaction, and a
    call that has an end is not found again. A call that cannot be closed is logged and left for the next start. Raises
    StoreUnavailable.
    """
    closed = 0
    now = clock.utc()
    for begun, last_known in await calls.live():
        call_id = begun.attempt.call_id
        try:
            number = await numbers.find_number(begun.number) if begun.number is not None else None
            report = _died(begun, _of_then(begun, number), min(last_known, now))
            record = final_record(report, begun)
            lines = await calls.journal(call_id)
            await calls.finish(record, (), end_event(record, report, lines, contracts, now))
        except StoreUnavailable:
            raise
        except Exception:
            # One call's rows must not keep the server from starting, nor the other customers from being told.
            logger.exception("a call could not be closed after a restart", extra={"call_id": call_id})
            continue
        closed += 1
        logger.warning("call closed after a restart", extra={"call_id": call_id, "webhook": record.end_webhook_owed})
    return closed


def _died(begun: CallRecord, number: Number | None, ended_at: datetime) -> CallReport:
    return CallReport(
        attempt=begun.attempt,
        number=number,
        verdict=DIED,
        connected_at=begun.connected_at,
        ended_at=ended_at,
        customer_call_id=begun.customer_call_id,
        journal=begun.journal,
    )


def _of_then(begun: CallRecord, number: Number | None) -> Number | None:
    """The number, unless it is another account's or another contract's by now."""
    if number is not None and (number.account, number.contract) == (begun.account, begun.contract):
        return number
    return None
