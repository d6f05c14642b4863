"""The greeting of a call: fetched, decoded, kept for a while, and never in the way of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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


class SlowShop(Shop):
    """Its answer comes when the gate is opened."""

    def __init__(self, answer: HttpOutcome) -> None:
        super().__init__(answer)
        self.gate = self.customer.gates["hello.mp3?key=canary"] = asyncio.Event()
        self.decoded = 0
        self.greetings = Greetings(self.customer, self._decode, self.clock)

    async def _decode(self, job: Callable[[bytes, Encoding, float], bytes], *rest: Any) -> bytes:
        self.decoded += 1
        return job(*rest)

    async def calls(self, count: int, encoding: Encoding = Encoding.PCMU) -> list[asyncio.Task[bytes]]:
        """So many begin at once; all of them wait."""
        found = [asyncio.ensure_future(self.greetings.fetch(URL, encoding)) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)
        return found


async def test_calls_that_begin_at_once_share_one_fetch() -> None:
    shop = SlowShop(HttpReply(200, sound_file("WAV", 8_000)))
    calls = await shop.calls(3)
    others = await shop.calls(1, Encoding.PCMA)
    shop.gate.set()
    first, second, third = await asyncio.gather(*calls)
    assert first is second is third
    assert await others[0] != first
    assert (len(shop.customer.requests), shop.decoded) == (2, 2)


async def test_calls_that_share_a_failed_fetch_all_hear_of_it_and_the_next_one_tries_again() -> None:
    shop = SlowShop(HttpReply(404, b""))
    calls = await shop.calls(2)
    shop.gate.set()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, GreetingUnavailable)
        assert "HTTP 404" in str(outcome)
    shop.customer.answers["hello.mp3?key=canary"] = always(HttpReply(200, sound_file("WAV", 8_000)))
    assert await shop.greetings.fetch(URL, Encoding.PCMU)
    assert len(shop.customer.requests) == 2


async def test_a_caller_who_hangs_up_meanwhile_takes_no_others_greeting_away() -> None:
    """Neither the one whose call fetches nor one that waits for it."""
    shop = SlowShop(HttpReply(200, sound_file("WAV", 8_000)))
    calls = await shop.calls(4)
    for gone in (2, 0):
        calls[gone].cancel()
        await asyncio.wait([calls[gone]])
    for _ in range(3):
        await asyncio.sleep(0)
    assert shop.customer.waiting == 1
    shop.gate.set()
    assert await calls[1] is await calls[3]
    assert [calls[gone].cancelled() for gone in (0, 2)] == [True, True]
    assert len(shop.customer.requests) == 2
