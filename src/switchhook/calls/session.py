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
    Agent,
    AgentEffect,
    ConversationFailed,
    ConversationOver,
    FailureKind,
    Logged,
    RunTool,
    Uttered,
)
from switchhook.calls.announcing import Announcer
from switchhook.calls.greeting import greet
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
from switchhook.calls.moving import LineMove, let_go, take_over
from switchhook.calls.parts import CallParts
from switchhook.calls.recorded import RecordedLine
from switchhook.calls.seat import AgentSeat
from switchhook.calls.steering import OrderedCall
from switchhook.calls.transferring import CANCEL, COMPLETE, VOICEMAIL, CallTransfer
from switchhook.domain.dialling import DialPermit, DialRequest
from switchhook.domain.model import CallAttempt, CallId, Speaker, ToolCall, TransferRecord, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    AskNext,
    BuiltinTool,
    CallPlan,
    JournalSpec,
    RecordingSpec,
    RouteTo,
    Say,
    TransferOrder,
)
from switchhook.domain.ports import (
    CallJournal,
    DigitPressed,
    Leg,
    LegAnswered,
    LegEnded,
    LegEvent,
    OfferedLeg,
    PlayoutDrained,
    TransferAsked,
)
from switchhook.domain.report import CallReport
from switchhook.driver import Driver

log = logging.getLogger(__name__)
current_call: ContextVar[str] = ContextVar("current_call", default="")
"""Id of the call that a log line belongs to."""

