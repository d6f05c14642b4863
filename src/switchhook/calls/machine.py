"""One call as a machine: from arrival to the end, whatever arrives and in whatever order.

Rules:
1. The first cause decides the verdict; later ones do not overwrite it.
2. Every stage has a deadline, so that a call ends even when nobody answers us: routing, answer, talk, say, hang-up.
3. `Ended` is given exactly once and is the last effect. Before it the leg has ended or was closed.

    ROUTING --plan--> TALKING --hang-up, failure, limit--> ENDING --leg gone--> ENDED
        \\--refusal, caller gave up----------------------------^
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, assert_never

from switchhook.agents.conversation import FailureKind
from switchhook.domain.dialling import DialResult, result_of_end
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import (
    Action,
    AgentSpec,
    Answer,
    AskNext,
    CallPlan,
    Converse,
    HangUp,
    Pause,
    PlaySound,
    PressKeys,
    Refusal,
    RouteTo,
    Say,
)
from switchhook.domain.ports import (
    DigitPressed,
    LegAnswered,
    LegEnded,
    LegEvent,
    LegProgress,
    PlayoutDrained,
    ReferProgress,
    TransferAsked,
)
from switchhook.flows.interpreter import FlowRun


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long each stage may last, in seconds."""

    routing_s: float = 30.0
    answer_s: float = 40.0
    say_s: float = 120.0
    ask_s: float = 40.0
    """For the answer to `Ask`: an address and its fallback may take 15 s each."""
    asks: int = 1000
    """How often a call may ask how it goes on."""
    linger_s: float = 0.25
    """Between a message's last sound and the hang-up: a phone plays it from its jitter buffer a little later."""
    hang_up_s: float = 8.0
    """Between our hang-up and the line's end; then the leg is closed by force."""
    call_s: float = 4 * 3600.0
    """Hard cap on the talk, whatever the plan says."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Tell the caller that it rings."""


@dataclass(frozen=True, slots=True)
class Route:
    """Ask for the plan; `routed` must follow."""


@dataclass(frozen=True, slots=True)
class AnswerLeg:
    """Answer, and record when the plan says so."""


@dataclass(frozen=True, slots=True)
class RejectLeg:
    """Refuse the unanswered call."""

    status: int
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class OpenAgent:
    """Let the agent talk; `agent_over` or `agent_failed` may follow."""

    spec: AgentSpec
    waiting: bool = False
    """It gets ready and says nothing until `AgentMayBegin`: nobody has answered yet."""
    greeting_url: str | None = field(default=None, repr=False)
    """Played to the party first."""


@dataclass(frozen=True, slots=True)
class AgentMayBegin:
    """The party that was called is there."""


@dataclass(frozen=True, slots=True)
class DialLeg:
    """Dial the party; the line's events follow."""

    ring_s: float


@dataclass(frozen=True, slots=True)
class StopAgent:
    """The agent has nothing more to say."""


@dataclass(frozen=True, slots=True)
class Speak:
    """Speak a text; `spoken` must follow when it was heard or cannot be."""

    text: str


@dataclass(frozen=True, slots=True)
class Play:
    """Play a sound or keys; `spoken` must follow when that was heard or cannot be."""

    action: PlaySound | PressKeys


@dataclass(frozen=True, slots=True)
class StopPlaying:
    """What is being spoken or played for the flow is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask how the flow goes on; `told_next` must follow."""

    question: AskNext


@dataclass(frozen=True, slots=True)
class StartTransfer:
    """Hand the caller to a number, as the flow says; `transfer_over` must follow."""

    route: RouteTo


@dataclass(frozen=True, slots=True)
class StopTransfer:
    """Give the transfer up, and hang up whoever the caller was put through to; what it came to is not asked for."""

    call_goes_on: bool = False
    """The caller is wanted back from wherever the transfer has taken it."""


@dataclass(frozen=True, slots=True)
class HangUpLeg:
    """End the line in good order."""


@dataclass(frozen=True, slots=True)
class CloseLeg:
    """End the line by force."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over."""

    verdict: Verdict


