"""Who or what has answered a call of ours: a person, a voicemail, a call screener, or the network's announcement.

Human first: nothing is concluded from silence, and until something else is shown the call goes on as if a person had answered.
Evidence is the rhythm of the first words (people say a word or two and listen; greetings go on), tones (the beep, the three
special information tones of ITU-T E.180), and, where the caller's words are transcribed, what was said, which outweighs rhythm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from switchhook.domain.model import Encoding
from switchhook.media import g711

WATCH_S = 45.0
"""A party is judged by what comes in this time after the answer."""
SPEECH_LEVEL = 300
"""Root mean square from which a frame counts as sound."""
GAP_S = 0.7
"""A shorter silence does not end a greeting."""
SHORT_GREETING_S = 2.0
LONG_GREETING_S = 3.6
BEEP_S = 0.12
LONGEST_BEEP_S = 3.0
_WINDOW_SAMPLES = 320
_IMPURE = 0.12
"""What is left over of a window, as a share of its sound, up to which it is one tone."""
_SAME_HZ = 30.0
_TONE_GAP_S = 0.1
_LATE_S = 1.0
"""Sound that comes later than this, measured by what came before it, was preceded by a gap."""
_SPECIAL_TONES_HZ = (950.0, 1400.0, 1800.0)
_SPECIAL_WITHIN_HZ = 50.0
"""The North American variants lie within this, too."""


class Answerer(Enum):
    """What answered."""

    HUMAN = "human"
    VOICEMAIL = "voicemail"
    SCREENER = "screener"
    """A machine that asks who is calling before a person listens."""
    ANNOUNCEMENT = "announcement"
    """The network says that the number cannot be reached."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What answered, as far as is known now; a later one corrects it."""

    answerer: Answerer
    evidence: str
    """For the log."""
    sure: bool = True
    """False: by the rhythm alone, which noise and talkative people have too."""


@dataclass(frozen=True, slots=True)
class BeepHeard:
    """A tone has ended that asks for a message."""


_PHRASES: tuple[tuple[Answerer, re.Pattern[str]], ...] = (
    (
        Answerer.ANNOUNCEMENT,
        re.compile(
            r"number (?:that )?you(?:'ve| have)? (?:dialed|dialled|called|reached)\b.*\b(?:not|no longer|disconnected|changed)"
            r"|(?:not in service|no longer in service|cannot be completed as dialed|has been disconnected)",
        ),
    ),
    (
        Answerer.VOICEMAIL,
        re.compile(
            r"(?:leave|record) (?:me |us )?(?:a |your |the )?(?:short |brief )?(?:voice ?)?message|(?:after|at) the (?:tone|beep)"
            r"|voice ?mail|mailbox|forwarded to an? automat"
            r"|(?:can't|cannot|can not|unable to) (?:come to|take|answer) (?:the|your)"
            r"|(?:is|are|am|'s|'re|'m) (?:not available|unavailable) (?:right now|at the moment|to take)",
        ),
    ),
    (
        Answerer.SCREENER,
        re.compile(
            r"(?:state|say|record|give|tell me) your name|reason for (?:your|the) call|screening (?:service|this call|calls)"
            r"|see if (?:this person|they)(?: is|'s| are|'re) available|using a (?:call )?screen",
        ),
    ),
)


