"""The header fields of a message as values: read when asked for, and kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.content import find_part, media_type
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.grammar import parse_uint
from switchhook.telephony.wire.sip.headers import CSeq, HeaderItems, Headers, RAck, Reason, SessionExpires
from switchhook.telephony.wire.sip.via import Via

_SECONDS_END = re.compile(r"[;( ]")

ValueT = TypeVar("ValueT")


class Fields:
    """Header fields and body of a request or response.

    The typed accessors read a field when first asked, and keep the result until `headers` changes; do not change the lists they
    return. An accessor raises `RemoteProtocolError` (400) when the field is there and broken, and those without `None` in their
    type also when it is missing. Fields that only inform (identity, diversion, reason, retry time) leave out what is broken.
    """

    __slots__ = ("_cache", "_cache_version", "body", "headers")

    def __init__(self, headers: Headers | HeaderItems = (), body: bytes = b"") -> None:
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.body = body
        self._cache: dict[tuple[str, str], Any] = {}
        self._cache_version = self.headers.version

    @property
    def via(self) -> Via:
        """The topmost Via: the hop that sent the message."""
        return self.vias[0]

    @property
    def vias(self) -> list[Via]:
        """Every Via, topmost first; at least one."""
        vias = self._all("Via", Via.parse)
        if not vias:
            raise RemoteProtocolError(400, "Via: missing")
        return vias

    @property
    def from_(self) -> NameAddr:
        """Who asks."""
        return self._required("From", NameAddr.parse)

    @property
    def to(self) -> NameAddr:
        """Who is asked."""
        return self._required("To", NameAddr.parse)

    @property
    def call_id(self) -> str:
        """Names the call between two user agents."""
        return self._required("Call-ID", _parse_call_id)

    @property
    def cseq(self) -> CSeq:
        """Number and method of the request."""
        return self._required("CSeq", CSeq.parse)

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact; None for `*` too."""
        contacts = self.contacts
        return contacts[0] if contacts else None

    @property
    def contacts(self) -> list[NameAddr]:
        """Every Contact but `*`."""
        return [] if self.wildcard_contact else self._all("Contact", NameAddr.parse)

    @property
    def wildcard_contact(self) -> bool:
        """`Contact: *`: a registration is to be removed (RFC 3261 §10.2.2)."""
        return self.headers.get("Contact") == "*"

    @property
    def record_route(self) -> list[NameAddr]:
        """Proxies that want to stay on the path, in the order they are written."""
        return self._all("Record-Route", NameAddr.parse)

    @property
    def route(self) -> list[NameAddr]:
        """Proxies to pass."""
        return self._all("Route", NameAddr.parse)

    @property
    def max_forwards(self) -> int | None:
        """Hops left."""
        return self._first("Max-Forwards", lambda text: parse_uint(text, 255))

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, as the sender counted; several fields must agree."""
        lengths = set(self._all("Content-Length", parse_uint))
        if len(lengths) > 1:
            raise RemoteProtocolError(400, "Content-Length: several values")
        return lengths.pop() if lengths else None

    @property
    def content_type(self) -> str | None:
        """Media type in lower case, without parameters."""
        value = self.headers.get("Content-Type")
        return None if value is None else media_type(value)

    def body_of(self, wanted: str) -> bytes | None:
        """The body, or the part of a multipart body, of a media type (lower case); None if there is none."""
        if not self.body:
            return None
        return find_part(self.headers.get("Content-Type") or "", self.body, wanted)

    @property
    def allow(self) -> list[str]:
        """Methods the sender takes."""
        return self._words("Allow")

    @property
    def require(self) -> list[str]:
        """Extensions the receiver must know, in lower case."""
        return self._option_tags("Require")

    @property
    def proxy_require(self) -> list[str]:
        """Extensions a proxy must know, in lower case."""
        return self._option_tags("Proxy-Require")

    @property
    def supported(self) -> list[str]:
        """Extensions the sender knows, in lower case."""
        return self._option_tags("Supported")

    @property
    def unsupported(self) -> list[str]:
        """Extensions a 420 refuses, in lower case."""
        return self._option_tags("Unsupported")

    @property
    def session_expires(self) -> SessionExpires | None:
        """The session timer (RFC 4028)."""
        return self._first("Session-Expires", SessionExpires.parse)

    @property
    def min_se(self) -> int | None:
        """Shortest session timer, in seconds (RFC 4028 §5)."""
        return self._first("Min-SE", lambda text: parse_uint(text.partition(";")[0]))

    @property
    def expires(self) -> int | None:
        """Seconds a registration, subscription or invitation is good for."""
        return self._first("Expires", parse_uint)

    @property
    def rseq(self) -> int | None:
        """Number of a reliable provisional response (RFC 3262 §7.1)."""
        return self._first("RSeq", parse_uint)

    @property
    def rack(self) -> RAck | None:
        """What a PRACK acknowledges (RFC 3262 §7.2)."""
        return self._first("RAck", RAck.parse)

    @property
    def refer_to(self) -> NameAddr | None:
        """Whom to call (RFC 3515 §2.1)."""
        return self._first("Refer-To", NameAddr.parse)

    @property
    def referred_by(self) -> NameAddr | None:
        """Who asked for the transfer (RFC 3892)."""
        return self._informative_first("Referred-By", NameAddr.parse)

    @property
    def p_asserted_identity(self) -> list[NameAddr]:
        """The caller, as the network vouches for it (RFC 3325 §9.1)."""
        return self._informative("P-Asserted-Identity", NameAddr.parse)

    @property
    def remote_party_id(self) -> NameAddr | None:
        """The older form of P-Asserted-Identity."""
        return self._informative_first("Remote-Party-ID", NameAddr.parse)

    @property
    def diversion(self) -> list[NameAddr]:
        """From whom the call was forwarded, latest first (RFC 5806)."""
        return self._informative("Diversion", NameAddr.parse)

    @property
    def history_info(self) -> list[NameAddr]:
        """Targets the request had before, in order (RFC 7044)."""
        return self._informative("History-Info", NameAddr.parse)

    @property
    def privacy(self) -> list[str]:
        """What is to stay hidden, in lower case (RFC 3323 §4.2)."""
        return [word.strip().lower() for value in self.headers.get_all("Privacy") for word in value.split(";") if word.strip()]

    @property
    def reasons(self) -> list[Reason]:
        """Why the request was sent (RFC 3326)."""
        return self._informative("Reason", Reason.parse)

    @property
    def retry_after(self) -> int | None:
        """Seconds to wait before trying again."""
        return self._informative_first("Retry-After", lambda text: parse_uint(_SECONDS_END.split(text.strip(), 1)[0]))

    @property
    def date(self) -> str | None:
        """The Date field as written."""
        return self.headers.get("Date")

    def _words(self, name: str) -> list[str]:
        return [word for word in self.headers.get_all(name) if word]

    def _option_tags(self, name: str) -> list[str]:
        return [word.lower() for word in self._words(name)]

    def _required(self, name: str, parse: Callable[[str], ValueT]) -> ValueT:
        value: ValueT | None = self._cache.get(("first", name)) if self._cache_version == self.headers.version else None
        if value is None:
            value = self._first(name, parse)
        if value is None:
            raise RemoteProtocolError(400, f"{name}: missing")
        return value

    def _first(self, name: str, parse: Callable[[str], ValueT]) -> ValueT | None:
        kept, key = self._kept(), ("first", name)
        if key not in kept:
            text = self.headers.get(name)
            kept[key] = None if text is None else _parsed(name, text, parse)
        value: ValueT | None = kept[key]
        return value

    def _all(self, name: str, parse: Callable[[str], ValueT]) -> list[ValueT]:
        kept, key = self._kept(), ("all", name)
        if key not in kept:
            kept[key] = [_parsed(name, text, parse) for text in self.headers.get_all(name)]
        values: list[ValueT] = kept[key]
        return values

    def _informative(self, name: str, parse: Callable[[str], ValueT]) -> list[ValueT]:
        def read() -> list[ValueT]:
            found = []
            for value in self.headers.get_all(name):
                try:
                    found.append(parse(value))
                except GrammarError:
                    continue
            return found

        return self._cached("informative", name, read)

    def _informative_first(self, name: str, parse: Callable[[str], ValueT]) -> ValueT | None:
        found = self._informative(name, parse)
        return found[0] if found else None

    def _cached(self, kind: str, name: str, read: Callable[[], ValueT]) -> ValueT:
        kept, key = self._kept(), (kind, name)
        if key not in kept:
            kept[key] = read()
        value: ValueT = kept[key]
        return value

    def _kept(self) -> dict[tuple[str, str], Any]:
        """What was read of the headers as they are."""
        if self._cache_version != self.headers.version:
            self._cache.clear()
            self._cache_version = self.headers.version
        return self._cache

    def _keep_but(self, name: str, values: list[Any]) -> None:
        """The last change of the headers changed this field alone, to these values: what was read of the others still holds."""
        self._cache = {key: value for key, value in self._cache.items() if key[1] != name}
        self._cache["all", name] = values
        self._cache_version = self.headers.version


def _parsed(name: str, value: str, parse: Callable[[str], ValueT]) -> ValueT:
    try:
        return parse(value)
    except GrammarError as error:
        raise RemoteProtocolError(400, f"{name}: {error}") from None


def _parse_call_id(text: str) -> str:
    text = text.strip()
    if not text or len(text.split()) > 1:
        raise GrammarError("expected one word")
    return text
