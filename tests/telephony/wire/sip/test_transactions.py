"""The four transaction machines: every row of their tables, and the schedules of RFC 3261 on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from switchhook.driver import simulate
from switchhook.telephony.wire.sip.client_tx import CLIENT, INVITE_CLIENT, ClientTransaction
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.server_tx import INVITE_SERVER, SERVER, ServerTransaction
from switchhook.telephony.wire.sip.timers import Repeater, Timer, TimerValues, Timetable
from switchhook.telephony.wire.sip.transaction import (
    Deliver,
    Event,
    Failed,
    State,
    Table,
    Transaction,
    TransactionEffect,
    Transmit,
)
from tests.peers.sip_caller import Caller

VALUES = TimerValues()


def request(method: str) -> Request:
    message = parse_message(Caller().write(method, [("Route", "<sip:p.example;lr>")]))
    assert isinstance(message, Request)
    return message


def response(status: int, method: str = "INVITE") -> Response:
    return request(method).reply(status, None, "tt")


def client(method: str, reliable: bool = False) -> ClientTransaction:
    return ClientTransaction(request(method), VALUES, reliable)


def server(invite: bool, reliable: bool = False) -> ServerTransaction:
    return ServerTransaction(invite, VALUES, reliable)


def sends(effects: list[tuple[float, TransactionEffect]]) -> list[float]:
    return [at for at, effect in effects if isinstance(effect, Transmit)]


def failures(effects: list[tuple[float, TransactionEffect]]) -> list[tuple[float, str]]:
    return [(at, effect.reason) for at, effect in effects if isinstance(effect, Failed)]


# -- client INVITE (RFC 3261 figure 5, RFC 6026 §8.4)


def test_an_invite_nobody_answers_is_sent_seven_times_and_times_out() -> None:
    tx = client("INVITE")
    effects = simulate(tx, [(0, tx.start)], 100)
    assert sends(effects) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert failures(effects) == [(32, "timeout")]
    assert tx.over


def test_an_invite_over_tcp_is_sent_once_and_times_out() -> None:
    tx = client("INVITE", reliable=True)
    effects = simulate(tx, [(0, tx.start)], 100)
    assert sends(effects) == [0]
    assert failures(effects) == [(32, "timeout")]


def test_a_provisional_response_stops_the_repetition_and_the_timeout() -> None:
    tx = client("INVITE")
    effects = simulate(tx, [(0, tx.start), (0.7, lambda now: tx.receive(response(180), now))], 500)
    assert sends(effects) == [0, 0.5]
    assert failures(effects) == []
    assert tx.state is State.PROCEEDING


@pytest.mark.parametrize("ringing", [False, True])
def test_every_success_is_delivered_for_64_t1(ringing: bool) -> None:
    tx = client("INVITE")
    script: list[tuple[float, Callable[[float], None]]] = [(0, tx.start)]
    if ringing:
        script.append((0.1, lambda now: tx.receive(response(180), now)))
    script += [(at, lambda now: tx.receive(response(200), now)) for at in (1, 2, 20)]
    effects = simulate(tx, script, 100)
    delivered = [
        at for at, effect in effects if isinstance(effect, Deliver) and effect.message.start_line.startswith("SIP/2.0 200")
    ]
    assert delivered == [1, 2, 20]
    assert tx.over


@pytest.mark.parametrize(("reliable", "over_at"), [(False, 32 + 1), (True, 1)])
@pytest.mark.parametrize("ringing", [False, True])
def test_a_failure_is_acknowledged_each_time(reliable: bool, over_at: float, ringing: bool) -> None:
    tx = client("INVITE", reliable)
    script: list[tuple[float, Callable[[float], None]]] = [(0, tx.start)]
    if ringing:
        script.append((0.1, lambda now: tx.receive(response(180), now)))
    script.append((1, lambda now: tx.receive(response(486), now)))
    if not reliable:
        script.append((2, lambda now: tx.receive(response(486), now)))
    effects = simulate(tx, script, over_at - 0.001 if not reliable else 1)
    assert tx.over is reliable
    acks = [effect.data for at, effect in effects if isinstance(effect, Transmit) and effect.data.startswith(b"ACK ")]
    assert len(acks) == (1 if reliable else 2)
    ack = parse_message(acks[0])
    assert isinstance(ack, Request)
    assert ack.via.branch == tx.request.via.branch
    assert ack.to.tag == "tt"
    assert ack.cseq.number == tx.request.cseq.number
    assert ack.headers.get_all("Route") == ["<sip:p.example;lr>"]
    assert sum(isinstance(effect, Deliver) for at, effect in effects if at >= 1) == 1
    if not reliable:
        tx.tick(over_at)
        assert tx.over


@pytest.mark.parametrize("status", [None, 486])
def test_a_transport_error_ends_an_invite(status: int | None) -> None:
    tx = client("INVITE")
    script: list[tuple[float, Callable[[float], None]]] = [(0, tx.start)]
    if status:
        script.append((1, lambda now: tx.receive(response(status), now)))
    script.append((2, tx.transport_failed))
    assert failures(simulate(tx, script, 100)) == [(2, "transport")]
    assert tx.over


# -- client non-INVITE (figure 6)


def test_a_request_nobody_answers_is_repeated_up_to_t2() -> None:
    tx = client("BYE")
    effects = simulate(tx, [(0, tx.start)], 100)
    assert sends(effects) == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert failures(effects) == [(32, "timeout")]


def test_a_provisional_response_slows_a_request_to_t2() -> None:
    tx = client("BYE")
    effects = simulate(tx, [(0, tx.start), (0.6, lambda now: tx.receive(response(100, "BYE"), now))], 100)
    assert sends(effects) == [0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert failures(effects) == [(32, "timeout")]


@pytest.mark.parametrize("status", [200, 481])
@pytest.mark.parametrize("provisional", [False, True])
@pytest.mark.parametrize("reliable", [False, True])
def test_a_request_is_answered_once(status: int, provisional: bool, reliable: bool) -> None:
    tx = client("BYE", reliable)
    script: list[tuple[float, Callable[[float], None]]] = [(0, tx.start)]
    if provisional:
        script.append((0.1, lambda now: tx.receive(response(100, "BYE"), now)))
        script.append((0.2, lambda now: tx.receive(response(100, "BYE"), now)))
    script += [(at, lambda now: tx.receive(response(status, "BYE"), now)) for at in (0.3, 0.4)]
    effects = simulate(tx, script, 5.2)
    finals = [at for at, effect in effects if isinstance(effect, Deliver) and at >= 0.3]
    assert finals == [0.3]
    assert tx.over is reliable
    tx.tick(5.3)
    assert tx.over


@pytest.mark.parametrize("provisional", [False, True])
def test_a_transport_error_ends_a_request(provisional: bool) -> None:
    tx = client("BYE")
    script: list[tuple[float, Callable[[float], None]]] = [(0, tx.start)]
    if provisional:
        script.append((0.1, lambda now: tx.receive(response(100, "BYE"), now)))
    script.append((1, tx.transport_failed))
    assert failures(simulate(tx, script, 100)) == [(1, "transport")]


# -- server INVITE (figure 7, RFC 6026 §8.5)


def test_an_invite_is_answered_the_same_each_time() -> None:
    tx = server(invite=True)
    ringing, busy = response(180), response(486)
    script: list[tuple[float, Callable[[float], None]]] = [
        (0, lambda now: tx.respond(ringing, now)),
        (0.1, tx.repeat),
        (0.2, lambda now: tx.respond(busy, now)),
        (0.3, tx.repeat),
        (0.4, lambda now: tx.acknowledge(now)),
        (0.5, tx.repeat),
        (0.6, lambda now: tx.acknowledge(now)),
    ]
    effects = simulate(tx, script, 5.3)
    assert [(at, effect.data) for at, effect in effects if isinstance(effect, Transmit)] == [
        (0, bytes(ringing)),
        (0.1, bytes(ringing)),
        (0.2, bytes(busy)),
        (0.3, bytes(busy)),
    ]
    assert not tx.over
    tx.tick(5.4)
    assert tx.over


def test_a_failure_without_ack_is_repeated_and_given_up() -> None:
    tx = server(invite=True)
    effects = simulate(tx, [(0, lambda now: tx.respond(response(486), now))], 100)
    assert sends(effects) == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert failures(effects) == [(32, "timeout")]


def test_a_failure_over_tcp_is_sent_once_but_waits_for_its_ack() -> None:
    tx = server(invite=True, reliable=True)
    effects = simulate(tx, [(0, lambda now: tx.respond(response(486), now))], 31)
    assert sends(effects) == [0]
    assert not tx.over
    tx.acknowledge(31)
    assert tx.over


def test_a_success_stays_64_t1_and_only_its_user_repeats_it() -> None:
    tx = server(invite=True)
    ok = response(200)
    script: list[tuple[float, Callable[[float], None]]] = [
        (0, lambda now: tx.respond(ok, now)),
        (1, tx.repeat),
        (2, lambda now: tx.respond(ok, now)),
        (3, lambda now: tx.respond(response(486), now)),
        (4, lambda now: tx.acknowledge(now)),
        (5, tx.transport_failed),
    ]
    effects = simulate(tx, script, 31.9)
    assert sends(effects) == [0, 2]
    assert not tx.over
    tx.tick(32)
    assert tx.over


# -- server non-INVITE (figure 8)


def test_a_request_gets_its_answer_again_until_timer_j() -> None:
    tx = server(invite=False)
    trying, ok = response(100, "BYE"), response(200, "BYE")
    script: list[tuple[float, Callable[[float], None]]] = [
        (0, tx.repeat),
        (0.1, lambda now: tx.respond(trying, now)),
        (0.2, tx.repeat),
        (0.3, lambda now: tx.respond(ok, now)),
        (0.4, tx.repeat),
        (0.5, lambda now: tx.respond(response(500, "BYE"), now)),
    ]
    effects = simulate(tx, script, 32.2)
    assert [(at, effect.data) for at, effect in effects if isinstance(effect, Transmit)] == [
        (0.1, bytes(trying)),
        (0.2, bytes(trying)),
        (0.3, bytes(ok)),
        (0.4, bytes(ok)),
    ]
    assert not tx.over
    tx.tick(32.3)
    assert tx.over


def test_a_request_over_tcp_is_over_with_its_answer() -> None:
    tx = server(invite=False, reliable=True)
    tx.respond(response(200, "BYE"), 0)
    assert tx.over


@pytest.mark.parametrize("status", [100, 200])
def test_a_transport_error_ends_the_answering(status: int) -> None:
    tx = server(invite=False)
    tx.respond(response(status, "BYE"), 0)
    tx.transport_failed(1)
    assert tx.over


# -- every row


def reachable(table: Table, start: State) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for (origin, _), row in table.items():
            if origin is state and row.to not in seen:
                seen.add(row.to)
                todo.append(row.to)
    return seen


@pytest.mark.parametrize(
    ("table", "start"),
    [
        (INVITE_CLIENT, State.CALLING),
        (CLIENT, State.TRYING),
        (INVITE_SERVER, State.PROCEEDING),
        (SERVER, State.TRYING),
    ],
    ids=["invite-client", "client", "invite-server", "server"],
)
def test_every_state_is_reached_and_leads_to_the_end(table: Table, start: State) -> None:
    states = reachable(table, start)
    assert {origin for origin, _ in table} == states - {State.TERMINATED}
    for state in states:
        assert State.TERMINATED in reachable(table, state)


MAKERS: list[tuple[Table, Callable[[bool], Transaction]]] = [
    (INVITE_CLIENT, lambda reliable: client("INVITE", reliable)),
    (CLIENT, lambda reliable: client("BYE", reliable)),
    (INVITE_SERVER, lambda reliable: server(True, reliable)),
    (SERVER, lambda reliable: server(False, reliable)),
]


@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize(("table", "make"), MAKERS, ids=["invite-client", "client", "invite-server", "server"])
def test_every_row_moves_to_its_state_and_the_end_arms_nothing(
    table: Table, make: Callable[[bool], Transaction], reliable: bool
) -> None:
    for (origin, event), row in table.items():
        tx = make(reliable)
        tx.state = origin
        tx.message = response(486)
        tx.apply(event, 0)
        # Over a reliable transport the waiting states have no length (timers D, I, J, K).
        assert tx.state is row.to or (reliable and tx.over), (origin, event)
        if tx.over:
            assert tx.deadline is None


def test_an_event_without_a_row_changes_nothing() -> None:
    tx = server(invite=False)
    tx.apply(Event.ACK, 0)
    tx.apply(Timer.J, 0)
    assert (tx.state, tx.take(), tx.deadline) == (State.TRYING, [], None)


# -- timers


def test_shorter_base_values_shorten_everything() -> None:
    tx = ClientTransaction(request("BYE"), TimerValues(t1=0.01, t2=0.04, t4=0.05), False)
    effects = simulate(tx, [(0, tx.start)], 1)
    assert [round(at, 2) for at in sends(effects)][:6] == [0, 0.01, 0.03, 0.07, 0.11, 0.15]
    assert [round(at, 2) for at, _ in failures(effects)] == [0.64]


def test_a_repeater_doubles_up_to_its_limit_and_gives_up() -> None:
    repeater = Repeater(VALUES, VALUES.t2, 0)
    at = []
    while not repeater.given_up(repeater.deadline):
        at.append(repeater.deadline)
        assert repeater.again(repeater.deadline)
    assert at == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert repeater.deadline == 32


def test_a_timetable_tells_the_earliest_and_forgets() -> None:
    table: Timetable[str] = Timetable()
    table.set("a", 3)
    table.set("b", 1)
    table.set("b", 5)
    table.set("c", 2)
    table.set("c", None)
    assert table.deadline == 3
    assert table.pop_due(4) == ["a"]
    assert table.pop_due(9) == ["b"]
    assert len(table) == 0
    assert not table.pop_due(1000)


def test_a_timetable_does_not_grow_with_changes() -> None:
    table: Timetable[int] = Timetable()
    for change in range(10_000):
        table.set(change % 3, float(change))
    assert len(table._heap) < 200
    assert table.deadline == 9_997
