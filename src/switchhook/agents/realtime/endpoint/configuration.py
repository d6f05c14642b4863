"""A session's configuration: what `session.update` may change, checked, and how `session.created` and `session.updated` show it.

Fields that only a large model can use (`reasoning`, `tracing`, `truncation`, `prompt`, noise reduction, voice names…) are taken
and shown, and have no effect. Beta's flat names are read as their GA places.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from switchhook.agents.brain import Tool
from switchhook.agents.providers.vad import VadSettings
from switchhook.agents.realtime.endpoint.wire import ClientError, Json, a_list, a_mapping, a_text, an_integer, only
from switchhook.domain.model import Encoding

_SHOWN_ONLY = frozenset({"include", "prompt", "reasoning", "tracing", "truncation", "parallel_tool_calls", "max_output_tokens"})
_IGNORED = frozenset({"type", "model", "id", "object", "expires_at", "temperature", "client_secret"})
_SESSION_KEYS = _SHOWN_ONLY | _IGNORED | {"instructions", "output_modalities", "audio", "tools", "tool_choice"}
_INPUT_KEYS = frozenset({"format", "noise_reduction", "transcription", "turn_detection"})
_OUTPUT_KEYS = frozenset({"format", "voice", "speed"})
_BETA_PLACES = {
    "modalities": ("output_modalities",),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "input_audio_format": ("audio", "input", "format"),
    "output_audio_format": ("audio", "output", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "max_response_output_tokens": ("max_output_tokens",),
}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_VAD_KEYS = frozenset(
    {
        "type",
        "threshold",
        "prefix_padding_ms",
        "silence_duration_ms",
        "create_response",
        "interrupt_response",
        "idle_timeout_ms",
        "eagerness",
    }
)
_SEMANTIC_SILENCE_MS = {"low": 1500, "medium": 800, "auto": 800, "high": 400}
_MOST_MS = 60_000
_MOST_TOOLS = 128


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How the server finds the caller's turns."""

    vad: VadSettings = field(default_factory=VadSettings)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    eagerness: str | None = None
    """Set for `semantic_vad`, which here is silence of a length that depends on it."""

    def view(self) -> Json:
        """As the protocol shows it."""
        shared = {"create_response": self.create_response, "interrupt_response": self.interrupt_response}
        if self.eagerness is not None:
            return {"type": "semantic_vad", "eagerness": self.eagerness, **shared}
        return {
            "type": "server_vad",
            "threshold": self.vad.threshold,
            "prefix_padding_ms": self.vad.prefix_padding_ms,
            "silence_duration_ms": self.vad.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
            **shared,
        }


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """All that a session is set to."""

    instructions: str = ""
    text_only: bool = False
    input_encoding: Encoding = Encoding.PCM24
    output_encoding: Encoding = Encoding.PCM24
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    transcription: Json | None = None
    tools: tuple[Json, ...] = ()
    tool_choice: Any = "auto"
    input_shown: Json = field(default_factory=dict)
    output_shown: Json = field(default_factory=dict)
    shown: Json = field(default_factory=dict)

    def functions(self) -> tuple[Tool, ...]:
        """The function tools, as a brain knows them."""
        return functions(self.tools)

    def view(self) -> Json:
        """The configurable part of the session object."""
        turns = self.turn_detection.view() if self.turn_detection else None
        return {
            **self.shown,
            "instructions": self.instructions,
            "output_modalities": ["text"] if self.text_only else ["audio"],
            "tools": list(self.tools),
            "tool_choice": self.tool_choice,
            "audio": {
                "input": {
                    "format": format_view(self.input_encoding),
                    "transcription": self.transcription,
                    "noise_reduction": None,
                    **self.input_shown,
                    "turn_detection": turns,
                },
                "output": {"voice": "local", "speed": 1.0, **self.output_shown, "format": format_view(self.output_encoding)},
            },
        }


