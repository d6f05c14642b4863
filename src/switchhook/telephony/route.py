"""One way to reach a called party: the dialer works them out from trunks and addresses, `OutgoingSipLeg.begin` tries them."""

from __future__ import annotations

from dataclasses import dataclass, field

from switchhook.domain.model import Trunk
from switchhook.telephony.trunk_redirects import TrunkRedirects
from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.digest import Account
from switchhook.telephony.wire.sip.flow import Flow


@dataclass(frozen=True, slots=True)
class Route:
    """One attempt to be made: an INVITE over one trunk to one of its addresses.

    The parties are those of `caller_identity.identify_call`: `str(identity.target)`, `identity.from_`, `identity.to` and
    `identity.headers()`.
    """

    trunk: Trunk
    flow: Flow
    """Transport and numeric address that the INVITE goes to first (RFC 3263)."""
    request_uri: str
    """A SIP URI: the called party as the trunk writes it."""
    from_: NameAddr
    """Whom the call shows; without a tag."""
    to: NameAddr
    """The called party; without a tag."""
    identity_headers: tuple[tuple[str, str], ...] = ()
    """P-Asserted-Identity, Privacy: name and value (RFC 3325 §9)."""
    proxies: tuple[str, ...] = ()
    """Route header values: an outbound proxy, or the registrar's Service-Route (RFC 3608)."""
    credentials: Account | None = None
    """What answers a 401 or 407; its realm is not looked at."""
    redirects: TrunkRedirects | None = field(default=None, compare=False)
    """Whether a contact that a 3xx names may be called, by the dialling policy too. None: a redirection is a refusal."""
