"""The bench's own arithmetic: a wrong ruler measures nothing."""

from __future__ import annotations

import json
import math
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import numbered
from bench.callers import RTP, drop_silence
from bench.cycle import CYCLE_FRAMES, SPEAKS
from bench.figures import Window, evaluate, percentile
from bench.report import TARGETS, Target, against_floor, document, medians, missed, table, write
from bench.streams import STREAM, StreamCaller, StreamLoad
from switchhook.telephony.wire.twilio_stream import StreamWriter
from switchhook.telephony.wire.twiml import connect_stream

WINDOW = Window(100.0, 200.0, frozenset({7}))


@given(st.sampled_from([numbered.UP, numbered.DOWN]), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFF))
def test_a_frame_tells_its_number(direction: int, call: int, frame: int) -> None:
    coded = numbered.encode(direction, call, frame)
    assert len(coded) == numbered.FRAME_BYTES
    assert not numbered.is_silence(coded)
    assert numbered.decode(coded) == (direction, call, frame)


@given(st.binary(min_size=160, max_size=160), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFF))
def test_foreign_sound_is_not_taken_for_a_number(noise: bytes, call: int, frame: int) -> None:
    numbered.decode(noise)  # never raises
    assert numbered.decode(numbered.SILENCE) is None
    shifted = numbered.encode(numbered.UP, call, frame)
    assert numbered.decode(shifted[40:] + shifted[:40]) is None


def test_a_small_change_of_level_does_not_change_the_number() -> None:
    coded = numbered.encode(numbered.DOWN, 0x1234, 0x00ABCDE)
    assert numbered.decode(bytes(byte - 2 if byte > 0x82 else byte for byte in coded)) == (numbered.DOWN, 0x1234, 0x00ABCDE)


def test_the_load_hears_numbers_and_not_silence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        drop_silence(media)
        media.bind(("127.0.0.1", 0))
        media.settimeout(5)
        numbers = RTP.pack(0x80, 0, 2, 160, 1) + numbered.encode(numbered.DOWN, 3, 4)
        for packet in (RTP.pack(0x80, 0, 1, 0, 1) + numbered.SILENCE, numbers):
            far.sendto(packet, media.getsockname())
        assert media.recv(2048) == numbers


def test_the_cycle_is_eight_seconds_with_whole_pieces() -> None:
    assert len(SPEAKS) == CYCLE_FRAMES == 8 / 0.020
    assert sum(SPEAKS) % numbered.FRAMES_PER_PIECE == 0


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([5, 1, 3, 2, 4], 50) == 3
    assert percentile(range(1, 101), 99) == 99
    assert percentile([1, 2], 99) == 2
    assert math.isnan(percentile([], 50))


def caller(**changes: Any) -> dict[str, Any]:
    """A caller that sent two pieces and heard a reply of three pieces, 20 ms apart."""
    made: dict[str, Any] = {"number": 7, "ended_at": None, "misrouted": 0, "damaged": 0, "damaged_sample": b""}
    made["sent_at"] = [110 + 0.02 * n for n in range(20)]
    made["heard_frame"] = list(range(30))
    made["heard_at"] = [120.001 + 0.02 * n for n in range(30)]
    return made | changes


def model(**changes: Any) -> dict[str, Any]:
    """A model that got every frame after 0.5 ms and replied."""
    made: dict[str, Any] = {"misrouted": 0, "damaged": 0, "speech_started": [], "truncated": []}
    made["arrived_call"] = [7] * 20
    made["arrived_frame"] = list(range(20))
    made["arrived_at"] = [110.0005 + 0.02 * n for n in range(20)]
    made["replies"] = [{"call": 7, "item": "item", "first_frame": 0, "pieces": 3, "frames": 30, "sent_at": 120.0}]
    return made | changes


def test_a_good_call_is_sound_and_its_delays_are_right() -> None:
    figures = evaluate([caller()], model(), WINDOW)
    assert figures.sound
    assert figures.pieces == 5
    assert percentile(figures.uplink_ms, 99) == pytest.approx(0.5, abs=1e-6)
    assert figures.first_audio_ms == pytest.approx([1.0], abs=1e-6)
    assert max(figures.jitter_ms) < 1e-6
    assert figures.gap_share == 0


def test_lost_repeated_and_foreign_frames_show() -> None:
    lost = evaluate([caller()], model(arrived_call=[7] * 19, arrived_frame=list(range(19)), arrived_at=[111.0] * 19), WINDOW)
    assert (lost.lost_pieces, lost.sound) == (1, False)
    doubled = [*range(20), 5]
    twice = evaluate([caller()], model(arrived_call=[7] * 21, arrived_frame=doubled, arrived_at=[111.0] * 21), WINDOW)
    assert twice.repeated == 1 and not twice.sound
    assert not evaluate([caller(misrouted=1)], model(), WINDOW).sound
    assert not evaluate([caller()], model(damaged=1), WINDOW).sound
    assert not evaluate([], model(), WINDOW).sound


def test_late_packets_are_jitter_and_holes_but_not_the_first() -> None:
    at = [120.0, 120.05] + [120.07 + 0.02 * n for n in range(27)] + [120.7]
    figures = evaluate([caller(heard_at=at)], model(), WINDOW)
    assert figures.gaps == 1
    assert max(figures.jitter_ms) == pytest.approx((120.7 - at[-2] - 0.02) * 1000)


