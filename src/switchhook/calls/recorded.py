"""The recording of one call: begun with the answer, silent while it is paused, ended once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from switchhook.calls.parts import CallParts
from switchhook.calls.recording_control import PauseRecording, RecordingControl, RecordingEffect
from switchhook.domain.errors import SwitchhookError
from switchhook.domain.model import CallId
from switchhook.domain.plan import BuiltinTool, CallPlan, RecordingSpec
from switchhook.domain.ports import Leg, Recorder
from switchhook.driver import Driver

log = logging.getLogger(__name__)


class RecordedLine:
    """A line and what records it, when the plan asks for that."""

    def __init__(self, parts: CallParts, call_id: CallId, write_log: Callable[[str], None]) -> None:
        self._parts = parts
        self._call_id = call_id
        self._write_log = write_log
        self._leg: Leg | None = None
        self._recorder: Recorder | None = None
        self._control = RecordingControl(pause_on_digits=False)
        self._driver: Driver | None = None
        self.begun_at: datetime | None = None
        """UTC wall time; stays when the recording has ended. A call has one recording."""

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._recorder is not None

    @property
    def paused(self) -> bool:
        """Whether it is silent at the moment."""
        return self._control.paused

    def start(self, leg: Leg, plan: CallPlan) -> None:
        """Begin; a recording that cannot be opened must not cost the caller the call."""
        if plan.recording is not None:
            self._open(leg, plan.number.account, plan.recording)

    def start_late(self, leg: Leg, account: str, spec: RecordingSpec) -> bool:
        """Begin in the midst of the call; False when there was a recording before, or it cannot be opened."""
        if self.begun_at is not None:
            return False
        self._open(leg, account, spec)
        if self._recorder is not None:
            # The line's positions count from its answer, the recording's time from now.
            self._recorder.change_line()
        return self._recorder is not None

    def _open(self, leg: Leg, account: str, spec: RecordingSpec) -> None:
        now = self._parts.clock.utc()
        try:
            self._recorder = self._parts.recorders.open(self._call_id, account, spec, leg.encoding, now, self._failed)
        except (SwitchhookError, OSError) as error:
            log.error("recording could not be opened", extra={"error": str(error)})
            self._failed(str(error))
            return
        self.begun_at = now
        self._leg = leg
        self._control = RecordingControl(spec.pause_on_digits)
        self._driver = Driver(self._control, self._perform)
        leg.tap(self._recorder)

    def _failed(self, why: str) -> None:
        """The disk did not take it; whatever follows is not recorded."""
        self._write_log(f"Recording: {why}")

    def move(self, leg: Leg) -> None:
        """The call goes on over another line."""
        if self._leg is not None and self._recorder is not None:
            self._leg.tap(None)
            self._leg = leg
            self._recorder.change_line()
            leg.tap(self._recorder)

    def digit(self) -> None:
        """The party pressed a key."""
        if self._driver is not None:
            self._driver.feed(self._control.digit)

    def tool(self, tool: BuiltinTool) -> None:
        """The model used a tool of ours."""
        if tool in (BuiltinTool.RECORDING_PAUSE, BuiltinTool.RECORDING_RESUME):
            self.pause(tool is BuiltinTool.RECORDING_PAUSE)

    def pause(self, silent: bool) -> None:
        """Be silent from now on, or no longer; asking twice is asking once."""
        if self._driver is not None:
            self._driver.feed(self._control.tool_pause if silent else self._control.tool_resume)

    def _perform(self, effect: RecordingEffect) -> None:
        if self._recorder is None:
            return
        if isinstance(effect, PauseRecording):
            self._recorder.pause()
            self._write_log("Recording: paused")
        else:
            self._recorder.resume()
            self._write_log("Recording: resumed")

    def stop(self) -> None:
        """End it; idempotent."""
        recorder, self._recorder = self._recorder, None
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        if self._leg is not None:
            self._leg.tap(None)
            self._leg = None
        if recorder is not None:
            recorder.stop()
