"""The forms of CallEnd (contract §1.8), for tests that read one."""

from __future__ import annotations

import re
from typing import Any

FIELDS = (
    *("sessionGuid", "callStart", "callConnected", "callEnd", "calledNumber", "callerId", "callerIdName", "status"),
    *("errorMessage", "outboundTriggered", "outboundCallResult", "customerCallId", "callReferredOut", "transfers"),
    *("logInformation", "transcription"),
)
TICKS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")
LOG_LINE = re.compile(r"^\d\d/\d\d/\d\d - \d\d:\d\d:\d\d\.\d{3} - ")
TRANSCRIPT_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?=AI : |User: )")


def spoken_lines(end: dict[str, Any]) -> list[str]:
    """The transcript without its times."""
    assert all(TRANSCRIPT_LINE.match(line) for line in end["transcription"])
    return [TRANSCRIPT_LINE.sub("", line) for line in end["transcription"]]


def log_texts(end: dict[str, Any]) -> list[str]:
    """The log without its times."""
    assert all(LOG_LINE.match(line) for line in end["logInformation"])
    return [LOG_LINE.sub("", line) for line in end["logInformation"]]
