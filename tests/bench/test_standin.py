"""The three processes of the bench against the stand-in: sound goes both ways, is interrupted and is counted."""

from __future__ import annotations

from pathlib import Path

from bench.rig import Settings, judged, rig


def test_callers_model_and_stand_in_carry_whole_cycles(tmp_path: Path) -> None:
    settings = Settings("standin", tmp_path / "server.log", calls=3, cycles=1)
    with rig(settings, max_calls=3) as calls:
        numbers = calls.bring_up(3, 20)
        refused = calls.dial(1, 1)
        span = calls.measure(9.0, numbers)
        state = calls.state()
        notes = calls.finish()
    figures, _ = judged(span, notes)
    assert state["up"] == 3
    assert state["refused"] == {refused[0]: 503}
    # A machine that is too busy for real time loses pieces, and the bench says so; it never mixes them up.
    assert figures.misrouted == figures.repeated == figures.damaged == 0
    assert figures.pieces > figures.lost_pieces
    assert figures.barge_in_ms
    assert figures.truncate_error_ms
    assert span.cpu_s > 0 and span.memory_mib > 5
