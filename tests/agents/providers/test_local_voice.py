"""The local voice speaks in every encoding, keeps what it said, and says what is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from switchhook.agents.providers import local_voice, voice_render
from switchhook.agents.providers.local_voice import LocalVoice
from switchhook.domain.errors import VoiceUnavailable
from switchhook.domain.model import Encoding
from switchhook.media import g711
from switchhook.media.workers import Workers


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(1)
    yield made
    await made.close()


def only(program: str) -> Callable[[str], str | None]:
    return lambda name: name if name == program else None


ENGINES = [
    pytest.param("flite", marks=pytest.mark.peer("flite")),
    pytest.param("espeak-ng", marks=pytest.mark.peer("espeak-ng")),
    "espeak-wheel",
]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_text_is_spoken_at_the_same_length_in_every_encoding(engine: str, workers: Workers) -> None:
    voice = LocalVoice(workers, only(engine))
    if voice.engine != engine:
        pytest.skip("the extra switchhook[espeak] is not installed")
    lengths_ms = []
    for encoding in Encoding:
        sound = await voice.synthesize("We are sorry, please call again later.", encoding)
        lengths_ms.append(len(sound) / encoding.bytes_per_ms)
        if encoding is not Encoding.PCM24:
            assert g711.level(sound, encoding) > 500
    assert 1200 < lengths_ms[0] < 6000
    assert max(lengths_ms) - min(lengths_ms) <= 25


@pytest.mark.peer("flite")
async def test_options_and_markup_in_a_text_are_only_words(workers: Workers) -> None:
    voice = LocalVoice(workers)
    for text in ("-o /etc/passwd --help", "(quit) <break/> $(reboot) ; `id`", "line\none\x00two"):
        assert len(await voice.synthesize(text, Encoding.PCMU)) > 4000


@pytest.mark.peer("flite")
async def test_a_prompt_is_rendered_once(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = LocalVoice(workers)
    first = await voice.synthesize("One moment.", Encoding.PCMU)
    await workers.close()
    assert await voice.synthesize(" One  moment. ", Encoding.PCMU) == first


async def test_nothing_to_say_is_no_sound(workers: Workers) -> None:
    assert await LocalVoice(workers).synthesize(" … \n", Encoding.PCMU) == b""


async def test_without_any_engine_the_cure_is_named(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    voice = LocalVoice(workers, lambda name: None)
    assert voice.engine is None
    with pytest.raises(VoiceUnavailable, match="install flite"):
        await voice.synthesize("Hello", Encoding.PCMU)


async def test_an_engine_that_fails_is_a_voice_unavailable(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VoiceUnavailable, match="flite failed"):
        await LocalVoice(workers, only("flite")).synthesize("Hello", Encoding.PCMU)


def test_long_texts_are_cut_at_a_word() -> None:
    cut = local_voice.speakable("word " * 1000)
    assert len(cut) <= local_voice.MAX_CHARACTERS and cut.endswith("word")


def test_silence_around_speech_is_cut() -> None:
    rate_hz = 16_000
    speech = b"\x00\x10" * rate_hz
    trimmed = voice_render._trimmed(bytes(2 * rate_hz) + speech + bytes(2 * rate_hz), rate_hz)
    assert len(trimmed) == len(speech) + 2 * 2 * 20 * rate_hz // 1000
