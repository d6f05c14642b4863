"""The order of received packets: at once when in order, held for a gap, given up in time, placed by timestamp."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.receive import MAX_CONCEAL_SAMPLES, Receiver

PCMU, PCMA, EVENT = 0, 8, 101


class Ear:
    """Feeds a receiver and writes down what is heard: (time, position, payload or None for a concealed part)."""

    def __init__(self, other_types: tuple[int, ...] = (PCMU, PCMA)) -> None:
        self.receiver = Receiver(10.0)
        self.receiver.configure(PCMU, other_types, EVENT)
        self.heard: list[tuple[float, int, bytes | None]] = []
        self.digits = ""

    def push(self, now: float, data: bytes) -> None:
        self.tick(now)
        payload = self.receiver.push(data, now)
        if payload is not None:
            self.heard.append((now, self.receiver.position, payload))
        self._take(now)

    def tick(self, now: float) -> None:
        while self.receiver.deadline is not None and self.receiver.deadline <= now:
            at = self.receiver.deadline
            self.receiver.tick(at)
            self._take(at)

    def _take(self, now: float) -> None:
        for frame in self.receiver.take():
            self.heard.append((now, frame.position, frame.payload))
        self.digits += "".join(self.receiver.digits)
        self.receiver.digits.clear()

    @property
    def sounds(self) -> list[int | None]:
        """The first byte of each payload."""
        return [None if payload is None else payload[0] for _, _, payload in self.heard]

    @property
    def places(self) -> list[int]:
        return [position for _, position, _ in self.heard]


def frame(
    number: int, size: int = 160, start: int = 0xFFFFFF00, sequence: int = 0xFFFE, second: int = PCMU, ssrc: int = 7
) -> bytes:
    """Packet `number` of a stream whose sequence and timestamp wrap around early."""
    return rtp.pack(
        second, (sequence + number) & 0xFFFF, (start + number * size) & 0xFFFFFFFF, ssrc, bytes([number & 0xFF]) * size
    )


@pytest.mark.parametrize("size", [80, 160, 240, 320, 480])
def test_in_order_packets_of_any_length_pass_at_once(size: int) -> None:
    ear = Ear()
    for number in range(8):
        ear.push(10 + number * size / 8000, frame(number, size))
    assert ear.sounds == list(range(8))
    assert ear.places == [number * size for number in range(8)]
    assert [at for at, _, _ in ear.heard] == [10 + number * size / 8000 for number in range(8)]
    assert ear.receiver.lost == ear.receiver.late == 0


def test_the_time_line_begins_where_the_first_packet_arrives() -> None:
    ear = Ear()
    for number in range(3):
        ear.push(10.5 + number * 0.02, frame(number))
    assert ear.places == [4000, 4160, 4320]


def test_a_packet_that_comes_after_its_follower_is_put_in_its_place() -> None:
    ear = Ear()
    for at, number in enumerate((0, 1, 3, 2, 4)):
        ear.push(10 + at * 0.02, frame(number))
    assert ear.sounds == [0, 1, 2, 3, 4]
    assert ear.places == [0, 160, 320, 480, 640]
    assert ear.receiver.concealed_samples == 0


def test_a_lost_packet_holds_the_flow_60_ms_and_is_then_concealed() -> None:
    ear = Ear()
    for number in (0, 1, 3, 4, 5, 6, 7):
        ear.push(10 + number * 0.02, frame(number))
    assert ear.sounds == [0, 1, None, 3, 4, 5, 6, 7]
    assert ear.places == [number * 160 for number in range(8)]
    assert [round(at, 3) for at, _, _ in ear.heard] == [10.0, 10.02, *[10.12] * 5, 10.14]
    assert ear.receiver.lost == 1


def test_a_packet_that_comes_after_it_was_given_up_is_late() -> None:
    ear = Ear()
    for number in (0, 2, 3, 4, 5, 6):
        ear.push(10 + number * 0.02, frame(number))
    ear.push(10.13, frame(1))
    assert ear.sounds == [0, None, 2, 3, 4, 5, 6]
    assert ear.receiver.late == 1


def test_copies_are_heard_once() -> None:
    ear = Ear()
    for number in (0, 0, 1, 3, 3, 2, 2, 4):
        ear.push(10 + number * 0.02, frame(number))
    assert ear.sounds == [0, 1, 2, 3, 4]


def test_a_long_outage_is_concealed_for_60_ms_and_leaves_a_gap() -> None:
    ear = Ear()
    for number in (0, 1, 52, 53):
        ear.push(10 + number * 0.02, frame(number))
    ear.tick(12.0)
    assert ear.sounds == [0, 1, None, 52, 53]
    assert ear.places == [0, 160, 320, 52 * 160, 53 * 160]
    assert ear.receiver.concealed_samples == MAX_CONCEAL_SAMPLES


def test_two_gaps_each_wait_their_own_time() -> None:
    ear = Ear()
    for at, number in ((0.0, 0), (0.02, 2), (0.06, 4), (0.10, 5)):
        ear.push(10 + at, frame(number))
    ear.tick(11.0)
    assert ear.sounds == [0, None, 2, None, 4, 5]
    assert [round(at - 10, 3) for at, _, _ in ear.heard] == [0.0, 0.08, 0.08, 0.12, 0.12, 0.12]


def test_a_burst_behind_a_gap_does_not_pile_up() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    for number in range(2, 40):
        ear.push(10.0, frame(number))
    assert ear.sounds == [0, None, *range(2, 40)]


def test_silence_suppression_leaves_a_gap_and_no_loss() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    ear.push(11.0, frame(1, start=0xFFFFFF00 + 50 * 160 - 160, second=PCMU | rtp.MARKER))
    ear.push(11.02, frame(2, start=0xFFFFFF00 + 50 * 160 - 160))
    assert ear.sounds == [0, 1, 2]
    assert ear.places == [0, 8000, 8160]
    assert ear.receiver.lost == 0


def test_comfort_noise_is_silence_until_sound_comes() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    ear.push(10.02, rtp.pack(13, 0xFFFF, (0xFFFFFF00 + 160) & 0xFFFFFFFF, 7, b"\x40"))
    quiet = [ear.receiver.silent]
    ear.push(10.04, frame(2))
    assert [*quiet, ear.receiver.silent] == [True, False]
    assert ear.sounds == [0, 2]
    assert ear.places == [0, 320]


def test_digits_do_not_disturb_the_sound_around_them() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    for number in range(1, 6):
        end = 0x80 if number == 5 else 0
        payload = bytes((5, end | 10)) + (160 * number).to_bytes(2, "big")
        ear.push(10 + number * 0.02, rtp.pack(EVENT, (0xFFFE + number) & 0xFFFF, (0xFFFFFF00 + 160) & 0xFFFFFFFF, 7, payload))
    ear.push(10.12, frame(6))
    assert ear.digits == "5"
    assert ear.sounds == [0, 6]
    assert ear.places == [0, 960]
    assert ear.receiver.concealed_samples == 0


def test_unknown_types_are_counted_and_passed_over() -> None:
    ear = Ear(other_types=(PCMU,))
    ear.push(10.0, frame(0))
    ear.push(10.02, frame(1, second=PCMA))
    ear.push(10.04, frame(2))
    assert ear.sounds == [0, 2]
    assert ear.receiver.foreign == 1


def test_the_other_flavour_passes_with_its_type() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    ear.receiver.push(frame(1, second=PCMA), 10.02)
    assert [(got.payload_type, got.position) for got in ear.receiver.take()] == [(PCMA, 160)]


def test_a_stranger_with_another_ssrc_is_not_heard_but_a_new_source_is() -> None:
    ear = Ear()
    ear.push(10.00, frame(0))
    ear.push(10.01, frame(90, ssrc=8))  # one stray packet
    ear.push(10.02, frame(1))
    ear.push(10.04, frame(100, ssrc=9, start=5, sequence=70))
    ear.push(10.06, frame(101, ssrc=9, start=5, sequence=70))  # the second in a row: the source has changed
    ear.push(10.08, frame(102, ssrc=9, start=5, sequence=70))
    assert ear.sounds == [0, 1, 100, 101, 102]
    assert ear.places == sorted(ear.places)


def test_a_restarted_sequence_is_followed_after_two_packets() -> None:
    ear = Ear()
    for number in range(3):
        ear.push(10 + number * 0.02, frame(number))
    for number in range(3, 6):
        ear.push(10 + number * 0.02, frame(number, sequence=30_000, start=77))
    assert ear.sounds == [0, 1, 2, 3, 4, 5]
    assert ear.places == sorted(ear.places)


def test_a_timestamp_that_jumps_is_placed_by_its_arrival() -> None:
    ear = Ear()
    ear.push(10.0, frame(0))
    ear.push(10.02, frame(1, start=0x12345678))
    ear.push(10.04, frame(2, start=0x12345678))
    assert ear.places == [0, 160, 320]


def test_a_peer_that_rephases_does_not_drift() -> None:
    """Each talkspurt begins 10 ms early by its true timestamp: positions stay in step with the time line."""
    ear, sequence = Ear(), 0
    for spurt in range(50):
        start = spurt * 8000 - 80 * (spurt % 2)
        for number in range(10):
            at = start + number * 160
            second = PCMU if number else PCMU | rtp.MARKER
            ear.push(10 + at / 8000 + 1, rtp.pack(second, sequence & 0xFFFF, at & 0xFFFFFFFF, 7, b"\x01" * 160))
            sequence += 1
        assert ear.places[-1] == start + 8000 + 9 * 160
    assert all(after >= before + 160 for before, after in pairwise(ear.places))


def test_loss_and_jitter_are_reported_as_rfc_3550_counts_them() -> None:
    ear = Ear()
    chance = random.Random(1)
    assert ear.receiver.reception(0, 0) is None
    for number in range(100):
        if number % 10 != 5:
            ear.push(10 + number * 0.02 + chance.choice((0, 0.004)), frame(number))
    ear.tick(13.0)
    block = ear.receiver.reception(1, 2)
    assert block is not None
    assert (block.ssrc, block.packets_lost, block.fraction_lost) == (7, 10, 10 * 256 // 100)
    assert block.highest_sequence == 0xFFFE + 99
    assert 1.0 < ear.receiver.jitter_ms < 4.0
    assert (block.last_sr, block.delay_since_sr) == (1, 2)
    again = ear.receiver.reception(1, 2)
    assert again is not None and again.fraction_lost == 0


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 0.3), st.floats(0, 0.12))
def test_a_lossy_network_keeps_order_and_time(seed: int, loss: float, jitter_s: float) -> None:
    chance = random.Random(seed)
    sent = [(10 + n * 0.02 + chance.random() * jitter_s, n) for n in range(1, 150) if chance.random() >= loss]
    arrivals = sorted([(10.0, 0), *sent, *(pair for pair in sent if chance.random() < 0.05)])
    ear = Ear()
    for at, number in arrivals:
        ear.push(at, frame(number))
    ear.tick(20.0)
    real = [(at, place, sound) for at, place, sound in ear.heard if sound is not None]
    numbers = [sound[0] for _, _, sound in real]
    assert numbers == sorted(set(numbers))
    assert all(place == number * 160 for (_, place, _), number in zip(real, numbers, strict=True))
    first_arrival: dict[int, float] = {}
    for at, number in arrivals:
        first_arrival.setdefault(number, at)
    assert all(at - first_arrival[number] <= 0.06 + 1e-9 for (at, _, _), number in zip(real, numbers, strict=True))
    check_positions(ear)


def check_positions(ear: Ear) -> None:
    """Nothing overlaps or goes back, and no gap is concealed for more than 60 ms."""
    end = 0
    for _, position, payload in ear.heard:
        assert position >= end
        end = position + (0 if payload is None else len(payload))
    assert ear.receiver.concealed_samples <= MAX_CONCEAL_SAMPLES * sum(payload is None for _, _, payload in ear.heard)


packets = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda second, sequence, timestamp, ssrc, payload: rtp.pack(second, sequence, timestamp, ssrc, payload),
        st.sampled_from([0, 0, 0, 0x80, 8, 13, 101, 101 | 0x80, 96]),
        st.one_of(st.integers(0, 20), st.integers(0xFFF0, 0xFFFF), st.integers(0, 0xFFFF)),
        st.one_of(st.integers(0, 20).map(lambda n: n * 160), st.integers(0, 0xFFFFFFFF)),
        st.sampled_from([1, 1, 1, 2]),
        st.binary(max_size=330),
    ),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 0.1), packets), max_size=40))
def test_no_packets_whatever_raise_or_turn_time_back(script: list[tuple[float, bytes]]) -> None:
    ear, now = Ear(), 10.0
    for pause, data in script:
        now += pause
        ear.push(now, data)
    ear.tick(now + 1)
    assert ear.receiver.deadline is None
    ear.receiver.reception(0, 0)
    ear.receiver.reset()
    ear.push(now + 2, frame(0))
    check_positions(ear)
