"""From a configuration to the Realtime session that Veevo's fields describe (contract §2.3)."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from switchhook.api.veevo import profile
from switchhook.api.veevo.configuration import Configuration
from switchhook.api.veevo.forms import json_bytes
from switchhook.api.veevo.schema import NumberSettings
from switchhook.domain.plan import AgentSpec, BuiltinTool

_BUILTIN = {profile.END_CALL: BuiltinTool.END_CONVERSATION, profile.TRANSFER_CALL: BuiltinTool.TRANSFER_CALL}


def agent(settings: NumberSettings, told: Configuration) -> AgentSpec:
    """The agent of a call; the customer's key is in its headers, in memory only."""
    listed = told.tool_names
    return AgentSpec(
        url=model_url(settings.openai_url, told.model),
        headers={"Authorization": f"Bearer {told.openai_key}"},
        session_update=session_update(told, settings.transcription_model),
        builtin_tools={name: _BUILTIN[name] for name in settings.builtin_tools if name in listed},
        speaks_first=settings.ai_speaks_first and told.greeting_url is None,
        roll_over_after_ms=None,
        idle_hang_up_ms=told.inactivity_ms or None,
        closing_note_after_ms=profile.CLOSING_NOTE_AFTER_MS,
        closing_note=profile.CLOSING_NOTE,
    )


def model_url(openai_url: str | None, model: str) -> str:
    """OpenAI's Realtime address, or the number's in its place, with `?model=` unless it names one already."""
    parts = urlsplit(openai_url or profile.OPENAI_URL)
    if any(name == "model" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return urlunsplit(parts)
    query = "&".join(piece for piece in (parts.query, f"model={quote(model, safe='')}") if piece)
    return urlunsplit(parts._replace(query=query))


def session_update(told: Configuration, transcription_model: str) -> bytes:
    """The `session.update` event: µ-law both ways, semantic turn detection, transcription of the caller."""
    line = {"type": "audio/pcmu"}
    heard = {
        "format": line,
        "noise_reduction": {"type": told.noise_reduction},
        "turn_detection": {
            "type": "semantic_vad",
            "eagerness": told.eagerness,
            "create_response": True,
            "interrupt_response": True,
        },
        "transcription": {"model": transcription_model},
    }
    session = {
        "type": "realtime",
        "model": told.model,
        "instructions": told.system_prompt,
        "output_modalities": ["audio"],
        "audio": {"input": heard, "output": {"format": line, "voice": told.voice}},
        "tools": list(told.tools),
        "tool_choice": "auto",
    }
    return json_bytes({"type": "session.update", "session": session})
