"""The server's side of one Realtime session, as a machine: client frames and finished jobs go in, frames and jobs come out.

Recognition and synthesis are jobs outside: `Recognize` and `Synthesize` name them, `recognized` and `synthesized` bring what came
of them. Only one response is active at a time. Where OpenAI's server would refuse a turn's response because another is active
(`interrupt_response: false`), this one makes it when that other is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from switchhook.agents.brain import Brain, BrainRefused
from switchhook.agents.providers.grammar import Grammar
from switchhook.agents.providers.vad import SpeechTest, Turn, TurnKind
from switchhook.agents.realtime.endpoint.configuration import SessionConfig, updated
from switchhook.agents.realtime.endpoint.conversation import Conversation, Item, read_audio, read_item
from switchhook.agents.realtime.endpoint.hearing import SAMPLES_PER_MS, InputBuffer
from switchhook.agents.realtime.endpoint.reply import Phase, Reply, ReplyOptions, options_of, read_options
from switchhook.agents.realtime.endpoint.wire import ClientError, Ids, Json, Sender, a_mapping, a_text, an_integer, parse
from switchhook.domain.model import Encoding
from switchhook.media.transcode import transcoder

SESSION_S = 3600.0
"""OpenAI's limit; the session ends with the error `session_expired`."""
UNCLEAR = "[unclear]"
"""The transcript of speech that was not understood."""
_LEAST_COMMIT_MS = 100
_MOST_APPEND_BYTES = 15 * 1024 * 1024
_GOING_AWAY = 1001
_ITEM_INDEX = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text frame."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Recognize:
    """Understand an utterance; `recognized` must follow."""

    job: str
    sound: bytes = field(repr=False)
    encoding: Encoding
    """PCMU or PCMA."""
    grammar: Grammar | None


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Speak a text; `synthesized` must follow."""

    job: str
    text: str
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection."""

    code: int
    reason: str


Effect: TypeAlias = Send | Recognize | Synthesize | Close


@dataclass(slots=True)
class _Hearing:
    """A recognition under way."""

    item: Item | None = None
    """None while it was begun early, in a pause that may not end the turn."""
    text: str | None = None
    failed: bool = False


