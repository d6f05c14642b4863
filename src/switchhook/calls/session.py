"""One live call: wires the line, the agent, the tools, the recorder and the journal together; it decides nothing.

The decisions are the machines' (`calls.machine`, the agent). Every input above the packet enters through one of the `_on_…`
methods with the loop's time, one after another; packets go straight between line and model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from switchhook.agents.conversation import (
    Agent,
    AgentEffect,
    CloseModel,
    ConversationFailed,
    ConversationOver,
    Logged,
    ModelLoss,
    OpenModel,
    RunTool,
    SendToModel,
    Uttered,
)
from switchhook.calls.machine import (
    AnswerLeg,
    CallEffect,
    CallLimits,
    CallMachine,
    CloseLeg,
    Ended,
    HangUpLeg,
    OpenAgent,
    RejectLeg,
    Ring,
    Route,
    RouteFailed,
    Speak,
    StopAgent,
)
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import CallAttempt, Encoding, ToolCall, TransferRecord
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import AgentSpec, JournalSpec
from switchhook.domain.ports import (
    CallBook,
    CallJournal,
    CallRouting,
    Clock,
    DigitPressed,
    Leg,
    LegAnswered,
    LegEvent,
    Playout,
    PlayoutDrained,
    Recorder,
    Recorders,
    Voice,
)
from switchhook.domain.report import CallReport
from switchhook.driver import Driver

log = logging.getLogger(__name__)
current_call: ContextVar[str] = ContextVar("current_call", default="")
"""Id of the call that a log line belongs to."""

TOOL_GRACE_S = 5.0
"""A tool that runs when the call ends may finish this long, because its side effects matter (contract §1.4)."""


class ModelLink(Protocol):
    """The WebSocket to a model; methods return at once and never raise."""

    def open(self, url: str, headers: Any) -> None:
        """Connect; `on_open` or `on_lost` follows."""

    def send(self, text: bytes) -> None:
        """Send one text frame."""

    def close(self) -> None:
        """Close for good; nothing follows."""


class AgentMaker(Protocol):
    """Makes the agent that a spec names, and its link to the model."""

    def agent(self, spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        """An agent that has not started."""

    def link(
        self,
        on_open: Callable[[], None],
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[ModelLoss], None],
    ) -> ModelLink:
        """A link that is not open."""


@dataclass(frozen=True, slots=True)
class CallParts:
    """What every call is given."""

    routing: CallRouting
    book: CallBook
    agents: AgentMaker
    recorders: Recorders
    voice: Voice
    clock: Clock
    limits: CallLimits = field(default_factory=CallLimits)


class CallSession:
    """Runs one call to its end. `run` returns when the call is recorded and everything is given back; it does not raise."""

    def __init__(self, attempt: CallAttempt, leg: Leg, parts: CallParts) -> None:
        self.attempt = attempt
        self._leg = leg
        self._parts = parts
        self._machine = CallMachine(parts.limits)
        self._agent: Agent | None = None
        self._agent_driver: Driver | None = None
        self._link: ModelLink | None = None
        self._recorder: Recorder | None = None
        self._journal: CallJournal | None = None
        self._speaking = False
        self._stop_with: Verdict | None = None
        self._connected_at: datetime | None = None
        self._transfers: list[TransferRecord] = []
        self._verdict: Verdict | None = None
        self._usage: dict[str, int] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._tools: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._driver: Driver | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Live the call."""
        current_call.set(self.attempt.call_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._driver = Driver(self._machine, self._perform, self._fault)
                self._leg.subscribe(self._on_leg)
                self._driver.feed(self._machine.start)
                if self._stop_with is not None:
                    self.stop(self._stop_with)
                await self._over.wait()
                await self._end_tasks()
        except* Exception:  # a call's fault ends that call alone; its record says so
            log.exception("call failed")
        finally:
            self._release()
        await self._record()

    def stop(self, verdict: Verdict) -> None:
        """End the call from outside."""
        self._stop_with = verdict
        self._feed(lambda now: self._machine.stop(verdict, now))

    def _fault(self, fault: Exception) -> None:
        """Something in this call broke outside its tasks: the call ends here, with its record and all it holds given back."""
        log.error("call failed", exc_info=fault)
        self._over.set()

    # -- the door: everything above the packet enters here ---------------------------------------

    def _feed(self, change: Callable[[float], None]) -> None:
        if self._driver is not None:
            self._driver.feed(change)

    def _on_leg(self, event: LegEvent) -> None:
        if isinstance(event, DigitPressed):
            self._tell_agent(lambda agent, now: agent.digit(event.digit, now))
        elif isinstance(event, PlayoutDrained):
            self._on_drained()
        elif isinstance(event, LegAnswered) and self._connected_at is None:
            self._connected_at = self._parts.clock.utc()
            if self._journal is not None:
                self._journal.answered(self._connected_at)
        self._feed(lambda now: self._machine.leg_event(event, now))

    def _on_drained(self) -> None:
        if self._speaking and self._leg.playout.idle:  # an interrupted agent's last sound may be told only now
            self._speaking = False
            self._feed(self._machine.spoken)
        else:
            self._tell_agent(lambda agent, now: agent.drained(now))

    def _tell_agent(self, change: Callable[[Agent, float], None]) -> None:
        agent, driver = self._agent, self._agent_driver
        if agent is not None and driver is not None:
            driver.feed(lambda now: change(agent, now))

    def _on_model_open(self) -> None:
        self._tell_agent(lambda agent, now: agent.model_opened(now))

    def _on_model_lost(self, loss: ModelLoss) -> None:
        self._tell_agent(lambda agent, now: agent.model_lost(loss, now))

    def _on_model_frame(self, data: bytes) -> None:
        agent, driver = self._agent, self._agent_driver
        if agent is not None and driver is not None:
            try:
                agent.model_frame(data, self._parts.clock.now())
            except Exception as fault:  # noqa: BLE001 - `_fault` logs it
                self._fault(fault)
            driver.drain()

    # -- effects of the call ---------------------------------------------------------------------

    def _perform(self, effect: CallEffect) -> None:
        match effect:
            case Ring():
                self._leg.ring()
            case Route():
                self._spawn(self._route())
            case AnswerLeg():
                self._answer()
            case RejectLeg():
                self._leg.reject(effect.status, effect.retry_after_s)
            case OpenAgent(spec=spec):
                self._open_agent(spec)
            case StopAgent():
                self._stop_agent()
            case _:
                self._perform_ending(effect)

    def _perform_ending(self, effect: CallEffect) -> None:
        match effect:
            case Speak(text=text):
                self._spawn(self._speak(text))
            case RouteFailed():
                self._route_failed(effect)
            case HangUpLeg():
                self._leg.hang_up()
            case CloseLeg():
                self._leg.close()
            case Ended(verdict=verdict):
                self._verdict = verdict
                self._over.set()

    async def _route(self) -> None:
        decision = await self._parts.routing.route(self.attempt)
        self._feed(lambda now: self._machine.routed(decision, now))

    def _answer(self) -> None:
        plan = self._machine.plan
        assert plan is not None  # only a plan answers
        self._journal = self._parts.book.open(self.attempt, plan)
        for note in plan.notes:
            self._write_log(note)
        self._leg.answer()
        if plan.recording is not None:
            clock = self._parts.clock
            try:
                self._recorder = self._parts.recorders.open(
                    self.attempt.call_id, plan.number.account, plan.recording, self._leg.encoding, clock.utc()
                )
            except (SwitchhookError, OSError) as error:
                # A full disk must not cost the caller the call.
                log.error("recording could not be opened", extra={"error": str(error)})
            else:
                self._leg.tap(self._recorder)

    async def _speak(self, text: str) -> None:
        try:
            sound = await self._parts.voice.synthesize(text, self._leg.encoding)
        except Exception as error:  # whatever the voice died of, the call goes on without the message
            log.warning("message not spoken", exc_info=error)
            sound = b""
        if not sound:
            self._feed(self._machine.spoken)
            return
        now = self._parts.clock.now()
        self._speaking = True
        self._leg.playout.enqueue("message", sound, now)
        self._leg.playout.finish("message", now)

    def _route_failed(self, effect: RouteFailed) -> None:
        now = self._parts.clock.utc()
        attempt = self.attempt
        self._transfers.append(TransferRecord(effect.number, attempt.caller, attempt.caller_name, now, now, "Failed"))
        self._write_log(f"Transfer: not placed: {effect.why}")

    def _write_log(self, text: str) -> None:
        if self._journal is not None:
            self._journal.log(text, self._parts.clock.utc())

    # -- the agent -------------------------------------------------------------------------------

    def _open_agent(self, spec: AgentSpec) -> None:
        agent = self._parts.agents.agent(spec, self._leg.playout, self._leg.encoding)
        link = self._parts.agents.link(self._on_model_open, self._on_model_frame, self._on_model_lost)
        self._agent, self._link = agent, link
        self._agent_driver = Driver(agent, self._perform_for_agent, self._fault)
        send, hear = link.send, agent.hear

        def on_audio(payload: bytes, now: float) -> None:
            frame = hear(payload, now)
            if frame is not None:
                send(frame)

        self._leg.listen(on_audio)
        self._agent_driver.feed(agent.start)

    def _perform_for_agent(self, effect: AgentEffect) -> None:
        link = self._link
        match effect:
            case SendToModel(text=text) if link is not None:
                link.send(text)
            case OpenModel() if link is not None:
                link.open(effect.url, effect.headers)
            case CloseModel() if link is not None:
                link.close()
            case RunTool(call=call):
                task = self._spawn(self._run_tool(call))
                self._tools.add(task)
                task.add_done_callback(self._tools.discard)
            case Uttered(utterance=utterance) if self._journal is not None:
                self._journal.utterance(utterance)
            case Logged(text=text):
                self._write_log(text)
            case ConversationOver():
                self._feed(self._machine.agent_over)
            case ConversationFailed(kind=kind, detail=detail):
                self._write_log(f"AI Session: {detail}")
                self._feed(lambda now: self._machine.agent_failed(kind, detail, now))
            case _:
                pass

    async def _run_tool(self, call: ToolCall) -> None:
        assert self._journal is not None  # the agent opens after the journal
        output = await self._journal.tools.run(call)
        self._tell_agent(lambda agent, now: agent.tool_returned(call.call_id, output, now))

    def _stop_agent(self) -> None:
        agent, driver = self._agent, self._agent_driver
        if agent is None or driver is None:
            return
        self._leg.listen(None)
        driver.feed(agent.stop)
        driver.close()
        now = self._parts.clock.now()
        self._leg.playout.interrupt(now)
        for name, count in agent.usage.items():
            self._usage[name] = self._usage.get(name, 0) + count
        if self._link is not None:
            self._link.close()
        self._agent = self._agent_driver = self._link = None

    # -- the end ---------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None  # `run` opened it
        task = self._tasks.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _end_tasks(self) -> None:
        for task in self._work - self._tools:
            task.cancel()
        if self._tools:
            await asyncio.wait(set(self._tools), timeout=TOOL_GRACE_S)
        for task in set(self._tools):
            task.cancel()

    def _release(self) -> None:
        """Give everything back; a step that fails does not keep the next one from its turn."""
        steps: list[Callable[[], object]] = [self._stop_agent, lambda: self._leg.tap(None), self._leg.close]
        if self._driver is not None:
            steps.append(self._driver.close)
        if self._recorder is not None:
            steps.append(self._recorder.stop)
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("part of a call could not be given back")
        # What leads back here is let go, so that the memory of a finished call does not wait for the garbage collector.
        self._leg.subscribe(_ignore)
        self._driver = self._tasks = None

    async def _record(self) -> None:
        try:
            await self._parts.book.finish(self._report())
        except Exception:  # the row without an end is found again by recovery
            log.exception("call record could not be written")

    def _report(self) -> CallReport:
        machine, clock = self._machine, self._parts.clock
        plan, refusal = machine.plan, machine.refusal
        ended_at = clock.utc()
        fault = Verdict(Ending.INTERNAL_ERROR, "internal-error", "The server failed")
        return CallReport(
            attempt=self.attempt,
            number=plan.number if plan else refusal.number if refusal else None,
            verdict=self._verdict or machine.verdict or fault,
            connected_at=self._connected_at,
            ended_at=max(ended_at, self._connected_at or ended_at),
            customer_call_id=(plan.customer_call_id if plan else None) or self.attempt.customer_call_id,
            journal=plan.journal if plan else JournalSpec(),
            transfers=tuple(self._transfers),
            end_webhook_owed=plan is not None or (refusal is not None and refusal.end_webhook_owed),
            usage=self._usage,
            figures=dict(self._leg.figures),
        )


def _ignore(event: LegEvent) -> None:
    """A call that is over is told nothing."""
