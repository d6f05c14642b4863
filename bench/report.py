"""The table and the JSON: each figure beside what it must be and what it should be."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of the table. Smaller is better, but for `more_is_better`."""

    key: str
    title: str
    unit: str
    must: float | None = None
    goal: float | None = None
    more_is_better: bool = False
    twilio_goal: float | None = None
    """The goal over Media Streams, when it is another one."""

    def aim(self, line: str) -> float | None:
        """The goal on a line."""
        return self.twilio_goal if line == "twilio" and self.twilio_goal is not None else self.goal

    def verdict(self, value: float, line: str = "sip") -> str:
        """`goal`, `must`, `MISSED`, or nothing when there is no target."""
        goal = self.aim(line)
        if self.must is None or goal is None:
            return ""
        if math.isnan(value):
            return "MISSED"
        sign = -1 if self.more_is_better else 1
        if sign * value <= sign * goal:
            return "goal"
        return "must" if sign * value <= sign * self.must else "MISSED"


FLOOR_MS = 1.10
"""What a bare bridge cost where the targets were set."""

TARGETS = (
    Target("cpu_ms", "CPU per call-second", "ms", 2.5, 1.5, twilio_goal=1.6),
    Target("cpu_over_floor", "CPU, times the bare bridge's", "", 2.5 / FLOOR_MS, 1.5 / FLOOR_MS),
    Target("floor_cpu_ms", "bare bridge: CPU per call-second", "ms"),
    Target("calls_per_core", "calls on one core, no lost audio", "", 250, 400, more_is_better=True),
    Target("uplink_p50_ms", "uplink added, p50", "ms", 1, 0.3),
    Target("uplink_p99_ms", "uplink added, p99", "ms", 5, 1.5),
    Target("first_audio_p99_ms", "first audio down, p99", "ms", 5, 1),
    Target("barge_in_p99_ms", "barge-in, p99", "ms", 5, 1.5),
    Target("jitter_p99_ms", "pacing jitter, p99", "ms", 3, 1.5),
    Target("dialling_uplink_p99_ms", "uplink p99 while dialling 20 calls/s", "ms", 10, 3),
    Target("dialling_first_audio_p99_ms", "first audio p99 while dialling", "ms", 10, 3),
    Target("truncate_error_ms", "truncate error, median", "ms", 20, 5),
    Target("truncate_error_p99_ms", "truncate error, p99", "ms"),
    Target("base_mib", "memory base", "MiB", 110, 85),
    Target("per_call_mib", "memory per call", "MiB", 0.3, 0.1),
    Target("kept_mib", "memory kept after short calls", "MiB", 5, 1),
    Target("setup_cpu_ms", "CPU per call set-up and tear-down", "ms", 10, 6),
    Target("recording_extra_ms", "recording on: CPU per call-second more", "ms", 0.5, 0.25),
    Target("srtp_cpu_ms", "SRTP on: CPU per call-second more", "ms", 0.5, 0.3),
    Target("bridge_cpu_ms", "bridged call (two legs): CPU per call-second", "ms"),
    Target("bridge_delay_p50_ms", "bridge adds, p50", "ms", 60, 45),
    Target("bridge_delay_p99_ms", "bridge adds, p99", "ms", 80, 60),
    Target("bridge_lost_frames", "bridge: frames of sound not heard", ""),
    Target("encoding_ms", "encoding afterwards, per recorded second", "ms"),
    Target("overload_failures", "beyond capacity: failures", "", 0, 0),
    Target("lost_pieces", "lost pieces of 200 ms", "", 0, 0),
    Target("gaps_percent", "late packets heard as holes", "%", 0.1, 0.1),
)


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the runs that have it."""
    keys = {key for run in runs for key in run}
    return {key: statistics.median(run[key] for run in runs if key in run) for key in keys}


def against_floor(values: Mapping[str, float]) -> dict[str, float]:
    """The figures, with what the server costs in terms of the bare bridge where both were measured."""
    found = dict(values)
    if "cpu_ms" in found and "floor_cpu_ms" in found:
        found["cpu_over_floor"] = found["cpu_ms"] / found["floor_cpu_ms"]
    return found


def number(value: float | None) -> str:
    """A figure to three digits, short."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "none"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


def table(by_line: Mapping[str, Mapping[str, float]]) -> str:
    """The figures that were measured, one a row, the lines side by side."""
    lines = list(by_line)
    rows = [("figure", *(cell for line in lines for cell in (line, "verdict")), "must", *(f"goal {line}" for line in lines))]
    for target in TARGETS:
        if not any(target.key in values for values in by_line.values()):
            continue
        cells: list[str] = []
        for line, values in by_line.items():
            value = values.get(target.key)
            cells += ["", ""] if value is None else [f"{number(value)} {target.unit}".strip(), target.verdict(value, line)]
        rows.append((target.title, *cells, number(target.must), *(number(target.aim(line)) for line in lines)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def missed(values: Mapping[str, float], line: str = "sip") -> list[str]:
    """Titles of the figures that are worse than they must be."""
    return [target.title for target in TARGETS if target.key in values and target.verdict(values[target.key], line) == "MISSED"]


def document(
    by_line: Mapping[str, Mapping[str, float]], runs: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the JSON file holds; a figure that could not be measured is null."""
    rows = [
        {
            "line": line,
            "figure": target.key,
            "title": target.title,
            "unit": target.unit,
            "value": None if math.isnan(values[target.key]) else values[target.key],
            "must": target.must,
            "goal": target.aim(line),
            "verdict": target.verdict(values[target.key], line),
        }
        for line, values in by_line.items()
        for target in TARGETS
        if target.key in values
    ]
    return {"about": dict(about), "figures": rows, "runs": list(runs)}


def write(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Put the document into the folder, once under its own name and once as the latest."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    path = folder / f"{name}.json"
    for target in (path, folder / "latest.json"):
        target.write_text(text)
    return path
