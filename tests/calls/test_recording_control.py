"""When a recording is silent: reasons nest, and nothing but both being over ends the silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.calls.recording_control import (
    DIGITS_PAUSE_S,
    PauseRecording,
    RecordingControl,
    RecordingEffect,
    ResumeRecording,
)
from switchhook.driver import simulate

PAUSE, RESUME = PauseRecording(), ResumeRecording()
Script = list[tuple[float, str]]


def run(script: Script, pause_on_digits: bool = True, until: float = 100.0) -> list[tuple[float, RecordingEffect]]:
    control = RecordingControl(pause_on_digits)
    inputs: dict[str, Callable[[float], None]] = {
        "digit": control.digit,
        "pause": control.tool_pause,
        "resume": control.tool_resume,
    }
    return simulate(control, [(at, inputs[name]) for at, name in script], until)


def test_silence_lasts_from_the_first_digit_until_after_the_last() -> None:
    script = [(1.0, "digit"), (2.0, "digit"), (4.5, "digit")]
    assert run(script) == [(1.0, PAUSE), (4.5 + DIGITS_PAUSE_S, RESUME)]


def test_a_second_number_is_silenced_again() -> None:
    script = [(1.0, "digit"), (10.0, "digit")]
    assert run(script) == [(1.0, PAUSE), (4.0, RESUME), (10.0, PAUSE), (13.0, RESUME)]


def test_digits_are_recorded_unless_the_number_says_otherwise() -> None:
    assert run([(1.0, "digit")], pause_on_digits=False) == []


@pytest.mark.parametrize("pause_on_digits", [True, False])
def test_the_tool_pauses_until_it_resumes(pause_on_digits: bool) -> None:
    script = [(1.0, "pause"), (2.0, "pause"), (9.0, "resume"), (9.5, "resume")]
    assert run(script, pause_on_digits) == [(1.0, PAUSE), (9.0, RESUME)]


def test_a_pause_that_is_never_ended_lasts_to_the_end_of_the_call() -> None:
    assert run([(1.0, "pause")], until=86_400) == [(1.0, PAUSE)]


def test_digits_within_a_pause_do_not_end_it() -> None:
    assert run([(1.0, "pause"), (2.0, "digit"), (20.0, "resume")]) == [(1.0, PAUSE), (20.0, RESUME)]


def test_resuming_while_digits_come_waits_for_them() -> None:
    assert run([(1.0, "pause"), (2.0, "digit"), (3.0, "resume")]) == [(1.0, PAUSE), (5.0, RESUME)]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["digit", "pause", "resume"])), max_size=30),
    st.booleans(),
)
def test_whatever_comes_the_recording_is_audible_exactly_when_no_reason_holds(events: Script, pause_on_digits: bool) -> None:
    script = sorted(events, key=lambda event: event[0])
    effects = run(script, pause_on_digits, until=1000.0)
    assert [effect for _, effect in effects] == [PAUSE if number % 2 == 0 else RESUME for number in range(len(effects))]
    wanted = next((name == "pause" for _, name in reversed(script) if name != "digit"), False)
    assert (len(effects) % 2 == 1) == wanted
