"""A party hears a source, a bridge or hold sound, whenever nothing is queued for it."""

from __future__ import annotations

from switchhook.domain.model import Encoding
from switchhook.media.playout import Playout


class Counting:
    """A source of numbered frames, with silence where the test wants it."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.silent = False

    def next_frame(self, now: float) -> bytes | None:
        self.asked.append(now)
        return None if self.silent else bytes([len(self.asked)]) * 160


def made() -> tuple[Playout, Counting, list[str]]:
    told: list[str] = []
    playout = Playout(Encoding.PCMU, on_talk=lambda: told.append("talk"), on_drained=lambda: told.append("drained"))
    return playout, Counting(), told


def test_a_source_is_asked_once_a_frame_and_heard_from_the_next_on() -> None:
    playout, source, told = made()
    assert playout.next_frame(1.00) is None
    playout.play_from(source)
    assert [playout.next_frame(1.02), playout.next_frame(1.04)] == [b"\x01" * 160, b"\x02" * 160]
    assert source.asked == [1.02, 1.04]
    source.silent = True
    assert playout.next_frame(1.06) is None
    playout.play_from(None)
    assert playout.next_frame(1.08) is None
    assert len(source.asked) == 3
    assert playout.idle
    assert told == []


def test_queued_sound_goes_first_and_is_drained_once() -> None:
    playout, source, told = made()
    playout.play_from(source)
    playout.next_frame(1.00)
    playout.enqueue("words", b"\x77" * 200, 1.01)
    playout.finish("words", 1.01)
    assert playout.next_frame(1.01) == b"\x77" * 160
    assert playout.next_frame(1.03) == b"\x77" * 40 + b"\xff" * 120
    idle_before = playout.idle
    assert playout.next_frame(1.05) == b"\x02" * 160
    assert told == ["talk", "drained"]
    assert (idle_before, playout.idle) == (False, True)
    assert playout.heard_ms("words", 1.06) == 25
    assert len(source.asked) == 2


def test_a_source_named_while_words_are_heard_begins_after_them() -> None:
    playout, source, told = made()
    playout.enqueue("words", b"\x77" * 320, 1.0)
    playout.finish("words", 1.0)
    playout.play_from(source)
    frames = [playout.next_frame(1.0 + at * 0.02) for at in range(3)]
    assert frames == [b"\x77" * 160, b"\x77" * 160, b"\x01" * 160]
    assert told == ["talk", "drained"]


def test_while_an_unfinished_partial_frame_waits_the_source_is_heard() -> None:
    playout, source, _ = made()
    playout.play_from(source)
    playout.enqueue("words", b"\x77" * 80, 1.0)
    assert playout.next_frame(1.0) == b"\x01" * 160
    playout.finish("words", 1.01)
    assert playout.next_frame(1.02) == b"\x77" * 80 + b"\xff" * 80


def test_an_interruption_ends_the_words_and_not_the_source() -> None:
    playout, source, _ = made()
    playout.play_from(source)
    playout.enqueue("words", b"\x77" * 1600, 1.0)
    playout.next_frame(1.0)
    assert [heard.key for heard in playout.interrupt(1.01)] == ["words"]
    assert playout.next_frame(1.02) == b"\x01" * 160
