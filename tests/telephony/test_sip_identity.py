"""Who calls whom."""

from __future__ import annotations

import pytest

from switchhook.telephony.sip_identity import Identity, identify
from switchhook.telephony.wire.sip.message import Request


def invite(uri: str = "sip:+17205550100@gw", **fields: str) -> Request:
    headers = {"From": '"Ann Lee" <sip:+17205550111@phone>;tag=1', "To": "<sip:+17205550199@gw>", **fields}
    return Request("INVITE", uri, [(name.replace("_", "-"), value) for name, value in headers.items()])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (invite(), Identity("+17205550100", "+17205550111", "Ann Lee")),
        (invite("sip:gw"), Identity("+17205550199", "+17205550111", "Ann Lee")),
        (invite("tel:+1-720-555-0100"), Identity("+17205550100", "+17205550111", "Ann Lee")),
        (invite("sip:+17205550100;phone-context=x@gw"), Identity("+17205550100", "+17205550111", "Ann Lee")),
        (
            invite(P_Asserted_Identity='"Bob" <sip:+17205550122@core>, <tel:+17205550122>'),
            Identity("+17205550100", "+17205550122", "Bob"),
        ),
        (invite(P_Asserted_Identity="<tel:+17205550122>"), Identity("+17205550100", "+17205550122", "Ann Lee")),
        (invite(P_Asserted_Identity="nonsense <<"), Identity("+17205550100", "+17205550111", "Ann Lee")),
        (invite(Remote_Party_ID="<sip:+17205550133@core>"), Identity("+17205550100", "+17205550133", "Ann Lee")),
        (invite(From='"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1'), Identity("+17205550100", "anonymous", None)),
        (
            invite(From='"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1', P_Asserted_Identity="<tel:+17205550122>"),
            Identity("+17205550100", "+17205550122", None),
        ),
        (
            invite(P_Asserted_Identity="<tel:+17205550122>", Privacy="id;critical"),
            Identity("+17205550100", "anonymous", None),
        ),
        (invite(From="<sip:phone>;tag=1"), Identity("+17205550100", "anonymous", None)),
        (invite(From="<sip:+17205550111@phone>;tag=1"), Identity("+17205550100", "+17205550111", None)),
        (invite(From='"Zoë \\"Z\\"" <sip:a%20b@phone>;tag=1'), Identity("+17205550100", "a b", 'Zoë "Z"')),
    ],
)
def test_parties(request_: Request, expected: Identity) -> None:
    assert identify(request_) == expected


@pytest.mark.parametrize(
    ("request_", "called"),
    [
        (invite("sip:acme-1@192.0.2.5"), "+17205550199"),
        (invite("sip:acme-1@192.0.2.5", P_Called_Party_ID="<sip:+17205550177@core>"), "+17205550177"),
        (invite("sip:acme-1@192.0.2.5", P_Called_Party_ID="nonsense <<"), "+17205550199"),
        (invite("sip:acme-1@192.0.2.5", To="<sip:acme-1@carrier>"), "acme-1"),
        (invite("sip:acme-1@192.0.2.5", To="<sip:carrier>"), "acme-1"),
        (
            invite("sip:acme-1@192.0.2.5", To="<sip:+442079460000@away>", P_Called_Party_ID="<sip:+17205550177@core>"),
            "+17205550177",
        ),
        (invite("sip:7205550100@192.0.2.5", To="<sip:+442079460000@away>"), "7205550100"),
        (invite("sip:7205550100@192.0.2.5"), "+17205550199"),
        (invite("sip:acme-1@192.0.2.5", To="<sip:+442079460000@away>"), "+442079460000"),
    ],
)
def test_a_call_that_came_to_our_registered_contact(request_: Request, called: str) -> None:
    """The proxy has put the Contact in the place of the number, which To still tells, or P-Called-Party-ID. A number of ours
    counts first: of a diverted call To tells whom the caller dialled, and the Contact's user may be a number itself."""
    ours = ("+17205550199", "+17205550177", "7205550100")
    assert identify(request_, True, lambda user: user in ours).called == called


def test_at_no_contact_of_ours_the_request_uri_tells_the_number() -> None:
    assert identify(invite("sip:acme-2@192.0.2.5")).called == "acme-2"
    assert identify(invite(P_Called_Party_ID="<sip:+17205550177@core>")).called == "+17205550100"