CallEffect: TypeAlias = (
    Ring
    | Route
    | AnswerLeg
    | DialLeg
    | RejectLeg
    | OpenAgent
    | AgentMayBegin
    | StopAgent
    | Speak
    | Play
    | StopPlaying
    | Ask
    | StartTransfer
    | StopTransfer
    | HangUpLeg
    | CloseLeg
    | Ended
)


class Stage(Enum):
    """Where a call is in its life."""

    ROUTING = "routing"
    TALKING = "talking"
    ENDING = "ending"
    ENDED = "ended"


class CallMachine:
    """The life of one call. Inputs may come in any order and any number; see the module's rules.

    An outbound call has no line until its plan is there; `Answer` then dials it.
    """

    def __init__(self, limits: CallLimits, outbound: bool = False) -> None:
        self._limits = limits
        self._outbound = outbound
        self._effects: list[CallEffect] = []
        self._deadlines: dict[str, float] = {}
        self._flow = FlowRun(())
        self._routed = False
        self._leg_gone = outbound
        self._leg_released = False
        self._agent_open = False
        self._agent_failure: tuple[FailureKind, str] | None = None
        self._agent_over: str | None = None
        self._transferring = False
        self._just_spoke = False
        self._verdict: Verdict | None = None
        self._fallback: Verdict | None = None
        self._asks_left = limits.asks
        self.stage = Stage.ROUTING
        self.plan: CallPlan | None = None
        self.refusal: Refusal | None = None
        self.answered_at: float | None = None

    # -- what the driver needs ------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """The earliest stage limit."""
        return min(self._deadlines.values(), default=None)

    def take(self) -> list[CallEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def verdict(self) -> Verdict | None:
        """What the call came to, as soon as its first cause is known."""
        return self._verdict

    @property
    def in_progress(self) -> bool:
        """The party is there and the call is not ending."""
        return self.stage is Stage.TALKING and self.answered_at is not None

    # -- inputs ---------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The call has arrived and was admitted."""
        self._deadlines["routing"] = now + self._limits.routing_s
        self._effects += [Route()] if self._outbound else [Ring(), Route()]

    def routed(self, decision: CallPlan | Refusal, now: float) -> None:
        """The plan or the refusal is known."""
        if self._routed:
            return
        self._routed = True
        self._deadlines.pop("routing", None)
        if isinstance(decision, CallPlan):
            self.plan = decision
            if self.stage is Stage.ROUTING:
                self._begin(decision, now)
        else:
            self.refusal = decision
            if self.stage is Stage.ROUTING:
                self._refuse(decision, now)
        self._finish_if_over()

    def leg_event(self, event: LegEvent, now: float) -> None:
        """The line tells something. Digits and drained playout are the agent's and the voice's business."""
        match event:
            case LegAnswered():
                self._leg_answered(now)
            case LegEnded():
                self._leg_ended(event, now)
            case DigitPressed() | PlayoutDrained() | LegProgress() | ReferProgress() | TransferAsked():
                pass
            case _:
                assert_never(event)

    def agent_over(self, now: float, reason: str = "agent-ended") -> None:
        """The agent said goodbye, or nobody has said anything for long; `reason` is the verdict's."""
        if not isinstance(self._flow.current, Converse) or self.stage is not Stage.TALKING:
            return
        if self._transferring:
            self._agent_over = reason  # the transfer may yet succeed
        else:
            self._decide(Verdict(Ending.COMPLETED, reason))
            self._close_agent()
            self._perform(self._flow.done(), now)

    def agent_failed(self, kind: FailureKind, detail: str, now: float) -> None:
        """The agent cannot go on."""
        if not isinstance(self._flow.current, Converse) or self.stage is not Stage.TALKING:
            return
        if self._transferring:
            self._agent_failure = (kind, detail)  # the transfer may yet succeed; the agent is missed when it does not
            return
        if kind is FailureKind.NOT_ESTABLISHED:
            self._decide(Verdict(Ending.AGENT_NOT_ESTABLISHED, "agent-not-established", detail))
        else:
            self._decide(Verdict(Ending.AGENT_LOST, "agent-lost", detail))
        self._close_agent()
        if self._outbound and self.answered_at is None:
            self._end(now)  # nobody is there to be told
        else:
            self._perform(self._flow.failed(), now)

    def transfer_begun(self, now: float) -> None:
        """The agent's wish to transfer the caller is being seen to; until `transfer_over` its own end is not the call's."""
        self._transferring = True

    def put_through(self, now: float) -> None:
        """The caller is connected with somebody else: the agent's work is done."""
        if self.stage is not Stage.TALKING or self.plan is None:
            return
        self._transferring = True
        self._close_agent()
        if not self.plan.max_seconds_cover_transfers and self.answered_at is not None:
            self._deadlines["talk"] = self.answered_at + self._limits.call_s

    def transfer_over(self, put_through: bool, reason: str, now: float) -> None:
        """The transfer has ended, in failure or with the talk that it made; `reason` is the verdict's then."""
        self._transferring = False
        if self.stage is not Stage.TALKING:
            return
        route = self._flow.current if isinstance(self._flow.current, RouteTo) else None
        caller_waits = route is not None and route.returns and reason in _CALLER_WAITS
        if put_through and not caller_waits:
            self._decide(Verdict(Ending.COMPLETED, reason))
            self._end(now)
        elif route is not None:
            if route.asks is not None:
                self._flow = FlowRun((route.asks,))
            self._perform(self._flow.done(), now)
        elif self._agent_failure is not None:
            failure, self._agent_failure = self._agent_failure, None
            self.agent_failed(*failure, now)
        elif self._agent_over is not None:
            self.agent_over(now, self._agent_over)

    def spoken(self, now: float) -> None:
        """The message was heard, or cannot be spoken."""
        if isinstance(self._flow.current, Say | PlaySound | PressKeys | Pause) and self.stage is Stage.TALKING:
            self._deadlines.pop("say", None)
            self._just_spoke = not isinstance(self._flow.current, Pause)
            self._perform(self._flow.done(), now)

    def told_next(self, question: AskNext, flow: Sequence[Action], now: float) -> None:
        """How the flow goes on; an answer to a question that is not asked any more is passed over."""
        if self._flow.current is question and self.stage is Stage.TALKING:
            self._deadlines.pop("ask", None)
            self._flow = FlowRun(flow)
            self._perform(self._flow.next(), now)

    def redirect(self, flow: Sequence[Action], now: float) -> None:
        """Somebody outside wants this flow in the place of whatever the call does now; nothing unless `in_progress`."""
        if not self.in_progress:
            return
        self._close_agent()
        self._agent_failure = self._agent_over = None
        for name in ("say", "ask", "linger"):
            self._deadlines.pop(name, None)
        self._effects.append(StopPlaying())
        if self._transferring:
            self._transferring = False
            self._effects.append(StopTransfer(call_goes_on=True))
        self._flow = FlowRun(flow)
        self._just_spoke = False
        self._perform(self._flow.next(), now)

    def machine_answered(self, message: str | None, reason: str, now: float) -> None:
        """No person answered our call: say the message, if there is one, and hang up."""
        if self.stage is not Stage.TALKING or self.answered_at is None or self._transferring:
            return
        self._decide(Verdict(Ending.COMPLETED, reason))
        self._close_agent()
        self._flow = FlowRun((Say(message),) if message else ())
        self._perform(self._flow.next(), now)

    def stop(self, verdict: Verdict, now: float) -> None:
        """End the call from outside: drain, operator, internal error."""
        if self.stage in (Stage.ENDING, Stage.ENDED):
            return
        self._decide(verdict)
        self._end(now)

    def tick(self, now: float) -> None:
        """A stage took too long."""
        for name in [name for name, due in self._deadlines.items() if due <= now]:
            self._deadlines.pop(name, None)
            self._expired(name, now)

    # -- how it goes on -------------------------------------------------------------------------

    def _begin(self, plan: CallPlan, now: float) -> None:
        self.stage = Stage.TALKING
        if plan.ending is not Ending.COMPLETED:
            self._fallback = Verdict(plan.ending, plan.ending.value, plan.message)
        self._flow = FlowRun(plan.flow)
        self._perform(self._flow.next(), now)

    def _refuse(self, refusal: Refusal, now: float) -> None:
        self._decide(Verdict(refusal.ending, refusal.reason, refusal.message))
        self._reject(refusal.status, refusal.retry_after_s, now)

    def _reject(self, status: int, retry_after_s: int | None, now: float) -> None:
        self.stage = Stage.ENDING
        if not self._leg_gone:
            self._deadlines["hang-up"] = now + self._limits.hang_up_s
            self._effects.append(RejectLeg(status, retry_after_s))

    def _perform(self, action: Action, now: float) -> None:
        match action:
            case Answer():
                if self.answered_at is None:
                    self._answer(now)
                # The next action starts together with the answer: the model's socket opens while the 200 travels. Whoever we
                # called must be there to hear anything else.
                if not self._awaits_party or isinstance(self._flow.following, Converse):
                    self._perform(self._flow.done(), now)
            case Converse(agent=spec, greeting_url=url):
                self._agent_open = True
                self._effects.append(OpenAgent(spec, self._awaits_party, url))
            case Say() | PlaySound() | PressKeys() | Pause():
                self._tell_party(action, now)
            case RouteTo():
                self._transferring = True
                self._effects.append(StartTransfer(action))
            case AskNext():
                self._ask(action, now)
            case HangUp() if self._just_spoke:
                self._just_spoke = False
                self._deadlines["linger"] = now + self._limits.linger_s
            case HangUp():
                self._decide(Verdict(Ending.COMPLETED, "flow-ended"))
                self._end(now)
            case _:
                assert_never(action)

    def _answer(self, now: float) -> None:
        if not self._outbound:
            self._deadlines["answer"] = now + self._limits.answer_s
            self._effects.append(AnswerLeg())
            return
        assert self.plan is not None  # only a plan answers
        self._leg_gone = False
        self._deadlines["answer"] = now + self.plan.ring_s + self._limits.answer_s
        self._effects.append(DialLeg(self.plan.ring_s))

    @property
    def _awaits_party(self) -> bool:
        return self._outbound and self.answered_at is None

    def _tell_party(self, action: Say | PlaySound | PressKeys | Pause, now: float) -> None:
        """`spoken` ends it; a pause is ended by its own deadline."""
        longest_s = self._limits.say_s
        match action:
            case Say(text=text):
                self._effects.append(Speak(text))
            case Pause(seconds=seconds):
                longest_s = seconds
            case PlaySound(times=times):
                longest_s *= max(1, times)
                self._effects.append(Play(action))
            case PressKeys():
                self._effects.append(Play(action))
        self._deadlines["say"] = now + longest_s

    def _ask(self, question: AskNext, now: float) -> None:
        if self._asks_left <= 0:
            self._decide(Verdict(Ending.COMPLETED, "too-many-redirects", "The call asked too often how it goes on"))
            self._end(now)
            return
        self._asks_left -= 1
        self._deadlines["ask"] = now + self._limits.ask_s
        self._effects.append(Ask(question))

    def _leg_answered(self, now: float) -> None:
        self._deadlines.pop("answer", None)
        if self.stage is not Stage.TALKING or self.answered_at is not None or self.plan is None:
            return
        self.answered_at = now
        self._deadlines["talk"] = now + min(self.plan.max_seconds, self._limits.call_s)
        if self._outbound and self._agent_open:
            self._effects.append(AgentMayBegin())
        elif self._outbound and isinstance(self._flow.current, Answer):
            self._perform(self._flow.done(), now)

    def _leg_ended(self, event: LegEnded, now: float) -> None:
        if self._leg_gone:
            return
        self._leg_gone = True
        before_answer = self.answered_at is None
        if before_answer and self._outbound:
            self._decide(_unanswered(event))
        elif event.reason in ("caller-hung-up", "caller-cancelled"):
            ending = Ending.ABANDONED if before_answer else Ending.COMPLETED
            self._decide(Verdict(ending, event.reason))
        elif event.reason in ("callee-hung-up", "referred"):
            self._decide(Verdict(Ending.COMPLETED, event.reason))
        elif event.reason == "media-timeout":
            self._decide(Verdict(Ending.COMPLETED, "media-timeout", "No sound arrived from the caller"))
        elif event.reason == "session-expired":
            self._decide(Verdict(Ending.COMPLETED, "session-expired", event.detail or None))
        elif event.reason == "no-ack":
            self._decide(Verdict(Ending.ABANDONED, "no-ack", "The caller's side did not confirm the answer"))
        elif event.reason == "rejected":
            self._decide(Verdict(Ending.REJECTED, "not-acceptable", event.detail or None))
        else:
            self._decide(Verdict(Ending.INTERNAL_ERROR, event.reason, event.detail or None))
        self._end(now)

    def _expired(self, name: str, now: float) -> None:
        match name:
            case "routing":
                self._routed = True
                self._decide(Verdict(Ending.CALL_START_FAILED, "call-start-timeout", "No decision in time"))
                self._reject(480, None, now)
            case "answer":
                if self._outbound:
                    self._decide(Verdict(Ending.COMPLETED, DialResult.NO_ANSWER.value, "Nobody answered"))
                self._decide(Verdict(Ending.ABANDONED, "no-ack", "The caller's side did not confirm the answer"))
                self._end(now)
            case "talk":
                self._decide(Verdict(Ending.COMPLETED, "max-duration", "Maximum call duration reached"))
                self._end(now)
            case "say":
                self.spoken(now)
            case "ask":
                self._decide(Verdict(Ending.COMPLETED, "flow-not-told", "The customer did not say how the call goes on"))
                self._end(now)
            case "linger":
                self._perform(HangUp(), now)
            case _:
                self._leg_gone = True
                self._effects.append(CloseLeg())
        self._finish_if_over()

    def _end(self, now: float) -> None:
        if self.stage is Stage.ENDED:
            return
        first = self.stage is not Stage.ENDING
        self.stage = Stage.ENDING
        for name in ("answer", "talk", "say", "ask", "linger"):
            self._deadlines.pop(name, None)
        self._close_agent()
        if self._transferring:
            self._transferring = False
            self._effects.append(StopTransfer())
        if self._leg_gone:
            self._deadlines.pop("hang-up", None)
            if not self._leg_released:
                self._leg_released = True
                self._effects.append(CloseLeg())
        elif first:
            self._deadlines["hang-up"] = now + self._limits.hang_up_s
            self._effects.append(HangUpLeg())
        self._finish_if_over()

    def _close_agent(self) -> None:
        if self._agent_open:
            self._agent_open = False
            self._effects.append(StopAgent())

    def _decide(self, verdict: Verdict) -> None:
        if self._verdict is None:
            self._verdict = self._fallback or verdict

    def _finish_if_over(self) -> None:
        """The routing's answer is awaited even when the caller is gone: the end webhook is owed with its facts."""
        if self.stage is Stage.ENDING and self._leg_gone and self._routed:
            self.stage = Stage.ENDED
            self._deadlines.clear()
            assert self._verdict is not None  # every way into ENDING decides first
            self._effects.append(Ended(self._verdict))


_CALLER_WAITS = ("callee-hung-up", "max-duration")
"""Ends of a talk after which the caller is still on the line."""


def _unanswered(event: LegEnded) -> Verdict:
    """Of an outbound call that was not answered: the system did its work, unless the call could not be placed at all."""
    result = result_of_end(event.reason, event.status)
    told = event.detail or None
    if event.status is not None and (event.reason == "refused" or result is DialResult.POLICY):
        told = f"The far side answered {event.status} {event.detail}".strip()
    if result is DialResult.POLICY:
        return Verdict(Ending.OUTBOUND_NOT_PLACED, event.reason, told)
    if result is DialResult.TRUNK_ERROR:
        return Verdict(Ending.OUTBOUND_NOT_PLACED, result.value, told)
    if result is DialResult.ERROR:
        return Verdict(Ending.INTERNAL_ERROR, result.value, told)
    return Verdict(Ending.COMPLETED, result.value, told)
