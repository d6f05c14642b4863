"""The messages under tests/data/sip, and a plain INVITE to vary."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "data" / "sip"

INVITE_LINES = (
    "INVITE sip:+17206999999@192.0.2.1 SIP/2.0",
    "Via: SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;rport",
    "From: <sip:+13035550101@192.0.2.9>;tag=a",
    "To: <sip:+17206999999@192.0.2.1>",
    "Call-ID: c1",
    "CSeq: 1 INVITE",
    "Max-Forwards: 70",
)


def sample(name: str) -> bytes:
    """One message: `valid/wsinv`."""
    return (DATA / f"{name}.sip").read_bytes()


def names(folder: str) -> list[str]:
    """Every message of a folder."""
    return sorted(f"{folder}/{path.stem}" for path in (DATA / folder).glob("*.sip"))


def message(*more: str, replace: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """The plain INVITE with more lines; `replace` changes lines by their name (the first word), to nothing if empty."""
    lines = []
    for line in INVITE_LINES:
        key = line.split(":")[0].split()[0]
        line = (replace or {}).get(key, line)
        if line:
            lines.append(line)
    return "\r\n".join([*lines, *more, "", ""]).encode("utf-8", "surrogateescape") + body
