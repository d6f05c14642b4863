"""What a worker process does to recognise an utterance: pocketsphinx against a grammar, then against a loop of all phones.

A grammar decoder always answers with the nearest phrase it has, however far. Two questions tell a hit from a guess:

- likelihood: how much worse does the phrase explain the sound than free phones do, per 10 ms frame of speech? Short words are
  allowed more, for they average over less.
- cover: does the phrase explain the speech at all, or has most of it gone as "noise" between its words?

Measured with flite voices rms, slt and awb over 8 kHz µ-law (132 phrases of small grammars, 270 sentences outside): 0.8 % of the
phrases are refused, 1.1 % of the foreign sentences pass; see docs/why/grammar-recognition.md.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from switchhook.agents.providers.grammar import Grammar, GrammarInvalid
from switchhook.media import g711

if TYPE_CHECKING:
    from pocketsphinx import Decoder

_MODEL_HZ = 16_000
_PADDING_MS = 200
"""Silence set around an utterance: the model wants to hear its edges."""
_LOG_BASE = math.log(1.0001)
_LEAST_SCORE = 1e-300
_GRAMMARS_KEPT = 16
_PHONE_WEIGHT = 3.0
"""Language weight of the phone loop."""
_LEAST_LIKELIHOOD = -8.0
_FULL_FRAMES = 100
_SHORTNESS_ALLOWANCE = 0.6
"""Allowed more for each frame that the speech is shorter than a second."""
_LEAST_COVER = 0.75
_NOT_SPEECH = "<[+("


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was understood."""

    text: str
    """Words of the grammar, lower case; empty when refused."""
    refusal: str = ""
    """Why the text is empty: `too short`, `silence`, `unlikely`, `uncovered`."""
    likelihood: float = 0.0
    cover: float = 0.0
    """Share of the speech that the phrase explains."""


def warm_up() -> None:
    """Load the model."""
    _ear()


def recognize(linear: bytes, grammar: Grammar) -> Recognition:
    """Understand one utterance, linear 16-bit at 8 kHz. Raises GrammarInvalid."""
    from switchhook.media.resample import Resampler  # numpy: for the worker, not for the server that imports this module's names

    silence = bytes(2 * _PADDING_MS * g711.RATE_HZ // 1000)
    return _ear().understand(Resampler(g711.RATE_HZ, _MODEL_HZ).process(silence + linear + silence), grammar)


@functools.cache
def _ear() -> _Ear:
    """One set of decoders per worker process."""
    return _Ear()


@dataclass(frozen=True, slots=True)
class _Path:
    """The best path of one search through an utterance."""

    text: str
    score: float
    speech_frames: int


class _Ear:
    """A decoder for grammars and one for phones. The acoustic model is mapped memory, shared by both."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path  # the extra `embedded`, only ever inside a worker

        files = {
            "hmm": get_model_path("en-us/en-us"),
            "dict": get_model_path("en-us/cmudict-en-us.dict"),
            "lm": None,
            "loglevel": "FATAL",
            "compallsen": True,  # every sound unit is scored in each frame: only then do two searches' scores compare
        }
        self._grammars = Decoder(**files)
        self._phones = Decoder(**files, allphone_ci=True, lw=_PHONE_WEIGHT)
        self._phones.add_allphone_file("phones", get_model_path("en-us/en-us-phone.lm.bin"))
        self._phones.activate_search("phones")
        self._names: OrderedDict[Grammar, str] = OrderedDict()
        self._count = 0

    def understand(self, linear: bytes, grammar: Grammar) -> Recognition:
        self._grammars.activate_search(self._search(grammar))
        phrase = _decode(self._grammars, linear)
        if not phrase.text:
            return Recognition("", "silence")
        phones = _decode(self._phones, linear)
        frames = max(1, phones.speech_frames)
        likelihood = (phrase.score - phones.score) / frames
        cover = phrase.speech_frames / frames
        allowance = _SHORTNESS_ALLOWANCE * max(0, _FULL_FRAMES - frames)
        if likelihood < _LEAST_LIKELIHOOD - allowance:
            return Recognition("", "unlikely", likelihood, cover)
        if cover < _LEAST_COVER:
            return Recognition("", "uncovered", likelihood, cover)
        return Recognition(phrase.text, "", likelihood, cover)

    def _search(self, grammar: Grammar) -> str:
        """Name of the search for a grammar; the one used longest ago makes room."""
        name = self._names.get(grammar)
        if name is None:
            self._count += 1
            name = f"grammar-{self._count}"
            try:
                self._grammars.add_jsgf_string(name, grammar.jsgf(self._pronounces))
            except (RuntimeError, ValueError) as error:
                raise GrammarInvalid("the recogniser cannot read the grammar") from error
            self._names[grammar] = name
            while len(self._names) > _GRAMMARS_KEPT:
                self._grammars.remove_search(self._names.popitem(last=False)[1])
        self._names.move_to_end(grammar)
        return name

    def _pronounces(self, word: str) -> bool:
        return self._grammars.lookup_word(word) is not None


def _decode(decoder: Decoder, linear: bytes) -> _Path:
    decoder.start_utt()
    decoder.process_raw(linear, full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    if best is None:
        return _Path("", 0.0, 0)
    frames = sum(s.end_frame - s.start_frame + 1 for s in decoder.seg() if s.word[0] not in _NOT_SPEECH and s.word != "SIL")
    return _Path(best.hypstr, math.log(max(best.score, _LEAST_SCORE)) / _LOG_BASE, frames)
