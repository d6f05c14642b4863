"""Numbered sound: every 20 ms frame says in its own µ-law bytes which call and direction it belongs to and which frame it is.

Ten frames make a piece of 200 ms, the unit in which loss is counted. A frame is sixteen hexadecimal digits, each held for ten
samples as one of sixteen µ-law levels that lie seven codes apart, so a digit survives a small change of level:
`a5` (mark), direction, call (4), frame (7), check (2).
"""

from __future__ import annotations

FRAME_BYTES = 160
FRAMES_PER_PIECE = 10
UP, DOWN = 1, 2
DIGIT_BYTES = 10
_MARK = b"a5"
_HEX = b"0123456789abcdef"
_LEVELS = bytes(0x80 + 7 * digit for digit in range(16))
_TO_LEVEL = bytes.maketrans(_HEX, _LEVELS)
_SILENT = frozenset({0xFF, 0x7F, 0xFE, 0x7E})
SILENCE = b"\xff" * FRAME_BYTES


def _nearest_digits() -> bytes:
    """Every byte to the digit whose level is at most three codes away, or to `x`."""
    table = bytearray(b"x" * 256)
    for digit, level in enumerate(_LEVELS):
        for code in range(max(0x80, level - 3), level + 4):
            table[code] = _HEX[digit]
    return bytes(table)


_TO_DIGIT = _nearest_digits()


def _check(direction: int, call: int, frame: int) -> int:
    return (direction * 97 + call * 31 + (call >> 8) * 7 + frame * 17 + (frame >> 8) * 13 + (frame >> 16) * 5) & 0xFF


def encode(direction: int, call: int, frame: int) -> bytes:
    """The 160 bytes of one frame."""
    digits = b"a5%x%04x%07x%02x" % (direction, call, frame, _check(direction, call, frame))
    levels = digits.translate(_TO_LEVEL)
    out = bytearray(FRAME_BYTES)
    for offset in range(DIGIT_BYTES):
        out[offset::DIGIT_BYTES] = levels
    return bytes(out)


def is_silence(frame: bytes) -> bool:
    """Whether the frame says nothing; one sample is looked at, for the load's sake."""
    return frame[5] in _SILENT


def decode(frame: bytes) -> tuple[int, int, int] | None:
    """(direction, call, frame number), or None when the frame is damaged or foreign."""
    digits = frame[5::DIGIT_BYTES].translate(_TO_DIGIT)
    if digits[:2] != _MARK or len(digits) != 16 or b"x" in digits:
        return None
    direction, call, number = int(digits[2:3], 16), int(digits[3:7], 16), int(digits[7:14], 16)
    return (direction, call, number) if int(digits[14:], 16) == _check(direction, call, number) else None
