"""One response on its way out: its events in GA's order, its sound in bursts faster than it is heard."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from switchhook.agents.brain import Action, CallTool, Say
from switchhook.agents.realtime.endpoint.configuration import (
    SessionConfig,
    format_view,
    functions,
    read_format,
    read_tool_choice,
    read_tools,
    text_only,
)
from switchhook.agents.realtime.endpoint.conversation import Conversation, Item
from switchhook.agents.realtime.endpoint.wire import ClientError, Json, Sender, a_list, a_mapping, a_text, only
from switchhook.domain.model import Encoding

FIRST_BURST_MS = 400
"""Sent at once, so that playing can begin."""
CHUNK_MS = 200
CHUNK_EVERY_S = 0.025
"""Eight times as fast as it is heard: an interruption soon after the start still finds a response to cancel."""
_OPTION_KEYS = frozenset(
    {
        *("instructions", "tools", "tool_choice", "conversation", "output_modalities", "modalities", "audio", "metadata"),
        *("max_output_tokens", "max_response_output_tokens", "input", "parallel_tool_calls", "reasoning", "prompt", "voice"),
        *("output_audio_format", "temperature"),
    }
)
MAX_INPUT_ITEMS = 1_000
"""Of `response.input`, which is accepted and has no effect on the answer."""


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one response differs from the session."""

    instructions: str | None = None
    """Of this response alone."""
    tools_allowed: bool = True
    text_only: bool = False
    encoding: Encoding = Encoding.PCM24
    in_conversation: bool = True
    metadata: Any = None
    voice: Any = "local"
    max_output_tokens: Any = "inf"


def options_of(config: SessionConfig) -> ReplyOptions:
    """The options of a response that says nothing of its own."""
    return ReplyOptions(
        tools_allowed=bool(config.functions()) and config.tool_choice != "none",
        text_only=config.text_only,
        encoding=config.output_encoding,
        voice=config.output_shown.get("voice", "local"),
        max_output_tokens=config.shown.get("max_output_tokens", "inf"),
    )


def read_options(config: SessionConfig, given: Any) -> ReplyOptions:
    """Read the `response` of a `response.create`. Raises ClientError."""
    options = options_of(config)
    data = a_mapping(given if given is not None else {}, "response")
    only(data, _OPTION_KEYS, "response.")
    if data.get("instructions") is not None:
        options = replace(options, instructions=a_text(data["instructions"], "response.instructions"))
    if "tools" in data or "tool_choice" in data:
        tools = read_tools(data["tools"], "response.tools") if "tools" in data else config.tools
        choice = read_tool_choice(data.get("tool_choice", config.tool_choice), "response.tool_choice")
        options = replace(options, tools_allowed=bool(functions(tools)) and choice != "none")
    modalities = data.get("output_modalities", data.get("modalities"))
    if modalities is not None:
        options = replace(options, text_only=text_only(modalities, "response.output_modalities"))
    if data.get("conversation") not in (None, "auto", "none"):
        raise ClientError("Invalid value for 'response.conversation': expected auto or none.", "response.conversation")
    _check_input(data.get("input"))
    output = a_mapping(a_mapping(data.get("audio") or {}, "response.audio").get("output") or {}, "response.audio.output")
    if output.get("format") is not None:
        options = replace(options, encoding=read_format(output["format"], "response.audio.output.format"))
    return replace(
        options,
        in_conversation=data.get("conversation") != "none",
        metadata=data.get("metadata"),
        voice=output.get("voice", options.voice),
        max_output_tokens=data.get("max_output_tokens", options.max_output_tokens),
    )


def _check_input(given: Any) -> None:
    if given is not None and len(a_list(given, "response.input")) > MAX_INPUT_ITEMS:
        raise ClientError(
            "Invalid 'response.input': array too long. "
            f"Expected an array with maximum length {MAX_INPUT_ITEMS}, but got an array with length {len(given)} instead.",
            "response.input",
            "array_above_max_length",
        )


class Phase(Enum):
    """Where a response is."""

    LISTENING = "listening"
    """The caller's words are not understood yet."""
    SYNTHESIZING = "synthesizing"
    STREAMING = "streaming"
    OVER = "over"


