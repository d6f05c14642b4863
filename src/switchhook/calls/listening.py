"""Listens to who answers an outbound call, and does what the number wants done about a machine; it decides nothing."""

from __future__ import annotations

from typing import Protocol

from switchhook.calls.answering import (
    Answered,
    AnswerEffect,
    AnswerWatch,
    GiveUp,
    LeaveMessage,
    LetAgentSpeak,
    SilenceAgent,
    TellAgent,
)
from switchhook.calls.seat import AgentSeat
from switchhook.domain.model import Encoding
from switchhook.domain.plan import AnswerDetection
from switchhook.domain.ports import Leg
from switchhook.driver import Driver
from switchhook.media.answer_detection import AnswerDetector, Answerer, Detected


class ListeningHost(Protocol):
    """What the verdict on who answered asks of the call."""

    def machine_answered(self, message: str | None, reason: str) -> None:
        """No person answered: a message is left, or nothing."""

    def write_log(self, text: str) -> None:
        """A line for the call's log."""

    def fault(self, fault: Exception) -> None:
        """Something broke."""


class AnswerListener:
    """Wires the watch over one answered call. Until `start`, and after `stop`, nothing is judged but an announcement before
    the answer (`listen_early`)."""

    def __init__(self, host: ListeningHost) -> None:
        self._host = host
        self._seat: AgentSeat | None = None
        self._watch: AnswerWatch | None = None
        self._driver: Driver | None = None
        self._early: Leg | None = None
        """Who is, or was, listened to before the answer."""
        self.answered_by: str | None = None
        """The value of a `media.answer_detection.Answerer`, as far as is known."""

    def start(self, wanted: AnswerDetection, seat: AgentSeat, encoding: Encoding, now: float) -> None:
        """The party has answered; takes effect when the seat begins to listen."""
        self._seat = seat
        self._watch = AnswerWatch(wanted, encoding, now)
        self._driver = Driver(self._watch, self._perform, self._host.fault)
        seat.overhear = self._hear

    def listen_early(self, leg: Leg, now: float) -> None:
        """The network plays something before anybody has answered: only its announcement that nobody will is looked for."""
        if self._early is not None:
            return
        self._early = leg
        detector = AnswerDetector(leg.encoding, now)

        def on_audio(payload: bytes, at: float) -> None:
            detector.hear(payload, at)
            for found in detector.take():
                if isinstance(found, Detected) and found.answerer is Answerer.ANNOUNCEMENT:
                    self._perform(Answered(found.answerer, f"{found.evidence} before the answer"))

        leg.listen(on_audio)

    def answered(self) -> None:
        """Somebody has answered: what was played before tells nothing any more."""
        if self._early is not None:
            self._early.listen(None)
        self.answered_by = None

    def words(self, text: str) -> None:
        """What the party said."""
        watch, driver = self._watch, self._driver
        if watch is not None and driver is not None:
            driver.feed(lambda now: watch.words(text, now))

    def stop(self) -> None:
        """Somebody else may be heard from here on; idempotent."""
        driver, self._driver = self._driver, None
        self._watch = self._seat = None
        if driver is not None:
            driver.close()

    def _hear(self, payload: bytes, now: float) -> None:
        watch, driver = self._watch, self._driver
        if watch is None or driver is None:
            return
        watch.hear(payload, now)
        driver.drain()
        if watch.done and self._seat is not None:
            self._seat.hear_alone()

    def _perform(self, effect: AnswerEffect) -> None:
        match effect:
            case Answered(answerer=answerer, evidence=evidence):
                self.answered_by = answerer.value
                self._host.write_log(f"Answer: {answerer.value} ({evidence})")
            case SilenceAgent() if self._seat is not None:
                self._seat.tell(lambda agent, now: agent.pause(now))
            case LetAgentSpeak() if self._seat is not None:
                self._seat.speak_again()
            case TellAgent(text=text) if self._seat is not None:
                self._seat.tell(lambda agent, now: agent.told(text, now))
            case LeaveMessage(text=text):
                self._host.machine_answered(text, "message-left")
            case GiveUp():
                self._host.machine_answered(None, self.answered_by or "machine")
            case _:
                pass
