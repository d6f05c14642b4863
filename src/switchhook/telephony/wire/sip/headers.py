"""Header fields in order, and the small values that some of them hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import is_token, parse_params, parse_uint, printable, quote, split_list

COMPACT_FORMS = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""One-letter names (RFC 3261 §7.3.3 and the IANA registry)."""

LIST_HEADERS = frozenset(
    {
        "accept",
        "accept-contact",
        "accept-encoding",
        "accept-language",
        "alert-info",
        "allow",
        "allow-events",
        "call-info",
        "contact",
        "content-encoding",
        "content-language",
        "diversion",
        "error-info",
        "history-info",
        "in-reply-to",
        "p-asserted-identity",
        "p-asserted-service",
        "p-associated-uri",
        "p-preferred-identity",
        "path",
        "privacy",
        "proxy-require",
        "reason",
        "record-route",
        "reject-contact",
        "require",
        "route",
        "service-route",
        "supported",
        "unsupported",
        "via",
        "warning",
    }
)
"""Fields whose value is a comma list; in every other field a comma is text (RFC 3261 §7.3.1)."""

HeaderItems = Iterable[tuple[str, str]]

_FREQUENT = (
    "Accept",
    "Allow",
    "Call-ID",
    "Contact",
    "Content-Disposition",
    "Content-Length",
    "Content-Type",
    "CSeq",
    "Date",
    "Expires",
    "From",
    "Max-Forwards",
    "Min-SE",
    "P-Asserted-Identity",
    "Privacy",
    "Proxy-Require",
    "RAck",
    "Reason",
    "Record-Route",
    "Replaces",
    "Require",
    "Retry-After",
    "Route",
    "RSeq",
    "Server",
    "Session-Expires",
    "Subject",
    "Supported",
    "Timestamp",
    "To",
    "User-Agent",
    "Via",
)
_KNOWN: dict[str, tuple[str, str, bool]] = {
    spelling: (name.lower(), name, name.lower() in LIST_HEADERS)
    for name in (*_FREQUENT, *COMPACT_FORMS.values())
    for spelling in (name, name.lower())
} | {letter: (name.lower(), name, name.lower() in LIST_HEADERS) for letter, name in COMPACT_FORMS.items()}
"""Key, name and whether it is a comma list, of the names that are read for every message, as they are mostly spelt."""


class Headers:
    """An ordered multimap: names without regard to case, compact forms under their full names, one entry per value.

    A comma list counts as so many entries (`Allow: INVITE, ACK` is two). Values are text on one line.
    """

    __slots__ = ("_entries", "version")

    def __init__(self, items: HeaderItems = ()) -> None:
        self._entries: list[tuple[str, str, str]] = []
        self.version = 0
        """Rises with each change, so that parsed values can be cached beside it."""
        for name, value in items:
            self.add(name, value)

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        key = _key(name)
        for entry_key, _, value in self._entries:
            if entry_key == key:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Every value, in order."""
        key = _key(name)
        return [entry[2] for entry in self._entries if entry[0] == key]

    def add(self, name: str, value: str) -> None:
        """Append a field; a comma list becomes one entry per element.

        Raises:
            ValueError: the name is no token, or the value holds a line break.
        """
        self._entries.extend(_entries(name, value))
        self.version += 1

    def add_if_named(self, name: str, value: str) -> bool:
        """Append a field as it came over the wire, on one line; False, and nothing is done, when its name is no token."""
        if name not in _KNOWN and not is_token(name):
            return False
        self._entries.extend(_read(name, value))
        self.version += 1
        return True

    def add_from(self, other: Headers, name: str) -> None:
        """Append another message's fields of that name as they are."""
        key = _key(name)
        self._entries.extend(entry for entry in other._entries if entry[0] == key)
        self.version += 1

    def only(self, keys: frozenset[str]) -> Headers:
        """A separate multimap with the fields of these names (lower case, in full), in order."""
        twin = Headers()
        twin._entries = [entry for entry in self._entries if entry[0] in keys]
        return twin

    def lower_names(self) -> list[str]:
        """The name of each field in lower case, in order."""
        return [key for key, _, _ in self._entries]

    def lines_but(self, key: str) -> list[str]:
        """Each field as it is sent, but those of this name (lower case, in full)."""
        return [f"{name}: {value}" for entry_key, name, value in self._entries if entry_key != key]

    def set(self, name: str, value: str) -> None:
        """Replace every field of that name by this one, where the first of them stood.

        Raises:
            ValueError: as for `add`.
        """
        key, fresh = _key(name), _entries(name, value)
        at = self._find(key)
        self._entries[at:] = fresh + [entry for entry in self._entries[at:] if entry[0] != key]
        self.version += 1

    def insert(self, name: str, value: str) -> None:
        """Put a field before the first of that name, or before all: what proxies look at goes to the top (RFC 3261 §7.3.1).

        Raises:
            ValueError: as for `add`.
        """
        at = self._find(_key(name))
        at = 0 if at == len(self._entries) else at
        self._entries[at:at] = _entries(name, value)
        self.version += 1

    def replace_first(self, name: str, value: str) -> None:
        """Replace the first value of that name and leave the others; adds it if there is none.

        Raises:
            ValueError: as for `add`.
        """
        fresh = _entries(name, value)
        at = self._find(_key(name))
        self._entries[at : at + 1] = fresh
        self.version += 1

    def remove(self, name: str) -> None:
        """Take out every field of that name."""
        key = _key(name)
        self._entries = [entry for entry in self._entries if entry[0] != key]
        self.version += 1

    def copy(self) -> Headers:
        """A separate multimap with the same fields."""
        twin = Headers()
        twin._entries = self._entries.copy()
        return twin

    def _find(self, key: str) -> int:
        return next((at for at, entry in enumerate(self._entries) if entry[0] == key), len(self._entries))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, value) for _, name, value in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(key, value) for key, _, value in self._entries] == [(key, value) for key, _, value in other._entries]

    def __repr__(self) -> str:
        return f"<Headers {len(self._entries)} fields>"


