"""From a report to a closed record and the end webhook that goes with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from switchhook.domain.contract import Contract
from switchhook.domain.outcome import Outcome, Verdict
from switchhook.domain.plan import JournalSpec
from switchhook.domain.records import CallLine, CallRecord, OutboxEvent, split_journal
from switchhook.domain.report import CallReport
from switchhook.usecases.costs import as_record

logger = logging.getLogger(__name__)

CALL_END = "call-end"
PROCESS_DIED = "process-died"


def outcome_of(verdict: Verdict) -> Outcome:
    """The operator's verdict; of a call whose process died nobody knows what it came to."""
    return Outcome.INDETERMINATE if verdict.reason == PROCESS_DIED else verdict.ending.outcome


def final_record(report: CallReport, begun: CallRecord | None = None) -> CallRecord:
    """The closed record. `begun` tells what the report does not: the number of a call that ended while it was being routed."""
    attempt, number, verdict = report.attempt, report.number, report.verdict
    started = begun is not None and begun.call_start_sent_at is not None
    return CallRecord(
        attempt,
        account=number.account if number else begun.account if begun else attempt.account,
        number=number.number if number else begun.number if begun else None,
        contract=number.contract if number else begun.contract if begun else None,
        call_start_sent_at=begun.call_start_sent_at if begun else None,
        customer_call_id=report.customer_call_id or attempt.customer_call_id,
        journal=report.journal,
        connected_at=report.connected_at,
        ended_at=report.ended_at,
        ending=verdict.ending,
        outcome=outcome_of(verdict),
        reason=verdict.reason,
        message=verdict.message,
        end_webhook_owed=report.end_webhook_owed or started,
        referred_out=report.referred_out,
        transfers=report.transfers,
        usage=report.usage,
        figures=report.figures,
        costs=as_record(report.costs),
    )


def _body(contract: Contract, report: CallReport, lines: Sequence[CallLine]) -> bytes | None:
    """All that there is to tell, or what of it the contract's folder can write down; None: not even who called whom, and when.

    The customer is told that the call is over whatever part of its account is at fault; the record and its lines keep the rest.
    """
    try:
        return contract.end_body(report, *split_journal(lines))
    except Exception:
        logger.exception("an end webhook could not be rendered in full", extra={"call_id": report.attempt.call_id})
    for less in _shortened(report):
        with suppress(Exception):  # the first one is logged, with its cause
            return contract.end_body(less, [], [])
    return None


def _shortened(report: CallReport) -> Iterator[CallReport]:
    """The report without what is told line by line, then without all that may be left out, then in the contract's own forms."""
    silent = replace(report, journal=JournalSpec())
    yield silent
    bare = replace(silent, transfers=(), usage={}, figures={}, costs=None)
    yield bare
    yield replace(bare, number=None)


def end_event(
    record: CallRecord, report: CallReport, lines: Sequence[CallLine], contracts: Mapping[str, Contract], now: datetime
) -> OutboxEvent | None:
    """The end webhook, rendered once; None when none is owed or nobody can render it."""
    if not record.end_webhook_owed or record.account is None or record.number is None or record.contract is None:
        return None
    contract = contracts.get(record.contract)
    body = None if contract is None else _body(contract, report, lines)
    if body is None:
        # The record is closed all the same; it says that an end webhook was owed.
        logger.error("an end webhook cannot be sent", extra={"call_id": report.attempt.call_id, "contract": record.contract})
        return None
    return OutboxEvent(
        report.attempt.call_id,
        CALL_END,
        record.account,
        record.number,
        record.contract,
        body,
        created_at=now,
        next_attempt_at=now,
    )
