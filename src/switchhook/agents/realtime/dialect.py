"""The wire of the OpenAI Realtime protocol: reading events leniently, writing ours exactly; beta spellings are folded into GA's.

Sound takes a short way: `read_sound` decodes an audio delta, base64 included, and looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from switchhook.domain.model import Encoding

Event = dict[str, Any]

APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_TAIL = b'"}'
"""What surrounds the base64 text of one piece of the caller's sound."""


class SoundDelta(msgspec.Struct, tag_field="type", tag="response.output_audio.delta", gc=False):
    """A piece of the model's sound; `delta` is already decoded."""

    delta: bytes
    item_id: str = ""
    content_index: int = 0
    response_id: str | None = None


class BetaSoundDelta(SoundDelta, tag="response.audio.delta", gc=False):
    """The same under its beta name."""


Unreadable = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding a frame may raise."""

read_sound = msgspec.json.Decoder(SoundDelta | BetaSoundDelta).decode
"""Decode an audio delta; raises one of `Unreadable` for anything else."""

_read_json = msgspec.json.Decoder().decode

_GA_NAMES = {
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "conversation.item.created": "conversation.item.added",
}


def read_event(data: bytes) -> Event | None:
    """Return the event with its GA name, or None for what is no event."""
    try:
        event = _read_json(data)
    except Unreadable:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    event["type"] = _GA_NAMES.get(event["type"], event["type"])
    return event


def text_of(event: Mapping[str, Any], name: str) -> str:
    """Return a field that should be text; empty when it is not."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def map_of(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a field that should be an object; empty when it is not."""
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def list_of(event: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the objects of a field that should be a list of them."""
    value = event.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def count_of(event: Mapping[str, Any], name: str) -> int:
    """Return a field that should be a count; 0 when it is not."""
    value = event.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def part_key(item_id: str, content_index: int) -> str:
    """Name one part of an item: the key of its sound in the playout and of its line in the transcript."""
    return item_id if content_index == 0 else f"{item_id}#{content_index}"


def part_of(event: Event) -> str:
    """Name the part that an event speaks of."""
    return part_key(text_of(event, "item_id"), count_of(event, "content_index"))


# -- the session --------------------------------------------------------------------------------------------------------------

_BETA_FORMATS = {"g711_ulaw": Encoding.PCMU, "g711_alaw": Encoding.PCMA, "pcm16": Encoding.PCM24}


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What a `session.update` asks for, as far as the client must know it."""

    hears: Encoding = Encoding.PCM24
    """What the model wants to be sent."""
    speaks: Encoding = Encoding.PCM24
    """What the model sends."""
    beta: bool = False
    """The session is written in the flat beta form."""
    detects_turns: bool = True
    creates_responses: bool = True
    """The server answers by itself when the caller stops to speak."""

    @classmethod
    def read(cls, session_update: bytes) -> SessionTerms:
        """Read a `session.update` event. What is missing has OpenAI's default; a format that is missing is 24 kHz PCM."""
        session = map_of(read_event(session_update) or {}, "session")
        hears, speaks = formats(session)
        heard = map_of(map_of(session, "audio"), "input")
        detection = heard["turn_detection"] if "turn_detection" in heard else session.get("turn_detection", {})
        detects = isinstance(detection, dict)
        return cls(
            hears=hears or Encoding.PCM24,
            speaks=speaks or Encoding.PCM24,
            beta="type" not in session and "audio" not in session,
            detects_turns=detects,
            creates_responses=detects and detection.get("create_response") is not False,
        )


def formats(session: Mapping[str, Any]) -> tuple[Encoding | None, Encoding | None]:
    """Return what a session object says of the model's input and output format; None where it names none that is known."""
    audio = map_of(session, "audio")
    return (
        _format(map_of(audio, "input").get("format", session.get("input_audio_format"))),
        _format(map_of(audio, "output").get("format", session.get("output_audio_format"))),
    )


def _format(value: object) -> Encoding | None:
    if isinstance(value, str):
        return _BETA_FORMATS.get(value) or _named(value)
    if isinstance(value, dict):
        known = _named(value.get("type"))
        if known is None or value.get("rate", known.rate_hz) in (known.rate_hz, None):
            return known
    return None


def _named(value: object) -> Encoding | None:
    return next((encoding for encoding in Encoding if encoding.value == value), None)


# -- events of ours -----------------------------------------------------------------------------------------------------------


def compose(event: Event) -> bytes:
    """Write an event as one frame. Text with half a surrogate pair, which UTF-8 cannot carry, loses that half."""
    try:
        return msgspec.json.encode(event)
    except UnicodeEncodeError:
        return msgspec.json.encode(_writable(event))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_writable(name): _writable(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_writable(entry) for entry in value]
    return value


def message(role: str, text: str, beta: bool = False) -> bytes:
    """A text message of `user`, `assistant` or `system`."""
    part = "input_text" if role != "assistant" else "text" if beta else "output_text"
    return _item({"type": "message", "role": role, "content": [{"type": part, "text": text}]})


def function_output(call_id: str, output: str) -> bytes:
    """What a tool gave back."""
    return _item({"type": "function_call_output", "call_id": call_id, "output": output})


def mcp_denial(item_id: str, request_id: str) -> bytes:
    """Refuse a call of an MCP tool that wants approval."""
    return _item({"type": "mcp_approval_response", "id": item_id, "approval_request_id": request_id, "approve": False})


def truncate(item_id: str, content_index: int, audio_end_ms: int) -> bytes:
    """Tell how much of an item's sound was heard."""
    return compose(
        {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": audio_end_ms,
        }
    )


def response_create(event_id: str, options: Mapping[str, Any] | None = None) -> bytes:
    """Ask for a response; the server repeats `event_id` when it refuses."""
    event: Event = {"type": "response.create", "event_id": event_id}
    if options:
        event["response"] = dict(options)
    return compose(event)


def response_cancel(response_id: str) -> bytes:
    """Stop a response."""
    return compose({"type": "response.cancel"} | ({"response_id": response_id} if response_id else {}))


def _item(item: Event) -> bytes:
    return compose({"type": "conversation.item.create", "item": item})
