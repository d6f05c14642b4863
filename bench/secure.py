"""The callers' side of SRTP with keys in SDP: what a caller offers, and how it then sends and reads."""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable

from pylibsrtp import Policy, Session

SUITE = b"AES_CM_128_HMAC_SHA1_80"
ANSWERED = re.compile(rb"\r\na=crypto:\d+ " + SUITE + rb" inline:([A-Za-z0-9+/=]+)")
KEY_BYTES = 30


def new_key() -> bytes:
    """Master key and salt."""
    return os.urandom(KEY_BYTES)


def offer_line(key: bytes) -> bytes:
    """The line of the offer that carries a caller's key."""
    return b"a=crypto:1 %s inline:%s\r\n" % (SUITE, b64encode(key))


def ways(key: bytes, answer: bytes) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]] | None:
    """(protect, unprotect) by our key and the one in the answer; None when the answer has none."""
    theirs = ANSWERED.search(answer)
    if theirs is None:
        return None
    sender = Session(Policy(key, Policy.SSRC_ANY_OUTBOUND))
    receiver = Session(Policy(b64decode(theirs.group(1)), Policy.SSRC_ANY_INBOUND))
    return sender.protect, receiver.unprotect
