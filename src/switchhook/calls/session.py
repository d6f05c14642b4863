"""One live call: wires the line, the agent, the tools, the recorder, the journal and transfers together; it decides nothing.

The decisions are the machines' (`calls.machine`, `calls.transfer`, the agent). Every input above the packet enters through one of
the `_on_…` methods with the loop's time, one after another; packets go straight between line and model, or between two lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any

from switchhook.agents.conversation import (
    AgentEffect,
    ConversationFailed,
    ConversationOver,
    FailureKind,
    Logged,
    RunTool,
    Uttered,
)
from switchhook.calls.announcing import Announcer
from switchhook.calls.listening import AnswerListener
from switchhook.calls.machine import (
    AgentMayBegin,
    AnswerLeg,
    Ask,
    CallEffect,
    CallLimits,
    CallMachine,
    CloseLeg,
    DialLeg,
    Ended,
    HangUpLeg,
    OpenAgent,
    Play,
    RejectLeg,
    Ring,
    Route,
    Speak,
    Stage,
    StartTransfer,
    StopAgent,
    StopPlaying,
    StopTransfer,
)
from switchhook.calls.parts import CallParts
from switchhook.calls.party_line import PartyLine
from switchhook.calls.recorded import RecordedLine
from switchhook.calls.seat import AgentSeat
from switchhook.calls.seating import Seating
from switchhook.calls.steering import OrderedCall
from switchhook.calls.tasks import CallTasks
from switchhook.calls.transfer_desk import TransferDesk
from switchhook.domain.dialling import DialPermit, DialRequest
from switchhook.domain.model import CallAttempt, CallId, Speaker, ToolCall, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    AskNext,
    CallPlan,
    JournalSpec,
    RecordingSpec,
    Say,
)
from switchhook.domain.ports import (
    CallJournal,
    DigitPressed,
    Leg,
    LegAnswered,
    LegEnded,
    LegEvent,
    LegProgress,
    OfferedLeg,
    PlayoutDrained,
    ToolRunner,
    TransferAsked,
)
from switchhook.domain.report import CallReport
from switchhook.driver import Driver

log = logging.getLogger(__name__)
current_call: ContextVar[str] = ContextVar("current_call", default="")
"""Id of the call that a log line belongs to."""


class CallSession:
    """Runs one call to its end. `run` returns when the call is recorded and everything is given back; it does not raise.

    An inbound call brings its line; an outbound one brings the permit of the dialling policy, and dials when its plan is there.
    """

    def __init__(
        self,
        attempt: CallAttempt,
        offered: OfferedLeg | None,
        parts: CallParts,
        permit: DialPermit | None = None,
        ordered: OrderedCall | None = None,
    ) -> None:
        self.attempt = attempt
        self._offered = offered
        self._parts = parts
        self._party = PartyLine(self, parts, self._on_leg)
        self._transfers = TransferDesk(self, parts)
        self._permit = permit
        self._ordered = ordered
        self._machine = CallMachine(_limits(parts, permit), outbound=offered is None)
        self._recorded = RecordedLine(parts, attempt.call_id, self.write_log)
        self._journal: CallJournal | None = None
        self._listener = AnswerListener(self)
        self._seating = Seating(self, parts, self._listener, self._perform_for_agent)
        self._ended_at: datetime | None = None
        self._announcer = Announcer(self, parts, lambda: self._feed(self._machine.spoken))
        self._stop_with: Verdict | None = None
        self._connected_at: datetime | None = None
        self._verdict: Verdict | None = None
        self._over = asyncio.Event()
        self._driver: Driver | None = None
        self._tasks: CallTasks | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Live the call."""
        current_call.set(self.attempt.call_id)
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = CallTasks(group)
                self._driver = Driver(self._machine, self._perform, self.fault)
                if self._offered is not None:
                    self._party.use(self._offered)
                self._driver.feed(self._machine.start)
                if self._stop_with is not None:
                    self.stop(self._stop_with)
                await self._over.wait()
                self._ended_at = self._ended_at or self._parts.clock.utc()
                if self._verdict is not None:  # after a fault the line is still up
                    self._return_permit()
                await self._tasks.end()
        except* Exception:  # a call's fault ends that call alone; its record says so
            log.exception("call failed")
        finally:
            self._release()
        await self._record()

    def stop(self, verdict: Verdict) -> None:
        """End the call from outside."""
        self._stop_with = verdict
        self._feed(lambda now: self._machine.stop(verdict, now))

    def fault(self, fault: Exception) -> None:
        """Something in this call broke outside its tasks: the call ends here, with its record and all it holds given back."""
        log.error("call failed", exc_info=fault)
        self._over.set()

    # -- the door: everything above the packet enters here ---------------------------------------

    def _feed(self, change: Callable[[float], None]) -> None:
        if self._driver is not None:
            self._driver.feed(change)

    def _on_leg(self, event: LegEvent) -> None:
        try:
            self._take_leg_event(event)
        except Exception as fault:  # noqa: BLE001 - `fault` logs it
            self.fault(fault)

    def _take_leg_event(self, event: LegEvent) -> None:
        if self._ordered is not None:
            self._ordered.leg_event(event)
        match event:
            case LegEnded() if self._party.ended(event):
                self._seating.tell(lambda agent, now: agent.pause(now))  # until somebody is there again
                return
            case LegEnded() if self._transfers.leg_ended(event):
                self._ended_at = self._parts.clock.utc()
                return
            case TransferAsked():
                self._party.asked_to_move(event)
            case _:
                self._transfers.caller_event(event)
        self._note(event)
        self._feed(lambda now: self._machine.leg_event(event, now))

    def _note(self, event: LegEvent) -> None:
        match event:
            case DigitPressed():
                self._on_digit(event)
            case PlayoutDrained():
                self._on_drained()
            case LegProgress(early_media=True) if self.plan is not None and self.plan.answer_detection is not None:
                self._listener.listen_early(self.leg, self._parts.clock.now())
            case LegAnswered() if self._connected_at is None:
                self._connected_at = self._parts.clock.utc()
                self._listener.answered()
                if self._journal is not None:
                    self._journal.answered(self._connected_at)
            case _:
                pass

    def _on_digit(self, event: DigitPressed) -> None:
        self._recorded.digit()
        if not self._transfers.under_way:
            self._seating.tell(lambda agent, now: agent.digit(event.digit, now))

    def _on_drained(self) -> None:
        if self._announcer.drained():
            return
        if not self._transfers.consulting:
            self._seating.tell(lambda agent, now: agent.drained(now))

    # -- effects of the call ---------------------------------------------------------------------

    def _perform(self, effect: CallEffect) -> None:
        match effect:
            case Route():
                self.spawn(self._route())
            case OpenAgent():
                self._seating.open(effect)
            case AgentMayBegin():
                self._seating.party_arrived(self.plan.answer_detection if self.plan is not None else None)
            case StopAgent():
                self._seating.stop()
            case Speak() | Play() | StopPlaying() | Ask():
                self._perform_flow(effect)
            case StartTransfer(route=route):
                self._listener.stop()
                self._transfers.begin(route)
            case StopTransfer(call_goes_on=goes_on):
                self._transfers.drop(goes_on)
            case Ended(verdict=verdict):
                self._verdict = verdict
                self._over.set()
            case _:
                self._perform_on_line(effect)

    def _perform_flow(self, effect: Speak | Play | StopPlaying | Ask) -> None:
        match effect:
            case Speak(text=text):
                self._announcer.play(Say(text))
            case Play(action=action):
                self._announcer.play(action)
            case StopPlaying():
                self._announcer.stop()
            case Ask(question=question):
                self._asking = self.spawn(self._ask(question))

    async def _ask(self, question: AskNext) -> None:
        asked, records = self._parts.next_flows, self._transfers.records
        dialled = records[-1] if question.after_dial and records else None
        flow = () if asked is None else await asked.ask(self.call_id, question, dialled)
        self._feed(lambda now: self._machine.told_next(question, flow, now))

    def _perform_on_line(self, effect: CallEffect) -> None:
        match effect:
            case DialLeg():
                self._dial(effect)
            case HangUpLeg():
                self._party.hang_up()
            case CloseLeg():
                self._party.close()
            case Ring() if self._offered is not None:
                self._offered.ring()
            case AnswerLeg() if self._offered is not None:
                self._write_down()
                self._offered.answer()
                self._start_recording()
            case RejectLeg() if self._offered is not None:
                self._offered.reject(effect.status, effect.retry_after_s)
            case _:
                pass

    async def _route(self) -> None:
        ordered = self._ordered
        decision = await (self._parts.routing.route(self.attempt) if ordered is None else ordered.route())
        self._feed(lambda now: self._machine.routed(decision, now))

    def _write_down(self) -> None:
        plan = self._machine.plan
        assert plan is not None  # only a plan answers or dials
        self._journal = self._parts.book.open(self.attempt, plan)
        for note in plan.notes:
            self.write_log(note)

    def _dial(self, effect: DialLeg) -> None:
        self._write_down()
        attempt, plan = self.attempt, self._machine.plan
        assert plan is not None and self._permit is not None  # an outbound call brings the one and has the other by now
        request = DialRequest(
            attempt.call_id,
            self.account,
            self._permit.called,
            plan.number.number,
            attempt.caller_name,
            ring_s=effect.ring_s,
        )
        self._party.use(self._parts.dialer.dial(request))
        self._start_recording()

    def _start_recording(self) -> None:
        plan = self._machine.plan
        assert plan is not None  # only a plan answers or dials
        self._recorded.start(self.leg, plan)

    # -- steered from outside ---------------------------------------------------------------------

    @property
    def plan(self) -> CallPlan | None:
        """How the call is run; None while nobody has decided."""
        return self._machine.plan

    @property
    def connected_at(self) -> datetime | None:
        """UTC wall time of the answer."""
        return self._connected_at

    @property
    def in_progress(self) -> bool:
        """The party is there and the call is not ending."""
        return self._machine.in_progress

    @property
    def recorded(self) -> RecordedLine:
        """The call's recording."""
        return self._recorded

    def record(self, spec: RecordingSpec) -> bool:
        """Begin to record a call that is in progress; False when there was a recording before, or it cannot be opened."""
        return self._recorded.start_late(self.leg, self.account, spec)

    def redirect(self, flow: tuple[Action, ...]) -> None:
        """The flow takes the place of whatever the call does: an agent is dismissed, a transfer dropped. See `in_progress`."""
        if not self._machine.in_progress:
            return
        self._listener.stop()
        if self._asking is not None:
            self._asking.cancel()  # nor is its fallback asked
        self.write_log("Call: redirected by the customer")
        self._feed(lambda now: self._machine.redirect(flow, now))

    # -- the agent -------------------------------------------------------------------------------

    def _uttered(self, utterance: Utterance) -> None:
        utterance = self._transfers.consultations.attributed(utterance)
        if self._journal is not None:
            self._journal.utterance(utterance)
        if utterance.speaker is Speaker.CALLER:
            self._listener.words(utterance.text)

    def _perform_for_agent(self, effect: AgentEffect) -> None:
        match effect:
            case RunTool(call=call):
                self._run_tool(call)
            case Uttered(utterance=utterance):
                self._uttered(utterance)
            case Logged(text=text):
                self.write_log(text)
            case ConversationOver(reason=reason):
                self._feed(lambda now: self._machine.agent_over(now, reason))
                self._transfers.agent_gone()
            case ConversationFailed(kind=kind, detail=detail):
                self._agent_failed(kind, detail)
            case _:
                pass

    def _agent_failed(self, kind: FailureKind, detail: str) -> None:
        self.write_log(f"AI Session: {detail}")
        self._feed(lambda now: self._machine.agent_failed(kind, detail, now))
        self._transfers.agent_gone()

    def _run_tool(self, call: ToolCall) -> None:
        builtin = self.seat.spec.builtin_tools.get(call.name) if self.seat is not None else None
        if self._transfers.takes(call, builtin):
            return
        if builtin is not None:
            self._recorded.tool(builtin)
        self.spawn_lasting(self._tool(call))

    async def _tool(self, call: ToolCall) -> None:
        self.return_tool(call, await self.tools.run(call))

    def return_tool(self, call: ToolCall, output: str) -> None:
        """Give the model the output of one of its calls."""
        self._seating.tell(lambda agent, now: agent.tool_returned(call.call_id, output, now))

    @property
    def tools(self) -> ToolRunner:
        """Runs the model's calls."""
        assert self._journal is not None  # the agent opens after the journal
        return self._journal.tools

    # -- transfers (implements `calls.transfer_desk.DeskHost`) --------------------------------------

    @property
    def leg(self) -> Leg:
        """The line to the call's party."""
        assert self._party.leg is not None  # everything that needs a line comes after it
        return self._party.leg

    @property
    def seat(self) -> AgentSeat | None:
        """The agent, while there is one."""
        return self._seating.seat

    @property
    def account(self) -> str:
        """Whose call it is."""
        plan = self._machine.plan
        return plan.number.account if plan is not None else self.attempt.account or ""

    def transfer_begun(self) -> None:
        """The agent's wish for a transfer is being seen to."""
        self._listener.stop()
        self._feed(self._machine.transfer_begun)

    def machine_answered(self, message: str | None, reason: str) -> None:
        """No person answered: a message is left, or nothing."""
        self._feed(lambda now: self._machine.machine_answered(message, reason, now))

    def put_through(self) -> None:
        """The caller is connected with somebody else."""
        plan = self._machine.plan
        self._feed(self._machine.put_through)
        if plan is not None and not plan.record_transfers:
            self._recorded.stop()

    def transfer_over(self, put_through: bool, reason: str) -> None:
        """The transfer has ended; a caller who was not put through is the agent's again."""
        self._feed(lambda now: self._machine.transfer_over(put_through, reason, now))

    def party_left(self, event: LegEnded) -> None:
        """The party's line has ended, and so has the transfer that outlived it."""
        self._feed(lambda now: self._machine.leg_event(event, now))

    def write_log(self, text: str) -> None:
        """A line for the call's log."""
        if self._journal is not None:
            self._journal.log(text, self._parts.clock.utc())

    # -- the party's phone system changes the line (implements `calls.party_line.PartyHost`) --------

    @property
    def call_id(self) -> CallId:
        """The call's id."""
        return self.attempt.call_id

    @property
    def talking(self) -> bool:
        """The call has its plan and is not ending."""
        return self._machine.stage is Stage.TALKING

    @property
    def own_number(self) -> str:
        """The number of ours that runs the call."""
        assert self._machine.plan is not None  # a call that talks has one
        return self._machine.plan.number.number

    def has(self, leg: Leg) -> bool:
        """Whether this call's party is on that line."""
        return leg is self._party.leg

    def serves(self, leg: Leg) -> bool:
        """Whether that line is one of the call's: its party's, or that of the destination of a transfer."""
        return self.has(leg) or self._transfers.has(leg)

    def replace_line(self, leg: OfferedLeg, replaced: Leg) -> None:
        """Somebody takes the place of one of the call's lines (INVITE with Replaces)."""
        if self._transfers.has(replaced):
            self._transfers.replace_callee(leg)
        else:
            self._party.replace(leg)

    def line_changed(self, old: Leg) -> None:
        """The talk goes on over another line."""
        self._recorded.move(self.leg)
        self._announcer.moved(old)
        if self._transfers.under_way:
            self._transfers.caller_moved()
        elif self.seat is not None:
            self.seat.resume(self.leg)

    # -- the end ---------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the call's task group; cancelled when the call ends."""
        assert self._tasks is not None  # `run` opened it
        return self._tasks.spawn(work)

    def spawn_lasting(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the call's task group, and let it finish when the call ends."""
        assert self._tasks is not None
        self._tasks.spawn_lasting(work)

    def _release(self) -> None:
        """Give everything back; a step that fails does not keep the next one from its turn."""
        steps: list[Callable[[], object]] = [
            self._seating.close,
            self._party.stop_moving,
            self._transfers.close,
            self._recorded.stop,
            self._party.close,
            self._listener.stop,
            self._stop_driver,
            self._return_permit,
            self._party.forget,
        ]
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("part of a call could not be given back")
        self._driver = self._tasks = None

    def forget(self) -> None:
        """Nobody asks a session that is over anything more. It and its parts know each other: parted, their memory is free at
        once, and does not wait for the garbage collector."""
        del self._party, self._transfers, self._recorded, self._listener, self._seating, self._announcer

    def _stop_driver(self) -> None:
        if self._driver is not None:
            self._driver.close()

    def _return_permit(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            ended_at = self._ended_at or self._parts.clock.utc()
            self._parts.dialling.release(permit, (ended_at - (self._connected_at or ended_at)).total_seconds())

    async def _record(self) -> None:
        report = self._report()
        if self._ordered is not None:
            self._ordered.over(report)
        try:
            await self._parts.book.finish(report)
        except Exception:  # the row without an end is found again by recovery
            log.exception("call record could not be written")

    def _report(self) -> CallReport:
        machine, clock = self._machine, self._parts.clock
        plan, refusal = machine.plan, machine.refusal
        ended_at = self._ended_at or clock.utc()
        fault = Verdict(Ending.INTERNAL_ERROR, "internal-error", "The server failed")
        return CallReport(
            attempt=self.attempt,
            number=plan.number if plan else refusal.number if refusal else None,
            verdict=self._verdict or machine.verdict or fault,
            connected_at=self._connected_at,
            ended_at=max(ended_at, self._connected_at or ended_at),
            customer_call_id=(plan.customer_call_id if plan else None) or self.attempt.customer_call_id,
            journal=plan.journal if plan else JournalSpec(),
            transfers=tuple(self._transfers.records),
            referred_out=any(record.referred for record in self._transfers.records),
            end_webhook_owed=any(decision is not None and decision.end_webhook_owed for decision in (plan, refusal)),
            answered_by=self._listener.answered_by,
            usage=self._seating.usage,
            figures=dict(self._party.leg.figures) if self._party.leg is not None else {},
        )


def _limits(parts: CallParts, permit: DialPermit | None) -> CallLimits:
    """An outbound call lasts no longer than the policy lets it."""
    limits = parts.limits
    return limits if permit is None else replace(limits, call_s=min(limits.call_s, permit.max_seconds))
