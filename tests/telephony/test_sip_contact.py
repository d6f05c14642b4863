"""Calls to a Contact that a trunk has registered: whose they are, and for which number. To is the caller's to write."""

from __future__ import annotations

import re
import socket

import pytest

from switchhook.domain.model import Trunk
from tests.peers.answering_machine import answering_machine
from tests.peers.sip_caller import Caller, sdp

OWNERS = {"+17205550100": "acme", "+17205550101": "acme", "+17205550200": "other"}


def line(account: str, username: str, **keys: object) -> Trunk:
    """A trunk that has registered, at a registrar that every account uses."""
    values = {"username": username, "password": "p", "register": True, "allow_from": ("127.0.0.1",), **keys}
    return Trunk(f"{account}-line", account, "sip:192.0.2.1", **values)  # type: ignore[arg-type]  # fields of Trunk


ACME = line("acme", "acme-1")


async def arrives(trunks: list[Trunk], user: str, to: str) -> tuple[str | None, str]:
    """Account and number of a call."""
    async with answering_machine(trunks=trunks) as machine:
        machine.server.number_owner = OWNERS.get
        address = machine.server.address()
        assert address is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.bind(("127.0.0.1", 0))
            caller = Caller(host="127.0.0.1", port=phone.getsockname()[1], target=f"sip:{user}@127.0.0.1")
            invite = caller.invite(sdp(host="127.0.0.1"))
            phone.sendto(re.sub(rb"\r\nTo: [^\r]*", b"\r\nTo: <sip:%s@carrier.example>" % to.encode(), invite), address)
            await machine.until(lambda: bool(machine.calls))
        attempt = machine.calls[0].attempt
        return attempt.account, attempt.called


@pytest.mark.parametrize(
    ("user", "to", "called"),
    [
        ("acme-1", "+17205550101", "+17205550101"),
        ("+17205550100", "+17205550101", "+17205550101"),
        ("+17205550100", "+442079460000", "+17205550100"),
        ("+17205550100", "+17205550200", "+17205550100"),
        ("other-1", "+17205550101", "other-1"),
    ],
)
async def test_the_first_number_of_the_account_is_called(user: str, to: str, called: str) -> None:
    """What another account registered is no Contact of this one's, and what is another account's number not called."""
    trunks = [line("acme", "+17205550100" if user.startswith("+") else "acme-1"), line("other", "other-1", allow_from=())]
    assert await arrives(trunks, user, to) == ("acme", called)


@pytest.mark.parametrize("to", ["+17205550100", "+17205550200"])
async def test_at_a_registrar_of_several_accounts_the_contact_tells_the_account(to: str) -> None:
    """A caller of one account's Contact reaches no number of the other's, which is refused for it."""
    assert await arrives([ACME, line("other", "other-1")], "acme-1", to) == ("acme", to)


async def test_a_contact_that_two_accounts_have_is_nobodys() -> None:
    assert await arrives([ACME, line("other", "acme-1")], "acme-1", "+17205550200") == (None, "acme-1")
