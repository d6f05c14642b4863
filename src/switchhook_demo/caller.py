"""The simulated caller: a list of things to do, each done when what it hears allows it.

It knows its own lines and nothing of the agent's; it hears by energy alone. It speaks when the agent has fallen silent, but for
the one step that interrupts, and it measures how long it waits for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from switchhook_demo.phone import Call
from switchhook_demo.sound import can_speak, loudness, spoken

LINES = Path(__file__).with_name("lines")
QUIET_MS = 900
"""An agent that has been silent so long is waiting for the caller."""
ANSWER_TIMEOUT_S = 12
TURN_TIMEOUT_S = 30
BARGE_AFTER_S = 1.6
"""How long the agent must have been speaking before the caller interrupts: longer than a "one moment, please"."""
HUSH_MS = 400
GOODBYE_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the caller does."""

    action: str
    """`say`, `press` or `interrupt`."""
    what: str
    """A line's text, or the key."""


@dataclass(slots=True)
class Told:
    """What the caller noticed."""

    turn_gaps_ms: list[float] = field(default_factory=list)
    """From the caller's last voice (or key) to the agent's first."""
    interruption_ms: float | None = None
    """From the caller's first voice to the agent's last, when it interrupted."""


class CallerFailedError(Exception):
    """A step did not go as a caller may expect."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step


SCRIPT = (
    Step("say", "I would like to book an appointment"),
    Step("say", "friday"),
    Step("press", "2"),
    Step("say", "yes please"),
    Step("interrupt", "what are your opening hours"),
    Step("say", "goodbye"),
)


def line_file(text: str) -> Path:
    """Where a line's sound is shipped."""
    return LINES / ("_".join(text.lower().split()) + ".ulaw")


def sound_of(text: str) -> bytes:
    """A line as µ-law: the shipped file, else a voice of this machine."""
    path = line_file(text)
    if path.exists():
        return path.read_bytes()
    if can_speak():
        return spoken(text)
    raise CallerFailedError(f"saying {text!r}", "no shipped file, and neither flite nor espeak-ng is installed")


async def converse(call: Call, script: tuple[Step, ...], tell: Callable[[str], None]) -> Told:
    """Go through the script on an answered call, then wait for the agent to hang up. Raises CallerFailedError."""
    told = Told()
    since = call.answered_at or asyncio.get_running_loop().time()
    await _hear(call, since, "the greeting")
    for step in script:
        if step.action == "interrupt":
            since = await _interrupt(call, step, told, tell)
        else:
            await _silence(call, step)
            since = await _act(call, step, tell)
        if step is not script[-1]:
            await _answer(call, since, step, told)
    await _farewell(call)
    return told


async def _act(call: Call, step: Step, tell: Callable[[str], None]) -> float:
    """Say a line or press a key; returns when the last of it left."""
    if step.action == "press":
        tell(f"presses {step.what}")
        await call.press(step.what)
        return asyncio.get_running_loop().time()
    tell(f"says “{step.what}”")
    start = asyncio.get_running_loop().time()
    await call.say(sound_of(step.what))
    return call.line.sent_voice_at or start


async def _interrupt(call: Call, step: Step, told: Told, tell: Callable[[str], None]) -> float:
    """Speak while the agent speaks, and see that it falls silent."""
    loop = asyncio.get_running_loop()
    try:
        await call.ear.until(lambda: call.ear.talking_for(loop.time()) >= BARGE_AFTER_S, TURN_TIMEOUT_S, "no long sentence came")
    except TimeoutError as error:
        raise CallerFailedError(f"waiting to interrupt with “{step.what}”", str(error)) from error
    tell(f"interrupts: “{step.what}”")
    sound = sound_of(step.what)
    first_voice_s = next((i * 0.02 for i in range(len(sound) // 160) if loudness(sound[i * 160 : i * 160 + 160]) > 300), 0.0)
    began = loop.time() + first_voice_s
    saying = loop.create_task(call.say(sound))
    try:
        await call.ear.quiet(HUSH_MS, len(sound) / 8000 + 2)
        last = call.ear.last_voice(began) or began
    except TimeoutError as error:
        raise CallerFailedError(f"interrupting with “{step.what}”", "the agent talked on") from error
    finally:
        await saying
    told.interruption_ms = (last - began) * 1000
    return call.line.sent_voice_at or loop.time()


async def _answer(call: Call, since: float, step: Step, told: Told) -> None:
    """Wait for the agent to begin, and note how long that took."""
    began = await _hear(call, since, f"an answer to “{step.what}”")
    told.turn_gaps_ms.append((began - since) * 1000)


async def _hear(call: Call, since: float, what: str) -> float:
    try:
        return await call.heard(since, ANSWER_TIMEOUT_S)
    except TimeoutError as error:
        raise CallerFailedError(f"waiting for {what}", str(error)) from error


async def _silence(call: Call, step: Step) -> None:
    try:
        await call.quiet(QUIET_MS, TURN_TIMEOUT_S)
    except TimeoutError as error:
        raise CallerFailedError(f"waiting to say “{step.what}”", "the agent never stopped speaking") from error
    if call.ended_by == "them":
        raise CallerFailedError(f"before “{step.what}”", "the agent hung up too early")


async def _farewell(call: Call) -> None:
    try:
        by = await call.ended(GOODBYE_TIMEOUT_S)
    except TimeoutError as error:
        raise CallerFailedError("goodbye", "the agent did not hang up") from error
    if by != "them":
        raise CallerFailedError("goodbye", "the caller's own line hung up")
