"""The trunks in force: by account, and by the addresses they were found at."""

from __future__ import annotations

from dataclasses import replace

from switchhook.domain.model import Trunk
from switchhook.telephony.sip_gate import ALL_STRANGERS_RATE, SipGate
from switchhook.telephony.trunks import Origin, TrunkDirectory
from tests.peers.sip_caller import counting_entropy

REGISTERED = Trunk("line", "acme", "sip:carrier.test", username="u", password="p", register=True)
DIALLED = Trunk("out", "acme", "sip:other.test", username="u", password="p", priority=10)


def test_an_accounts_trunks_come_in_rising_priority() -> None:
    last, foreign = replace(DIALLED, name="last", priority=200), replace(DIALLED, name="theirs", account="b")
    directory = TrunkDirectory([last, REGISTERED, foreign, DIALLED])
    assert [trunk.name for trunk in directory.of_account("acme")] == ["out", "line", "last"]
    assert directory.of_account("nobody") == []


def test_a_registrar_may_call_from_where_it_was_found_and_a_carrier_that_is_only_dialled_may_not() -> None:
    directory = TrunkDirectory([REGISTERED, DIALLED])
    assert directory.by_address("192.0.2.1") is None
    directory.locate("line", ["192.0.2.1", "2001:db8::1"])
    directory.locate("out", ["192.0.2.2"])
    assert directory.by_address("192.0.2.1") == Origin("line", "acme")
    assert directory.by_address("::ffff:192.0.2.1") == Origin("line", "acme")
    assert directory.by_address("2001:db8::1") == Origin("line", "acme")
    assert directory.by_address("192.0.2.2") is None
    assert directory.is_peer("192.0.2.2")
    assert not directory.is_peer("192.0.2.3")
    assert not directory.is_peer("no address")


def test_an_address_that_a_peer_has_left_is_forgotten() -> None:
    directory = TrunkDirectory([REGISTERED])
    directory.locate("line", ["192.0.2.1"])
    directory.locate("line", ["192.0.2.9"])
    assert directory.by_address("192.0.2.1") is None
    directory.replace([replace(REGISTERED, priority=5)])
    assert directory.by_address("192.0.2.9") == Origin("line", "acme")
    directory.replace([replace(REGISTERED, address="sip:elsewhere.test")])
    assert directory.by_address("192.0.2.9") is None
    directory.locate("gone", ["192.0.2.9"])
    assert not directory.is_peer("192.0.2.9")


def test_the_addresses_of_one_trunk() -> None:
    """Where it was found and what it allows; not those of another trunk, and no name."""
    other = replace(DIALLED, name="other", allow_from=("198.51.100.0/24",))
    directory = TrunkDirectory([DIALLED, other])
    directory.locate(DIALLED.name, ["192.0.2.2"])
    assert directory.is_at(DIALLED.name, "192.0.2.2")
    assert not directory.is_at("other", "192.0.2.2")
    assert directory.is_at("other", "::ffff:198.51.100.7")
    assert not directory.is_at(DIALLED.name, "198.51.100.7")
    assert not directory.is_at(DIALLED.name, "carrier.example")


def test_who_has_registered_us_under_a_user() -> None:
    """An account's own trunks where the account is known; nobody where two accounts have the same user."""
    directory = TrunkDirectory([REGISTERED, DIALLED])
    assert directory.registrant("u", None) == "acme"
    assert directory.registrant("u", "acme") == "acme"
    assert directory.registrant("u", "other") is None
    assert directory.registrant("v", None) is None
    assert TrunkDirectory([DIALLED]).registrant("u", None) is None
    both = TrunkDirectory([REGISTERED, replace(REGISTERED, name="theirs", account="other")])
    assert both.registrant("u", None) is None
    assert both.registrant("u", "other") == "other"


def test_who_wants_to_know_is_told_of_changes() -> None:
    directory, told = TrunkDirectory(), []
    directory.on_replaced = lambda: told.append([trunk.name for trunk in directory.all])
    directory.replace([REGISTERED])
    directory.replace([])
    assert told == [["line"], []]


def test_what_a_dialled_carrier_answers_is_read_however_much_it_is() -> None:
    directory = TrunkDirectory([DIALLED])
    gate = SipGate(directory, "switchhook", False, counting_entropy())
    assert not all(gate.reads("192.0.2.2", 0.0) for _ in range(int(ALL_STRANGERS_RATE) + 1))
    directory.locate("out", ["192.0.2.2"])
    assert all(gate.reads("192.0.2.2", 0.0) for _ in range(int(ALL_STRANGERS_RATE) + 1))
    assert not gate.knows("192.0.2.2")
