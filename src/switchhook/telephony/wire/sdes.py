"""Keys for SRTP inside SDP (RFC 4568): the suites we speak, what an `a=crypto` line says, and what ours say."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from switchhook.telephony.wire.sdp import Crypto

_KEY_BYTES = {
    "AES_CM_128_HMAC_SHA1_80": 16 + 14,
    "AEAD_AES_128_GCM": 16 + 12,
    "AEAD_AES_256_GCM": 32 + 12,
    "AES_CM_128_HMAC_SHA1_32": 16 + 14,
}
"""Master key and salt (RFC 4568 §6.2, RFC 7714 §14.2), in the order we offer them.

The first is the one that everybody must have (RFC 3711 §5), and some peers read only the first line; the last has a short tag.
"""
SUITES = tuple(_KEY_BYTES)
_METHOD = "inline:"
_LIFETIME = re.compile(r"(2\^)?([0-9]{1,15})")
_MKI = re.compile(r"[0-9]{1,40}:([0-9]{1,3})")
_MAX_LIFETIME = 1 << 48
_MAX_MKI_BYTES = 128


class SrtpMode(Enum):
    """Whether sound is encrypted."""

    OFF = "off"
    OFFERED = "offered"
    """When the peer can."""
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class SrtpKey:
    """What one side protects its packets with."""

    suite: str
    """One of `SUITES`."""
    master: bytes = field(repr=False)
    """Master key and master salt, one after the other."""
    mki_bytes: int = 0
    """Length of the master key identifier in each packet (RFC 3711 §3.1); with one key it tells nothing else."""


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """The keys of both sides, of one suite."""

    ours: SrtpKey
    theirs: SrtpKey


def fresh_keys(entropy: Callable[[int], bytes]) -> tuple[SrtpKey, ...]:
    """A new key for each suite, no two alike; `entropy` gives so many random bytes."""
    return tuple(SrtpKey(suite, entropy(size)) for suite, size in _KEY_BYTES.items())


def read_key(crypto: Crypto) -> SrtpKey | None:
    """The key of an `a=crypto` line; None when we cannot do what it says: another suite, several keys, unknown terms.

    Such a line is passed over (RFC 4568 §5.1.2). A lifetime is not counted down: at 50 packets a second the shortest that anyone
    writes, 2^20, is six hours.
    """
    suite = crypto.suite.upper()
    if suite not in _KEY_BYTES or not _harmless(crypto.session_params) or not crypto.key_params.lower().startswith(_METHOD):
        return None
    # Several keys, with semicolons between them, ask for a change of key in mid-stream (RFC 4568 §6.1).
    encoded, *terms = crypto.key_params[len(_METHOD) :].split("|")
    master = _decode(encoded)
    mki_bytes = _read_terms(terms)
    if master is None or len(master) != _KEY_BYTES[suite] or mki_bytes is None:
        return None
    return SrtpKey(suite, master, mki_bytes)


def write_key(tag: int, key: SrtpKey) -> Crypto:
    """The `a=crypto` line of a key of ours, which has no lifetime and no MKI."""
    return Crypto(tag, key.suite, _METHOD + b64encode(key.master).decode())


def _decode(text: str) -> bytes | None:
    # The padding is part of the grammar (RFC 4568 §9.2), and some leave it off.
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _read_terms(terms: list[str]) -> int | None:
    """Length of the MKI by `|lifetime|mki:length`, either of which may be left off; None for anything else."""
    mki = _MKI.fullmatch(terms[-1]) if terms else None
    lifetimes = terms[:-1] if mki else terms
    if len(lifetimes) > 1 or not all(_is_lifetime(text) for text in lifetimes):
        return None
    length = int(mki.group(1)) if mki else 0
    return None if length > _MAX_MKI_BYTES or (mki and not length) else length


def _is_lifetime(text: str) -> bool:
    match = _LIFETIME.fullmatch(text)
    if match is None:
        return False
    number = int(match.group(2))
    return number <= 48 if match.group(1) else 0 < number <= _MAX_LIFETIME


def _harmless(session_params: str) -> bool:
    """Whether nothing is asked for that we do not do: a window hint and what may be ignored (RFC 4568 §6.3.6, §6.3.7)."""
    return all(word.startswith("-") or word.upper().startswith("WSH=") for word in session_params.split())