def updated(config: SessionConfig, session: Any) -> SessionConfig:
    """Return the configuration with the changes of a `session.update`. Raises ClientError; nothing is changed then."""
    data = _with_ga_places(a_mapping(session, "session"))
    only(data, frozenset(_SESSION_KEYS), "session.")
    if data.get("type", "realtime") != "realtime":
        raise ClientError("Only sessions of type 'realtime' run here.", "session.type")
    if data.get("instructions") is not None:
        config = replace(config, instructions=a_text(data["instructions"], "session.instructions"))
    if "output_modalities" in data:
        config = replace(config, text_only=text_only(data["output_modalities"], "session.output_modalities"))
    if "tools" in data:
        config = replace(config, tools=read_tools(data["tools"], "session.tools"))
    if "tool_choice" in data:
        config = replace(config, tool_choice=read_tool_choice(data["tool_choice"], "session.tool_choice"))
    audio = a_mapping(data.get("audio") or {}, "session.audio")
    only(audio, frozenset({"input", "output"}), "session.audio.")
    config = _with_input(config, a_mapping(audio.get("input") or {}, "session.audio.input"))
    config = _with_output(config, a_mapping(audio.get("output") or {}, "session.audio.output"))
    return replace(config, shown={**config.shown, **{key: data[key] for key in _SHOWN_ONLY if key in data}})


def functions(tools: tuple[Json, ...]) -> tuple[Tool, ...]:
    """Return the function tools of a list of tools; others (MCP) are left to no one here."""
    return tuple(
        Tool(tool["name"], tool.get("description") or "", tool.get("parameters") or {})
        for tool in tools
        if tool.get("type") == "function"
    )


def format_view(encoding: Encoding) -> Json:
    """Return an encoding as the protocol's format object."""
    return {"type": encoding.value, "rate": 24000} if encoding is Encoding.PCM24 else {"type": encoding.value}


def read_format(given: Any, param: str) -> Encoding:
    """Read a format object, or beta's name of one. Raises ClientError."""
    data = {"type": _BETA_FORMATS.get(given, given)} if isinstance(given, str) else a_mapping(given, param)
    kind = data.get("type")
    found = next((encoding for encoding in Encoding if encoding.value == kind), None)
    if found is None:
        raise ClientError(f"Invalid value for '{param}.type': expected audio/pcm, audio/pcmu or audio/pcma.", f"{param}.type")
    if data.get("rate") not in (None, found.rate_hz):
        raise ClientError(f"Invalid value for '{param}.rate': {kind} has {found.rate_hz} Hz.", f"{param}.rate")
    return found


def text_only(given: Any, param: str) -> bool:
    """Read output modalities. Raises ClientError."""
    modalities = a_list(given, param)
    if not modalities or any(kind not in ("text", "audio") for kind in modalities):
        raise ClientError(f"Invalid value for '{param}': expected ['audio'] or ['text'].", param)
    return "audio" not in modalities


def read_tools(given: Any, param: str) -> tuple[Json, ...]:
    """Read a list of tools. Raises ClientError."""
    tools = a_list(given if given is not None else [], param)
    if len(tools) > _MOST_TOOLS:
        raise ClientError(f"'{param}' has more than {_MOST_TOOLS} tools.", param)
    for place, tool in enumerate(tools):
        where = f"{param}[{place}]"
        if a_mapping(tool, where).get("type") not in ("function", "mcp"):
            raise ClientError(f"Invalid value for '{where}.type': expected 'function' or 'mcp'.", f"{where}.type")
        if tool["type"] == "function":
            a_text(tool.get("name"), f"{where}.name")
            a_text(tool.get("description") or "", f"{where}.description")
            a_mapping(tool.get("parameters") or {}, f"{where}.parameters")
    return tuple(tools)


def read_tool_choice(given: Any, param: str) -> Any:
    """Read a tool choice. Raises ClientError."""
    if given in ("auto", "none", "required") or (isinstance(given, dict) and given.get("type") in ("function", "mcp")):
        return given
    raise ClientError(f"Invalid value for '{param}': expected auto, none, required or a tool.", param)


