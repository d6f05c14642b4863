"""The dialogue of a session that brings no script: a menu of its tools, by word and by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from switchhook.agents.brain import Tool
from switchhook.agents.embedded.reader import script_of
from switchhook.agents.embedded.script import Script

_MAX_TOOLS = 9
_ORDINALS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_ENDING = ("end_conversation", "hang_up", "hangup", "end_call")
_DESCRIPTION_CHARACTERS = 80


def build(tools: Sequence[Tool]) -> Script:
    """Return a script that offers each tool, asks for what it requires and reads its result out."""
    ending = next((tool for tool in tools if tool.name.endswith(_ENDING)), None)
    offered = [tool for tool in tools if tool is not ending][:_MAX_TOOLS]
    slots: dict[str, Any] = {"keyed": {"digits": "1-16"}}
    states: dict[str, Any] = {"greeting": {"say": "Hello.", "goto": "menu"}, "menu": _menu(offered)}
    for place, tool in enumerate(offered, 1):
        states |= _tool_states(place, tool, slots)
    states |= _goodbye(ending)
    goodbye = {"phrases": "[no] [thank you] (goodbye | bye)", "goto": "goodbye"}
    again = {"phrases": "repeat [please] | help", "keys": "*", "goto": "menu"}
    return script_of({"start": "greeting", "slots": slots, "always": [goodbye, again], "states": states})


def _menu(offered: Sequence[Tool]) -> dict[str, Any]:
    lines = [f"For {_topic(tool)}, say option {_ORDINALS[i]} or press {i + 1}." for i, tool in enumerate(offered)]
    choices = [
        {"phrases": f"[option] {_ORDINALS[i]} [please]", "keys": str(i + 1), "goto": f"tool{i + 1}"} for i in range(len(offered))
    ]
    say = " ".join([*lines, "To end the call, say goodbye."])
    return {"say": say, "listen": choices, "no_match": "Sorry, I only understand the menu."}


def _topic(tool: Tool) -> str:
    first = tool.description.partition(".")[0].replace("{", "").replace("}", "").strip()
    return (first or tool.name.replace("_", " "))[:_DESCRIPTION_CHARACTERS].lower()


def _tool_states(place: int, tool: Tool, slots: dict[str, Any]) -> dict[str, Any]:
    """One state for each required argument, then the call, then its result."""
    states: dict[str, Any] = {}
    properties = tool.parameters.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = tool.parameters.get("required")
    wanted = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    steps = [*(f"tool{place}_ask{i}" for i in range(len(wanted))), f"tool{place}_call"]
    arguments: dict[str, str] = {}
    for i, name in enumerate(wanted):
        schema = properties.get(name)
        slot = _slot_for(f"tool{place}_slot{i}", name, schema if isinstance(schema, Mapping) else {}, slots)
        arguments[name] = f"{{{slot}}}"
        states[steps[i]] = {
            "say": f"Please say or key in the {name.replace('_', ' ').replace('{', '').replace('}', '')}.",
            "listen": [{"phrases": f"{{{slot}}} [please]", "keys": f"{{{slot}}}"}],
            "goto": steps[i + 1],
        }
    states[steps[-1]] = {"say": "One moment.", "tool": tool.name, "arguments": arguments, "goto": f"tool{place}_result"}
    states[f"tool{place}_result"] = {"say": "{result}.", "goto": "menu"}
    if steps[0] != f"tool{place}":
        states[f"tool{place}"] = {"goto": steps[0]}
    return states


def _slot_for(own: str, name: str, schema: Mapping[str, Any], slots: dict[str, Any]) -> str:
    """The slot that fits an argument best: its enum's words, a day, a time, else digits."""
    values = schema.get("enum")
    if isinstance(values, list):
        words = {str(v): _spoken_name(str(v)) for v in values if _spoken_name(str(v))}
        if words:
            slots[own] = {"words": words}
            return own
    lowered = name.lower()
    return "day" if "day" in lowered or "date" in lowered else "time" if "time" in lowered else "keyed"


def _spoken_name(value: str) -> str:
    return " ".join("".join(c if c.isascii() and c.isalpha() else " " for c in value.lower()).split())[:100]


def _goodbye(ending: Tool | None) -> dict[str, Any]:
    over = {"over": {"say": "Goodbye.", "end": True}}
    if ending is None:
        return {"goodbye": {"goto": "over"}} | over
    call = {"tool": ending.name, "arguments": {"farewell": "Thank you for calling. Goodbye."}, "goto": "over"}
    return {"goodbye": call} | over