TOOL_GRACE_S = 5.0
"""A tool that runs when the call ends may finish this long, because its side effects matter (contract §1.4)."""


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
        self._line: Leg | None = offered
        self._parts = parts
        self._permit = permit
        self._ordered = ordered
        self._machine = CallMachine(_limits(parts, permit), outbound=offered is None)
        self._seat: AgentSeat | None = None
        self._transfer: CallTransfer | None = None
        self._transfer_call: ToolCall | None = None
        self._moving: LineMove | None = None
        self._permits: list[tuple[DialPermit, datetime]] = []
        self._recorded = RecordedLine(parts, attempt.call_id, self.write_log)
        self._journal: CallJournal | None = None
        self._listener = AnswerListener(self)
        self._greeting_url: str | None = None
        self._ended_at: datetime | None = None
        self._announcer = Announcer(self, parts, lambda: self._feed(self._machine.spoken))
        self._dropping_transfer = False
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
                self._driver = Driver(self._machine, self._perform, self.fault)
                if self._line is not None:
                    self._line.subscribe(self._on_leg)
                self._driver.feed(self._machine.start)
                if self._stop_with is not None:
                    self.stop(self._stop_with)
                await self._over.wait()
                self._ended_at = self._parts.clock.utc()
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
            case LegEnded() if self._moving is not None and self._moving.leg_ended(event):
                self._tell_agent(lambda agent, now: agent.pause(now))  # until somebody is there again
                return
            case LegEnded() if self._transfer is not None:
                self._dropping_transfer = True  # what follows in the flow has nobody to be done for
                self._transfer.caller_gone()
                self._dropping_transfer = False
            case TransferAsked():
                self._asked_to_move(event)
            case _ if self._transfer is not None:
                self._transfer.caller_event(event)
        self._note(event)
        self._feed(lambda now: self._machine.leg_event(event, now))

    def _note(self, event: LegEvent) -> None:
        match event:
            case DigitPressed():
                self._on_digit(event)
            case PlayoutDrained():
                self._on_drained()
            case LegAnswered() if self._connected_at is None:
                self._connected_at = self._parts.clock.utc()
                if self._journal is not None:
                    self._journal.answered(self._connected_at)
            case _:
                pass

    def _on_digit(self, event: DigitPressed) -> None:
        self._recorded.digit()
        if self._transfer is None:
            self._tell_agent(lambda agent, now: agent.digit(event.digit, now))

    def _on_drained(self) -> None:
        if self._announcer.drained():
            return
        if self._transfer is None or not self._transfer.consulting:
            self._tell_agent(lambda agent, now: agent.drained(now))

    def _tell_agent(self, change: Callable[[Agent, float], None]) -> None:
        if self._seat is not None:
            self._seat.tell(change)

    # -- effects of the call ---------------------------------------------------------------------

    def _perform(self, effect: CallEffect) -> None:
        match effect:
            case Route():
                self.spawn(self._route())
            case OpenAgent():
                self._open_agent(effect)
            case AgentMayBegin():
                self._party_arrived()
            case StopAgent():
                self._stop_agent()
            case Speak() | Play() | StopPlaying() | Ask():
                self._perform_flow(effect)
            case StartTransfer(route=route):
                self._begin_transfer(self._order_of(route))
            case StopTransfer() if self._transfer is not None:
                self._dropping_transfer = True
                self._transfer.stop()
                self._dropping_transfer = False
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
                self.spawn(self._ask(question))

    async def _ask(self, question: AskNext) -> None:
        asked, dialled = self._parts.next_flows, self._transfers[-1] if question.after_dial and self._transfers else None
        flow = () if asked is None else await asked.ask(self.call_id, question, dialled)
        self._feed(lambda now: self._machine.told_next(question, flow, now))

    def _order_of(self, route: RouteTo) -> TransferOrder:
        attempt = self.attempt
        return TransferOrder(
            route.number,
            route.caller or attempt.caller,
            None if route.caller else attempt.caller_name,
            purpose=route.purpose,
            ring_s=route.ring_s,
            talk_s=route.talk_s,
        )

    def _perform_on_line(self, effect: CallEffect) -> None:
        match effect:
            case DialLeg():
                self._dial(effect)
            case HangUpLeg() if self._line is not None:
                self._line.hang_up()
            case CloseLeg() if self._line is not None:
                self._line.close()
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
        decision = await self._parts.routing.route(self.attempt) if self._ordered is None else self._ordered.plan
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
        self._line = self._parts.dialer.dial(request)
        self._line.subscribe(self._on_leg)
        self._start_recording()

    def _start_recording(self) -> None:
        plan = self._machine.plan
        assert plan is not None and self._line is not None  # the line is there when recording begins
        self._recorded.start(self._line, plan)

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
        self.write_log("Call: redirected by the customer")
        self._feed(lambda now: self._machine.redirect(flow, now))

    # -- the agent -------------------------------------------------------------------------------

    def _open_agent(self, effect: OpenAgent) -> None:
        parts = self._parts
        self._seat = AgentSeat(effect.spec, self.leg, parts.agents, parts.clock, self._perform_for_agent, self.fault)
        self._seat.start(effect.waiting)
        self._greeting_url = effect.greeting_url
        if not effect.waiting:
            self._greet(self._seat)

    def _greet(self, seat: AgentSeat) -> None:
        if self._greeting_url is not None:
            self.spawn(greet(self._greeting_url, self.leg, seat, self._parts, self.write_log))

    def _party_arrived(self) -> None:
        plan, seat = self._machine.plan, self._seat
        if seat is None or plan is None:
            return
        if plan.answer_detection is not None:
            self._listener.start(plan.answer_detection, seat, self.leg.encoding, self._parts.clock.now())
        seat.party_arrived()
        self._greet(seat)

    def _uttered(self, utterance: Utterance) -> None:
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
                if self._transfer is not None:
                    self._transfer.agent_gone()
            case ConversationFailed(kind=kind, detail=detail):
                self._agent_failed(kind, detail)
            case _:
                pass

    def _agent_failed(self, kind: FailureKind, detail: str) -> None:
        self.write_log(f"AI Session: {detail}")
        self._feed(lambda now: self._machine.agent_failed(kind, detail, now))
        if self._transfer is not None:
            self._transfer.agent_gone()

    def _run_tool(self, call: ToolCall) -> None:
        builtin = self._seat.spec.builtin_tools.get(call.name) if self._seat is not None else None
        if self._transfer is not None and self._decides(call, builtin):
            return
        if call.name in (COMPLETE, CANCEL):
            self._return_tool(call, '{"status":"over"}')  # decided by a key or a hang-up meanwhile; none of the customer's
            return
        if builtin is BuiltinTool.TRANSFER_CALL:
            self._asked_to_transfer(call)
            return
        if builtin is not None:
            self._recorded.tool(builtin)
        task = self.spawn(self._tool(call))
        self._tools.add(task)
        task.add_done_callback(self._tools.discard)

    async def _tool(self, call: ToolCall) -> None:
        assert self._journal is not None  # the agent opens after the journal
        output = await self._journal.tools.run(call)
        self._return_tool(call, output)

    def _return_tool(self, call: ToolCall, output: str) -> None:
        self._tell_agent(lambda agent, now: agent.tool_returned(call.call_id, output, now))

    def _stop_agent(self) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            for name, count in seat.stop().items():
                self._usage[name] = self._usage.get(name, 0) + count

    # -- transfers (implements `calls.transferring.TransferHost`) ----------------------------------

    @property
    def leg(self) -> Leg:
        """The line to the call's party."""
        assert self._line is not None  # everything that needs a line comes after it
        return self._line

    @property
    def seat(self) -> AgentSeat | None:
        """The agent, while there is one."""
        return self._seat

    @property
    def account(self) -> str:
        """Whose call it is."""
        plan = self._machine.plan
        return plan.number.account if plan is not None else self.attempt.account or ""

    def _asked_to_transfer(self, call: ToolCall) -> None:
        assert self._journal is not None  # the agent opens after the journal
        order = self._journal.tools.transfer_order(call)
        if isinstance(order, str) or self._transfer is not None:
            self._return_tool(call, order if isinstance(order, str) else '{"error":"A transfer is under way."}')
            return
        self._transfer_call = call
        self._feed(self._machine.transfer_begun)
        self._begin_transfer(order)

    def machine_answered(self, message: str | None, reason: str) -> None:
        """No person answered: a message is left, or nothing."""
        self._feed(lambda now: self._machine.machine_answered(message, reason, now))

    def _begin_transfer(self, order: TransferOrder) -> None:
        self._listener.stop()
        self._transfer = CallTransfer(order, self, self._parts)
        self._transfer.start()

    def _decides(self, call: ToolCall, builtin: BuiltinTool | None) -> bool:
        """Whether a tool call of the model is its word on the transfer."""
        transfer = self._transfer
        if transfer is None or not transfer.consulting:
            return False
        if call.name not in (COMPLETE, CANCEL) and builtin is not BuiltinTool.END_CONVERSATION:
            return False
        take = call.name == COMPLETE
        self._return_tool(call, '{"status":"connecting"}' if take else '{"status":"cancelled"}')
        transfer.decided(take, voicemail=VOICEMAIL in call.arguments)
        return True

    def put_through(self) -> None:
        """The caller is connected with somebody else."""
        plan = self._machine.plan
        self._feed(self._machine.put_through)
        if plan is not None and not plan.record_transfers:
            self._recorded.stop()

    def transfer_over(self, record: TransferRecord, put_through: bool, reason: str) -> None:
        """The transfer has ended: it is written down, and a caller who was not put through is the agent's again."""
        self._transfers.append(record)
        self._transfer = None
        call, self._transfer_call = self._transfer_call, None
        if call is not None and not put_through and self._journal is not None:
            self._return_tool(call, self._journal.tools.transfer_output(call, record))
        if not self._dropping_transfer:
            self._feed(lambda now: self._machine.transfer_over(put_through, reason, now))

    def write_log(self, text: str) -> None:
        """A line for the call's log."""
        if self._journal is not None:
            self._journal.log(text, self._parts.clock.utc())

    # -- the other side moves the call (implements `calls.moving.MoveHost`) ------------------------

    @property
    def call_id(self) -> CallId:
        """The call's id."""
        return self.attempt.call_id

    def has(self, leg: Leg) -> bool:
        """Whether this call's party is on that line."""
        return leg is self._line

    def replace_line(self, leg: OfferedLeg) -> None:
        """Somebody takes our party's place (INVITE with Replaces)."""
        if leg.encoding is not self.leg.encoding:
            leg.subscribe(_ignore)
            leg.reject(488)  # agent and recording speak the old line's
            return
        take_over(leg, self._taken_over)

    def _taken_over(self, leg: Leg) -> None:
        old = self._line
        if self._machine.stage is not Stage.TALKING or old is None:
            leg.hang_up()
            return
        if self._moving is not None:
            self._moving.close()
        self.write_log("Transfer: the party was replaced by another of its phone system")
        self._move(leg)
        let_go(old)

    def _asked_to_move(self, event: TransferAsked) -> None:
        busy = self._moving is not None and not self._moving.over
        if busy or self._machine.stage is not Stage.TALKING:
            self.leg.refer_result(603)
            return
        plan = self._machine.plan
        assert plan is not None  # a call that talks has one
        if self._moving is not None:
            self._moving.close()
        self._moving = LineMove(self, self._parts, self.leg, plan.number.number, self._moved)
        self._moving.on_lost = self._on_leg
        self._moving.start(event)

    def _moved(self, leg: Leg, permit: DialPermit) -> None:
        self._permits.append((permit, self._parts.clock.utc()))
        self._move(leg)

    def _move(self, leg: Leg) -> None:
        """The talk goes on over another line."""
        self._line = leg
        leg.subscribe(self._on_leg)
        self._recorded.move(leg)
        if self._transfer is not None:
            self._transfer.caller_moved()
        elif self._seat is not None:
            self._seat.resume(leg)

    # -- the end ---------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the call's task group; cancelled when the call ends."""
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
        steps: list[Callable[[], object]] = [self._stop_agent, self._recorded.stop]
        if self._transfer is not None:
            steps.insert(0, self._transfer.close)
        if self._line is not None:
            steps.append(self._line.close)
        steps.append(self._listener.stop)
        if self._driver is not None:
            steps.append(self._driver.close)
        if self._moving is not None:
            steps.insert(0, self._moving.close)
        steps.append(self._return_permits)
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("part of a call could not be given back")
        # What leads back here is let go, so that the memory of a finished call does not wait for the garbage collector.
        if self._line is not None:
            self._line.subscribe(_ignore)
        self._driver = self._tasks = self._transfer = self._moving = None

    def _return_permits(self) -> None:
        now = self._parts.clock.utc()
        if self._permit is not None:
            self._permits.append((self._permit, self._connected_at or now))
        for permit, since in self._permits:
            self._parts.dialling.release(permit, (now - since).total_seconds())

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
            transfers=tuple(self._transfers),
            referred_out=any(record.referred for record in self._transfers),
            end_webhook_owed=any(decision is not None and decision.end_webhook_owed for decision in (plan, refusal)),
            answered_by=self._listener.answered_by,
            usage=self._usage,
            figures=dict(self._line.figures) if self._line is not None else {},
        )


def _limits(parts: CallParts, permit: DialPermit | None) -> CallLimits:
    """An outbound call lasts no longer than the policy lets it."""
    limits = parts.limits
    return limits if permit is None else replace(limits, call_s=min(limits.call_s, permit.max_seconds))


def _ignore(event: LegEvent) -> None:
    """A call that is over is told nothing."""