class RealtimeServerSession:
    """One session. Methods take `now` (monotonic seconds); `take` gives effects, `deadline` the one timer."""

    def __init__(self, brain: Brain, model: str, ids: Ids, now: float, is_speech: SpeechTest | None = None) -> None:
        self._brain = brain
        self._model = model
        self._is_speech = is_speech
        self._effects: list[Effect] = []
        self._sender = Sender(ids, lambda frame: self._effects.append(Send(frame)))
        self._id = ids("sess")
        self._conversation_id = ids("conv")
        self._config = SessionConfig()
        self._conversation = Conversation()
        self._buffer = self._new_buffer(0)
        self._expires_at = now + SESSION_S
        self._turn_item_id = ""
        self._hearings: dict[str, _Hearing] = {}
        self._early: str | None = None
        """The job of the recognition that a pause began."""
        self._reply: Reply | None = None
        self._speaking_job = ""
        self._turn_waits = False
        """A turn ended while a response that may not be interrupted was active."""
        self._idle_from: float | None = None
        """When the last response's sound will have been heard."""
        self._idle_position = 0
        self._closed = False
        brain.configure("", ())
        self._sender.event("session.created", session=self._view())

    # -- the machine -------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        if self._closed:
            return None
        dues = [self._expires_at]
        if self._reply is not None and self._reply.deadline is not None:
            dues.append(self._reply.deadline)
        if (idle_at := self._idle_at()) is not None:
            dues.append(idle_at)
        return min(dues)

    def take(self) -> list[Effect]:
        """Effects so far, in order."""
        effects, self._effects = self._effects, []
        return effects

    def tick(self, now: float) -> None:
        """A deadline passed."""
        if self._closed:
            return
        if now >= self._expires_at:
            self._expire()
            return
        if self._reply is not None:
            self._reply.tick(now)
            self._after_reply(now)
        idle_at = self._idle_at()
        if idle_at is not None and now >= idle_at:
            self._time_out(now)

    def receive(self, frame: bytes, now: float) -> None:
        """One text frame of the client. Whatever it holds, it is handled or answered with an `error` event."""
        if self._closed:
            return
        event_id: str | None = None
        try:
            event = parse(frame)
            given_id = event.get("event_id")
            event_id = given_id[:512] if isinstance(given_id, str) else None
            handler = _HANDLERS.get(a_text(event.get("type"), "type"))
            if handler is None:
                raise ClientError(f"Invalid value: '{event['type'][:100]}'. Supported values are: {_SUPPORTED}.", "type")
            handler(self, event, now)
        except ClientError as error:
            self._sender.error(error, event_id)

    def refuse_frame(self) -> None:
        """A frame came that is no text."""
        self._sender.error(ClientError("Client events are text frames.", code="invalid_json"), None)

    def recognized(self, job: str, text: str, now: float, failed: bool = False) -> None:
        """What a recognition gave; an empty text was not understood."""
        hearing = self._hearings.get(job)
        if hearing is None or self._closed:
            return
        hearing.text, hearing.failed = text, failed
        if hearing.item is not None:
            self._understood(job, now)

    def synthesized(self, job: str, sound: bytes | None, now: float) -> None:
        """The sound of a text, or None when it cannot be spoken."""
        reply = self._reply
        if self._closed or reply is None or job != self._speaking_job or reply.phase is not Phase.SYNTHESIZING:
            return
        if sound is None:
            reply.fail("The local voice cannot speak this text.")
        else:
            reply.speak(sound, now)
        self._after_reply(now)

    # -- session -----------------------------------------------------------------------------------

    def _view(self) -> Json:
        return {"type": "realtime", "object": "realtime.session", "id": self._id, "model": self._model, **self._config.view()}

    def _update_session(self, event: Json, now: float) -> None:
        before = self._config
        config = updated(before, event.get("session"))
        try:
            self._brain.configure(config.instructions, config.functions())
        except BrainRefused as error:
            raise ClientError(str(error), "session.instructions") from error
        self._config = config
        if config.input_encoding is not before.input_encoding:
            self._early = None
            self._buffer = self._new_buffer(self._buffer.position)
        elif config.turn_detection != before.turn_detection:
            self._early = None
            self._buffer.set_turn_detection(config.turn_detection.vad if config.turn_detection else None)
        self._sender.event("session.updated", session=self._view())

    def _new_buffer(self, position: int) -> InputBuffer:
        turns = self._config.turn_detection
        return InputBuffer(self._config.input_encoding, turns.vad if turns else None, self._is_speech, position)

    def _expire(self) -> None:
        message = "Your session hit the maximum duration of 60 minutes."
        self._sender.error(ClientError(message, code="session_expired"), None)
        self._effects.append(Close(_GOING_AWAY, message))
        self._closed = True

    # -- the caller's sound ------------------------------------------------------------------------

    def _append(self, event: Json, now: float) -> None:
        encoded = a_text(event.get("audio"), "audio")
        if len(encoded) > _MOST_APPEND_BYTES:
            raise ClientError("Invalid value for 'audio': more than 15 MiB.", "audio")
        for turn in self._buffer.append(read_audio(encoded, "audio")):
            self._turned(turn, now)

    def _turned(self, turn: Turn, now: float) -> None:
        match turn.kind:
            case TurnKind.STARTED:
                self._speech_started(turn, now)
            case TurnKind.PAUSED:
                self._early = self._recognize(self._buffer.turn_sound(turn))
            case TurnKind.RESUMED:
                self._forget_early()
            case TurnKind.STOPPED:
                self._speech_stopped(turn, now)

    def _speech_started(self, turn: Turn, now: float) -> None:
        turns = self._config.turn_detection
        self._turn_item_id = self._sender.ids("item")
        self._idle_from = None
        start_ms = turn.start // SAMPLES_PER_MS
        self._sender.event("input_audio_buffer.speech_started", item_id=self._turn_item_id, audio_start_ms=start_ms)
        reply = self._reply
        if turns is not None and turns.interrupt_response and reply is not None and reply.options.in_conversation:
            self._turn_waits = False
            reply.cancel("turn_detected")
            self._after_reply(now)

    def _speech_stopped(self, turn: Turn, now: float) -> None:
        end_ms = turn.end // SAMPLES_PER_MS
        self._sender.event("input_audio_buffer.speech_stopped", item_id=self._turn_item_id, audio_end_ms=end_ms)
        sound = self._buffer.turn_sound(turn)
        self._buffer.close_turn(turn)
        job = self._early or self._recognize(sound)
        self._early = None
        self._commit_item(self._turn_item_id, len(sound), job, now)
        turns = self._config.turn_detection
        if turns is not None and turns.create_response:
            self._respond_to_turn(now)

    def _recognize(self, sound: bytes) -> str:
        job = self._sender.ids("job")
        self._hearings[job] = _Hearing()
        self._effects.append(Recognize(job, sound, self._buffer.encoding, self._brain.grammar))
        return job

    def _forget_early(self) -> None:
        if self._early is not None:
            self._hearings.pop(self._early, None)
            self._early = None

    def _commit_item(self, item_id: str, samples: int, job: str | None, now: float) -> None:
        """A user item of sound joins the conversation; its words follow when `job` is done."""
        content = [{"type": "input_audio", "transcript": None}]
        shown: Json = {"id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user"}
        item = Item({**shown, "content": content}, audio_ms=samples // SAMPLES_PER_MS)
        previous = self._conversation.add(item)
        self._sender.event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        self._show_item(item, previous)
        if job is not None:
            self._hearings[job].item = item
            if self._hearings[job].text is not None:
                self._understood(job, now)

    def _understood(self, job: str, now: float) -> None:
        """The words of a user item are known: tell the client and the brain, and let a waiting response go on."""
        hearing = self._hearings.pop(job)
        item = hearing.item
        assert item is not None and hearing.text is not None
        self._brain.heard(hearing.text)
        if self._config.transcription is not None:
            self._transcribe(item, hearing)
        self._decide(now)

    def _transcribe(self, item: Item, hearing: _Hearing) -> None:
        where = {"item_id": item.id, "content_index": _ITEM_INDEX}
        kind = "conversation.item.input_audio_transcription"
        if hearing.failed:
            error = {"type": "server_error", "code": "transcription_failed", "message": "The recogniser failed."}
            self._sender.event(f"{kind}.failed", **where, error=error)
            return
        transcript = hearing.text or UNCLEAR
        item.shown["content"][_ITEM_INDEX]["transcript"] = transcript
        self._sender.event(f"{kind}.delta", **where, delta=transcript)
        usage = {"type": "duration", "seconds": item.audio_ms / 1000}
        self._sender.event(f"{kind}.completed", **where, transcript=transcript, usage=usage)

    def _commit(self, event: Json, now: float) -> None:
        held_ms = self._buffer.uncommitted // SAMPLES_PER_MS
        if held_ms < _LEAST_COMMIT_MS:
            raise ClientError(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {held_ms}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._forget_early()
        sound = self._buffer.commit()
        self._commit_item(self._sender.ids("item"), len(sound), self._recognize(sound), now)

    def _clear(self, event: Json, now: float) -> None:
        self._forget_early()
        self._buffer.clear()
        self._sender.event("input_audio_buffer.cleared")

    def _idle_at(self) -> float | None:
        turns = self._config.turn_detection
        if turns is None or turns.idle_timeout_ms is None or self._idle_from is None:
            return None
        return self._idle_from + turns.idle_timeout_ms / 1000

    def _time_out(self, now: float) -> None:
        """The caller has said nothing for the idle time after the agent's sound was heard."""
        self._idle_from = None
        item_id = self._sender.ids("item")
        end = self._buffer.position
        start = min(self._idle_position, end)
        span = {"audio_start_ms": start // SAMPLES_PER_MS, "audio_end_ms": end // SAMPLES_PER_MS}
        self._sender.event("input_audio_buffer.timeout_triggered", item_id=item_id, **span)
        self._commit_item(item_id, end - start, None, now)
        self._brain.silent()
        self._respond_to_turn(now)

    # -- items -------------------------------------------------------------------------------------

    def _create_item(self, event: Json, now: float) -> None:
        item = read_item(a_mapping(event.get("item"), "item"), self._sender.ids("item"))
        after = event.get("previous_item_id")
        answered = self._conversation.tool_name(item.shown["call_id"]) if item.shown["type"] == "function_call_output" else None
        previous = self._conversation.add(item, None if after is None else a_text(after, "previous_item_id"))
        self._show_item(item, previous)
        if answered is not None:
            self._brain.tool_returned(answered, item.shown["output"])
        elif item.role == "user":
            self._hear_item(item)

    def _hear_item(self, item: Item) -> None:
        for part in item.shown["content"]:
            if part["type"] == "input_text":
                self._brain.typed(part["text"])
        if item.sound:
            transcode = transcoder(self._config.input_encoding, self._buffer.encoding)
            sound = transcode(item.sound) if transcode else item.sound
            item.audio_ms = len(sound) // SAMPLES_PER_MS
            self._hearings[self._recognize(sound)].item = item
            item.sound = None

    def _show_item(self, item: Item, previous: str | None) -> None:
        self._sender.event("conversation.item.added", previous_item_id=previous, item=item.shown)
        self._sender.event("conversation.item.done", previous_item_id=previous, item=item.shown)

    def _retrieve_item(self, event: Json, now: float) -> None:
        item = self._conversation.get(a_text(event.get("item_id"), "item_id"))
        self._sender.event("conversation.item.retrieved", item=item.shown)

    def _delete_item(self, event: Json, now: float) -> None:
        item_id = a_text(event.get("item_id"), "item_id")
        self._conversation.remove(item_id)
        self._sender.event("conversation.item.deleted", item_id=item_id)

    def _truncate_item(self, event: Json, now: float) -> None:
        item = self._conversation.get(a_text(event.get("item_id"), "item_id"))
        index = an_integer(event.get("content_index", 0), "content_index", 0, 1_000_000)
        end_ms = an_integer(event.get("audio_end_ms"), "audio_end_ms", 0, 100_000_000)
        if item.role != "assistant" or not item.shown["content"]:
            raise ClientError("Only the agent's messages can be truncated.", "item_id")
        if index != _ITEM_INDEX or item.shown["content"][_ITEM_INDEX]["type"] != "output_audio":
            raise ClientError(f"Content {index} of item '{item.id}' is not audio.", "content_index")
        if end_ms > item.audio_ms:
            raise ClientError(f"Audio content of {item.audio_ms}ms is already shorter than {end_ms}ms", "audio_end_ms")
        item.audio_ms = end_ms
        if item.shown["status"] != "in_progress":
            item.shown["content"][_ITEM_INDEX]["transcript"] = ""
        self._sender.event("conversation.item.truncated", item_id=item.id, content_index=index, audio_end_ms=end_ms)

    # -- responses ---------------------------------------------------------------------------------

    def _create_response(self, event: Json, now: float) -> None:
        options = read_options(self._config, event.get("response"))
        if self._reply is not None:
            raise ClientError(
                f"Conversation already has an active response in progress: {self._reply.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        self._begin_reply(options, now)

    def _cancel_response(self, event: Json, now: float) -> None:
        wanted = event.get("response_id")
        if self._reply is None or wanted not in (None, self._reply.id):
            raise ClientError("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._reply.cancel("client_cancelled")
        self._after_reply(now)

    def _respond_to_turn(self, now: float) -> None:
        if self._reply is not None:
            self._turn_waits = True
        else:
            self._begin_reply(options_of(self._config), now)

    def _begin_reply(self, options: ReplyOptions, now: float) -> None:
        self._idle_from = None
        self._reply = Reply(options, self._sender, self._conversation, self._conversation_id)
        self._reply.instructions = self._config.instructions
        self._decide(now)

    def _decide(self, now: float) -> None:
        """Ask the brain, once every word of the caller that belongs to the conversation is understood."""
        reply = self._reply
        if reply is None or reply.phase is not Phase.LISTENING or any(h.item is not None for h in self._hearings.values()):
            return
        said = reply.act(self._brain.respond(reply.options.instructions, reply.options.tools_allowed), now)
        if said is not None:
            self._speaking_job = self._sender.ids("job")
            self._effects.append(Synthesize(self._speaking_job, said.spoken, reply.options.encoding))
        self._after_reply(now)

    def _after_reply(self, now: float) -> None:
        """When the active response is over, note when it will have been heard, and answer a turn that had to wait."""
        reply = self._reply
        if reply is None or reply.active:
            return
        self._reply = None
        heard_at = now if reply.began_at is None else max(now, reply.began_at + reply.audio_ms / 1000)
        if not self._buffer.speaking:
            self._idle_from = heard_at
            self._idle_position = self._buffer.position + round((heard_at - now) * 1000) * SAMPLES_PER_MS
        if self._turn_waits:
            self._turn_waits = False
            self._begin_reply(options_of(self._config), now)

    def _ignore(self, event: Json, now: float) -> None:
        """Events of other transports, such as `output_audio_buffer.clear` of WebRTC, mean nothing here."""


_Handler: TypeAlias = Callable[[RealtimeServerSession, Json, float], None]
_HANDLERS: dict[str, _Handler] = {
    "session.update": RealtimeServerSession._update_session,
    "input_audio_buffer.append": RealtimeServerSession._append,
    "input_audio_buffer.commit": RealtimeServerSession._commit,
    "input_audio_buffer.clear": RealtimeServerSession._clear,
    "conversation.item.create": RealtimeServerSession._create_item,
    "conversation.item.retrieve": RealtimeServerSession._retrieve_item,
    "conversation.item.delete": RealtimeServerSession._delete_item,
    "conversation.item.truncate": RealtimeServerSession._truncate_item,
    "response.create": RealtimeServerSession._create_response,
    "response.cancel": RealtimeServerSession._cancel_response,
    "output_audio_buffer.clear": RealtimeServerSession._ignore,
}
_SUPPORTED = ", ".join(f"'{name}'" for name in _HANDLERS)
