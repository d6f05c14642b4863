"""SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966); any other scheme is kept as it came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import (
    escape_user,
    format_host_port,
    parse_host_port,
    printable,
    unescape,
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_FORBIDDEN = re.compile(r'[\x00-\x20"<>\x7f]')
_HOST_END = re.compile(r"[;?]")
_TEL_NUMBER = re.compile(r"\+?[0-9A-Fa-f*#().\-]+")
_VISUAL_SEPARATORS = str.maketrans("", "", "-.()")


def is_sip_uri(text: str) -> bool:
    """Whether a text says that it is a SIP or SIPS URI; it may be a bad one."""
    return text[:5].lower().startswith(("sip:", "sips:"))


@dataclass(frozen=True, slots=True)
class SipUri:
    """`sip:user:password@host:port;params?headers`."""

    host: str
    """Name or address; IPv6 without brackets."""
    user: str | None = None
    """Without percent-escapes; with the parameters of a telephone subscriber, if any."""
    port: int | None = None
    params: Mapping[str, str | None] = field(default_factory=dict)
    """URI parameters in order, as written; names in lower case."""
    headers: str = ""
    """What follows the question mark, as written."""
    scheme: str = "sip"
    password: str | None = field(default=None, repr=False)
    escaped_user: str | None = field(default=None, compare=False, repr=False)
    """The user part as it came: a peer gets its own contact back byte for byte."""

    @classmethod
    def parse(cls, text: str) -> SipUri:
        """Read a SIP or SIPS URI.

        Raises:
            GrammarError: another scheme, or not a URI.
        """
        scheme, colon, rest = text.strip().partition(":")
        scheme = scheme.lower()
        if not colon or scheme not in ("sip", "sips"):
            raise GrammarError("expected a sip: or sips: URI")
        if _FORBIDDEN.search(rest):
            raise GrammarError("a URI holds a blank, a quote or a control character")
        # `;` and `?` may stand in the user part (RFC 3261 §25.1 `user-unreserved`), so the at sign is looked for first.
        before, at, after = rest.partition("@")
        userinfo, rest = (before, after) if at else ("", rest)
        end = _HOST_END.search(rest)
        host_port, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
        host, port = parse_host_port(host_port)
        params, _, headers = tail.partition("?")
        user, password = _parse_userinfo(userinfo) if at else (None, None)
        return cls(
            host=host,
            user=None if user is None else printable(unescape(user)),
            port=port,
            params=_parse_uri_params(params),
            headers=headers,
            scheme=scheme,
            password=password,
            escaped_user=user,
        )

    @property
    def transport(self) -> str | None:
        """The `transport` parameter in lower case."""
        value = self.params.get("transport")
        return value.lower() if value else None

    def __str__(self) -> str:
        user = self.escaped_user
        if self.user is None:
            userinfo = ""
        else:
            if user is None or printable(unescape(user)) != self.user:
                user = escape_user(self.user)
            userinfo = f"{user}@" if self.password is None else f"{user}:{self.password}@"
        params = "".join(f";{name}" if value is None else f";{name}={value}" for name, value in self.params.items())
        headers = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{userinfo}{format_host_port(self.host, self.port)}{params}{headers}"


@dataclass(frozen=True, slots=True)
class TelUri:
    """`tel:+1-720-699-9999;phone-context=…`."""

    number: str
    """As written, with visual separators."""
    params: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> TelUri:
        """Read a tel URI.

        Raises:
            GrammarError: another scheme, or no number.
        """
        scheme, _, rest = text.strip().partition(":")
        number, semicolon, params = rest.partition(";")
        number = number.strip()
        if scheme.lower() != "tel" or not _TEL_NUMBER.fullmatch(number):
            raise GrammarError("expected tel: and a telephone number")
        return cls(number, _parse_uri_params(semicolon + params))

    @property
    def user(self) -> str:
        """The number without visual separators: what a SIP URI has as its user part."""
        return self.number.translate(_VISUAL_SEPARATORS)

    def __str__(self) -> str:
        params = "".join(f";{name}" if value is None else f";{name}={value}" for name, value in self.params.items())
        return f"tel:{self.number}{params}"


@dataclass(frozen=True, slots=True)
class OpaqueUri:
    """A URI of a scheme that is not ours: kept, shown, never followed."""

    scheme: str
    rest: str
    """What follows the colon, as written."""

    @property
    def user(self) -> None:
        """Nothing is known of its parts."""
        return None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


Uri = SipUri | TelUri | OpaqueUri


def parse_uri(text: str) -> Uri:
    """Read any URI.

    Raises:
        GrammarError: no scheme, or a broken sip, sips or tel URI.
    """
    text = text.strip()
    match = _SCHEME.match(text)
    if match is None:
        raise GrammarError("expected a URI with a scheme")
    scheme = match.group(1).lower()
    if scheme in ("sip", "sips"):
        return SipUri.parse(text)
    if scheme == "tel":
        return TelUri.parse(text)
    rest = text[match.end() :]
    if not rest or _FORBIDDEN.search(rest):
        raise GrammarError("a URI is empty or holds a blank, a quote or a control character")
    return OpaqueUri(match.group(1), rest)


def _parse_userinfo(text: str) -> tuple[str, str | None]:
    user, colon, password = text.partition(":")
    if not user:
        raise GrammarError("a URI has an empty user part")
    return user, password if colon else None


def _parse_uri_params(text: str) -> dict[str, str | None]:
    params: dict[str, str | None] = {}
    for part in text.split(";"):
        if part := part.strip():
            name, equals, value = part.partition("=")
            name = name.lower()
            if not name or not name.isascii():
                raise GrammarError("a URI parameter has no name")
            params.setdefault(name, value if equals else None)
    return params