class AnswerDetector:
    """Hears one party from the answer on. `hear` takes its sound in order; `take` gives what was concluded."""

    def __init__(self, encoding: Encoding, answered_at: float) -> None:
        self._encoding = encoding
        self._until = answered_at + WATCH_S
        self._found: list[Detected | BeepHeard] = []
        self._answerer: Answerer | None = None
        self._by_words = self._sure = False
        self._greeting_began: float | None = None
        self._greeting_ended = 0.0
        self._greetings = 0
        self._window = b""
        self._tone_hz = 0.0
        self._tone_since = 0.0
        self._tones_heard: list[tuple[float, float]] = []
        self._judge_at = 0.0
        self._spoke = False
        self._heard_until = float("-inf")

    @property
    def answerer(self) -> Answerer | None:
        """What answered, as far as is known; None: nothing was heard yet that tells."""
        return self._answerer

    def over(self, now: float) -> bool:
        """Whether nothing more will be concluded."""
        return now >= self._until

    def take(self) -> list[Detected | BeepHeard]:
        """Return what was concluded and forget it."""
        found, self._found = self._found, []
        return found

    def hear(self, payload: bytes, now: float) -> None:
        """A frame of the party's sound."""
        if self.over(now):
            return
        at = self._time_of(payload, now)
        linear = g711.decode(payload, self._encoding)
        self._rhythm(loud=g711.loudness(linear) >= SPEECH_LEVEL, now=at)
        self._window += linear
        while len(self._window) >= 2 * _WINDOW_SAMPLES:
            window, self._window = self._window[: 2 * _WINDOW_SAMPLES], self._window[2 * _WINDOW_SAMPLES :]
            self._tones(tone_hz(window), at)
        if self._tones_heard and not self._tone_hz and at >= self._judge_at:
            self._judge_tones()

    def words(self, text: str, now: float) -> None:
        """What the party said, transcribed."""
        if self.over(now):
            return
        said = " ".join(text.lower().replace("\u2019", "'").split())
        for answerer, phrases in _PHRASES:
            if phrases.search(said):
                self._conclude(answerer, "its words", by_words=True)
                return

    def _time_of(self, payload: bytes, now: float) -> float:
        """When a frame was said: networks deliver late and in bursts, which must not shorten a tone."""
        following = self._heard_until + len(payload) / g711.RATE_HZ
        self._heard_until = following if following >= now - _LATE_S else now
        return self._heard_until

    def _rhythm(self, loud: bool, now: float) -> None:
        began = self._greeting_began
        if loud:
            if began is None:
                self._greeting_began = began = now
                self._greetings += 1
            self._greeting_ended = now
            if self._greetings == 1 and now - began >= LONG_GREETING_S:
                self._conclude(Answerer.VOICEMAIL, f"it spoke for {now - began:.1f} s without a pause", sure=False)
        elif began is not None and now - self._greeting_ended >= GAP_S / 3:
            self._spoke = True
            if now - self._greeting_ended < GAP_S:
                return
            self._greeting_began = None
            if self._greetings == 1 and self._greeting_ended - began <= SHORT_GREETING_S:
                self._conclude(Answerer.HUMAN, "a short greeting, then a pause")

    def _tones(self, hz: float, now: float) -> None:
        """Tones that follow each other closely are judged together, once it is quiet or something else is heard."""
        if (hz == 0.0) == (self._tone_hz == 0.0) and abs(hz - self._tone_hz) <= _SAME_HZ:
            return
        if self._tone_hz and now - self._tone_since >= BEEP_S:
            self._tones_heard.append((self._tone_hz, now - self._tone_since))
        self._tone_hz, self._tone_since = hz, now
        self._judge_at = now + _TONE_GAP_S

    def _judge_tones(self) -> None:
        heard, self._tones_heard = self._tones_heard, []
        if len(heard) == len(_SPECIAL_TONES_HZ) and all(map(_near, (hz for hz, _ in heard), _SPECIAL_TONES_HZ)):
            self._conclude(Answerer.ANNOUNCEMENT, "the special information tones")
        elif len(heard) == 1 and heard[0][1] <= LONGEST_BEEP_S and self._spoke:
            self._conclude(Answerer.VOICEMAIL, "a beep")
            self._found.append(BeepHeard())

    def _conclude(self, answerer: Answerer, evidence: str, by_words: bool = False, sure: bool = True) -> None:
        """Words outweigh all else, then the network's tones; what tells of a machine outweighs the rhythm of a person."""
        same = answerer is self._answerer
        if (same and (self._sure or not sure)) or (self._by_words and not by_words):
            return
        special = answerer is Answerer.ANNOUNCEMENT  # nothing else has its tones; ringback before them may pass for a beep
        if not by_words and not same and not special and self._answerer not in (None, Answerer.HUMAN):
            return
        self._answerer, self._by_words, self._sure = answerer, by_words, sure
        self._found.append(Detected(answerer, evidence, sure))


def _near(hz: float, wanted_hz: float) -> bool:
    return abs(hz - wanted_hz) <= _SPECIAL_WITHIN_HZ


def tone_hz(linear: bytes) -> float:
    """The frequency of 40 ms of linear samples when they are one tone between 350 and 2,500 Hz; else 0."""
    if g711.loudness(linear) < SPEECH_LEVEL:
        return 0.0
    hz, rest = g711.sine_fit(linear)
    return hz if rest <= _IMPURE and 350 <= hz <= 2500 else 0.0
