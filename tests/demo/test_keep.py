"""The demo as a person starts it, with the embedded engine; then a caller of our own who says, pauses and presses otherwise."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import pytest

from switchhook_demo import caller
from switchhook_demo.caller import Step, converse, line_file, sound_of
from switchhook_demo.phone import Phone
from switchhook_demo.sound import pause, spoken

OTHERWISE = (
    Step("say", "I would like to book an appointment"),
    Step("say", "monday"),
    Step("press", "1"),
    Step("say", "yes please"),
    Step("say", "goodbye"),
)
"""The demo's own script with another day, another key, and a pause within "yes please"."""
DIAL = re.compile(r"Dial (sip:\S+) from a softphone")


def _hesitant(text: str) -> bytes:
    if text == "yes please":
        return spoken("yes") + pause(1_500) + spoken("please")
    return sound_of(text)


def _told(shown: str) -> tuple[list[str], list[str]]:
    """(what the caller was understood to say, the tools with their arguments), from the terminal."""
    lines = [line.strip().split(maxsplit=2) for line in shown.splitlines()]
    rows = [line for line in lines if len(line) == 3]
    said = [what.lower() for _, who, what in rows if who == "caller" and not what.startswith("(")]
    return said, [what.partition(" →")[0] for _, who, what in rows if who == "tool"]


async def _shown_until(stream: asyncio.StreamReader, end: str) -> str:
    shown = ""
    async with asyncio.timeout(200):
        while end not in shown:
            line = await stream.readline()
            assert line, f"the demo ended too early:\n{shown}"
            shown += line.decode()
    return shown


@pytest.mark.timeout(400)
@pytest.mark.peer("flite")
async def test_the_demo_stays_up_and_another_caller_gets_another_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it is staged: another word, key or pause changes turns, transcript and tool arguments."""
    monkeypatch.setattr(caller, "sound_of", _hesitant)
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "switchhook", "demo", "--keep", "--data-dir", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert demo.stdout is not None
        shown = await _shown_until(demo.stdout, "Press Ctrl-C to end.")
        said, tools = _told(shown)
        assert [line for line in said if line in ("friday", "dtmf: 2", "yes please")] == ["friday", "dtmf: 2", "yes please"]
        assert tools == ['check_availability {"day": "Friday"}', 'book_appointment {"day": "Friday", "time": "14:30"}']

        dial = DIAL.search(shown)
        assert dial is not None
        async with Phone(user="+17205550143") as phone:
            call = await phone.dial(dial[1])
            await call.answered()
            await converse(call, OTHERWISE, lambda what: None)
        other_said, tools = _told(await _shown_until(demo.stdout, "CallEnd: status 0"))
        assert [line for line in other_said if line in ("monday", "dtmf: 1", "yes")] == ["monday", "dtmf: 1", "yes"]
        assert "yes please" not in other_said, "the pause made two turns of it"
        assert tools == ['check_availability {"day": "Monday"}', 'book_appointment {"day": "Monday", "time": "10:00"}']

        demo.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(demo.communicate(), 60)
        assert demo.returncode == 0, rest.decode()
        assert "The demo call went as it should." in rest.decode()
    finally:
        if demo.returncode is None:
            demo.terminate()  # it takes its server along
            await demo.wait()


def test_every_line_of_the_demo_is_shipped() -> None:
    """No voice is needed on the machine that runs it."""
    assert all(line_file(step.what).exists() for step in caller.SCRIPT if step.action != "press")
