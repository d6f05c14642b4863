"""The agent that talks through an OpenAI Realtime model: one conversation with one caller, as a machine.

Rules:
1. One `response.create` at a time, never while a response is active or the caller speaks over a tool's late result.
2. What nobody heard was not said: an interruption flushes the playout, truncates the item at the heard milliseconds and cuts
   the line.
3. A tool runs once and is answered once (`ledger`), whatever becomes of the response that asked for it.
4. The caller's sound is kept while no model listens, and sent in order when one does.
5. A model that makes no progress is lost, whatever its socket says. A lost model is replaced once, with the text so far.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from switchhook.agents.conversation import (
    AgentEffect,
    CloseModel,
    ConsultTool,
    ConversationFailed,
    ConversationOver,
    FailureKind,
    Logged,
    ModelLoss,
    OpenModel,
    RunTool,
    SendToModel,
    Uttered,
)
from switchhook.agents.realtime import dialect, patience
from switchhook.agents.realtime.approvals import Approvals
from switchhook.agents.realtime.consulting import system_text, with_tools
from switchhook.agents.realtime.dialect import APPEND_HEAD, APPEND_TAIL, Event, read_delta
from switchhook.agents.realtime.farewell import Farewell
from switchhook.agents.realtime.formats import Formats
from switchhook.agents.realtime.kept import KeptSound
from switchhook.agents.realtime.keys import Keys
from switchhook.agents.realtime.ledger import CreateResponse, Deliver, ToolLedger, as_text
from switchhook.agents.realtime.masking import without_secrets
from switchhook.agents.realtime.playing import Cut, Playing
from switchhook.agents.realtime.responses import Responses
from switchhook.agents.realtime.silence import SilenceWatch
from switchhook.agents.realtime.stage import CLOSED, ESTABLISHING, LEAVING, NEW, OPENING, READY
from switchhook.agents.realtime.transcript import Transcript
from switchhook.agents.realtime.usage import Usage
from switchhook.agents.realtime.words import Words
from switchhook.domain.model import Encoding, Speaker, ToolCall
from switchhook.domain.plan import AgentSpec, BuiltinTool
from switchhook.domain.ports import Clock, Playout


class RealtimeAgent:
    """Implements `agents.conversation.Agent`. `encoding` is the line's, `ids` gives fresh item ids."""

    def __init__(self, spec: AgentSpec, playout: Playout, encoding: Encoding, clock: Clock, ids: Callable[[], str]) -> None:
        self._spec = spec
        self._playout = playout
        self._ids = ids
        self._effects: list[AgentEffect] = []
        self._deadlines: dict[str, float] = {}
        self._stage = NEW
        self._ledger = ToolLedger()
        self._transcript = Transcript(clock)
        self._playing = Playing(playout, encoding)
        self._usage = Usage()
        self._formats = Formats(spec.session_update, encoding, self._playing)
        self._server_answers = dialect.server_creates_responses(spec.session_update)
        self._kept = KeptSound(encoding.bytes_per_ms)
        self._attempts = 0
        self._forwarding = self._was_ready = False
        self._ready_at = self._last_frame = 0.0
        self._caller_speaks = False
        self._quiet_since = 0.0
        self._responses = Responses()
        self._words = Words(self._transcript, self._responses, self._usage, spec.transcribes_caller)
        self._backlog: list[bytes] = []
        self._digits = Keys()
        self._farewell: Farewell | None = None
        self._approvals = Approvals(ids)
        self._garbage = self._waiting = self._paused = self._parting = self._stopped = False
        self._consult: tuple[bytes, ...] = ()
        self._silence_watch = SilenceWatch(spec.idle_hang_up_ms)

    # -- packets ---------------------------------------------------------------------------------

    def hear(self, payload: bytes, now: float) -> bytes | None:
        """One frame of the caller's sound."""
        if self._forwarding:
            remember, to_model = self._kept.sent, self._formats.to_model
            remember(payload)
            if to_model is not None and not (payload := to_model(payload)):
                return None
            return APPEND_HEAD + b2a_base64(payload, newline=False) + APPEND_TAIL
        if self._farewell is None and self._stage is not CLOSED:
            self._kept.keep(payload)
        return None

    def model_frame(self, data: bytes, now: float) -> None:
        """One text frame of the model."""
        stage = self._stage
        if stage is not READY and stage is not ESTABLISHING:
            if self._parting:
                self._take_last(data, now)
            return
        self._last_frame = now
        try:
            delta = read_delta(data)
        except dialect.UNREADABLE:
            self._take_event(data, now)
            return
        if isinstance(delta, dialect.AudioDelta):
            self._speak(delta, now)
        else:
            self._words.agent_words(delta, now)

    def _take_event(self, data: bytes, now: float) -> None:
        try:
            kind = dialect.read_head(data).type
            handled = dialect.BETA_NAMES.get(kind, kind) in _HANDLERS
            event = dialect.read_event(data) if handled or kind in dialect.SOUND_NAMES else {}
        except dialect.UNREADABLE:
            kind, event = "", {}
        if kind in ("", *dialect.SOUND_NAMES) and not self._garbage:
            self._garbage = True
            self._log("AI Session: a frame could not be read")
        handler = _HANDLERS.get(dialect.BETA_NAMES.get(kind, kind))
        if handler is not None:
            handler(self, event, now)
            self._settle(now)

    def _speak(self, delta: dialect.AudioDelta, now: float) -> None:
        response_id = delta.response_id or ""
        if self._responses.is_silenced(response_id):
            return
        self._responses.spoke = True
        begins = self._playing.play(delta.item_id, delta.content_index, response_id, delta.delta, now)
        if begins is not None:
            self._transcript.place(delta.item_id, None, Speaker.AGENT, now)
            self._transcript.began(delta.item_id, begins)

    # -- inputs of the call ----------------------------------------------------------------------

    def start(self, now: float, waiting: bool = False) -> None:
        """Begin; `waiting`: the party is still being called."""
        self._waiting = waiting
        self._transcript.begin(now)
        if self._spec.closing_note_after_ms is not None:
            self._deadlines["closing note"] = now + self._spec.closing_note_after_ms / 1000
        if not self._server_answers:
            self._log(dialect.NOBODY_ASKS)
        self._open(now)

    def model_opened(self, now: float) -> None:
        """The socket is open. The update goes out at once: servers that greet with `session.created` and others both take it."""
        if self._stage is OPENING:
            self._stage = ESTABLISHING
            self._last_frame = now
            self._send(self._spec.session_update)

    def model_lost(self, loss: ModelLoss, now: float) -> None:
        """The socket closed or never opened."""
        if self._parting:
            self._end(now)
        if self._stage in (NEW, LEAVING, CLOSED):
            return
        self._log(f"AI Session: lost: {loss.detail}")
        self._replace_or_fail(loss.retryable, loss.detail, now)

    def tool_returned(self, call_id: str, output: str, now: float) -> None:
        """A tool's text for the model."""
        if self._stage is not CLOSED:
            self._ledger.returned(call_id, output)
            self._settle(now)

    def digit(self, digit: str, now: float) -> None:
        """A key was pressed: the first one interrupts; `#` or a pause ends the number."""
        if self._stage is CLOSED or self._farewell is not None:
            return
        if not self._digits:
            self._interrupt(now, cancel=True)
        self._deadlines["digits"] = now + patience.DIGIT_PAUSE_S
        if self._digits.press(digit):
            self._end_digits(now)
        self._settle(now)

    def drained(self, now: float) -> None:
        """All queued sound was heard."""
        for item in self._playing.drained():
            self._transcript.heard(item.item_id)
        self._settle(now)

    def speak_first(self, now: float) -> None:
        """The greeting was not played."""
        self._responses.wanted = True
        self._settle(now)

    def party_arrived(self, now: float) -> None:
        """The party that was being called is there."""
        self._waiting = False
        self._settle(now)

    def told(self, text: str, now: float) -> None:
        """The call knows something about the party."""
        if self._stage is not CLOSED and self._farewell is None:
            self._say_to_model(system_text(self._ids(), text))
            self._responses.wanted = True
            self._settle(now)

    def move(self, playout: Playout, now: float) -> None:
        """Another line is the party's."""
        self._interrupt(now, cancel=True)
        self._playout = playout
        self._playing.move(playout)

    def pause(self, now: float) -> None:
        """Nobody listens."""
        if self._stage is not CLOSED:
            self._interrupt(now, cancel=True)
            self._paused = True
            self._put_goodbye_off()
            self._settle(now)

    def consult(self, playout: Playout, briefing: str, tools: Sequence[ConsultTool], now: float) -> None:
        """Talk with somebody else meanwhile."""
        if self._stage is CLOSED:
            return
        self._consult = (with_tools(self._spec.session_update, tools), system_text(self._ids(), briefing))
        self._turn_to(playout, self._consult, now)
        self._responses.wanted = True
        self._settle(now)

    def resume(self, playout: Playout, now: float) -> None:
        """Talk with the caller again."""
        if self._stage is CLOSED:
            return
        if self._consult:
            self._consult = ()
            self._turn_to(playout, (with_tools(self._spec.session_update, ()),), now)
        elif playout is not self._playout:
            self.move(playout, now)
        self._paused = False
        self._settle(now)

    def _turn_to(self, playout: Playout, told: Sequence[bytes], now: float) -> None:
        """Another party hears us and is heard from here on; a model that is not there yet gets the same when it is."""
        self.move(playout, now)
        self._paused = self._caller_speaks = False
        self._kept.clear()  # what one party said is not the other's
        for text in (dialect.CLEAR_HEARD, *told) if self._stage is READY else ():
            self._send(text)

    def stop(self, now: float) -> None:
        """The call is over."""
        if self._parting:
            if self._stopped:
                self._end(now)
        elif self._stage is not CLOSED:
            self._finish(now)
        self._stopped = True

    # -- what the driver needs -------------------------------------------------------------------

    @property
    def usage(self) -> Mapping[str, int]:
        """Tokens summed over the conversation."""
        return self._usage.totals

    @property
    def deadline(self) -> float | None:
        """The earliest of what is waited for."""
        return min(self._deadlines.values()) if self._deadlines else None

    def take(self) -> list[AgentEffect]:
        """Effects so far."""
        effects, self._effects = self._effects, []
        return effects

    def tick(self, now: float) -> None:
        """Something was waited for long enough."""
        for name in [name for name, due in self._deadlines.items() if due <= now]:
            # What went before in this tick may have taken it back.
            if self._deadlines.pop(name, None) is not None:
                _EXPIRED[name](self, now)
        if self._stage is not CLOSED:
            self._settle(now)

    # -- the model's session ---------------------------------------------------------------------

    def _open(self, now: float) -> None:
        self._attempts += 1
        self._stage = OPENING
        self._deadlines["establish"] = now + patience.ESTABLISH_S
        self._effects.append(OpenModel(self._spec.url, self._spec.headers))

    def _replace_or_fail(self, retryable: bool, detail: str, now: float) -> None:
        if self._farewell is not None:
            self._leave(now)
            return
        if self._stage is READY and now - self._ready_at >= patience.STEADY_S:
            self._attempts = 1
        if retryable and self._attempts < 2:
            self._leave_session(now)
            self._effects.append(CloseModel())
            self._open(now)
            return
        kind = FailureKind.LOST if self._was_ready else FailureKind.NOT_ESTABLISHED
        self._close(now)
        self._effects.append(ConversationFailed(kind, detail))

    def _leave(self, now: float) -> None:
        """The model is lost during the farewell: what came of it is heard, then the call ends."""
        self._leave_session(now)
        self._effects.append(CloseModel())
        self._stage = LEAVING
        self._settle(now)

    def _leave_session(self, now: float) -> None:
        """Forget what only the session that is gone knew; a reply it owed is owed by the next."""
        self._forwarding = False
        self._kept.session_gone(self._caller_speaks)
        self._responses.session_gone(owed=self._ledger.renewed())
        self._caller_speaks = False
        self._playing.session_gone(now)
        self._words.session_gone()
        self._approvals.session_gone()
        self._forget("answer", "progress", "ask", "roll-over", "last roll-over")

    def _on_updated(self, event: Event, now: float) -> None:
        if self._stage is not ESTABLISHING:
            return
        self._stage = READY
        self._ready_at = now
        self._deadlines.pop("establish", None)
        if self._formats.corrected_by(event):
            self._log("AI Session: the server uses other audio formats than the session asked for")
        if self._was_ready:
            for result in self._ledger.recital():
                self._send(dialect.text_item(self._ids(), "user", result))
            for speaker, text in self._transcript.so_far():
                role = "assistant" if speaker is Speaker.AGENT else "user"
                self._send(dialect.text_item(self._ids(), role, text))
        first, self._was_ready = not self._was_ready, True
        backlog, self._backlog = self._backlog, []
        for frame in (*self._consult, *backlog):
            self._send(frame)
        if self._spec.roll_over_after_ms is not None:
            self._deadlines["roll-over"] = now + self._spec.roll_over_after_ms / 1000
        if self._spec.speaks_first and first:
            self._responses.wanted = True
        # The greeting is asked for first: what the caller said meanwhile may then interrupt it, as it would have live.
        self._settle(now)
        self._flush_kept()

    def _flush_kept(self) -> None:
        if self._kept.dropped:
            self._log("AI Session: more than a minute of the caller's sound came before the session; the oldest was dropped")
        for sound in self._formats.for_model(self._kept.pieces()):
            self._send(dialect.append(sound))
        self._forwarding = self._farewell is None

    def _roll_over(self, now: float) -> None:
        self._log("AI Session: rolling over to a fresh session")
        self._attempts = 0
        self._leave_session(now)
        self._effects.append(CloseModel())
        self._open(now)

    def _finish(self, now: float) -> None:
        if self._stage is READY and self._words.awaited:
            self._part(now)
        else:
            self._close(now)

    def _part(self, now: float) -> None:
        """Nobody is there any more, but the model still writes down what the caller said last."""
        self._fall_silent(now)
        self._parting = True
        self._deadlines["last words"] = now + patience.LAST_WORDS_S
        self._effects += [Uttered(line) for line in self._transcript.release(now)]
        for text in self._words.part(self._ids):
            self._send(text)

    def _take_last(self, data: bytes, now: float) -> None:
        for text in self._words.last(data, self._ids, now):
            self._send(text)
        if not self._words.awaited:
            self._end(now)

    def _fall_silent(self, now: float) -> None:
        self._forwarding = False
        self._deadlines.clear()
        self._kept.clear()
        self._silence(now)
        self._stage = CLOSED

    def _end(self, now: float) -> None:
        """Nothing more of the caller's is waited for."""
        self._parting = False
        self._deadlines.clear()
        self._tell_all(now)
        self._effects.append(CloseModel())

    def _tell_all(self, now: float) -> None:
        self._effects += [Uttered(line) for line in self._transcript.release(now, all_of_them=True)]

    def _close(self, now: float) -> None:
        leaving = self._stage is LEAVING
        self._fall_silent(now)
        self._tell_all(now)
        if not leaving:
            self._effects.append(CloseModel())

    # -- what the model says ---------------------------------------------------------------------

    def _on_error(self, event: Event, now: float) -> None:
        error, code = dialect.map_of(event, "error"), dialect.error_code(event) or "error"
        if code != dialect.NOTHING_TO_CANCEL:
            self._log(f"AI Session: error {code}: {without_secrets(dialect.text_of(error, 'message'), self._spec)[:500]}")
        busy = code == "conversation_already_has_active_response"
        if code == "session_expired":
            self._replace_or_fail(True, "the model's session expired", now)
        elif self._responses.is_refusal(dialect.text_of(error, "event_id"), busy):
            self._on_request_refused(busy, now)

    def _on_request_refused(self, busy: bool, now: float) -> None:
        """No response comes of our request; one that was refused because another is active is made again after it.

        The other response may have been taken for ours meanwhile: its `response.created` came first.
        """
        self._responses.refused(busy)
        self._deadlines.pop("answer", None)
        if self._farewell is not None:
            active = self._responses.active
            if active is not None and self._farewell.response_id == active:
                self._take_back()
            if not self._farewell.say_again(failed=not busy):
                self._over(now)
                return
        if self._responses.active is None:
            self._deadlines["ask"] = now + patience.SERVER_TURN_S

    def _on_speech_started(self, event: Event, now: float) -> None:
        self._caller_speaks = True
        self._kept.turn_began()
        if not self._responses.asked:
            self._deadlines.pop("answer", None)
        self._deadlines.pop("ask", None)
        self._words.caller_speaks(event, now)
        if self._spec.interrupt_response and self._farewell is None:
            self._interrupt(now, cancel=not self._server_answers)

    def _on_speech_stopped(self, event: Event, now: float) -> None:
        self._caller_speaks = False
        self._words.caller_stopped()
        self._kept.turn_over()
        self._quiet_since = now
        if not self._server_answers:
            return
        self._responses.turn_owed = True
        if self._responses.audible:
            return  # a server that is still speaking may refuse itself the answer: it is looked at when it is done
        self._deadlines["answer"] = now + patience.ANSWER_S
        if self._responses.wanted:
            self._deadlines["ask"] = now + patience.SERVER_TURN_S

    def _on_cleared(self, event: Event, now: float) -> None:
        self._caller_speaks = False
        self._words.caller_cleared()

    def _on_committed(self, event: Event, now: float) -> None:
        self._caller_speaks = False
        self._words.caller_committed(event, now)

    def _on_item(self, event: Event, now: float) -> None:
        item = dialect.map_of(event, "item")
        self._responses.acknowledge(dialect.text_of(item, "id"))
        self._deny_approval(item, now)

    def _deny_approval(self, item: Mapping[str, Any], now: float) -> None:
        denial = self._approvals.denial(item)
        if denial is not None:
            name = dialect.text_of(item, "name")
            self._log(f"AI Session: denied the MCP tool {name}, which asks for an approval that nobody here can give")
            self._say_to_model(denial)
            self._go_on_unless_server_does(now)

    def _on_audio_done(self, event: Event, now: float) -> None:
        self._playing.finish(now, item_id=dialect.text_of(event, "item_id"))
        if self._playout.idle:
            self.drained(now)

    # -- responses -------------------------------------------------------------------------------

    def _on_response_created(self, event: Event, now: float) -> None:
        responses = self._responses
        responses.begin(dialect.text_of(dialect.map_of(event, "response"), "id"))
        self._forget("answer", "ask")
        self._deadlines["progress"] = now + patience.PROGRESS_S
        if self._paused:
            self._take_back()
            responses.wanted = responses.wanted or responses.asked  # it is made when the pause is over
        elif self._farewell is not None:
            if responses.asked and self._farewell.response_id is None:
                self._farewell.response_id = responses.active
            else:
                self._take_back()  # the goodbye is the last word
        elif not responses.begun(over_party=bool(self._digits) or (self._caller_speaks and self._spec.interrupt_response)):
            self._take_back()
        self._caller_speaks &= responses.asked  # servers without `speech_stopped` answer when the caller is done
        responses.settle()

    def _on_response_done(self, event: Event, now: float) -> None:
        response = dialect.map_of(event, "response")
        response_id = dialect.text_of(response, "id")
        self._usage.add_response(response.get("usage"))
        items = dialect.maps_of(response, "output")
        for item in items:
            self._deny_approval(item, now)
        self._ledger.response_done(response_id, items, response.get("status") == "completed")
        self._playing.finish(now, response_id=response_id)
        if self._responses.done(response_id):
            self._deadlines.pop("progress", None)
        if self._responses.server_may_go_on:
            self._go_on_unless_server_does(now)
        if self._responses.turn_owed and self._responses.active is None:
            self._responses.wanted = True
            self._deadlines["ask"] = now + patience.SERVER_TURN_S
        self._judge(response, response_id, now)
        if self._stage is not CLOSED and self._playout.idle:
            self.drained(now)

    def _judge(self, response: Mapping[str, Any], response_id: str, now: float) -> None:
        status = response.get("status")
        code = dialect.error_code(dialect.map_of(response, "status_details"))
        if status in ("failed", "incomplete"):
            self._log(f"AI Session: response {status}" + (f": {code}" if code else ""))
        farewell = self._farewell
        if farewell is not None:
            if farewell.response_id == response_id and status != "completed" and not self._responses.spoke:
                taken_back = self._responses.is_silenced(response_id)
                if not farewell.say_again(failed=not taken_back):
                    self._over(now)
        elif status == "failed" and not self._responses.spoke and self._ledger.idle:
            if not self._responses.retry():
                # A model that cannot answer (its quota is used up, say) is lost, however healthy its socket is.
                self._replace_or_fail(False, f"the model could not answer{f': {code}' if code else ''}", now)
        elif status == "completed":
            self._responses.succeeded()

    def _on_output_item_done(self, event: Event, now: float) -> None:
        item = dialect.map_of(event, "item")
        self._deny_approval(item, now)
        self._ledger.item_done(dialect.text_of(event, "response_id"), item)

    def _go_on_unless_server_does(self, now: float) -> None:
        """Whether the model answers by itself after an MCP call is not documented: it is observed."""
        self._responses.wanted = self._responses.server_may_go_on = True
        self._deadlines["ask"] = now + patience.SERVER_TURN_S

    def _take_back(self) -> None:
        """The response that has just begun is not wanted."""
        self._responses.take_back()
        self._send(dialect.RESPONSE_CANCEL)

    def _settle(self, now: float) -> None:
        """After every input: tell what is final, ask for what is owed, see whether it is time to go."""
        if self._stage is not CLOSED:
            self._move_on(now)
            self._watch_silence(now)

    def _move_on(self, now: float) -> None:
        self._perform_ledger(now)
        for line in self._transcript.release(now):
            self._effects.append(Uttered(line))
        held = self._transcript.deadline
        if held is None:
            self._deadlines.pop("held", None)
        else:
            self._deadlines["held"] = held
        if self._responses.busy:
            return
        if self._stage is LEAVING or (self._stage is READY and self._farewell is not None):
            self._settle_farewell(now)
        elif self._stage is not READY or self._paused or self._waiting:
            return
        elif self._responses.wanted and not self._caller_speaks and not self._digits and "ask" not in self._deadlines:
            self._ask(None, now)
        elif self._roll_over_due(now):
            self._roll_over(now)

    def _ask(self, response: Mapping[str, object] | None, now: float) -> None:
        request_id = self._ids()
        self._responses.ask(request_id)
        self._deadlines["answer"] = now + patience.ANSWER_S
        self._send(dialect.response_create(request_id, response))

    def _roll_over_due(self, now: float) -> bool:
        due = "last roll-over" in self._deadlines
        busy = self._caller_speaks or self._responses.due or self._playing.any or self._digits
        settled = self._ledger.idle and not self._transcript.awaits_caller and now >= self._quiet_since + patience.SERVER_TURN_S
        return due and settled and not busy

    # -- interruption ----------------------------------------------------------------------------

    def _interrupt(self, now: float, cancel: bool) -> None:
        """The caller speaks or presses a key: silence the agent and tell the model what was heard."""
        if cancel and self._responses.active is not None and self._stage is READY:
            self._send(dialect.RESPONSE_CANCEL)
        if self._responses.silence():
            self._transcript.drop_unheard()
        if cancel:
            self._responses.unwant()
        for cut in self._silence(now):
            if self._stage is READY and cut.item.known and cut.received_ms:
                self._send(dialect.truncate(cut.item.item_id, cut.item.content_index, cut.heard_ms))

    def _silence(self, now: float) -> list[Cut]:
        """Stop the sound; gives what was cut off."""
        cuts = []
        for cut in self._playing.interrupt(now):
            if cut.whole:
                self._transcript.heard(cut.item.item_id)
            else:
                self._transcript.cut(cut.item.item_id, cut.share)
                cuts.append(cut)
        return cuts

    # -- tools -----------------------------------------------------------------------------------

    def _perform_ledger(self, now: float) -> None:
        while effects := self._ledger.take():
            for effect in effects:
                match effect:
                    case RunTool(call=call) if self._ends_conversation(call):
                        self._say_goodbye(call, now)
                    case RunTool():
                        self._effects.append(effect)
                    case Deliver():
                        self._deliver(effect)
                    case CreateResponse():
                        self._responses.wanted = True

    def _deliver(self, effect: Deliver) -> None:
        item_id = self._ids()
        if effect.as_text:
            text = dialect.text_item(item_id, "user", as_text(effect.call, effect.output))
        else:
            output = {"type": "function_call_output", "call_id": effect.call.call_id, "output": effect.output}
            text = dialect.item_create({"id": item_id} | output)
        self._say_to_model(text)
        self._responses.tell(item_id)

    def _ends_conversation(self, call: ToolCall) -> bool:
        """With somebody else on the line the conversation with the caller is not over: the call decides."""
        return not self._consult and self._spec.builtin_tools.get(call.name) is BuiltinTool.END_CONVERSATION

    def _say_goodbye(self, call: ToolCall, now: float) -> None:
        self._ledger.returned(call.call_id, '{"status":"ending"}')
        if self._farewell is None and not self._paused:
            self._farewell = Farewell.read(call.arguments, now)
            # Nothing the caller says from here on may cut the goodbye short: the model does not hear it.
            self._forwarding = False
            self._deadlines["farewell"] = now + patience.FAREWELL_S

    def _put_goodbye_off(self) -> None:
        """Nobody listens to it; when the pause is over the talk goes on."""
        if self._farewell is not None and self._stage is not LEAVING:
            self._farewell = None
            self._forwarding = self._stage is READY
            self._forget("farewell", "linger")

    def _settle_farewell(self, now: float) -> None:
        assert self._farewell is not None  # the callers looked
        leaving = self._stage is LEAVING
        if not self._farewell.asked and not leaving:
            if "ask" not in self._deadlines:
                self._farewell.asked = True
                # What was said before the goodbye is heard first; a call ends even when that is very long.
                if not self._farewell.timed:
                    self._farewell.timed = True
                    heard_from = max(now, self._playing.ends_at)
                    self._deadlines["farewell"] = min(
                        heard_from + patience.FAREWELL_S, self._farewell.began + patience.LONGEST_FAREWELL_S
                    )
                self._ask(self._farewell.response(), now)
        elif (leaving or self._farewell.response_id is not None) and self._playout.idle and not self._playing.any:
            self._deadlines.setdefault("linger", now + patience.LINGER_S)

    def _over(self, now: float, reason: str = "agent-ended") -> None:
        self._finish(now)
        self._effects.append(ConversationOver(reason))

    def _busy(self) -> bool:
        """Somebody speaks, or something is waited for: this is no silence."""
        working = self._responses.due or not self._ledger.idle
        speaking = self._caller_speaks or self._playing.any or not self._playout.idle or bool(self._digits)
        away = self._stage is not READY or self._paused or self._waiting or self._farewell is not None
        return working or speaking or away or bool(self._consult)

    def _watch_silence(self, now: float) -> None:
        self._deadlines.pop("silence", None)
        if (due := self._silence_watch.look(self._busy(), now)) is not None:
            self._deadlines["silence"] = due

    def _on_silence(self, now: float) -> None:
        if not self._busy():
            self._log("AI Session: nobody spoke for too long")
            self._over(now, "silence")

    # -- keys ------------------------------------------------------------------------------------

    def _end_digits(self, now: float) -> None:
        digits = self._digits.take()
        self._deadlines.pop("digits", None)
        if digits and self._farewell is None:
            item_id = self._ids()
            text = f"DTMF: {digits}"
            self._transcript.say(item_id, Speaker.CALLER, text, now)
            self._say_to_model(dialect.text_item(item_id, "user", text))
            self._responses.tell(item_id)
            self._responses.wanted = True

    # -- time ------------------------------------------------------------------------------------

    def _on_establish_late(self, now: float) -> None:
        self._replace_or_fail(True, "the model's session was not established in time", now)

    def _on_no_progress(self, name: str, patience_s: float, now: float) -> None:
        if self._last_frame + patience_s > now:
            self._deadlines[name] = self._last_frame + patience_s
            return
        self._replace_or_fail(True, "the model made no progress", now)

    def _on_last_roll_over(self, now: float) -> None:
        if self._farewell is None:
            self._roll_over(now)

    def _on_roll_over(self, now: float) -> None:
        self._deadlines["last roll-over"] = now + patience.LAST_ROLL_OVER_S

    def _on_closing_note(self, now: float) -> None:
        self._say_to_model(system_text(self._ids(), self._spec.closing_note))

    # -- small things ----------------------------------------------------------------------------

    def _say_to_model(self, text: bytes) -> None:
        """Send, or keep for the session that comes."""
        if self._stage is READY:
            self._send(text)
        else:
            self._backlog.append(text)

    def _forget(self, *deadlines: str) -> None:
        for name in deadlines:
            self._deadlines.pop(name, None)

    def _send(self, text: bytes) -> None:
        self._effects.append(SendToModel(text))

    def _log(self, text: str) -> None:
        self._effects.append(Logged(text))


