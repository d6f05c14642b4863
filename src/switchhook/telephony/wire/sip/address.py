"""`From`, `To`, `Contact`, `Route` and their kin: a display name, a URI and parameters (RFC 3261 §20.10, §25.1 `name-addr`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.grammar import Params, format_params, parse_params, printable, quote, take_quoted
from switchhook.telephony.wire.sip.uri import Uri, parse_uri


@dataclass(frozen=True, slots=True)
class NameAddr:
    """`"Display name" <uri>;params`; the parameters are the header field's, not the URI's."""

    uri: Uri
    display_name: str = ""
    """Printable; empty if there is none."""
    params: Params = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Read an address with or without angle brackets.

        Display names that need quotes and lack them are taken as they are; many PBXs send those.

        Raises:
            GrammarError: unbalanced quotes or brackets, a bad URI, bad parameters.
        """
        text = text.strip()
        if text.startswith('"'):
            display_name, rest = take_quoted(text)
            rest = rest.lstrip()
            if not rest.startswith("<"):
                raise GrammarError("expected < after the display name")
        else:
            name, bracket, after = text.partition("<")
            if not bracket:
                return cls._parse_bare(text)
            if '"' in name:
                raise GrammarError("a quote inside an unquoted display name")
            display_name, rest = name.strip(), bracket + after
        uri, bracket, params = rest[1:].partition(">")
        if not bracket:
            raise GrammarError("an angle bracket does not close")
        return cls(parse_uri(uri), printable(display_name), parse_params(params))

    @classmethod
    def _parse_bare(cls, text: str) -> NameAddr:
        # Without brackets, parameters are the header field's, and the URI can have no headers (RFC 3261 §20.10).
        uri, semicolon, params = text.partition(";")
        if "?" in uri:
            raise GrammarError("a URI with a question mark needs angle brackets")
        return cls(parse_uri(uri), "", parse_params(semicolon + params))

    @property
    def tag(self) -> str | None:
        """The `tag` parameter of From and To."""
        return self.params.get("tag")

    def with_tag(self, tag: str) -> NameAddr:
        """The same address with this tag."""
        return replace(self, params={**self.params, "tag": tag})

    def __str__(self) -> str:
        name = f"{quote(self.display_name)} " if self.display_name else ""
        return f"{name}<{self.uri}>{format_params(self.params)}"
