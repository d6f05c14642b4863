"""Every answer to a question that the vendor's documents leave open, in one place.

The documents do not state these values; a customer's real capture may change one, and nothing else then changes. Those that are
fields of `schema.NumberSettings` can also be set for one number.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

NumberFormat: TypeAlias = Literal["national", "e164", "raw"]

# Telephone numbers in webhooks: `national` drops +1 (what a backend keyed on its DID receives), `e164` keeps it, `raw` is the
# line's text.
NUMBER_FORMAT: NumberFormat = "national"
# The example's transcript begins with the AI and nothing in the reply asks for it.
AI_SPEAKS_FIRST = True
# Zone of the local times in log and transcript lines.
LOG_TIMEZONE = "UTC"
# What stands in a tool URL for a customerCallId that is null.
NULL_PLACEHOLDER = ""

CALL_START_TIMEOUT_S = 10.0
CALL_START_REPLY_BYTES = 1 << 20
# A reply that needs mending is mended up to this size only: mending is slower than parsing, and the call path waits for it.
MENDED_REPLY_BYTES = 1 << 17

MAX_SECONDS = 3600
MAX_SECONDS_CAP = 14_400

RECORDING_FORMATS = ("opus", "mp3", "wav")
RECORDING_FORMAT = "opus"

TOOL_TIMEOUT_S = 30.0
TOOL_TIMEOUT_RANGE_S = (1.0, 120.0)
TOOL_REPLY_BYTES = 256 << 10
TOOL_TEXT_BYTES = 16 << 10
TOOL_ERROR_BYTES = 1 << 10
TRANSCRIPTION_TIMEOUT_S = 5.0

CALL_END_TIMEOUT_S = 10.0
CALL_END_REPLY_BYTES = 1 << 16
CALL_END_RETRIES_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
# A tool's payload in logInformation is cut here, so that one call's CallEnd stays deliverable.
LOG_LINE_CHARACTERS = 32 << 10

# How long a call of ours rings, and how long the agent may talk with the destination of an attended transfer.
OUTBOUND_RING_S = 45.0
TRANSFER_RING_S = 30.0
CONSULT_S = 60.0
# Stands before what the destination of an attended transfer says to the agent: the transcript has no label for it.
DESTINATION_MARK = "[transfer destination]"

# An unanswered call that nobody takes: "temporarily unavailable"; 503 would make a carrier shun the trunk.
REFUSAL_STATUS = 480

# Sent by the test button.
TEST_CALLER = "5550100000"
TEST_CALLER_NAME = "Webhook Test"
