"""Who may call, by address and by digest, and how little strangers cost."""

from __future__ import annotations

import pytest

from switchhook.domain.errors import SettingError
from switchhook.domain.model import Trunk
from switchhook.telephony.sip_gate import MAX_SOURCES, STRANGER_BURST, ProvenSources, SipGate, SourceBuckets
from switchhook.telephony.trunks import Origin, TrunkDirectory
from switchhook.telephony.wire.sip.digest import Account, Challenge, respond
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.user_agent import Admitted, Refused, Silenced
from tests.peers.sip_caller import AgentOnClock, Caller, counting_entropy, statuses

CARRIER = Trunk("carrier", "acme", "sip:carrier.example", allow_from=("192.0.2.0/24", "2001:db8::/32"))
PBX = Trunk("pbx", "acme", "sip:pbx.example", username="pbx", password="secret")
STRANGER = Flow("udp", "203.0.113.5", 5060)


def gate(*trunks: Trunk, refuse: bool = False) -> SipGate:
    return SipGate(TrunkDirectory(trunks), "switchhook", refuse, counting_entropy(), ("SHA-256", "MD5"))


def request(method: str = "INVITE", headers: tuple[tuple[str, str], ...] = ()) -> Request:
    message = parse_message(Caller().write(method, headers))
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.10", Origin("carrier", "acme")),
        ("::ffff:192.0.2.10", Origin("carrier", "acme")),
        ("2001:db8::7", Origin("carrier", "acme")),
        ("203.0.113.5", None),
        ("not an address", None),
    ],
)
def test_trunks_are_found_by_address(host: str, expected: Origin | None) -> None:
    directory = TrunkDirectory([CARRIER, PBX])
    assert directory.by_address(host) == expected
    assert directory.by_address(host) == expected


def test_the_narrowest_block_wins_and_a_tie_between_accounts_leaves_it_to_the_number() -> None:
    wide = Trunk("wide", "a", "sip:x", allow_from=("10.0.0.0/8",))
    narrow = Trunk("narrow", "b", "sip:x", allow_from=("10.1.0.0/16",))
    twin = Trunk("twin", "c", "sip:x", allow_from=("10.1.0.0/16",))
    assert TrunkDirectory([wide, narrow]).by_address("10.1.2.3") == Origin("narrow", "b")
    assert TrunkDirectory([wide, narrow, twin]).by_address("10.1.2.3") == Origin(None, None)
    assert TrunkDirectory([wide, narrow, twin]).by_address("10.2.2.3") == Origin("wide", "a")


def test_a_bad_block_is_named() -> None:
    with pytest.raises(SettingError, match=r"trunk bad: allow_from: 'nonsense'"):
        TrunkDirectory([Trunk("bad", "a", "sip:x", allow_from=("nonsense",))])


def test_replacing_the_trunks_counts_at_once() -> None:
    directory = TrunkDirectory([CARRIER])
    assert directory.by_address("203.0.113.5") is None
    directory.replace([Trunk("other", "b", "sip:x", allow_from=("203.0.113.0/24",))])
    assert directory.by_address("203.0.113.5") == Origin("other", "b")
    assert directory.by_address("192.0.2.10") is None
    assert not directory.has_credentials


def test_remembered_addresses_are_bounded() -> None:
    directory = TrunkDirectory([CARRIER])
    for count in range(10_000):
        directory.by_address(f"10.{count // 65536}.{count // 256 % 256}.{count % 256}")
    assert len(directory._remembered) <= 4096


def test_an_unknown_source_hears_nothing_or_403() -> None:
    for method in ("INVITE", "OPTIONS", "REGISTER"):
        assert gate(CARRIER).admit(request(method), STRANGER, 0) == Silenced()
        assert gate(CARRIER, refuse=True).admit(request(method), STRANGER, 0) == Refused(403)


def test_where_a_trunk_has_a_password_an_invite_is_challenged_and_a_scan_is_not() -> None:
    admission = gate(CARRIER, PBX).admit(request(), STRANGER, 0)
    assert isinstance(admission, Refused)
    assert admission.status == 401
    assert [name for name, _ in admission.headers] == ["WWW-Authenticate"] * 2
    assert {Challenge.parse(value).algorithm for _, value in admission.headers} == {"MD5", "SHA-256"}
    assert gate(CARRIER, PBX).admit(request("OPTIONS"), STRANGER, 0) == Silenced()
    assert gate(CARRIER, PBX).admit(request("OPTIONS"), Flow("udp", "192.0.2.9", 5060), 0) == Admitted("carrier")


def proof(challenge: Challenge, password: str = "secret", username: str = "pbx", count: int = 1) -> tuple[tuple[str, str], ...]:
    account = Account(username, password, challenge.realm)
    return (("Authorization", str(respond(challenge, account, "INVITE", "sip:x@y", "c0ffee", count))),)


