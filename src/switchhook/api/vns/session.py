"""The Realtime session of a CallStart reply: passed on as it was sent, looked into only for what the gateway must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from switchhook.api.vns.forms import json_text
from switchhook.api.vns.instructions import InvalidReply
from switchhook.api.vns.tolerant_json import Member
from switchhook.domain.plan import BuiltinTool

INSTRUCTIONS = "VoiceElements_Instructions"

BUILTIN_TOOLS: Mapping[str, BuiltinTool] = {
    "vns_end_conversation": BuiltinTool.END_CONVERSATION,
    "vns_transfer_call": BuiltinTool.TRANSFER_CALL,
    "vns_get_call_info": BuiltinTool.CALL_INFO,
    "vns_get_utc_datetime": BuiltinTool.UTC_DATETIME,
    "vns_recording_pause": BuiltinTool.RECORDING_PAUSE,
    "vns_recording_resume": BuiltinTool.RECORDING_RESUME,
    "recording_pause": BuiltinTool.RECORDING_PAUSE,
    "recording_resume": BuiltinTool.RECORDING_RESUME,
}


@dataclass(frozen=True, slots=True)
class Session:
    """What goes to the AI, and what we read in it."""

    update: bytes = field(repr=False)
    """The `session.update` event: the reply without `VoiceElements_Instructions`, every other member in its own text."""
    builtin_tools: Mapping[str, BuiltinTool]
    """Those of our tools that the customer listed; a name that is not listed is not ours."""
    interrupt_response: bool
    transcribes_caller: bool


def read_session(members: Iterable[Member]) -> Session:
    """Take the session out of the reply's members. Raises InvalidReply when `type` or `session` is missing."""
    kept = [member for member in members if member.name.lower() != INSTRUCTIONS.lower()]
    values = {member.name: member.value for member in kept}
    if not isinstance(values.get("type"), str):
        raise InvalidReply('type is missing; write "type": "session.update"')
    session = values.get("session")
    if not isinstance(session, Mapping):
        raise InvalidReply("session is missing or no object")
    text = ",".join(f"{json_text(member.name)}:{member.text}" for member in kept)
    return Session(
        f"{{{text}}}".encode("utf-8", "replace"),
        _listed_builtins(session),
        _interrupts(session),
        _transcribes(session),
    )


def _listed_builtins(session: Mapping[str, Any]) -> dict[str, BuiltinTool]:
    tools = session.get("tools")
    listed: dict[str, BuiltinTool] = {}
    for tool in tools if isinstance(tools, list) else []:
        name = tool.get("name") if isinstance(tool, Mapping) and tool.get("type", "function") == "function" else None
        if isinstance(name, str) and name in BUILTIN_TOOLS:
            listed[name] = BUILTIN_TOOLS[name]
    return listed


def _input(session: Mapping[str, Any], name: str, beta_name: str) -> object:
    """A member of `audio.input`, or the same of the retired beta shape, which self-hosted servers still use."""
    audio = session.get("audio")
    inner = audio.get("input") if isinstance(audio, Mapping) else None
    if isinstance(inner, Mapping) and name in inner:
        return inner[name]
    return session.get(beta_name)


def _interrupts(session: Mapping[str, Any]) -> bool:
    detection = _input(session, "turn_detection", "turn_detection")
    return not (isinstance(detection, Mapping) and detection.get("interrupt_response") is False)


def _transcribes(session: Mapping[str, Any]) -> bool:
    return isinstance(_input(session, "transcription", "input_audio_transcription"), Mapping)
