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
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "conversation.item.created": "conversation.item.added",
}
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


class Head(msgspec.Struct):
    """What is read of every frame first."""

    type: str = ""


class AudioDelta(msgspec.Struct):
    """A piece of the agent's sound."""

    delta: bytes
    response_id: str = ""
    item_id: str = ""
    content_index: int = 0


read_head = msgspec.json.Decoder(Head).decode
read_audio = msgspec.json.Decoder(AudioDelta).decode
read_event = msgspec.json.Decoder(dict[str, Any]).decode
encode = msgspec.json.Encoder().encode


def encoding_of(value: object) -> Encoding | None:
    """The encoding that a session's format names, GA (`{"type": "audio/pcmu"}`) or beta (`"g711_ulaw"`); None: unknown."""
    if isinstance(value, Mapping):
        value = value.get("type")
    return _FORMATS.get(value) if isinstance(value, str) else None


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
    return encode({"type": "conversation.item.create", "item": item})


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


def response_create(response: Mapping[str, object] | None = None) -> bytes:
    """Ask for a response."""
    return encode({"type": "response.create", **({"response": response} if response else {})})


RESPONSE_CANCEL = b'{"type":"response.cancel"}'
