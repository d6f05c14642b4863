"""The tools of a call: the gateway's own, and the customer's behind a webhook."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from switchhook.domain.contract import Contract, Http, HttpOutcome
from switchhook.domain.model import CallAttempt, ToolCall, TransferRecord
from switchhook.domain.plan import BuiltinTool, CallPlan, TransferOrder
from switchhook.domain.ports import Clock
from switchhook.usecases.model_names import conversations

logger = logging.getLogger(__name__)

BROKEN = '{"error":"The tool could not be run."}'


class WebhookTools:
    """Runs the tools of one call; implements `domain.ports.ToolRunner`. `write` takes lines for the call's log."""

    def __init__(
        self,
        plan: CallPlan,
        attempt: CallAttempt,
        contract: Contract,
        http: Http,
        clock: Clock,
        write: Callable[[str, datetime], None],
    ) -> None:
        self._plan = plan
        self._attempt = attempt
        self._contract = contract
        self._http = http
        self._clock = clock
        self._write = write
        self._builtin = _builtin_tools(plan)

    async def run(self, call: ToolCall) -> str:
        """The text for the model, whatever happened. Never raises but for cancellation."""
        try:
            return await self._run(call)
        except asyncio.CancelledError:
            self._note(f"Tool {call.name}: not waited for any longer, because the call has ended; its result is not used")
            raise
        except Exception:
            # The model always gets an output, also when a contract's folder is at fault.
            logger.exception("a tool could not be run", extra={"call_id": self._attempt.call_id, "tool": call.name})
            return BROKEN

    def transfer_order(self, call: ToolCall) -> TransferOrder | str:
        """What the model's call of the transfer tool asks for, or the text that tells it why that cannot be. Never raises."""
        if self._plan.journal.tool_requests:
            self._note(self._contract.log_tool_request(call))
        try:
            order = self._contract.transfer_order(self._plan, self._attempt, call)
        except Exception:
            logger.exception("a transfer could not be read", extra={"call_id": self._attempt.call_id})
            order = BROKEN
        if isinstance(order, str):
            self._note_reply(call, None, order)
        return order

    def transfer_output(self, call: ToolCall, transfer: TransferRecord) -> str:
        """The text for the model of a transfer that did not come about. Never raises."""
        try:
            output = self._contract.transfer_output(transfer)
        except Exception:
            logger.exception("a transfer's outcome could not be told", extra={"call_id": self._attempt.call_id})
            output = BROKEN
        self._note_reply(call, None, output)
        return output

    async def _run(self, call: ToolCall) -> str:
        journal = self._plan.journal
        if journal.tool_requests:
            self._note(self._contract.log_tool_request(call))
        outcome: HttpOutcome | None = None
        builtin = self._builtin.get(call.name)
        if builtin is not None:
            output = self._contract.builtin_output(builtin, self._plan, self._attempt, call, self._clock.utc())
        else:
            request = self._contract.tool_request(self._plan, self._attempt, call, self._clock.utc())
            outcome = await self._http.send(request) if request is not None else None
            output = self._contract.tool_output(outcome)
        self._note_reply(call, outcome, output)
        return output

    def _note_reply(self, call: ToolCall, outcome: HttpOutcome | None, output: str) -> None:
        if self._plan.journal.tool_replies:
            self._note(self._contract.log_tool_reply(call, outcome, output))

    def _note(self, text: str) -> None:
        self._write(text, self._clock.utc())


def _builtin_tools(plan: CallPlan) -> Mapping[str, BuiltinTool]:
    return {name: tool for converse in conversations(plan.flow) for name, tool in converse.agent.builtin_tools.items()}