def _key(name: str) -> str:
    known = _KNOWN.get(name)
    if known is not None:
        return known[0]
    key = name.lower()
    return COMPACT_FORMS[key].lower() if key in COMPACT_FORMS else key


def _entries(name: str, value: str) -> list[tuple[str, str, str]]:
    if name not in _KNOWN and not is_token(name):
        raise ValueError("a header field's name is not a token")
    if "\r" in value or "\n" in value:
        raise ValueError(f"the value of {name} holds a line break")
    return _read(name, value)


def _read(name: str, value: str) -> list[tuple[str, str, str]]:
    known = _KNOWN.get(name)
    if known is None:
        key = name.lower()
        name = COMPACT_FORMS.get(key, name)
        key = name.lower()
        is_list = key in LIST_HEADERS
    else:
        key, full, is_list = known
        name = full if len(name) == 1 else name
    if is_list and "," in value:
        return [(key, name, part) for part in split_list(value)]
    return [(key, name, value.strip())]


@dataclass(frozen=True, slots=True)
class CSeq:
    """Orders the requests of a dialog (RFC 3261 §20.16)."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Read `number method`.

        Raises:
            GrammarError: not that, or the number is 2³¹ or more (RFC 3261 §8.1.1.5).
        """
        parts = text.split()
        if len(parts) != 2 or not is_token(parts[1]):
            raise GrammarError("expected a number and a method")
        return cls(parse_uint(parts[0], 2**31 - 1), parts[1])

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@dataclass(frozen=True, slots=True)
class RAck:
    """Which reliable provisional response a PRACK acknowledges (RFC 3262 §7.2)."""

    rseq: int
    cseq: CSeq

    @classmethod
    def parse(cls, text: str) -> RAck:
        """Read `rseq cseq-number method`.

        Raises:
            GrammarError: not that.
        """
        rseq, _, cseq = text.strip().partition(" ")
        return cls(parse_uint(rseq), CSeq.parse(cseq))

    def __str__(self) -> str:
        return f"{self.rseq} {self.cseq}"


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """How long a session lives without refresh, and who refreshes (RFC 4028 §4)."""

    interval_s: int
    refresher: str | None = None
    """`uac` or `uas`."""

    @classmethod
    def parse(cls, text: str) -> SessionExpires:
        """Read `seconds;refresher=uac`.

        Raises:
            GrammarError: not that.
        """
        seconds, semicolon, params = text.partition(";")
        refresher = parse_params(semicolon + params).get("refresher")
        refresher = refresher.lower() if refresher else None
        return cls(parse_uint(seconds), refresher if refresher in ("uac", "uas") else None)

    def __str__(self) -> str:
        return f"{self.interval_s};refresher={self.refresher}" if self.refresher else str(self.interval_s)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was sent (RFC 3326): `Q.850;cause=16;text="Terminated"`."""

    protocol: str
    cause: int | None = None
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Reason:
        """Read one reason.

        Raises:
            GrammarError: not that.
        """
        protocol, semicolon, rest = text.partition(";")
        protocol = protocol.strip()
        if not is_token(protocol):
            raise GrammarError("expected a protocol")
        params = parse_params(semicolon + rest)
        cause = params.get("cause")
        return cls(protocol, parse_uint(cause, 65535) if cause else None, printable(params.get("text") or ""))

    def __str__(self) -> str:
        cause = "" if self.cause is None else f";cause={self.cause}"
        return f"{self.protocol}{cause}" + (f";text={quote(self.text)}" if self.text else "")
