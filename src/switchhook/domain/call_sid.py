"""The name of a call as Twilio's customers know it: `CA` and 32 hexadecimal digits."""

from __future__ import annotations

import hashlib
import re

from switchhook.domain.model import CallAttempt, CallId

_SID = re.compile(r"CA[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def call_sid(attempt: CallAttempt) -> str:
    """Twilio's own name of a call that came over Twilio; of any other one made from our id, the same whenever it is asked."""
    if attempt.line == "twilio" and _SID.fullmatch(attempt.line_call_id):
        return attempt.line_call_id
    return sid_of(attempt.call_id)


def sid_of(call_id: CallId) -> str:
    """The name that is made from our id."""
    if _UUID.fullmatch(call_id):
        return f"CA{call_id.replace('-', '')}"
    return f"CA{hashlib.sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:32]}"
