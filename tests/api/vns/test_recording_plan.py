"""What a number's settings and a CallStart reply say about the recording of a call."""

from __future__ import annotations

import json

import pytest

from switchhook.domain.errors import ApplyError
from switchhook.domain.model import ToolCall
from switchhook.domain.plan import BuiltinTool, CallPlan, RecordingSpec
from tests.api.vns.cases import STARTED, VNS, attempt, conversation, number, plan_of, reply_with

TOOLS = [
    {"type": "function", "name": name}
    for name in ("vns_recording_pause", "recording_pause", "vns_recording_resume", "recording_resume", "pause")
]


def plan(**settings: object) -> CallPlan:
    reply = reply_with({"recordCall": True}, session={"tools": TOOLS})
    return plan_of(reply, number(**settings))


def test_digits_are_recorded_by_default_and_transfers_too() -> None:
    made = plan()
    assert made.recording == RecordingSpec("opus", None, pause_on_digits=False)
    assert made.record_transfers


def test_a_number_may_keep_digits_and_transfers_out() -> None:
    made = plan(pause_recording_on_digits=True, record_transfers=False)
    assert made.recording == RecordingSpec("opus", None, pause_on_digits=True)
    assert not made.record_transfers
    assert plan_of(reply_with({"recordCall": False}), number(pause_recording_on_digits=True)).recording is None


@pytest.mark.parametrize("name", ["pause_recording_on_digits", "record_transfers"])
def test_a_bad_value_is_told_with_the_cure(name: str) -> None:
    with pytest.raises(ApplyError, match=f"{name}: .*write"):
        number(**{name: "sometimes"})


def test_the_pausing_tools_are_ours_when_they_are_listed() -> None:
    assert conversation(plan()).agent.builtin_tools == {
        "vns_recording_pause": BuiltinTool.RECORDING_PAUSE,
        "recording_pause": BuiltinTool.RECORDING_PAUSE,
        "vns_recording_resume": BuiltinTool.RECORDING_RESUME,
        "recording_resume": BuiltinTool.RECORDING_RESUME,
    }
    assert conversation(plan_of(reply_with())).agent.builtin_tools == {}


@pytest.mark.parametrize(
    ("tool", "recorded", "status"),
    [
        (BuiltinTool.RECORDING_PAUSE, True, "paused"),
        (BuiltinTool.RECORDING_RESUME, True, "recording"),
        (BuiltinTool.RECORDING_PAUSE, False, "not recorded"),
        (BuiltinTool.RECORDING_RESUME, False, "not recorded"),
    ],
)
def test_the_model_is_told_whether_the_recording_is_paused(tool: BuiltinTool, recorded: bool, status: str) -> None:
    made = plan() if recorded else plan_of(reply_with())
    output = VNS.builtin_output(tool, made, attempt(), ToolCall("c", "x", "{}"), STARTED)
    assert json.loads(output) == {"status": status}
