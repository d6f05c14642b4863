"""The transfers of one call, one after another: who asks for one, what came of each, and whose words were heard meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from switchhook.calls.consultation import Consultations
from switchhook.calls.parts import CallParts
from switchhook.calls.transferring import CANCEL, COMPLETE, VOICEMAIL, CallTransfer, TransferHost
from switchhook.domain.model import ToolCall, TransferRecord
from switchhook.domain.plan import BuiltinTool, RouteTo, TransferOrder
from switchhook.domain.ports import Leg, LegEnded, LegEvent, OfferedLeg, ToolRunner


class DeskHost(TransferHost, Protocol):
    """What transfers ask of the call that they belong to."""

    @property
    def tools(self) -> ToolRunner:
        """Reads and answers the model's wish."""

    def return_tool(self, call: ToolCall, output: str) -> None:
        """Give the model its output."""

    def transfer_begun(self) -> None:
        """The model's wish is being seen to."""

    def transfer_over(self, put_through: bool, reason: str) -> None:
        """It has ended; a party that was not put through is the agent's again."""

    def party_left(self, event: LegEnded) -> None:
        """The end of the party's line, which a transfer had outlived."""


class TransferDesk:
    """At most one transfer is under way. `close` gives back whatever it holds."""

    def __init__(self, host: DeskHost, parts: CallParts) -> None:
        self._host = host
        self._parts = parts
        self._transfer: CallTransfer | None = None
        self._wish: ToolCall | None = None
        """The model's call that asked for it."""
        self._dropping = False
        self._left: LegEnded | None = None
        self.consultations = Consultations()
        self.records: list[TransferRecord] = []

    @property
    def under_way(self) -> bool:
        """Somebody is being put through, or is."""
        return self._transfer is not None

    @property
    def consulting(self) -> bool:
        """The agent talks with the destination."""
        return self._transfer is not None and self._transfer.consulting

    # -- who asks for one

    def begin(self, route: RouteTo) -> None:
        """The flow hands the party to a number."""
        attempt = self._host.attempt
        order = TransferOrder(
            route.number,
            route.caller or attempt.caller,
            None if route.caller else attempt.caller_name,
            purpose=route.purpose,
            ring_s=route.ring_s,
            talk_s=route.talk_s,
            returns=route.returns,
        )
        self._begin(order)

    def takes(self, call: ToolCall, builtin: BuiltinTool | None) -> bool:
        """Whether a tool call of the model asks for a transfer, or is its word on the one under way; it is then seen to."""
        if self._decides(call, builtin):
            return True
        if call.name in (COMPLETE, CANCEL):
            self._host.return_tool(call, '{"status":"over"}')  # decided by a key or a hang-up meanwhile; none of the customer's
            return True
        if builtin is BuiltinTool.TRANSFER_CALL:
            self._asked(call)
            return True
        return False

    def _decides(self, call: ToolCall, builtin: BuiltinTool | None) -> bool:
        transfer = self._transfer
        if transfer is None or not transfer.consulting:
            return False
        if call.name not in (COMPLETE, CANCEL) and builtin is not BuiltinTool.END_CONVERSATION:
            return False
        take = call.name == COMPLETE
        self._host.return_tool(call, '{"status":"connecting"}' if take else '{"status":"cancelled"}')
        transfer.decided(take, voicemail=VOICEMAIL in call.arguments)
        return True

    def _asked(self, call: ToolCall) -> None:
        order = self._host.tools.transfer_order(call)
        if isinstance(order, str) or self._transfer is not None:
            self._host.return_tool(call, order if isinstance(order, str) else '{"error":"A transfer is under way."}')
            return
        self._wish = call
        self._host.transfer_begun()
        self._begin(order)

    def _begin(self, order: TransferOrder) -> None:
        self._transfer = CallTransfer(order, self._host, self._parts, self.consultations, self._over)
        self._transfer.start()

    # -- what happens meanwhile

    def leg_ended(self, event: LegEnded) -> bool:
        """The party's line has ended. True: the destination's is kept a while, and `party_left` follows."""
        transfer = self._transfer
        if transfer is None:
            return False
        self._dropping = True  # what follows in the flow has nobody to be done for
        transfer.caller_gone()
        self._dropping = False
        if not transfer.outlives_caller:
            return False
        self._left = event
        return True

    def caller_event(self, event: LegEvent) -> None:
        """The party's line tells something other than its end."""
        if self._transfer is not None:
            self._transfer.caller_event(event)

    def caller_moved(self) -> None:
        """The party is on another line."""
        if self._transfer is not None:
            self._transfer.caller_moved()

    def agent_gone(self) -> None:
        """The agent failed."""
        if self._transfer is not None:
            self._transfer.agent_gone()

    def has(self, leg: Leg) -> bool:
        """Whether the destination is on that line."""
        return self._transfer is not None and self._transfer.has(leg)

    def replace_callee(self, leg: OfferedLeg) -> None:
        """Somebody takes the destination's place. See `has`."""
        if self._transfer is not None:
            self._transfer.replace_callee(leg)

    # -- the end

    def drop(self, call_goes_on: bool) -> None:
        """Give the transfer up; what it came to is not asked for. `call_goes_on`: its party is wanted back."""
        if self._transfer is not None:
            self._dropping = True
            self._transfer.stop()
            self._dropping = False
            if call_goes_on:
                self._host.leg.recall()

    def close(self) -> None:
        """Give everything back; idempotent. Nothing further is begun, whatever the flow would do after this transfer."""
        transfer, self._dropping = self._transfer, True
        if transfer is not None:
            transfer.close()
        self._transfer = None

    def _over(self, record: TransferRecord, put_through: bool, reason: str) -> None:
        self.records.append(record)
        self._transfer = None
        wish, self._wish = self._wish, None
        if wish is not None and not put_through:
            self._host.return_tool(wish, self._host.tools.transfer_output(wish, record))
        left, self._left = self._left, None
        if left is not None:
            # A line that ended as `referred`, and was not, has ended as any other.
            self._host.party_left(left if put_through else replace(left, reason="caller-hung-up"))
        elif not self._dropping:
            self._host.transfer_over(put_through, reason)
