"""What the model is told while it talks with somebody else than the caller (an attended transfer)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from switchhook.agents.conversation import ConsultTool
from switchhook.agents.realtime import dialect


def with_tools(session_update: bytes, tools: Sequence[ConsultTool]) -> bytes:
    """A `session.update` that adds `tools` to the session's own; without any it restores those."""
    added = [
        {"type": "function", "name": tool.name, "description": tool.description, "parameters": _parameters(tool)}
        for tool in tools
    ]
    return _event({"type": "session.update", "session": {"type": "realtime", "tools": [*_own_tools(session_update), *added]}})


def _parameters(tool: ConsultTool) -> dict[str, object]:
    properties = {name: {"type": "string", "enum": list(words)} for name, words in tool.choices.items()}
    return {"type": "object", "properties": properties}


def system_text(item_id: str, text: str) -> bytes:
    """A `conversation.item.create` in the system's role."""
    item = {"id": item_id, "type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]}
    return dialect.item_create(item)


def _own_tools(session_update: bytes) -> list[object]:
    try:
        event = json.loads(session_update)
    except ValueError:
        return []
    session = event.get("session") if isinstance(event, dict) else None
    tools = session.get("tools") if isinstance(session, dict) else None
    return tools if isinstance(tools, list) else []


def _event(event: dict[str, object]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
