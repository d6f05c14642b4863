"""Trunks over TCP and TLS: calls both ways of proof, and what a customer is told when the proof is not good."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.certificates import Authority
from tests.peers.ports import free_port
from tests.peers.stream_party import StreamParty, server_tls
from tests.server.trunk_house import at, call_reaches, open_trunks, trunk, trunk_fails

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_call_over_tcp(tmp_path: Path) -> None:
    """And a second one over the same connection."""
    port = free_port()
    async with (
        StreamParty(port=port) as party,
        open_trunks(tmp_path, [trunk("carrier", at(port), transport="tcp")]) as exchange,
    ):
        await call_reaches(exchange, party)
        await call_reaches(exchange, party)
        assert party.clients == [None]


async def test_a_call_over_tls_to_a_peer_that_wants_our_certificate(tmp_path: Path) -> None:
    """Both sides are checked; the party hangs up over the same connection."""
    authority = Authority(tmp_path)
    ours, theirs = authority.vouch_for("us.test"), authority.vouch_for("127.0.0.1")
    port = free_port()
    line = trunk(
        "carrier",
        at(port),
        transport="tls",
        tls_ca=authority.file,
        tls_certificate=ours.certificate,
        tls_key=ours.key,
    )
    async with (
        StreamParty(port=port, tls=server_tls(theirs, authority.file)) as party,
        open_trunks(tmp_path, [line]) as exchange,
    ):
        await call_reaches(exchange, party)
        [shown] = party.clients
        assert shown["subjectAltName"] == (("DNS", "us.test"),)


@pytest.mark.parametrize("fault", ["other-name", "other-authority", "no-certificate-of-ours"])
async def test_a_proof_that_is_not_good_ends_the_call_as_a_trunk_error(tmp_path: Path, fault: str) -> None:
    """No INVITE leaves us; the operator's log says what to set."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    theirs = (stranger if fault == "other-authority" else authority).vouch_for(
        "elsewhere.test" if fault == "other-name" else "127.0.0.1"
    )
    port = free_port()
    client_ca = authority.file if fault == "no-certificate-of-ours" else None
    async with (
        StreamParty(port=port, tls=server_tls(theirs, client_ca)) as party,
        open_trunks(tmp_path, [trunk("carrier", at(port), transport="tls", tls_ca=authority.file)]) as exchange,
    ):
        end = await trunk_fails(exchange)
        log = exchange.server.log.read_text()
        assert not party.taken
    cure = {
        "other-name": "not for 127.0.0.1 but for elsewhere.test",
        "other-authority": "set tls_ca to a PEM file of its authority",
        "no-certificate-of-ours": "set tls_certificate and tls_key",
    }
    assert cure[fault] in log
    assert end["errorMessage"] == "the INVITE could not be sent"
