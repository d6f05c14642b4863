"""A request of Twilio's, as it was signed: under the URL that Twilio knows us by, with its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from switchhook.api.twilio.signature import SETTINGS, SIGNATURE, SignedRequest

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 500


@dataclass(frozen=True, slots=True)
class Received:
    """One request. Nothing of it may be believed before its signature was checked."""

    signed: SignedRequest
    form: Mapping[str, str] = field(repr=False)
    """Fields of the form and of the query; of a name that occurs again, the last one."""

    def get(self, name: str) -> str:
        """A field, or an empty text."""
        return self.form.get(name, "")


class PublicPlace:
    """How the outside reaches us: the configured address, or else what the request says of itself."""

    def __init__(self, public_url: str | None, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        """Forwarded headers count from `trusted_proxies` alone."""
        self._public_url = public_url.rstrip("/") if public_url else None
        self._trusted = tuple(trusted_proxies)

    def url_of(self, request: web.Request) -> str:
        """The URL that the other side asked for, query included."""
        return self.origin_of(request) + request.raw_path

    def origin_of(self, request: web.Request) -> str:
        """Scheme, host and port that the other side asked for."""
        if self._public_url is not None:
            return self._public_url
        scheme, host = request.scheme, request.host
        if self._trusts(request.remote):
            scheme = _first(request.headers.get(hdrs.X_FORWARDED_PROTO)) or scheme
            host = _first(request.headers.get(hdrs.X_FORWARDED_HOST)) or host
        return f"{scheme}://{host}"

    def _trusts(self, remote: str | None) -> bool:
        try:
            address = ip_address(remote or "")
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


async def receive(request: web.Request, place: PublicPlace) -> Received:
    """Read a request. Raises HTTPBadRequest for a form that cannot be read, HTTPRequestEntityTooLarge for a large body."""
    body = await request.read()
    is_form = request.content_type == FORM
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS) if is_form else []
        query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise web.HTTPBadRequest(reason="The form cannot be read") from None
    signed = SignedRequest(
        place.url_of(request),
        request.headers.get(SIGNATURE, ""),
        fields,
        b"" if is_form else body,
        request.headers.get(SETTINGS, ""),
    )
    return Received(signed, dict([*query, *fields]))


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
