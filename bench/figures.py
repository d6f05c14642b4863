"""From the notes of both sides to the figures of one run. Times are CLOCK_MONOTONIC seconds, results milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cycle import FRAME_S
from bench.numbered import FRAMES_PER_PIECE

GAP_S = 2 * FRAME_S
"""Two packets of a reply further apart than this leave a hole that is heard."""
TAIL_S = 1.0
"""Sound sent in the last second of a call may still be under way when it ends."""
UNDER_WAY_S = 0.2
"""A reply counts when it ended, or was cut, so long before the stretch did."""
BARGE_LIMIT_S = 2.0

Times = NDArray[np.float64]


def percentile(values: Sequence[float] | Times, share: float) -> float:
    """The smallest value that at least `share` per cent of the values do not exceed; NaN of nothing."""
    data = np.sort(np.asarray(values, dtype=np.float64))
    if not len(data):
        return float("nan")
    return float(data[max(0, int(np.ceil(len(data) * share / 100)) - 1)])


@dataclass(slots=True)
class Figures:
    """What one run showed, as lists of single measurements in milliseconds and counts."""

    uplink_ms: list[float] = field(default_factory=list)
    first_audio_ms: list[float] = field(default_factory=list)
    barge_in_ms: list[float] = field(default_factory=list)
    jitter_ms: list[float] = field(default_factory=list)
    truncate_error_ms: list[float] = field(default_factory=list)
    frames_up: int = 0
    frames_down: int = 0
    gaps: int = 0
    pieces: int = 0
    lost_pieces: int = 0
    repeated: int = 0
    misrouted: int = 0
    damaged: int = 0
    damaged_up: int = 0
    """Of the damaged frames those that the model got."""
    damaged_sample: bytes = b""
    """A damaged packet at a caller."""
    missing_replies: int = 0
    missing_truncates: int = 0

    @property
    def gap_share(self) -> float:
        """Per cent of the packets of replies that came so late that a hole was heard."""
        return 100 * self.gaps / self.frames_down if self.frames_down else 0.0

    @property
    def sound(self) -> bool:
        """Whether no numbered sound was lost, repeated, damaged or misrouted, and every reply came."""
        return (
            not (self.lost_pieces or self.repeated or self.misrouted or self.damaged or self.missing_replies) and self.pieces > 0
        )


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that counts, and the callers that count in it."""

    start: float
    end: float
    callers: frozenset[int]

    def holds(self, at: float) -> bool:
        """Whether a moment lies within."""
        return self.start <= at < self.end


def evaluate(callers: Iterable[dict[str, Any]], model: dict[str, Any], window: Window) -> Figures:
    """Join what the callers and the model noted."""
    figures = Figures()
    arrived = _arrivals(model)
    replies: dict[int, list[dict[str, Any]]] = {}
    for reply in model["replies"]:
        replies.setdefault(reply["call"], []).append(reply)
    started: dict[int, list[float]] = {}
    for number, at in model["speech_started"]:
        started.setdefault(number, []).append(at)
    truncated = dict(model["truncated"])
    for caller in callers:
        figures.misrouted += caller["misrouted"]
        if caller["number"] in window.callers:
            figures.damaged += caller["damaged"]
            figures.damaged_sample = figures.damaged_sample or caller["damaged_sample"]
            number = caller["number"]
            _uplink(figures, caller, arrived.get(number, (np.empty(0, np.int64), np.empty(0))), window)
            _downlink(figures, caller, replies.get(number, []), started.get(number, []), truncated, window)
    figures.misrouted += model["misrouted"]
    figures.damaged += model["damaged"]
    figures.damaged_up = model["damaged"]
    return figures


def _arrivals(model: dict[str, Any]) -> dict[int, tuple[NDArray[np.int64], Times]]:
    """Frame numbers and times at the model, for each call."""
    call = np.asarray(model["arrived_call"], dtype=np.int64)
    frame = np.asarray(model["arrived_frame"], dtype=np.int64)
    at = np.asarray(model["arrived_at"], dtype=np.float64)
    if not len(call):
        return {}
    order = np.argsort(call, kind="stable")
    numbers, starts = np.unique(call[order], return_index=True)
    groups = zip(np.split(frame[order], starts[1:]), np.split(at[order], starts[1:]), strict=True)
    return dict(zip(map(int, numbers), groups, strict=True))


