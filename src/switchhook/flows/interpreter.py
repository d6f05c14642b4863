"""Runs a flow: one action after another; a failed `Converse` continues with its failure branch."""

from __future__ import annotations

from collections.abc import Sequence

from switchhook.domain.plan import Action, Converse, HangUp


class FlowRun:
    """The position in a flow. `next` gives the action to perform; `done` and `failed` tell how it went.

    The flow always ends with `HangUp`: when the list is exhausted one is supplied, so that no call is left open.
    """

    def __init__(self, flow: Sequence[Action]) -> None:
        self._rest: list[Action] = list(flow)
        self._current: Action | None = None

    @property
    def current(self) -> Action | None:
        """The action under way, or None between actions."""
        return self._current

    @property
    def following(self) -> Action:
        """The action after the current one, unless that fails."""
        return self._rest[0] if self._rest else HangUp()

    def next(self) -> Action:
        """Take the next action."""
        self._current = self._rest.pop(0) if self._rest else HangUp()
        return self._current

    def done(self) -> Action:
        """The current action succeeded."""
        return self.next()

    def failed(self) -> Action:
        """The current action failed: its failure branch replaces what was left of the flow."""
        if isinstance(self._current, Converse):
            self._rest = list(self._current.on_failure)
        return self.next()