def _with_ga_places(session: Json) -> Json:
    """Put beta's flat fields where GA has them; what GA itself says wins."""
    data = {key: value for key, value in session.items() if key not in _BETA_PLACES}
    for name, path in _BETA_PLACES.items():
        if name not in session:
            continue
        at = data
        for part in path[:-1]:
            inner = at.get(part)
            at[part] = dict(inner) if isinstance(inner, dict) else {}
            at = at[part]
        at.setdefault(path[-1], session[name])
    return data


def _with_input(config: SessionConfig, given: Json) -> SessionConfig:
    prefix = "session.audio.input"
    only(given, _INPUT_KEYS, f"{prefix}.")
    if given.get("format") is not None:
        config = replace(config, input_encoding=read_format(given["format"], f"{prefix}.format"))
    if "transcription" in given:
        value = given["transcription"]
        config = replace(config, transcription=None if value is None else a_mapping(value, f"{prefix}.transcription"))
    if "turn_detection" in given:
        config = replace(config, turn_detection=_turn_detection(given["turn_detection"], f"{prefix}.turn_detection"))
    if "noise_reduction" in given:
        config = replace(config, input_shown={"noise_reduction": given["noise_reduction"]})
    return config


def _with_output(config: SessionConfig, given: Json) -> SessionConfig:
    prefix = "session.audio.output"
    only(given, _OUTPUT_KEYS, f"{prefix}.")
    if given.get("format") is not None:
        config = replace(config, output_encoding=read_format(given["format"], f"{prefix}.format"))
    shown: Json = {key: given[key] for key in ("voice", "speed") if key in given}
    return replace(config, output_shown={**config.output_shown, **shown})


def _turn_detection(given: Any, param: str) -> TurnDetection | None:
    if given is None:
        return None
    data = a_mapping(given, param)
    only(data, _VAD_KEYS, f"{param}.")
    kind = data.get("type", "server_vad")
    if kind not in ("server_vad", "semantic_vad"):
        raise ClientError(f"Invalid value for '{param}.type': expected server_vad or semantic_vad.", f"{param}.type")
    eagerness = data.get("eagerness") or "auto" if kind == "semantic_vad" else None
    if eagerness is not None and eagerness not in _SEMANTIC_SILENCE_MS:
        raise ClientError(f"Invalid value for '{param}.eagerness': expected low, medium, high or auto.", f"{param}.eagerness")
    idle = data.get("idle_timeout_ms")
    return TurnDetection(
        _vad_settings(data, eagerness, param),
        _flag(data, "create_response", param),
        _flag(data, "interrupt_response", param),
        None if idle is None else an_integer(idle, f"{param}.idle_timeout_ms", 1, 10 * _MOST_MS),
        eagerness,
    )


def _vad_settings(data: Json, eagerness: str | None, param: str) -> VadSettings:
    default = VadSettings()
    threshold = data.get("threshold")
    threshold = default.threshold if threshold is None else threshold
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ClientError(f"Invalid value for '{param}.threshold': expected 0 to 1.", f"{param}.threshold")
    milliseconds: dict[str, int] = {}
    for name in ("prefix_padding_ms", "silence_duration_ms"):
        value = data.get(name)
        milliseconds[name] = getattr(default, name) if value is None else an_integer(value, f"{param}.{name}", 0, _MOST_MS)
    if eagerness is not None:
        milliseconds["silence_duration_ms"] = _SEMANTIC_SILENCE_MS[eagerness]
    return VadSettings(float(threshold), milliseconds["prefix_padding_ms"], milliseconds["silence_duration_ms"])


def _flag(data: Json, name: str, param: str) -> bool:
    value = data.get(name)
    if value is None:
        return True
    if not isinstance(value, bool):
        raise ClientError(f"Invalid type for '{param}.{name}': expected a boolean.", f"{param}.{name}", "invalid_type")
    return value
