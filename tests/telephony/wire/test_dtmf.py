"""Telephone events: each key once, whatever is lost or copied on the way, and by whichever method."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.telephony.wire.dtmf import DIGITS, DigitFilter, DtmfReceiver, DtmfSender


def event(digit: str, duration: int, end: bool = False) -> bytes:
    return bytes((DIGITS.index(digit), (0x80 if end else 0) | 10)) + duration.to_bytes(2, "big")


def press(digit: str, timestamp: int, frames: int = 5) -> list[tuple[bytes, int]]:
    """The packets of one key press: updates, then three ends."""
    updates = [(event(digit, 160 * (n + 1)), timestamp) for n in range(frames - 1)]
    return updates + [(event(digit, 160 * frames, True), timestamp)] * 3


def read(packets: list[tuple[bytes, int]], receiver: DtmfReceiver | None = None) -> str:
    receiver = receiver or DtmfReceiver()
    digits = [receiver.push(payload, timestamp, number * 0.02) for number, (payload, timestamp) in enumerate(packets)]
    return "".join(digit for digit in digits if digit)


def test_each_key_is_told_once_and_with_its_first_packet() -> None:
    receiver = DtmfReceiver()
    assert receiver.push(event("5", 0), 8000, 1.0) == "5"
    assert read(press("5", 8000)[1:], receiver) == ""


@pytest.mark.parametrize("digit", DIGITS)
def test_every_key_is_known(digit: str) -> None:
    assert read(press(digit, 160)) == digit


def test_a_number_with_the_same_key_twice() -> None:
    assert read(press("1", 1000) + press("1", 3000) + press("#", 5000)) == "11#"


@given(st.data())
def test_losses_and_copies_do_no_harm_as_long_as_one_packet_of_each_key_arrives(data: st.DataObject) -> None:
    number = data.draw(st.text(DIGITS, min_size=1, max_size=6))
    packets = []
    for at, digit in enumerate(number):
        pressed = press(digit, 2000 * (at + 1), data.draw(st.integers(2, 8)))
        kept = data.draw(st.lists(st.sampled_from(range(len(pressed))), min_size=1).map(sorted))
        packets += [pressed[n] for n in kept]
    assert read(packets) == number


def test_late_ends_of_an_older_key_are_no_key() -> None:
    one, two = press("1", 1000), press("2", 3000)
    assert read([*one[:4], *two[:3], *one[4:], *two[3:]]) == "12"


def test_a_key_held_longer_than_one_segment_is_one_key() -> None:
    assert read([(event("9", 0xFF00), 1000), (event("9", 0xFFFF), 1000), (event("9", 160), 1000 + 0xFFFF)]) == "9"


def test_a_peer_that_moves_the_timestamp_within_a_key_is_understood() -> None:
    assert read([(event("3", 160 * (n + 1)), 1000 + 160 * n) for n in range(8)]) == "3"


def test_without_any_end_packet_the_next_press_of_the_key_counts() -> None:
    receiver = DtmfReceiver()
    assert receiver.push(event("4", 480), 1000, 1.0) == "4"
    assert receiver.push(event("4", 160), 1000 + 480, 1.3) == "4"  # 0.3 s later: the first was over


def test_flash_and_unknown_events_are_no_digit() -> None:
    assert read([(bytes((16, 10, 0, 160)), 1), (bytes((200, 10, 0, 160)), 2), (b"\x01", 3), (b"", 4)]) == ""


@given(st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 2**32 - 1))))
def test_garbage_never_raises(packets: list[tuple[bytes, int]]) -> None:
    assert set(read(packets)) <= set(DIGITS)


def sent(sender: DtmfSender) -> list[tuple[bytes, bool]]:
    packets = []
    while sender.active:
        payload = sender.next_payload()
        if payload is not None:
            packets.append((payload, sender.begins))
    return packets


def test_a_digit_is_sent_as_updates_and_three_ends() -> None:
    sender = DtmfSender()
    sender.send("5", 100)
    packets = sent(sender)
    assert [payload for payload, _ in packets] == [
        *(event("5", 160 * n) for n in (1, 2, 3, 4)),
        *[event("5", 800, True)] * 3,
    ]
    assert [begins for _, begins in packets] == [True, *[False] * 6]


def test_what_is_sent_is_read_again() -> None:
    sender, receiver, told, tick, start = DtmfSender(), DtmfReceiver(), "", 0, 0
    for digit in "0123456789*#ABCD":
        sender.send(digit, 60)
    while sender.active:
        payload = sender.next_payload()
        start = tick * 160 if sender.begins else start
        if payload is not None:
            told += receiver.push(payload, start, tick * 0.02) or ""
        tick += 1
    assert told == "0123456789*#ABCD"


def test_bad_digits_and_endless_queues_are_refused() -> None:
    sender = DtmfSender()
    for bad in ("", "12", "x"):
        with pytest.raises(ValueError, match="no DTMF digit"):
            sender.send(bad, 100)
    for _ in range(sender.MAX_QUEUED):
        sender.send("1", 100_000)
    with pytest.raises(ValueError, match="wait already"):
        sender.send("1", 100)
    assert max(int.from_bytes(payload[2:4], "big") for payload, _ in sent(sender)) == 64_000


def test_a_key_told_by_two_methods_is_one_key() -> None:
    digits = DigitFilter()
    told = [
        digits.fresh("5", "rtp", 1.0),
        digits.fresh("5", "info", 1.1),
        digits.fresh("5", "rtp", 1.3),
        digits.fresh("7", "rtp", 1.5),
        digits.fresh("5", "info", 1.6),
        digits.fresh("7", "info", 1.7),
    ]
    assert told == [True, False, True, True, False, False]


def test_by_one_method_each_press_counts_and_an_old_one_hides_nothing() -> None:
    digits = DigitFilter()
    assert [digits.fresh("1", "rtp", 1.0 + n / 10) for n in range(5)] == [True] * 5
    assert digits.fresh("1", "info", 9.0)


@given(st.text("12#", max_size=10), st.integers(0, 2**32))
def test_any_interleaving_of_both_methods_tells_the_number_once(number: str, seed: int) -> None:
    digits, chance, told = DigitFilter(), random.Random(seed), ""
    left = {"rtp": list(number), "info": list(number)}
    now = 0.0
    while any(left.values()):
        method = chance.choice([name for name, queue in left.items() if queue])
        digit = left[method].pop(0)
        now += 0.05
        told += digit if digits.fresh(digit, method, now) else ""
    assert sorted(told) == sorted(number)
