"""onCallEnd comes exactly once for each call, whatever dies: the backend, the server, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.veevo_house import VeevoHouse, VeevoTalk, greeted, house

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _call(home: VeevoHouse, backend_down: bool = False) -> VeevoTalk:
    async with home.talk() as talk:
        await greeted(talk.session, talk.call)
        if backend_down:
            await home.backend.go_down()
        await talk.call.hang_up()
    await home.row("ending", talk.caller)
    return talk


async def test_a_backend_that_is_down_gets_its_end_after_the_server_was_killed(tmp_path: Path) -> None:
    """One call's end is answered with 503, one finds nobody; the server dies; each is told once more, in the same bytes."""
    async with house(tmp_path) as home:
        home.backend.end_statuses = [503] * 20
        refused = await _call(home)
        first = await home.end_of(refused.sid)
        unheard = await _call(home, backend_down=True)
        await home.server.kill()
        written = {bytes(body) for (body,) in home.asked("SELECT body FROM outbox WHERE state = 'pending'")}
        assert len(written) == 2
        assert first.body in written
        before = len(home.ends_of(refused.sid))
        home.backend.end_statuses.clear()
        await home.server.start()
        await home.backend.come_up()
        await home.backend.until(lambda: len(home.ends_of(refused.sid)) > before and home.ends_of(unheard.sid), 90)
        await home.idle()
        after = await _call(home)
        await home.idle()
        again, late = home.ends_of(refused.sid)[before:], home.ends_of(unheard.sid)
        assert [got.body for got in again] == [first.body]
        assert {got.body for got in (*again, *late)} == written
        assert (len(late), len(home.ends_of(after.sid))) == (1, 1)
        assert home.backend.unsigned == []
    for talk, got in ((refused, again[0]), (unheard, late[0])):
        end = got.json
        assert end["costBreakdown"]["inputTextTokens"] == 365, "nothing was lost with the process"
        assert [line["content"] for line in end["transcript"]] == ["Hi, how can I help?"]
        assert (end["callSid"], end["metadata"]) == (talk.sid, {"customerId": "cust_123", "weight": 1.0})


async def test_a_backend_that_fails_is_told_again_until_it_acknowledges(veevo: VeevoHouse) -> None:
    """500, then 204, and then no more."""
    veevo.backend.end_statuses = [500, 204]
    talk = await _call(veevo)
    await veevo.backend.wait_for("end", 2)
    await veevo.idle()
    await _call(veevo)
    await veevo.idle()
    first, second = veevo.ends_of(talk.sid)
    assert first.body == second.body
    assert first.headers["X-Veevo-Signature"] == second.headers["X-Veevo-Signature"]
    assert veevo.backend.unsigned == []
