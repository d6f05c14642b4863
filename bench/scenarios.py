"""The runs, each on a fresh server: what is done, and which figures come of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bench.bridging import measure
from bench.cycle import CYCLE_S
from bench.figures import Figures, percentile
from bench.rig import Rig, Settings, Span, judged, rig, whole_cycles

GAP_LIMIT = 0.1
"""Per cent of packets that may come late enough to be heard as a hole."""
DIAL_RATE = 20
SHORT_HOLD_S = 0.4
HELD_S = 8.0
CHURN_HOLD_S = 2.0
EXTRA_CALLS = 10
QUIET_S = 3.0
ENCODE_TIMEOUT_S = 180


@dataclass(slots=True)
class Outcome:
    """The figures of one run by name, and what to tell about it."""

    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def talk(settings: Settings) -> Outcome:
    """N callers in whole talk cycles at steady state."""
    with rig(settings) as calls:
        base = _base(calls)
        numbers = calls.bring_up(settings.calls, settings.calls / 10)
        span = calls.measure(whole_cycles(settings), numbers)
        notes = calls.finish()
    figures, doubts = judged(span, notes)
    outcome = Outcome(_cost(span, settings.calls) | _latencies(figures), doubts + _complaints(figures))
    outcome.values |= {"lost_pieces": figures.lost_pieces, "gaps_percent": figures.gap_share, "base_mib": base}
    outcome.values["per_call_mib"] = (span.memory_mib - base) / settings.calls
    counts = f"{len(figures.uplink_ms)} frames up, {len(figures.first_audio_ms)} replies, {len(figures.barge_in_ms)} barge-ins"
    outcome.notes.append(f"measured {counts}; the load was {notes[2]:.2f} ms late (p99)")
    return outcome


def floor(settings: Settings) -> Outcome:
    """The same talk through the bare bridge: what this machine asks at this hour of whoever carries it."""
    found = talk(replace(settings, server="standin"))
    return Outcome({"floor_cpu_ms": found.values["cpu_ms"]}, found.notes)


def capacity(settings: Settings) -> Outcome:
    """The largest of the steps that one core carries with no lost sound and hardly a hole."""
    outcome = Outcome({"calls_per_core": 0.0})
    for step in settings.steps:
        with rig(settings) as calls:
            numbers = calls.bring_up(step, max(10, step / 16))
            span = calls.measure(2 * CYCLE_S, numbers)
            notes = calls.finish()
        figures, doubts = judged(span, notes)
        good = figures.sound and figures.gap_share < GAP_LIMIT
        cost = 1000 * span.cpu_s / (2 * CYCLE_S * step)
        outcome.notes.append(
            f"{step} calls: {figures.lost_pieces} of {figures.pieces} pieces lost, {figures.gap_share:.3f} % gaps, "
            f"{cost:.2f} ms/call-s, uplink p99 {percentile(figures.uplink_ms, 99):.2f} ms"
        )
        outcome.notes += [f"{step} calls: {doubt}" for doubt in doubts] + [f"{step} calls: {c}" for c in _complaints(figures)]
        if not good:
            break
        outcome.values["calls_per_core"] = step
    return outcome


def dialling(settings: Settings) -> Outcome:
    """Talkers while 20 short calls a second come and go, so that about N calls are up all the time."""
    churn = min(int(DIAL_RATE * CHURN_HOLD_S), settings.calls // 2)
    rate = churn / CHURN_HOLD_S
    with rig(settings) as calls:
        _base(calls)
        numbers = calls.bring_up(settings.calls - churn, settings.calls / 10)
        calls.dial(int(rate * (CYCLE_S + CHURN_HOLD_S + 1)), rate, CHURN_HOLD_S)
        time.sleep(CHURN_HOLD_S)
        span = calls.measure(CYCLE_S, numbers)
        notes = calls.finish()
    figures, doubts = judged(span, notes)
    values = {
        "dialling_uplink_p99_ms": percentile(figures.uplink_ms, 99),
        "dialling_first_audio_p99_ms": percentile(figures.first_audio_ms, 99),
    }
    return Outcome(values, [*doubts, *_complaints(figures), f"dialled at {rate:g} calls a second"])


def short(settings: Settings) -> Outcome:
    """Many short calls: what setting up and tearing down costs, and what stays in memory."""
    with rig(settings) as calls:
        base = _base(calls)
        cost_ms = _short_calls(calls, settings.short_calls)
        kept = calls.server.memory_mib() - base
        sound_ms = _held_calls(calls) / DIAL_RATE
        state = calls.state()
        notes = calls.finish()
    values = {"setup_cpu_ms": cost_ms - sound_ms, "kept_mib": kept}
    told = [
        f"a call of {SHORT_HOLD_S:g} s cost {cost_ms:.2f} ms, {sound_ms:.2f} ms of it for its sound; "
        f"{state['over']} calls, {len(notes[1]['ends'])} CallEnds came"
    ]
    if state["refused"] or state["dropped"]:
        told.append(f"{len(state['refused'])} refused, {state['dropped']} dropped by the server")
    return Outcome(values, told)


def _short_calls(calls: Rig, count: int) -> float:
    """CPU ms of the server for each of so many calls, until it is quiet again."""
    cpu = calls.server.cpu_s()
    calls.short_calls(count, DIAL_RATE, SHORT_HOLD_S)
    time.sleep(QUIET_S)
    return 1000 * (calls.server.cpu_s() - cpu) / count


def _held_calls(calls: Rig) -> float:
    """CPU ms for each second of as many calls as are up at a time while short ones come and go.

    Sound has to be weighed at the same number of calls: of few, each packet wakes the server, of many, few do.
    """
    up = round(DIAL_RATE * SHORT_HOLD_S)
    calls.dial(up, DIAL_RATE, 2 * QUIET_S + HELD_S)
    calls.until(lambda state: state["up"] == up, f"answering {up} calls")
    time.sleep(QUIET_S)
    cpu = calls.server.cpu_s()
    time.sleep(HELD_S)
    cost_ms = 1000 * (calls.server.cpu_s() - cpu) / HELD_S
    calls.until(lambda state: state["up"] == 0, f"the end of {up} calls")
    return cost_ms


def recording(settings: Settings) -> Outcome:
    """The same talk with and without a sealed two-channel recording; then the encoding, apart."""
    spans: dict[bool, Span] = {}
    outcome = Outcome()
    for record in (False, True):
        with rig(settings, record=record) as calls:
            numbers = calls.bring_up(settings.calls, settings.calls / 10)
            began = time.monotonic()
            _until_idle(calls)  # deriving the keys of recordings is a cost of calls, not of their seconds
            spans[record] = calls.measure(whole_cycles(settings), numbers)
            if record:
                workers = calls.server.worker_cpu_s()
                calls.hang_up(numbers)
                seconds = settings.calls * (time.monotonic() - began)
                calls.until(lambda state: state["up"] == 0, "hanging up")
                encoded = _until_idle(calls) - workers
                outcome.values["encoding_ms"] = 1000 * encoded / seconds
            notes = calls.finish()
        figures, doubts = judged(spans[record], notes)
        outcome.notes += [f"recording {'on' if record else 'off'}: {note}" for note in doubts + _complaints(figures)]
    cost = {record: _cost(span, settings.calls)["cpu_ms"] for record, span in spans.items()}
    outcome.values["recording_extra_ms"] = cost[True] - cost[False]
    outcome.notes.append(f"CPU ms per call-second: {cost[False]:.2f} without, {cost[True]:.2f} with recording")
    return outcome


def srtp(settings: Settings) -> Outcome:
    """The same talk over plain RTP and over SRTP (AES_CM_128_HMAC_SHA1_80), every caller alike."""
    outcome = Outcome()
    cost: dict[bool, float] = {}
    for secure in (False, True):
        with rig(settings, srtp=secure) as calls:
            numbers = calls.bring_up(settings.calls, settings.calls / 10)
            span = calls.measure(whole_cycles(settings), numbers)
            notes = calls.finish()
        cost[secure] = _cost(span, settings.calls)["cpu_ms"]
        figures, doubts = judged(span, notes)
        outcome.notes += [f"SRTP {'on' if secure else 'off'}: {note}" for note in doubts + _complaints(figures)]
    outcome.values["srtp_cpu_ms"] = cost[True] - cost[False]
    outcome.notes.append(f"CPU ms per call-second: {cost[False]:.2f} over RTP, {cost[True]:.2f} over SRTP")
    return outcome


def overload(settings: Settings) -> Outcome:
    """The server is full; ten more dial. They must get 503 with Retry-After, and the others must not notice."""
    count = min(settings.calls, 50)
    with rig(settings, max_calls=count) as calls:
        numbers = calls.bring_up(count, 10)
        extra = calls.dial(EXTRA_CALLS, DIAL_RATE)
        span = calls.measure(CYCLE_S, numbers)
        calls.hang_up(range(numbers[0], numbers[0] + 1))
        calls.until(lambda state: state["up"] == count - 1, "hanging up one call")
        time.sleep(1)
        again = calls.dial(1, 1)
        time.sleep(2)
        notes = calls.finish()
    figures, doubts = judged(span, notes)
    by_number = {caller["number"]: caller for caller in notes[0]}
    refused = [by_number[number] for number in extra]
    statuses = sorted({str(caller["status"]) for caller in refused})
    right = all(caller["status"] == 503 and caller["retry_after"] for caller in refused)
    admitted = by_number[again[0]]["status"] == 200
    unharmed = figures.sound and figures.gap_share < GAP_LIMIT and not any(by_number[n]["ended_by_server"] for n in numbers)
    place = "given again" if admitted else "not given again"
    told = f"{EXTRA_CALLS} above {count} got {', '.join(statuses)}; a place that came free was {place}"
    failures = float(not right) + float(not unharmed) + float(not admitted)
    return Outcome({"overload_failures": failures}, [told, *doubts, *_complaints(figures)])


def bridge(settings: Settings) -> Outcome:
    """N pairs of phones that talk with each other, sound alone: our streams and bridges, whatever `--server` says."""
    core, load_cores = settings.cores
    found = measure(settings.calls, core, load_cores)
    values = {"bridge_cpu_ms": found.cpu_ms, "bridge_lost_frames": float(found.sent - found.heard)}
    values |= {f"bridge_delay_p{share}_ms": percentile(found.delays_ms, share) for share in (50, 99)}
    return Outcome(values, [f"{found.heard} of {found.sent} frames heard; the load was {found.late_ms:.2f} ms late at most"])


SCENARIOS: dict[str, Callable[[Settings], Outcome]] = {
    "talk": talk,
    "floor": floor,
    "capacity": capacity,
    "dialling": dialling,
    "short": short,
    "recording": recording,
    "srtp": srtp,
    "overload": overload,
    "bridge": bridge,
}

LINES = {"sip": frozenset(SCENARIOS), "twilio": frozenset(SCENARIOS) - {"floor", "srtp", "bridge"}}
"""What is measured on each line."""


def _base(calls: Rig) -> float:
    """Memory after a first call has come and gone."""
    calls.short_calls(1, 1, 1.0)
    time.sleep(1.0)
    return calls.server.memory_mib()


def _cost(span: Span, count: int) -> dict[str, float]:
    return {"cpu_ms": 1000 * span.cpu_s / ((span.window.end - span.window.start) * count)}


def _latencies(figures: Figures) -> dict[str, float]:
    return {
        "uplink_p50_ms": percentile(figures.uplink_ms, 50),
        "uplink_p99_ms": percentile(figures.uplink_ms, 99),
        "first_audio_p99_ms": percentile(figures.first_audio_ms, 99),
        "barge_in_p99_ms": percentile(figures.barge_in_ms, 99),
        "jitter_p99_ms": percentile(figures.jitter_ms, 99),
        "truncate_error_ms": percentile(figures.truncate_error_ms, 50),
        "truncate_error_p99_ms": percentile(figures.truncate_error_ms, 99),
    }


def _complaints(figures: Figures) -> list[str]:
    """What went wrong with the sound, in words."""
    counts = {
        "pieces lost": figures.lost_pieces,
        "frames repeated": figures.repeated,
        "frames misrouted": figures.misrouted,
        f"frames damaged ({figures.damaged_up} on the way up)": figures.damaged,
        "replies never heard": figures.missing_replies,
        "interruptions without truncate": figures.missing_truncates,
    }
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if figures.damaged_sample:
        told.append(f"a damaged packet: {figures.damaged_sample.hex()}")
    return told or ([] if figures.pieces else ["no numbered sound at all"])


def _until_idle(calls: Rig) -> float:
    """Wait until the workers' CPU time stands still; returns it."""
    deadline = time.monotonic() + ENCODE_TIMEOUT_S
    before = -1.0
    while (spent := calls.server.worker_cpu_s()) != before and time.monotonic() < deadline:
        before = spent
        time.sleep(QUIET_S)
    return spent
