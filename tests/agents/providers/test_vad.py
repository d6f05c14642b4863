"""Voice activity on made-up frames (the machine) and on a spoken line (the detector)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.agents.providers.vad import FRAME_SAMPLES, TurnKind, VadSettings, VoiceActivity
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.tones import tone
from tests.peers.flite import spoken

LOUD = tone([440], 20, Encoding.PCMU)
QUIET = b"\xff" * FRAME_SAMPLES


def vad(**settings: int) -> VoiceActivity:
    return VoiceActivity(VadSettings(**settings), is_speech=lambda linear: True)


def kinds(activity: VoiceActivity, frames: str) -> list[tuple[str, int, int]]:
    """Feed frames (`#` loud, `.` quiet); times in ms."""
    found = activity.feed(b"".join(LOUD if frame == "#" else QUIET for frame in frames))
    return [(turn.kind.value, turn.start // 8, turn.end // 8) for turn in found]


def test_a_turn_begins_with_its_padding_and_ends_after_the_silence() -> None:
    found = kinds(vad(prefix_padding_ms=100, silence_duration_ms=200), "." * 10 + "#" * 10 + "." * 15)
    assert found == [("started", 100, 260), ("paused", 100, 480), ("stopped", 100, 600)]


def test_a_click_is_no_turn_and_a_click_in_the_silence_does_not_prolong_it() -> None:
    assert kinds(vad(), "..#......##......#....") == []
    found = kinds(vad(prefix_padding_ms=0, silence_duration_ms=200), "#" * 5 + "....#....." + "...")
    assert [kind for kind, _, _ in found] == ["started", "paused", "stopped"]


def test_speech_that_goes_on_after_a_pause_is_one_turn() -> None:
    found = kinds(vad(prefix_padding_ms=0, silence_duration_ms=500), "#" * 10 + "." * 15 + "#" * 10 + "." * 30)
    assert [kind for kind, _, _ in found] == ["started", "paused", "resumed", "paused", "stopped"]
    assert found[-1] == ("stopped", 0, 1200)


def test_the_padding_never_reaches_into_the_turn_before() -> None:
    activity = vad(prefix_padding_ms=1000, silence_duration_ms=100)
    first = kinds(activity, "#" * 5 + "." * 5)
    second = kinds(activity, "#" * 5)
    assert second[0][1] >= first[-1][2]


@given(st.lists(st.integers(1, 700), max_size=40), st.text("#.", max_size=120))
def test_the_way_sound_is_cut_into_packets_changes_nothing(cuts: list[int], frames: str) -> None:
    sound = b"".join(LOUD if frame == "#" else QUIET for frame in frames)
    whole, pieces = vad(silence_duration_ms=200), vad(silence_duration_ms=200)
    expected = whole.feed(sound)
    found = []
    for cut in cuts:
        found += pieces.feed(sound[:cut])
        sound = sound[cut:]
    assert [*found, *pieces.feed(sound)] == expected


@given(st.text("#.", max_size=200))
def test_turns_alternate_and_positions_only_grow(frames: str) -> None:
    speaking, last = False, 0
    for turn in vad(silence_duration_ms=100).feed(b"".join(LOUD if frame == "#" else QUIET for frame in frames)):
        assert (turn.kind is TurnKind.STARTED) is not speaking
        assert last <= turn.end and turn.start < turn.end
        speaking, last = turn.kind is not TurnKind.STOPPED, turn.end


@pytest.mark.peer("flite")
def test_a_spoken_line_is_one_turn_and_soft_noise_is_none() -> None:
    line = spoken("what are your opening hours")
    activity = VoiceActivity(VadSettings())
    found = activity.feed(QUIET * 50 + line + QUIET * 50)
    started, stopped = found[0], found[-1]
    assert [turn.kind for turn in found if turn.kind in (TurnKind.STARTED, TurnKind.STOPPED)] == [started.kind, stopped.kind]
    assert 8 * 700 <= started.start <= 8 * 1000
    assert abs(stopped.end - (50 * FRAME_SAMPLES + len(line) + 8 * 400)) < 8 * 300
    noise = random.Random(7)
    hiss = g711.encode(
        b"".join(noise.randrange(-60, 60).to_bytes(2, "little", signed=True) for _ in range(16_000)), Encoding.PCMU
    )
    assert VoiceActivity(VadSettings()).feed(hiss) == []
