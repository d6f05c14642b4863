"""The account of a finished call, from which the end webhook and the call record are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from switchhook.domain.model import CallAttempt, Number, TransferRecord
from switchhook.domain.money import CallCosts
from switchhook.domain.outcome import Verdict
from switchhook.domain.plan import JournalSpec


@dataclass(frozen=True, slots=True)
class CallReport:
    """What happened, in facts. Transcript and log lines are kept by the journal and joined when the webhook is rendered."""

    attempt: CallAttempt
    number: Number | None
    verdict: Verdict
    connected_at: datetime | None
    ended_at: datetime
    customer_call_id: str | None = None
    journal: JournalSpec = field(default_factory=JournalSpec)
    transfers: tuple[TransferRecord, ...] = ()
    referred_out: bool = False
    answered_by: str | None = None
    """Of an outbound call that looks for it: `human`, `voicemail`, `screener` or `announcement`; None: not known."""
    end_webhook_owed: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)
    """Token counts summed over the call: `input_text`, `input_audio`, `cached_text`, `output_audio`…"""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measured on the way: `answer_ms`, `first_audio_ms`, `packets_lost`…"""
    costs: CallCosts | None = None
    """None: nobody could tell (the process died, or the call never came to a plan)."""