_Handler = Callable[[RealtimeAgent, Event, float], None]
_HANDLERS: Mapping[str, _Handler] = {
    "session.updated": RealtimeAgent._on_updated,
    "error": RealtimeAgent._on_error,
    "input_audio_buffer.speech_started": RealtimeAgent._on_speech_started,
    "input_audio_buffer.speech_stopped": RealtimeAgent._on_speech_stopped,
    "input_audio_buffer.cleared": RealtimeAgent._on_cleared,
    "input_audio_buffer.committed": RealtimeAgent._on_committed,
    "conversation.item.added": RealtimeAgent._on_item,
    "conversation.item.done": RealtimeAgent._on_item,
    "conversation.item.input_audio_transcription.completed": lambda agent, event, now: agent._words.caller_text(event, now),
    "conversation.item.input_audio_transcription.failed": lambda agent, event, now: agent._words.caller_text_failed(event, now),
    "response.created": RealtimeAgent._on_response_created,
    "response.done": RealtimeAgent._on_response_done,
    "response.output_item.done": RealtimeAgent._on_output_item_done,
    "response.output_audio.done": RealtimeAgent._on_audio_done,
    "response.output_audio_transcript.done": lambda agent, event, now: agent._words.agent_text(event, now),
    "response.mcp_call.completed": lambda agent, _, now: agent._go_on_unless_server_does(now),
    "response.mcp_call.failed": lambda agent, _, now: agent._go_on_unless_server_does(now),
}
_EXPIRED: Mapping[str, Callable[[RealtimeAgent, float], None]] = {
    "establish": RealtimeAgent._on_establish_late,
    "answer": lambda agent, now: agent._on_no_progress("answer", patience.ANSWER_S, now),
    "progress": lambda agent, now: agent._on_no_progress("progress", patience.PROGRESS_S, now),
    "ask": lambda agent, now: None,  # looked at when everything settles, as what is held
    "held": lambda agent, now: None,
    "digits": RealtimeAgent._end_digits,
    "farewell": RealtimeAgent._over,
    "linger": RealtimeAgent._over,
    "roll-over": RealtimeAgent._on_roll_over,
    "last roll-over": RealtimeAgent._on_last_roll_over,
    "silence": RealtimeAgent._on_silence,
    "last words": RealtimeAgent._end,
    "closing note": RealtimeAgent._on_closing_note,
}
