"""The customer's own greeting, played while the model connects."""

from __future__ import annotations

import logging
from collections.abc import Callable

from switchhook.calls.parts import CallParts
from switchhook.calls.seat import AgentSeat
from switchhook.domain.errors import GreetingUnavailable
from switchhook.domain.ports import Leg

log = logging.getLogger(__name__)


async def greet(url: str, leg: Leg, seat: AgentSeat, parts: CallParts, write_log: Callable[[str], None]) -> None:
    """Fetch and play it; when that cannot be, the agent speaks first. The party may interrupt it, the agent does not.

    An agent who has left, or left the line to somebody else, before it was fetched greets nobody.
    """
    try:
        sound = b"" if parts.greetings is None else await parts.greetings.fetch(url, leg.encoding)
    except Exception as error:  # noqa: BLE001 - whatever was wrong with it, the caller is greeted by the agent
        why = str(error) if isinstance(error, GreetingUnavailable) else type(error).__name__
        log.warning("greeting not played", extra={"error": why})
        write_log(f"Greeting: {why}")
        sound = b""
    if not sound:
        seat.tell(lambda agent, now: agent.speak_first(now))
        return
    seat.play("greeting", sound)