def test_a_barge_in_is_timed_to_the_last_packet_and_the_truncation_compared() -> None:
    heard_at = [120.001 + 0.02 * n for n in range(15)]
    heard = {"heard_frame": list(range(15)), "heard_at": heard_at}
    last = heard_at[-1]
    marks = {"speech_started": [(7, last - 0.004)], "truncated": [("item", 320)]}
    figures = evaluate([caller(**heard)], model(**marks), WINDOW)
    assert figures.barge_in_ms == pytest.approx([4.0])
    assert figures.truncate_error_ms == pytest.approx([20.0])
    assert figures.sound  # what was not played after the interruption is not lost
    unheeded = evaluate([caller()], model(speech_started=[(7, 120.3)]), WINDOW)
    assert unheeded.barge_in_ms == [2000.0]
    silent = evaluate([caller(**heard)], model(speech_started=[(7, last)]), WINDOW)
    assert silent.missing_truncates == 1


def test_on_a_stream_a_barge_in_is_timed_to_clear_and_the_frame_it_cut_counts_in_part() -> None:
    heard_at = [120.001 + 0.02 * n for n in range(15)]
    cleared_at = heard_at[-1] + 0.012
    heard = {"heard_frame": list(range(15)), "heard_at": heard_at, "cleared": [(100.0, 3.0), (cleared_at, 8.0)]}
    marks = {"speech_started": [(7, cleared_at - 0.003)], "truncated": [("item", 290)]}
    figures = evaluate([caller(**heard)], model(**marks), WINDOW)
    assert figures.barge_in_ms == pytest.approx([3.0])
    assert figures.truncate_error_ms == pytest.approx([2.0])


def test_a_streamed_caller_plays_in_real_time_echoes_marks_and_forgets_at_clear() -> None:
    ours, theirs = socket.socketpair()
    pipe, _ = multiprocessing.Pipe()
    with ours, theirs:
        theirs.settimeout(5)
        load = StreamLoad(pipe, ("127.0.0.1", 9), ("127.0.0.1", 9), "+1")
        talker = StreamCaller(7, None, ours, 0.0, phase="stream")
        sound = b"".join(numbered.encode(numbered.DOWN, 7, frame) for frame in range(10))
        writer = StreamWriter("MZ7")
        for text in (writer.mark(0), writer.media(sound), writer.mark(1), writer.clear):
            size = len(text).to_bytes(1, "big") if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
            talker.received += b"\x81" + size + text
        talker.received += b"\x81"  # the rest of this one is still to come
        load._on_frames(talker, 100.0)
        assert bytes(talker.received) == b"\x81"
        echoes = theirs.recv(4096)
        assert b'"name":"0"' in echoes and b'"name":"1"' in echoes
        assert talker.cleared == [(100.0, 0.0)]
        assert not talker.heard_frame and not talker.marks and not talker.damaged
        load._on_text(talker, writer.media(sound), 200.0)
        load._on_text(talker, writer.mark(2), 200.0)
        load._on_text(talker, writer.clear, 200.05)
        assert talker.heard_frame.tolist() == [0, 1, 2]
        assert talker.cleared[1] == pytest.approx((200.05, 10.0))
    load._sip.close()
    load._epoll.close()


def test_the_load_reads_the_servers_twiml() -> None:
    found = STREAM.search(connect_stream("wss://bench.example/twilio/media", "opaque-id").encode())
    assert found is not None and found.groups() == (b"/twilio/media", b"opaque-id")


def test_a_reply_that_breaks_off_unasked_is_lost() -> None:
    figures = evaluate([caller(heard_frame=list(range(15)), heard_at=[120.0 + 0.02 * n for n in range(15)])], model(), WINDOW)
    assert figures.lost_pieces == 2
    assert evaluate([caller(heard_frame=[], heard_at=[])], model(), WINDOW).missing_replies == 1


def test_verdicts_follow_must_and_goal() -> None:
    small, large = Target("a", "A", "ms", 5, 1), Target("b", "B", "", 250, 400, more_is_better=True)
    assert [small.verdict(value) for value in (0.5, 5, 5.1, float("nan"))] == ["goal", "must", "MISSED", "MISSED"]
    assert [large.verdict(value) for value in (400, 250, 100)] == ["goal", "must", "MISSED"]
    assert Target("c", "C", "").verdict(3) == ""
    other = Target("d", "D", "ms", 2.5, 1.5, twilio_goal=1.6)
    assert [other.verdict(1.55, line) for line in ("sip", "twilio")] == ["must", "goal"]


def test_the_report_holds_every_figure_and_is_json(tmp_path: Path) -> None:
    values = against_floor({target.key: 1.0 for target in TARGETS} | {"barge_in_p99_ms": float("nan")})
    shown = table({"sip": values, "twilio": {"cpu_ms": 1.55}})
    assert all(target.title in shown for target in TARGETS)
    assert "barge-in, p99" in missed(values)
    path = write(tmp_path, "run", document({"sip": values}, [{"scenario": "talk"}], {"calls": 20}))
    assert json.loads(path.read_text()) == json.loads((tmp_path / "latest.json").read_text())
    figures = {row["figure"]: row["value"] for row in json.loads(path.read_text())["figures"]}
    assert figures["cpu_ms"] == 1.0 and figures["barge_in_p99_ms"] is None


def test_medians_take_what_each_run_has() -> None:
    assert medians([{"a": 1.0}, {"a": 3.0, "b": 2.0}, {"a": 9.0}]) == {"a": 3.0, "b": 2.0}


def test_the_cost_is_told_in_terms_of_the_bare_bridge_too() -> None:
    assert against_floor({"cpu_ms": 3.0, "floor_cpu_ms": 2.0})["cpu_over_floor"] == 1.5
    assert against_floor({"cpu_ms": 3.0}) == {"cpu_ms": 3.0}
