"""The agent's place on a call: the agent, its socket to the model, and the party it talks with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from switchhook.agents.conversation import (
    Agent,
    AgentEffect,
    CloseModel,
    ConsultTool,
    ModelLoss,
    OpenModel,
    SendToModel,
)
from switchhook.calls.parts import AgentMaker
from switchhook.domain.plan import AgentSpec
from switchhook.domain.ports import Clock, Leg
from switchhook.driver import Driver


class AgentSeat:
    """Wires one agent; `perform` gets the effects that are the call's business, `on_fault` what broke."""

    def __init__(
        self,
        spec: AgentSpec,
        leg: Leg,
        maker: AgentMaker,
        clock: Clock,
        perform: Callable[[AgentEffect], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self.spec = spec
        self._leg = leg
        self._clock = clock
        self._on_effect = perform
        self._on_fault = on_fault
        self._link = maker.link(self._on_open, self._on_frame, self._on_lost)
        self._agent: Agent = maker.agent(spec, leg.playout, leg.encoding)
        self._driver = Driver(self._agent, self._perform, on_fault)
        self._dismissed = False
        """The call has nothing more to do with the agent; it may still be waiting for the caller's last words."""
        self.gone = asyncio.Event()
        """Nothing more comes of the agent."""
        self._left = False
        """The same, to be asked for each frame."""
        self._present = True
        """Whether the line is the agent's; while it pauses, it may be somebody else's."""
        self._consulting = False
        self.overhear: Callable[[bytes, float], None] | None = None
        """Hears the party beside the agent; takes effect with the next line the agent listens to."""

    def start(self, waiting: bool) -> None:
        """Begin; `waiting`: nobody has answered yet, and nobody is heard."""
        if not waiting:
            self._listen(self._leg)
        self._driver.feed(lambda now: self._agent.start(now, waiting))

    def party_arrived(self) -> None:
        """The party that was called has answered."""
        self._listen(self._leg)
        self.tell(lambda agent, now: agent.party_arrived(now))

    def pause(self) -> None:
        """The agent hears and says nothing."""
        self._leg.listen(None)
        self._present = False
        self.tell(lambda agent, now: agent.pause(now))

    def speak_again(self) -> None:
        """An agent that was told to be silent, and heard the party all the while, goes on."""
        self.tell(lambda agent, now: agent.resume(self._leg.playout, now))

    def play(self, key: str, sound: bytes) -> None:
        """Sound for the party, of somebody else's in the agent's place; nothing while the agent is not with the party."""
        if self._present and not self._consulting and not self._dismissed:
            now = self._clock.now()
            self._leg.playout.enqueue(key, sound, now)
            self._leg.playout.finish(key, now)

    def consult(self, leg: Leg, briefing: str, tools: Sequence[ConsultTool]) -> None:
        """The agent talks with the party on `leg`."""
        self.tell(lambda agent, now: agent.consult(leg.playout, briefing, tools, now))
        self.overhear = None  # it was about the other party
        self._consulting = True
        self._listen(leg)

    def resume(self, leg: Leg) -> None:
        """The agent talks with the caller again."""
        self._consulting = False
        self.tell(lambda agent, now: agent.resume(leg.playout, now))
        self._listen(leg)

    def hear_alone(self) -> None:
        """Nobody overhears the party any more."""
        self.overhear = None
        self._listen(self._leg)

    def tell(self, change: Callable[[Agent, float], None]) -> None:
        """Give the agent one input."""
        if not self._dismissed:
            self._feed(lambda now: change(self._agent, now))

    def stop(self) -> None:
        """The agent has nothing more to say. What the caller said last may still be written down: then `gone` is set later."""
        if self._dismissed:
            return
        self._dismissed = True
        with ExitStack() as steps:  # each is taken, whatever becomes of the others; the last named goes first
            if self._present:
                steps.callback(self._leg.playout.interrupt, self._clock.now())
            steps.callback(self._feed, self._agent.stop)
            if self._present:
                steps.callback(self._leg.listen, None)

    def close(self) -> None:
        """Nothing more is waited for; idempotent."""
        with ExitStack() as steps:
            steps.callback(self._leave)
            steps.callback(lambda: self._feed(self._agent.stop))
            steps.callback(self.stop)

    @property
    def usage(self) -> Mapping[str, int]:
        """The tokens used so far."""
        return self._agent.usage

    def _feed(self, change: Callable[[float], None]) -> None:
        if not self._left:
            self._driver.feed(change)
            self._look()

    def _look(self) -> None:
        """A dismissed agent that waits for nothing is gone."""
        if self._dismissed and self._agent.deadline is None:
            self._leave()

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self.gone.set()
        with ExitStack() as steps:
            steps.callback(self._link.close)
            steps.callback(self._driver.close)
        # What leads back here is let go: the memory of a seat does not wait for the garbage collector.
        self._link = _NoLink()
        del self._driver

    def _listen(self, leg: Leg) -> None:
        if self._dismissed:
            return
        self._leg, self._present = leg, True
        send, hear = self._link.send, self._agent.hear

        def on_audio(payload: bytes, now: float) -> None:
            frame = hear(payload, now)
            if frame is not None:
                send(frame)

        overhear = self.overhear
        if overhear is None:
            leg.listen(on_audio)
            return

        def on_both(payload: bytes, now: float) -> None:
            overhear(payload, now)
            on_audio(payload, now)

        leg.listen(on_both)

    def _perform(self, effect: AgentEffect) -> None:
        match effect:
            case OpenModel() if self._dismissed:
                pass  # the agent was stopped by what one of its own effects led to
            case SendToModel(text=text):
                self._link.send(text)
            case OpenModel():
                self._link.open(effect.url, effect.headers)
            case CloseModel(last=last):
                if last is not None:
                    self._link.send(last)
                self._link.close()
                self._look()
            case _:
                self._on_effect(effect)

    def _on_open(self) -> None:
        self.tell(lambda agent, now: agent.model_opened(now))

    def _on_lost(self, loss: ModelLoss) -> None:
        self._feed(lambda now: self._agent.model_lost(loss, now))

    def _on_frame(self, data: bytes) -> None:
        if self._left:
            return
        driver = self._driver
        try:
            self._agent.model_frame(data, self._clock.now())
        except Exception as fault:  # noqa: BLE001 - the call logs it
            self._on_fault(fault)
        driver.drain()


class _NoLink:
    """What a seat that was stopped has in place of its link."""

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        """Nothing is opened."""

    def send(self, text: bytes) -> None:
        """Nobody is there."""

    def close(self) -> None:
        """It is closed."""