@dataclass(slots=True)
class _Speech:
    """The message of a response while it goes out."""

    item: Item
    output_index: int
    text: str
    sound: bytes
    sent: int = 0
    """Bytes of sound given out."""
    told: int = 0
    """Characters of the transcript given out."""


class Reply:
    """A response from `response.created` to `response.done`."""

    def __init__(self, options: ReplyOptions, sender: Sender, conversation: Conversation, conversation_id: str) -> None:
        self.id = sender.ids("resp")
        self.options = options
        self.phase = Phase.LISTENING
        self.deadline: float | None = None
        self.instructions = ""
        """The session's, for the estimate of tokens."""
        self.audio_ms = 0
        self.began_at: float | None = None
        """When the first sound went out."""
        self.text = ""
        self._sender = sender
        self._conversation = conversation
        self._conversation_id = conversation_id if options.in_conversation else None
        self._output: list[Json] = []
        self._previous: dict[str, str | None] = {}
        """Item of this response → the item before it in the conversation."""
        self._speech: _Speech | None = None
        sender.event("response.created", response=self._view("in_progress", None))

    @property
    def active(self) -> bool:
        """False after response.done."""
        return self.phase is not Phase.OVER

    def act(self, actions: list[Action], now: float) -> Say | None:
        """Send the function calls and a text-only message; gives what a voice must speak first, if anything."""
        for call in (action for action in actions if isinstance(action, CallTool)):
            self._call(call)
        said = next((action for action in actions if isinstance(action, Say)), None)
        if said is not None and not self.options.text_only:
            self.text = said.text
            self.phase = Phase.SYNTHESIZING
            return said
        if said is not None:
            self._write(said.text)
        self._finish("completed", {"type": "completed"})
        return None

    def speak(self, sound: bytes, now: float) -> None:
        """The sound of the message has been made: send it."""
        self.phase = Phase.STREAMING
        item = self._open_message({"type": "output_audio", "transcript": ""}, {"type": "audio", "transcript": ""})
        self._speech = _Speech(item, len(self._output) - 1, self.text, sound)
        self.began_at = now
        self._send_sound(FIRST_BURST_MS)
        self._go_on(now)

    def tick(self, now: float) -> None:
        """Send the next chunk when it is due."""
        if self.deadline is not None and now >= self.deadline:
            self._send_sound(CHUNK_MS)
            self._go_on(now)

    def cancel(self, reason: str) -> None:
        """Stop: `turn_detected` or `client_cancelled`."""
        self._close_message("incomplete")
        self._finish("cancelled", {"type": "cancelled", "reason": reason})

    def fail(self, message: str) -> None:
        """The message cannot be spoken."""
        error = {"type": "server_error", "code": "voice_unavailable", "message": message}
        self._finish("failed", {"type": "failed", "error": error})

    def _go_on(self, now: float) -> None:
        assert self._speech is not None
        if self._speech.sent < len(self._speech.sound):
            self.deadline = now + CHUNK_EVERY_S
            return
        self._close_message("completed")
        self._finish("completed", {"type": "completed"})

    def _send_sound(self, duration_ms: int) -> None:
        speech = self._speech
        assert speech is not None
        chunk = speech.sound[speech.sent : speech.sent + duration_ms * self.options.encoding.bytes_per_ms]
        speech.sent += len(chunk)
        self.audio_ms = speech.item.audio_ms = speech.sent // self.options.encoding.bytes_per_ms
        where = self._where(speech.item, speech.output_index)
        if words := _words_up_to(speech):
            speech.told += len(words)
            self._sender.event("response.output_audio_transcript.delta", **where, delta=words)
        if chunk:
            self._sender.event("response.output_audio.delta", **where, delta=base64.b64encode(chunk).decode())

    def _close_message(self, status: str) -> None:
        speech, self._speech = self._speech, None
        if speech is None:
            return
        told = speech.text[: speech.told] if status == "incomplete" else speech.text
        speech.item.shown["status"] = status
        speech.item.shown["content"][0]["transcript"] = told
        where = self._where(speech.item, speech.output_index)
        self._sender.event("response.output_audio.done", **where)
        self._sender.event("response.output_audio_transcript.done", **where, transcript=told)
        self._sender.event("response.content_part.done", **where, part={"type": "audio", "transcript": told})
        self._item_done(speech.item, speech.output_index)

    def _write(self, text: str) -> None:
        """A message without sound."""
        self.text = text
        item = self._open_message({"type": "output_text", "text": ""}, {"type": "text", "text": ""})
        where = self._where(item, len(self._output) - 1)
        self._sender.event("response.output_text.delta", **where, delta=text)
        item.shown["content"][0]["text"] = text
        item.shown["status"] = "completed"
        self._sender.event("response.output_text.done", **where, text=text)
        self._sender.event("response.content_part.done", **where, part={"type": "text", "text": text})
        self._item_done(item, len(self._output) - 1)

    def _open_message(self, content: Json, part: Json) -> Item:
        item = self._open_item({"type": "message", "role": "assistant", "content": []})
        self._sender.event("response.content_part.added", **self._where(item, len(self._output) - 1), part=part)
        item.shown["content"].append(content)
        return item

    def _call(self, call: CallTool) -> None:
        fields = {"call_id": self._sender.ids("call"), "name": call.name}
        item = self._open_item({"type": "function_call", **fields, "arguments": ""})
        index = len(self._output) - 1
        where = {"response_id": self.id, "item_id": item.id, "output_index": index, "call_id": fields["call_id"]}
        self._sender.event("response.function_call_arguments.delta", **where, delta=call.arguments)
        self._sender.event("response.function_call_arguments.done", **where, name=call.name, arguments=call.arguments)
        item.shown |= {"arguments": call.arguments, "status": "completed"}
        self._item_done(item, index)

    def _open_item(self, fields: Json) -> Item:
        shown = {"id": self._sender.ids("item"), "object": "realtime.item", "status": "in_progress", **fields}
        item = Item(shown)
        self._sender.event("response.output_item.added", response_id=self.id, output_index=len(self._output), item=shown)
        self._output.append(shown)
        if self.options.in_conversation:
            previous = self._previous[item.id] = self._conversation.add(item)
            self._sender.event("conversation.item.added", previous_item_id=previous, item=shown)
        return item

    def _item_done(self, item: Item, index: int) -> None:
        if self.options.in_conversation:
            self._sender.event("conversation.item.done", item=item.shown, previous_item_id=self._previous[item.id])
        self._sender.event("response.output_item.done", response_id=self.id, output_index=index, item=item.shown)

    def _finish(self, status: str, details: Json) -> None:
        self.phase = Phase.OVER
        self.deadline = None
        self._sender.event("response.done", response=self._view(status, details))

    def _where(self, item: Item, output_index: int) -> Json:
        return {"response_id": self.id, "item_id": item.id, "output_index": output_index, "content_index": 0}

    def _view(self, status: str, details: Json | None) -> Json:
        options = self.options
        usage = None
        if details is not None:
            usage = self._conversation.usage(options.instructions or self.instructions, self._said(), self.audio_ms)
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details if status != "completed" else None,
            "output": list(self._output),
            "conversation_id": self._conversation_id,
            "output_modalities": ["text"] if options.text_only else ["audio"],
            "max_output_tokens": options.max_output_tokens,
            "audio": {"output": {"format": format_view(options.encoding), "voice": options.voice}},
            "metadata": options.metadata,
            "usage": usage,
        }

    def _said(self) -> str:
        return " ".join(text for shown in self._output for text in Item(shown).texts() if text)


def _words_up_to(speech: _Speech) -> str:
    """The next words of the transcript, in step with the share of the sound that has gone out."""
    if speech.sent >= len(speech.sound):
        return speech.text[speech.told :]
    share = len(speech.text) * speech.sent // len(speech.sound)
    end = speech.text.rfind(" ", 0, share + 1) + 1
    return speech.text[speech.told : end] if end > speech.told else ""
