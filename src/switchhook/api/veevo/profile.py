"""Every answer to a question that the vendor's documents leave open, in one place.

The documents do not state these values; a customer's real capture may change one, and nothing else then changes. Those that are
fields of `schema.NumberSettings` can also be set for one number.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Dialect: TypeAlias = Literal["both", "2026-04", "newer"]

# Two generations of documentation name the caller `callerPhone` (2026-04) and `callerNumber` (newer).
DIALECT: Dialect = "both"

SIGNATURE_HEADER = "X-Veevo-Signature"

CALL_START_TIMEOUT_S = 10.0
CALL_START_REPLY_BYTES = 1 << 20

OPENAI_URL = "wss://api.openai.com/v1/realtime"
MODEL = "gpt-realtime-1.5"
VOICE = "marin"
EAGERNESS = "high"
EAGERNESSES = ("low", "medium", "high", "auto")
NOISE_REDUCTION = "near_field"
NOISE_REDUCTIONS = ("near_field", "far_field")
INACTIVITY_TIMEOUT_MS = 60_000
# onCallEnd carries the caller's words, so the session must transcribe; what that costs is not in costBreakdown.
TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"
# The example's transcript begins with the assistant. After a greeting the caller speaks first.
AI_SPEAKS_FIRST = True

# The model's vendor ends a session after 60 minutes.
MAX_SECONDS = 59 * 60
CLOSING_NOTE_AFTER_MS = 55 * 60_000
CLOSING_NOTE = "This call ends in four minutes. Tell the caller when it fits, and bring the conversation to an end."
APOLOGY = "We are sorry, but we cannot take your call right now. Please call again later. Goodbye."

TOOL_TIMEOUT_S = 30.0
TOOL_REPLY_BYTES = 256 << 10
TOOL_TEXT_BYTES = 16 << 10
TOOL_ERROR_BYTES = 1 << 10

CALL_END_TIMEOUT_S = 10.0
CALL_END_REPLY_BYTES = 1 << 16
CALL_END_RETRIES_S = (5.0, 30.0, 120.0, 600.0, 3600.0)

# A reply that refuses the call holds one of these (the vendor's own shape is not visible).
REJECTING_FLAGS = ("reject", "rejected")
REJECTING_ACTIONS = ("reject", "rejected")
BUSY_REASON = "busy"
# A plain <Reject/> (RFC 3261 §21.6.2), one that says busy (§21.4.24), and a callback that gave nothing usable (§21.4.18; a 503
# would make a carrier shun the trunk).
REJECTED_STATUS = 603
BUSY_STATUS = 486
FAILED_STATUS = 480

# Whose minutes `costTwilio` counts, whatever line the call came over.
CARRIER = "twilio"

# Built-in tools that the vendor does not have; ours when a number enables them and the customer lists them.
END_CALL = "end_call"
TRANSFER_CALL = "transfer_call"
TRANSFER_RING_S = 30.0
CONSULT_S = 60.0
# Stands before what the destination of an attended transfer says to the agent: the transcript has no role for it.
DESTINATION_MARK = "[transfer destination]"

# Sent by `switchhook webhook test`.
TEST_CALLER = "+15550100000"
