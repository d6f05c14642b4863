"""The greeting of a call: fetched, decoded, kept for a while, and never in the way of the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.model import Encoding
from switchhook.usecases import greeting
from switchhook.usecases.greeting import Greetings
from tests.media.test_decode import sound_file
from tests.usecases.fakes import Customer, SteppedClock, always

URL = "http://acme/hello.mp3?key=canary"


async def at_once(job: Callable[[bytes, Encoding, float], bytes], content: bytes, encoding: Encoding, most_s: float) -> bytes:
    return job(content, encoding, most_s)


class Shop:
    def __init__(self, answer: HttpOutcome) -> None:
        self.customer = Customer()
        self.customer.answers["hello.mp3?key=canary"] = always(answer)
        self.clock = SteppedClock()
        self.greetings = Greetings(self.customer, at_once, self.clock)


async def test_an_mp3_becomes_sound_of_the_line() -> None:
    shop = Shop(HttpReply(200, sound_file("MP3", 44_100)))
    sound = await shop.greetings.fetch(URL, Encoding.PCMU)
    assert 7_000 < len(sound) < 9_000
    (request,) = shop.customer.requests
    assert (request.method, request.body, request.timeout_s) == ("GET", b"", 5)


async def test_it_is_fetched_once_for_a_while_and_for_each_encoding() -> None:
    shop = Shop(HttpReply(200, sound_file("WAV", 8_000)))
    first = await shop.greetings.fetch(URL, Encoding.PCMU)
    assert await shop.greetings.fetch(URL, Encoding.PCMU) is first
    assert len(shop.customer.requests) == 1
    assert await shop.greetings.fetch(URL, Encoding.PCMA) != first
    shop.clock.passed_s += greeting.FRESH_S
    await shop.greetings.fetch(URL, Encoding.PCMU)
    assert len(shop.customer.requests) == 3


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "CACHED_BYTES", 20_000)
    shop = Shop(HttpReply(200, b""))
    shop.customer.answers = {f"{name}.wav": always(HttpReply(200, sound_file("WAV", 8_000))) for name in "abc"}
    for name in "abcca":
        await shop.greetings.fetch(f"http://acme/{name}.wav", Encoding.PCMU)
    assert [request.url[-5] for request in shop.customer.requests] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HttpReply(404, b""), "HTTP 404"),
        (HttpReply(302, b""), "HTTP 302"),
        (HttpReply(200, b"<html>"), "no sound file"),
        (HttpReply(200, b"x", truncated=True), "larger than 8 MiB"),
        (HttpFailure("refused", "10.0.0.1 is private"), "10.0.0.1 is private"),
        (HttpFailure("timeout", "acme:80 did not answer in 5 s"), "did not answer"),
    ],
)
async def test_what_cannot_be_had_is_told_without_its_address(answer: HttpOutcome, why: str) -> None:
    with pytest.raises(GreetingUnavailable) as caught:
        await Shop(answer).greetings.fetch(URL, Encoding.PCMU)
    assert why in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_a_worker_that_dies_costs_the_greeting_alone() -> None:
    async def dies(job: object, content: bytes, encoding: Encoding, most_s: float) -> bytes:
        raise RuntimeError("the process is gone")

    shop = Shop(HttpReply(200, b"RIFF"))
    with pytest.raises(GreetingUnavailable):
        await Greetings(shop.customer, dies, shop.clock).fetch(URL, Encoding.PCMU)
