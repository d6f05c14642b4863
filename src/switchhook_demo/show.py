"""What the terminal shows of a call: who speaks, which tool runs, how long answers take, what CallEnd says."""

from __future__ import annotations

import json
import statistics
import sys
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from switchhook_demo.backend import Event, tool_name
from switchhook_demo.caller import Told

COLOURS = {"agent": "36", "caller": "33", "tool": "35", "server": "2", "good": "32", "bad": "31"}
LIVE_TRANSCRIPT = "live_transcript"


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What a recording holds."""

    path: Path
    seconds: float
    left_rms: float
    right_rms: float


class Screen:
    """Writes lines with the seconds since the call began."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._colours = out.isatty()
        self._start = time.monotonic()

    def begin(self) -> None:
        """The call begins: the clock starts."""
        self._start = time.monotonic()

    def line(self, who: str, text: str) -> None:
        """One line of the play."""
        stamp = f"{time.monotonic() - self._start:6.1f}"
        self._write(f"{stamp}  {self._coloured(who, f'{who:>7}')}  {text}")

    def plain(self, text: str = "") -> None:
        """Text as it is."""
        self._write(text)

    def verdict(self, good: bool, text: str) -> None:
        """The last word."""
        self._write(self._coloured("good" if good else "bad", text))

    def event(self, event: Event) -> None:
        """Something the backend saw."""
        if event.kind == "start":
            caller, called = event.body.get("callerId"), event.body.get("calledNumber")
            self.line("server", f"CallStart: {caller} calls {called}")
        elif event.kind == "line":
            speaker = "agent" if event.body.get("speaker") == "AI" else "caller"
            self.line(speaker, str(event.body.get("text", "")))
        elif event.kind == "tool":
            arguments = {key: value for key, value in event.body.items() if key != "VoiceElements_InvokeTool"}
            self.line("tool", f"{tool_name(event.body)} {_json(arguments)} → {_json(event.answer)}")
        else:
            self.line("server", f"CallEnd: status {event.body.get('status')}, {event.body.get('errorMessage')}")

    def call_end(self, body: dict[str, object]) -> None:
        """CallEnd's JSON, whole."""
        self.plain("\nCallEnd, as the backend received it:")
        self.plain(json.dumps(body, indent=2, ensure_ascii=False))

    def latencies(self, told: Told) -> None:
        """How long the caller waited."""
        gaps = ", ".join(f"{gap:.0f}" for gap in told.turn_gaps_ms)
        middle = statistics.median(told.turn_gaps_ms) if told.turn_gaps_ms else float("nan")
        self.plain(f"\nWaiting for an answer (caller's last voice or key to the agent's first), ms: {gaps}; median {middle:.0f}.")
        self.plain("In it are the 500 ms of silence that end a turn, and the 1.5 s that a pressed key waits for more of them.")
        if told.interruption_ms is not None:
            self.plain(f"The interrupted agent fell silent {told.interruption_ms:.0f} ms after the caller's first sound.")

    def recording(self, facts: RecordingFacts) -> None:
        """Where the recording lies."""
        self.plain(f"Recording ({facts.seconds:.1f} s, caller left, agent right): {facts.path}")

    def _coloured(self, who: str, text: str) -> str:
        return f"\x1b[{COLOURS.get(who, '0')}m{text}\x1b[0m" if self._colours else text

    def _write(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def read_recording(path: Path) -> RecordingFacts:
    """Open a recording. Raises ValueError when it is not two channels with sound on both."""
    with wave.open(str(path)) as file:
        if file.getnchannels() != 2:
            raise ValueError(f"the recording has {file.getnchannels()} channel(s) instead of two")
        data = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16).astype(np.float64).reshape(-1, 2)
        seconds = len(data) / file.getframerate()
    left, right = (float(np.sqrt(np.mean(channel * channel))) if len(channel) else 0.0 for channel in data.T)
    if not left or not right:
        raise ValueError("a channel of the recording is empty")
    return RecordingFacts(path, seconds, left, right)


def softphone_help(sip_uri: str, sip_port: int) -> Sequence[str]:
    """How to reach a server that stays up."""
    return (
        f"\nThe server stays up. Dial {sip_uri} from a softphone on this machine (UDP, no registration, no password):",
        f"  baresip -e '/dial {sip_uri}'",
        f"Any other softphone: an account at 127.0.0.1:{sip_port} without password. Press Ctrl-C to end.",
    )


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False)
