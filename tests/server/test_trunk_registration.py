"""A trunk that registers: it proves itself, keeps the binding, gets calls over it, and takes it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchhook_demo.phone import CallRefusedError
from tests.peers.certificates import Authority
from tests.peers.ports import free_port
from tests.peers.registrar import Registrar, StreamRegistrar
from tests.peers.stream_party import server_tls
from tests.server.house import NUMBER
from tests.server.model import Model
from tests.server.trunk_house import at, call_reaches, figure, open_trunks, talks_with_the_agent, trunk
from tests.server.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

USERNAME, WORD = "acme-1", "open sesame"


def line(port: int, name: str = "line", **keys: Any) -> dict[str, Any]:
    """A trunk that registers."""
    return trunk(name, at(port), username=USERNAME, password=WORD, register=True, **keys)


def registrar_over(transport: str, port: int, authority: Authority) -> tuple[Registrar, dict[str, Any]]:
    """A registrar, and a trunk that registers there."""
    if transport == "udp":
        return Registrar(port, USERNAME, WORD, expires_s=2), line(port)
    tls = server_tls(authority.vouch_for("127.0.0.1")) if transport == "tls" else None
    keys = {"tls_ca": authority.file} if tls else {}
    return StreamRegistrar(port, USERNAME, WORD, 2, tls), line(port, transport=transport, **keys)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_binding_is_kept_gets_calls_and_is_taken_back(tmp_path: Path, transport: str) -> None:
    """No `allow_from`: the registrar's call is let in because we have registered there. Its To tells the number."""
    peer, trunk_there = registrar_over(transport, free_port(), Authority(tmp_path))
    async with peer as registrar, open_trunks(tmp_path, [trunk_there]) as exchange:
        await figure(exchange, "registered", "line", 1)
        first = await registrar.registered(1)
        async with Model() as model:
            exchange.answer_with(model)
            call = await registrar.send_call(NUMBER)
            await call.answered()
            session = await model.session()
            await talks_with_the_agent(call, session)
            await call.hang_up()
            start = await exchange.start_of(registrar.user)
            end = await exchange.end_of(start["sessionGuid"])
        assert start["calledNumber"] == NUMBER.removeprefix("+1")
        assert (end["status"], end["errorMessage"]) == (0, "No Errors")
        assert await exchange.row("trunk", "call_id = ?", start["sessionGuid"]) == "line"
        await call_reaches(exchange, registrar)
        refreshed = await registrar.registered(3)
        assert refreshed.get("call-id") == first.get("call-id")
        assert refreshed.cseq[0] > first.cseq[0]
        assert registrar.binding
        await exchange.all_given_back()
        assert await exchange.server.stop() == 0

        async def taken_back() -> bool:
            return not registrar.binding

        await eventually(taken_back, "the binding is taken back")
        assert registrar.proven[-1][1].get("expires") == "0"


async def test_a_diverted_call_is_for_the_number_that_registered(tmp_path: Path) -> None:
    """The user name is a number of the account; To still tells whom the caller had dialled, which is nobody here."""
    port = free_port()
    trunk_there = trunk("line", at(port), username=NUMBER, password=WORD, register=True)
    async with Registrar(port, NUMBER, WORD) as registrar, open_trunks(tmp_path, [trunk_there]) as exchange, Model() as model:
        await figure(exchange, "registered", "line", 1)
        exchange.answer_with(model)
        call = await registrar.send_call("+442079460000")
        await call.answered()
        await call.hang_up()
        start = await exchange.start_of(registrar.user)
        assert start["calledNumber"] == NUMBER.removeprefix("+1")
        await exchange.end_of(start["sessionGuid"])


async def test_a_registrar_that_refuses_is_asked_again_later(tmp_path: Path) -> None:
    """503, then 200. In between the trunk is not registered, and the registrar is left in peace for at least 15 s."""
    port = free_port()
    async with (
        Registrar(port, USERNAME, WORD, answers=[503]) as registrar,
        open_trunks(tmp_path, [line(port)]) as exchange,
    ):
        await registrar.registered(1)
        await figure(exchange, "registered", "line", 0)
        await registrar.registered(2, 60)
        await figure(exchange, "registered", "line", 1)
        (refused_at, _), (granted_at, _) = registrar.proven
        assert 14.5 < granted_at - refused_at < 45
        log = exchange.server.log.read_text()
    assert "line is not registered: 503 Refused; it is tried again" in log
    assert "line is registered" in log


async def test_a_refresh_that_is_refused_is_tried_again_soon(tmp_path: Path) -> None:
    """Soon, but not at once; a call that comes meanwhile is let in, and told that its number is nobody's."""
    port = free_port()
    async with (
        Registrar(port, USERNAME, WORD, expires_s=8, answers=[200, 500]) as registrar,
        open_trunks(tmp_path, [line(port)]) as exchange,
    ):
        await registrar.registered(2, 30)
        call = await registrar.send_call("+17200000000")
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 404
        await registrar.registered(3, 30)
        (granted_at, _), (refused_at, _), (again_at, _) = registrar.proven
        assert again_at - refused_at > 0.7
        assert refused_at - granted_at > 5
        await figure(exchange, "registered", "line", 1)


async def test_a_wrong_password_is_told_and_not_tried_again_at_once(tmp_path: Path) -> None:
    """One try with the proof, then peace. The account's other trunk, registered, carries its calls."""
    port, other_port = free_port(), free_port()
    trunks = [line(port), line(other_port, "other", priority=1)]
    trunks[0]["password"] = "wrong"
    async with (
        Registrar(port, USERNAME, WORD) as registrar,
        Registrar(other_port, USERNAME, WORD, expires_s=2) as other,
        open_trunks(tmp_path, trunks) as exchange,
    ):
        await figure(exchange, "registered", "other", 1)
        await figure(exchange, "registered", "line", 0)
        await other.registered(3)
        assert not registrar.proven
        await call_reaches(exchange, other)
        log = exchange.server.log.read_text()
    assert log.count("line is not registered: 401") == 1
