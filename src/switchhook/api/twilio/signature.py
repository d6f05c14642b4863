"""`X-Twilio-Signature`: proof that a request comes from Twilio (contract `vns-veevo` §4.4).

It is the Base64 of an HMAC under the account's auth token over the full URL, followed by each form field, sorted by name, as
name and value. The body of a JSON request is covered by the hash in its URL's `bodySHA256`. Handshakes of Media Streams are
signed over their `wss:` URL.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit, urlunsplit

SIGNATURE = "X-Twilio-Signature"
SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
"""`key=<id>,algorithm=HMAC_SHA256` on requests that are signed in the newer way."""
HMAC_SHA1 = "HMAC_SHA1"
_DIGESTS = {HMAC_SHA1: hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers, and the signature."""

    url: str = field(repr=False)
    """As Twilio requested it, query included."""
    signature: str = field(repr=False)
    fields: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """Of a form, in any order; a name may occur again."""
    body: bytes = field(default=b"", repr=False)
    """Of a request that is no form; only the hash in its URL proves it."""
    settings: str = ""
    """The SETTINGS header."""


def signature_of(secret: str, url: str, fields: Iterable[tuple[str, str]] = (), algorithm: str = HMAC_SHA1) -> str:
    """The signature. Equal values of one field count once. Raises ValueError for an algorithm that Twilio does not have."""
    digest = _DIGESTS.get(algorithm.upper())
    if digest is None:
        raise ValueError(f"{algorithm} is no algorithm of Twilio's signatures")
    text = url + "".join(name + value for name, value in sorted(set(fields)))
    return b64encode(hmac.new(_bytes(secret), _bytes(text), digest).digest()).decode()


def is_signed_by(request: SignedRequest, secret: str) -> bool:
    """Whether the request was signed with this secret; False for an empty one, and for whatever cannot be read."""
    algorithm = _algorithm(request.settings)
    if not secret or not request.signature or algorithm not in _DIGESTS:
        return False
    try:
        urls, expected_hash = _forms_of(request.url), _body_hash(request.url)
    except ValueError:  # no URL at all
        return False
    if request.body and not _same(hashlib.sha256(request.body).hexdigest(), expected_hash):
        return False
    return any([_same(signature_of(secret, url, request.fields, algorithm), request.signature) for url in urls])


def _algorithm(settings: str) -> str:
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return HMAC_SHA1


def _forms_of(url: str) -> list[str]:
    """The URL without its port and with it: Twilio is not of one mind about which of them it signs."""
    parts = urlsplit(url)
    before, at, place = parts.netloc.rpartition("@")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    bare = place if place.endswith("]") or ":" not in place else place.rpartition(":")[0]
    places = [bare, f"{bare}:{port}"] if port else [bare]
    return [url, *(urlunsplit(parts._replace(netloc=before + at + place)) for place in places)]


def _body_hash(url: str) -> str:
    return parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0].lower()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