def challenge_of(admission: object, algorithm: str = "MD5") -> Challenge:
    assert isinstance(admission, Refused)
    found = [Challenge.parse(value) for _, value in admission.headers]
    return next(challenge for challenge in found if challenge.algorithm == algorithm)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_the_right_password_admits_over_its_trunk_once_for_each_count(algorithm: str) -> None:
    doors = gate(CARRIER, PBX)
    challenge = challenge_of(doors.admit(request(), STRANGER, 0), algorithm)
    assert doors.admit(request("INVITE", proof(challenge)), STRANGER, 1) == Admitted("pbx")
    again = challenge_of(doors.admit(request("INVITE", proof(challenge)), STRANGER, 1), algorithm)
    assert again.stale
    assert doors.admit(request("INVITE", proof(challenge, count=2)), STRANGER, 1) == Admitted("pbx")


def test_an_old_nonce_is_stale() -> None:
    doors = gate(PBX)
    challenge = challenge_of(doors.admit(request(), STRANGER, 0))
    assert challenge_of(doors.admit(request("INVITE", proof(challenge)), STRANGER, 1000)).stale


@pytest.mark.parametrize(("username", "password"), [("pbx", "guess"), ("nobody", "secret")])
def test_wrong_passwords_are_challenged_a_few_times_and_then_met_with_silence(username: str, password: str) -> None:
    doors = gate(PBX)
    challenge = challenge_of(doors.admit(request(), STRANGER, 0))
    answers = [doors.admit(request("INVITE", proof(challenge, password, username)), STRANGER, 0) for _ in range(30)]
    assert sum(isinstance(answer, Refused) for answer in answers) == 10
    assert answers[-1] == Silenced()
    assert doors.admit(request(), STRANGER, 0) == Silenced()
    assert doors.admit(request("INVITE", proof(challenge)), STRANGER, 0) == Silenced()
    assert isinstance(doors.admit(request(), STRANGER, 60), Refused)


def test_nonsense_for_a_proof_is_challenged() -> None:
    doors = gate(PBX)
    assert isinstance(doors.admit(request("INVITE", (("Authorization", "Basic Zm9v"),)), STRANGER, 0), Refused)


def test_strangers_are_read_within_a_budget_and_trunks_without() -> None:
    doors = gate(CARRIER)
    assert sum(doors.reads("203.0.113.5", 0) for _ in range(1000)) == STRANGER_BURST
    assert sum(doors.reads("192.0.2.9", 0) for _ in range(1000)) == 1000
    many = sum(doors.reads(f"198.51.{count // 250}.{count % 250}", 0) for count in range(20_000))
    assert many <= 500
    assert doors.dropped == 1000 - STRANGER_BURST + 20_000 - many
    assert doors.reads("203.0.113.5", 10)


def test_a_source_that_proved_itself_is_read_without_a_budget_for_ten_minutes() -> None:
    doors = gate(PBX)
    challenge = challenge_of(doors.admit(request(), STRANGER, 0))
    assert doors.admit(request("INVITE", proof(challenge)), STRANGER, 0) == Admitted("pbx")
    assert sum(doors.reads(STRANGER.host, 1) for _ in range(1000)) == 1000
    many = sum(doors.reads(f"198.51.{count // 250}.{count % 250}", 599) for count in range(20_000))
    assert many <= 500
    assert doors.reads(STRANGER.host, 599)
    assert sum(doors.reads("203.0.113.6", 599) for _ in range(1000)) <= STRANGER_BURST
    assert sum(doors.reads(STRANGER.host, 700) for _ in range(1000)) == STRANGER_BURST


def test_a_wrong_password_proves_nothing() -> None:
    doors = gate(PBX)
    challenge = challenge_of(doors.admit(request(), STRANGER, 0))
    doors.admit(request("INVITE", proof(challenge, "guess")), STRANGER, 0)
    assert sum(doors.reads(STRANGER.host, 1) for _ in range(1000)) == STRANGER_BURST


def test_proofs_are_kept_for_a_bounded_number_of_sources() -> None:
    proven = ProvenSources(2)
    for source in ("a", "b", "a", "c"):
        proven.add(source, 0)
    assert [proven.holds(source, 1) for source in ("a", "b", "c")] == [True, False, True]
    assert len(proven) == 2


def test_budgets_are_kept_for_a_bounded_number_of_sources() -> None:
    buckets = SourceBuckets(1, 1)
    for count in range(3 * MAX_SOURCES):
        buckets.of(str(count), 0)
    assert len(buckets) == MAX_SOURCES


def test_a_call_by_digest_from_end_to_end() -> None:
    ua, caller = AgentOnClock(gate(PBX)), Caller(host="203.0.113.5")
    [refused] = ua.receive(caller.invite(), caller.flow)
    assert isinstance(refused, Response)
    ua.receive(caller.ack_failure(), caller.flow)
    assert ua.empty
    challenge = Challenge.parse(refused.headers.get_all("WWW-Authenticate")[0])
    assert statuses(ua.receive(caller.invite(headers=proof(challenge)), caller.flow)) == [100]
    assert ua.invited[0].trunk == "pbx"
    session = ua.invited[0].session
    ua.do(lambda agent, now: agent.ring(session, now))
    # Requests inside the call need no proof: they know its tags.
    assert statuses(ua.receive(caller.cancel(), caller.flow)) == [200, 487]