def _uplink(figures: Figures, caller: dict[str, Any], arrived: tuple[NDArray[np.int64], Times], window: Window) -> None:
    sent = np.asarray(caller["sent_at"], dtype=np.float64)
    end = min(window.end, (caller["ended_at"] or np.inf) - TAIL_S)
    counted = np.flatnonzero((sent >= window.start) & (sent < end))
    known = (arrived[0] >= 0) & (arrived[0] < len(sent))
    times = np.bincount(arrived[0][known], minlength=len(sent))
    first = np.full(len(sent), np.nan)
    first[arrived[0][known][::-1]] = arrived[1][known][::-1]
    delays = (first[counted] - sent[counted]) * 1000
    figures.uplink_ms.extend(delays[~np.isnan(delays)].tolist())
    figures.frames_up += len(counted)
    figures.repeated += int(np.count_nonzero(times[counted] > 1))
    _count_pieces(figures, counted, times)


def _count_pieces(figures: Figures, frames: NDArray[np.int64], times: NDArray[np.int64]) -> None:
    figures.pieces += len(np.unique(frames // FRAMES_PER_PIECE))
    figures.lost_pieces += len(np.unique(frames[times[frames] == 0] // FRAMES_PER_PIECE))


def _downlink(
    figures: Figures,
    caller: dict[str, Any],
    replies: list[dict[str, Any]],
    started: list[float],
    truncated: dict[str, int],
    window: Window,
) -> None:
    frames = np.asarray(caller["heard_frame"], dtype=np.int64)
    at = np.asarray(caller["heard_at"], dtype=np.float64)
    end = min(window.end, (caller["ended_at"] or np.inf) - TAIL_S)
    for reply in replies:
        length = reply["pieces"] * FRAMES_PER_PIECE
        full = reply["sent_at"] + length * FRAME_S
        cut_at = next((at for at in started if reply["sent_at"] < at < full), None)
        if not reply["sent_at"] or reply["sent_at"] < window.start or (cut_at or full) + UNDER_WAY_S >= end:
            continue
        mine = (frames >= reply["first_frame"]) & (frames < reply["first_frame"] + length)
        heard = frames[mine] - reply["first_frame"], at[mine]
        _reply(figures, reply, heard, caller.get("cleared", ()), cut_at, truncated)


def _reply(
    figures: Figures,
    reply: dict[str, Any],
    frames: tuple[NDArray[np.int64], Times],
    cleared: Sequence[tuple[float, float]],
    cut_at: float | None,
    truncated: dict[str, int],
) -> None:
    """One reply at the caller: when it began, how evenly it came, where it ended. `cut_at`: when the caller spoke into it.
    `cleared`: when a caller that holds sound itself was told to forget it, and how many ms of a frame that cut off."""
    heard, at = frames
    if not len(heard):
        figures.missing_replies += 1
        return
    figures.first_audio_ms.append((at[0] - reply["sent_at"]) * 1000)
    figures.frames_down += len(heard)
    figures.repeated += len(heard) - len(np.unique(heard))
    steps = np.diff(at)
    consecutive = np.diff(heard) == 1
    figures.jitter_ms.extend((np.abs(steps[1:][consecutive[1:]] - FRAME_S) * 1000).tolist())
    figures.gaps += int(np.count_nonzero(steps[1:] > GAP_S))
    played = int(np.max(heard)) + 1
    cut = cut_at is not None and played < reply["pieces"] * FRAMES_PER_PIECE
    silenced_at, missing_ms = _silenced(cleared, float(at[-1]))
    if cut_at is not None:
        # A reply that goes on as if nobody had spoken counts as the worst there is.
        figures.barge_in_ms.append(max(0.0, silenced_at - cut_at) * 1000 if cut else BARGE_LIMIT_S * 1000)
    figures.missing_truncates += cut and reply["item"] not in truncated
    if reply["item"] in truncated:
        figures.truncate_error_ms.append(abs(truncated[reply["item"]] + missing_ms - played * FRAME_S * 1000))
    expected = np.arange(played if cut else reply["pieces"] * FRAMES_PER_PIECE)
    _count_pieces(figures, expected, np.bincount(heard, minlength=len(expected)))


def _silenced(cleared: Sequence[tuple[float, float]], last_at: float) -> tuple[float, float]:
    """When a reply fell silent whose last frame began at `last_at`, and the ms of that frame that were not heard."""
    for at, cut_ms in cleared:
        if last_at <= at <= last_at + FRAME_S:
            return at, cut_ms
    return last_at, 0.0
