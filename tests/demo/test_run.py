"""The whole demo against the real server, with a scripted model that hears by energy in place of the embedded engine."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from switchhook_demo import caller, run
from switchhook_demo.backend import Agent
from switchhook_demo.caller import Told
from switchhook_demo.server_child import ServerChild, ServerFailedError
from switchhook_demo.show import Screen
from switchhook_demo.sound import FRAME_BYTES, loudness, tone
from tests.peers.model import Event, ModelServer, ModelSession

TURNS: tuple[tuple[str, str], ...] = (
    ("Which day would you like?", ""),
    ("", "check_availability"),
    ("", "book_appointment"),
    ("We are open from eight to five.", ""),
    ("", "vns_end_conversation"),
)
ARGUMENTS = {
    "check_availability": {"day": "friday"},
    "book_appointment": {"day": "friday", "time": "14:30"},
    "vns_end_conversation": {"user_input": "goodbye", "farewell": "Goodbye."},
}
REPLIES = ("Good day, how can I help?", "Press one or two.", "Half past two, shall I book it?", "It is booked.", "Goodbye.")


class Receptionist:
    """The model's side: what it says when it is asked to, and what it does when the caller has spoken."""

    def __init__(self) -> None:
        self._replies = iter(REPLIES)
        self._turns = iter(TURNS)
        self._position = 0
        self._quiet = 0
        self._voiced = 0
        self._item: str | None = None

    def on_event(self, session: ModelSession, event: Event) -> None:
        """The server asks for words."""
        if event["type"] == "response.create":
            self._say(session, next(self._replies))

    def _say(self, session: ModelSession, text: str) -> None:
        session.respond()
        session.say(text, sound=tone(700, 3_000 if text == "It is booked." else 400))
        session.finish()

    def listen(self, session: ModelSession) -> None:
        """Look at what has arrived: 60 ms of voice begin a turn, 200 ms of quiet end it."""
        while len(session.audio) - self._position >= FRAME_BYTES:
            frame = bytes(session.audio[self._position : self._position + FRAME_BYTES])
            self._position += FRAME_BYTES
            if loudness(frame) > 500:
                self._voiced, self._quiet = self._voiced + 1, 0
            else:
                self._quiet += 1
            if self._item is None and self._voiced >= 3:
                self._item = session.speech_started()
            elif self._item is not None and self._quiet >= 10:
                item, self._item = self._item, None
                session.speech_stopped(item)
                session.transcribed(item, "words of the caller")
                self._answer(session)
            if self._quiet >= 10:
                self._voiced = 0

    def _answer(self, session: ModelSession) -> None:
        text, tool = next(self._turns)
        if text:
            self._say(session, text)
            return
        session.respond()
        session.call(tool, json.dumps(ARGUMENTS[tool]))
        session.finish()


async def attend(model: ModelServer, receptionist: Receptionist) -> None:
    """Let the receptionist listen to the call's session."""
    while True:
        for session in model.sessions:
            receptionist.listen(session)
        await asyncio.sleep(0.02)


async def test_demo_plays_a_whole_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "sound_of", lambda text: tone(440, 800 if "hours" in text else 300))
    monkeypatch.setattr(caller, "QUIET_MS", 400)
    monkeypatch.setattr(caller, "BARGE_AFTER_S", 0.5)
    receptionist = Receptionist()
    out = io.StringIO()
    async with ModelServer(receptionist.on_event) as model:
        tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ARGUMENTS]
        agent = Agent(model.url, {"Authorization": "Bearer x"}, "", tools, "a stub")
        monkeypatch.setattr(run, "agent_for", lambda url, token: agent)
        listening = asyncio.ensure_future(attend(model, receptionist))
        try:
            await run.play(tmp_path, keep=False, screen=Screen(out))
        finally:
            listening.cancel()
        assert [error for session in model.sessions for error in session.errors] == []
        assert [text for role, text in model.sessions[0].texts() if role == "user"] == ["DTMF: 2"]
    shown = out.getvalue()
    assert "interrupts: “what are your opening hours”" in shown
    assert 'book_appointment {"day": "friday", "time": "14:30"}' in shown
    assert '"status": 0' in shown
    assert "Recording (" in shown


async def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "agent_for", lambda url, token: Agent(url, {}, "", [], "none"))
    (tmp_path / "switchhook.db").mkdir()
    with pytest.raises(ServerFailedError, match="before it was ready"):
        await run.play(tmp_path, keep=False, screen=Screen(io.StringIO()))


def test_a_server_that_dies_in_the_midst_of_the_call_is_a_clear_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and the reason, and not a minute of waiting for answers that cannot come."""
    monkeypatch.setattr(run, "agent_for", lambda url, token: Agent(url, {}, "", [], "none"))
    call = run._call

    async def dying(server: ServerChild, screen: Screen) -> Told:
        assert server.process is not None
        server.process.kill()
        return await call(server, screen)

    monkeypatch.setattr(run, "_call", dying)
    out = io.StringIO()
    assert run.run(data_dir=tmp_path, screen=Screen(out)) == 1
    told = out.getvalue()
    assert "The demo failed. the server ended by itself with -9" in told
    assert f"Everything it wrote is in {tmp_path}" in told
    assert "went as it should" not in told


def test_a_kept_server_that_dies_is_a_clear_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "agent_for", lambda url, token: Agent(url, {}, "", [], "none"))
    stay = run._stay

    async def nothing(*_: object) -> Any:
        return {}

    async def dying(server: ServerChild, screen: Screen) -> None:
        assert server.process is not None
        server.process.kill()
        await stay(server, screen)

    for step in ("_call", "_call_end", "_recording"):
        monkeypatch.setattr(run, step, nothing)
    monkeypatch.setattr(run, "_check", lambda backend, end: None)
    monkeypatch.setattr(Screen, "latencies", lambda screen, told: None)
    monkeypatch.setattr(Screen, "recording", lambda screen, facts: None)
    monkeypatch.setattr(run, "_stay", dying)
    out = io.StringIO()
    assert run.run(keep=True, data_dir=tmp_path, screen=Screen(out)) == 1
    assert "the server ended by itself with -9" in out.getvalue()
