"""The extensions behind an account's own trunks: what is no telephone number and may be dialled all the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from switchhook.domain.dialling import MOST_EXTENSION_DIGITS, allows_extension
from switchhook.domain.model import Trunk
from switchhook.telephony.caller_identity import request_uri
from switchhook.telephony.wire.sip.errors import GrammarError
from switchhook.telephony.wire.sip.uri import SipUri, is_sip_uri
from switchhook.usecases.numbering import is_emergency

_SHORT = re.compile(rf"[0-9]{{1,{MOST_EXTENSION_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Extension:
    """Somebody behind a trunk."""

    name: str
    """`1001`: the user part."""
    trunk: str
    uri: str
    """Where it is dialled: at the trunk's own address."""


class Extensions:
    """Those that the trunks of one account allow, by rising priority of the trunks.

    `own_hosts`: what peers call this server; a URI at one of them is meant for the trunk too, as phone systems write it that
    know nobody beyond us. A URI at any other host than the trunk's own is no extension, whatever its user part is.
    """

    def __init__(self, trunks: Iterable[Trunk] = (), own_hosts: Collection[str] = ()) -> None:
        listed = sorted((trunk for trunk in trunks if trunk.extensions), key=lambda trunk: trunk.priority)
        self._trunks = [(_host(SipUri.parse(trunk.address)), trunk) for trunk in listed]
        self._own_hosts = frozenset(host.strip("[]").lower() for host in own_hosts)

    def find(self, text: str, countries: Iterable[str]) -> Extension | None:
        """The extension that somebody wrote: `1001`, `tel:1001`, `sip:1001@pbx.example`; no emergency number of `countries`."""
        host, name = _parts(text)
        for at, trunk in self._trunks:
            if (host is None or host == at or host in self._own_hosts) and allows_extension(trunk.extensions, name):
                return None if _is_emergency(name, countries) else Extension(name, trunk.name, str(request_uri(name, trunk)))
        return None


def could_be_extension(text: str, countries: Iterable[str]) -> bool:
    """Whether a text that is no telephone number may be meant as an extension: a SIP address, or a few digits."""
    _, name = _parts(text)
    if not name or _is_emergency(name, countries):
        return False
    return is_sip_uri(text.strip()) or _SHORT.fullmatch(name) is not None


def _is_emergency(name: str, countries: Iterable[str]) -> bool:
    return any(is_emergency(name, country) for country in countries)


def _parts(text: str) -> tuple[str | None, str]:
    """Host and user part of a SIP URI; of anything else no host, and the text."""
    written = text.strip()
    if not is_sip_uri(written):
        return None, written[4:] if written[:4].lower() == "tel:" else written
    try:
        uri = SipUri.parse(written)
    except GrammarError:
        return "", ""
    return _host(uri), uri.user or ""


def _host(uri: SipUri) -> str:
    return uri.host.rstrip(".").lower()
