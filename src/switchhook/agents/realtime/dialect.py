"""The OpenAI Realtime protocol as text: names old and new, formats, and the client events that we send.

GA names are ours; the retired beta names are understood, because a model's address may be anybody's server
(reference: ai-engines.md §5.6, vns-veevo.md §3.2).
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from switchhook.domain.model import Encoding

Event: TypeAlias = dict[str, Any]

BETA_NAMES = {
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "conversation.item.created": "conversation.item.added",
}
SOUND_NAMES = ("response.output_audio.delta", "response.audio.delta")
_FORMATS = {
    "audio/pcmu": Encoding.PCMU,
    "audio/pcma": Encoding.PCMA,
    "audio/pcm": Encoding.PCM24,
    "g711_ulaw": Encoding.PCMU,
    "g711_alaw": Encoding.PCMA,
    "pcm16": Encoding.PCM24,
}
APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_TAIL = b'"}'

NOTHING_TO_COMMIT = "input_audio_buffer_commit_empty"
NOTHING_TO_CANCEL = "response_cancel_not_active"
"""The error of a cancellation that crossed the end of its response: nothing is wrong."""
NOBODY_ASKS = (
    "AI Session: turn_detection is off or create_response is false: the AI answers keys and tools, but not the caller's words"
)


class Head(msgspec.Struct):
    """What is read of every frame first."""

    type: str = ""


class AudioDelta(msgspec.Struct, tag_field="type", tag="response.output_audio.delta", gc=False):
    """A piece of the agent's sound; base64 is undone in decoding."""

    delta: bytes
    response_id: str | None = ""
    item_id: str = ""
    content_index: int = 0


class BetaAudioDelta(AudioDelta, tag="response.audio.delta", gc=False):
    """The same under its beta name."""


class Words(msgspec.Struct, tag_field="type", tag="response.output_audio_transcript.delta", gc=False):
    """A piece of the agent's text."""

    delta: str
    response_id: str | None = ""
    item_id: str = ""


class BetaWords(Words, tag="response.audio_transcript.delta", gc=False):
    """The same under its beta name."""


UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What reading a frame may raise."""

read_delta = msgspec.json.Decoder(AudioDelta | BetaAudioDelta | Words | BetaWords).decode
"""Read a piece of sound or text, the most frequent frames; any other raises `UNREADABLE`."""
read_head = msgspec.json.Decoder(Head).decode
read_event = msgspec.json.Decoder(dict[str, Any]).decode
encode = msgspec.json.Encoder().encode


def encoding_of(value: object) -> Encoding | None:
    """The encoding that a session's format names, GA (`{"type": "audio/pcmu"}`) or beta (`"g711_ulaw"`); None: unknown."""
    if isinstance(value, Mapping):
        if value.get("type") == "audio/pcm" and value.get("rate", 24_000) != 24_000:
            return None
        value = value.get("type")
    return _FORMATS.get(value) if isinstance(value, str) else None


def retired(item_id: str) -> str:
    """What an item of a session that is gone is known by from then on: servers that count may name another so in the next."""
    return f"{item_id}'"


def text_of(event: object, name: str) -> str:
    """A field that should be text; empty when it is not."""
    value = event.get(name) if isinstance(event, Mapping) else None
    return value if isinstance(value, str) else ""


def map_of(event: object, name: str) -> Mapping[str, Any]:
    """A field that should be an object; empty when it is not."""
    value = event.get(name) if isinstance(event, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def maps_of(event: object, name: str) -> list[Mapping[str, Any]]:
    """The objects of a field that should be a list of them."""
    value = event.get(name) if isinstance(event, Mapping) else None
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def error_code(holder: object) -> str:
    """The code of the error in a field `error`, or its type; empty without one."""
    error = map_of(holder, "error")
    return text_of(error, "code") or text_of(error, "type")


def _at(value: object, *path: str) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def session_formats(session: object) -> tuple[Encoding | None, Encoding | None]:
    """(what the model wants to hear, what it will speak) as a session object says; None where it does not say."""
    heard = _at(session, "audio", "input", "format") or _at(session, "input_audio_format")
    spoken = _at(session, "audio", "output", "format") or _at(session, "output_audio_format")
    return encoding_of(heard), encoding_of(spoken)


def asked_formats(session_update: bytes) -> tuple[Encoding, Encoding]:
    """The formats of a `session.update`. The API's default is 24 kHz PCM."""
    try:
        session = read_event(session_update).get("session")
    except msgspec.MsgspecError:
        session = None
    heard, spoken = session_formats(session)
    return heard or Encoding.PCM24, spoken or Encoding.PCM24


def server_creates_responses(session_update: bytes) -> bool:
    """Whether the model answers by itself when the caller stops speaking (turn detection with `create_response`)."""
    try:
        session = read_event(session_update).get("session")
    except msgspec.MsgspecError:
        return True
    detection: object = None
    for holder in (_at(session, "audio", "input"), session):
        if isinstance(holder, Mapping) and "turn_detection" in holder:
            detection = holder["turn_detection"]
            if detection is None:
                return False
    return not (isinstance(detection, Mapping) and detection.get("create_response") is False)


def append(sound: bytes) -> bytes:
    """A piece of the caller's sound."""
    return APPEND_HEAD + b2a_base64(sound, newline=False) + APPEND_TAIL


def text_item(item_id: str, role: str, text: str) -> bytes:
    """A text message of the `user` or the `assistant`."""
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return item_create({"id": item_id, "type": "message", "role": role, "content": [part]})


def item_create(item: Mapping[str, object]) -> bytes:
    """Add an item to the conversation."""
    event = {"type": "conversation.item.create", "item": item}
    try:
        return encode(event)
    except UnicodeEncodeError:
        # Half a surrogate pair, which UTF-8 cannot carry, came with a tool's output: that half is lost, not the output.
        return encode(_writable(event))


def _writable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _writable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_writable(entry) for entry in value]
    return value


def truncate(item_id: str, content_index: int, heard_ms: int) -> bytes:
    """Tell the model how much of its sound was heard."""
    return encode(
        {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": heard_ms,
        }
    )


def response_create(event_id: str, response: Mapping[str, object] | None = None) -> bytes:
    """Ask for a response; the model names `event_id` when it refuses."""
    return encode({"type": "response.create", "event_id": event_id, **({"response": response} if response else {})})


RESPONSE_CANCEL = b'{"type":"response.cancel"}'
CLEAR_HEARD = b'{"type":"input_audio_buffer.clear"}'
"""Forget the sound that is no turn yet."""


def commit(event_id: str) -> bytes:
    """The sound so far is a turn; unlike one that the server finds, it asks for no answer. A refusal names `event_id`."""
    return encode({"type": "input_audio_buffer.commit", "event_id": event_id})
