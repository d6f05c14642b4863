"""MCP tools that want approval: nobody on a call can give it, so it is refused, once for each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from switchhook.agents.realtime import dialect


class Approvals:
    """The requests that were refused; the same request shows in several events."""

    def __init__(self, ids: Callable[[], str]) -> None:
        self._ids = ids
        self._denied: set[str] = set()

    def session_gone(self) -> None:
        """The next session may give the same ids to other requests."""
        self._denied.clear()

    def denial(self, item: Mapping[str, Any]) -> bytes | None:
        """The item that refuses, when this one asks for approval and was not refused yet."""
        request_id = dialect.text_of(item, "id")
        if item.get("type") != "mcp_approval_request" or not request_id or request_id in self._denied:
            return None
        self._denied.add(request_id)
        answer = {"id": self._ids(), "type": "mcp_approval_response", "approval_request_id": request_id, "approve": False}
        return dialect.item_create(answer)
