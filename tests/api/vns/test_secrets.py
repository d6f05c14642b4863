"""No secret of a customer shows in a log, an error, a repr or a CallEnd (contract §8.10)."""

from __future__ import annotations

import logging

import pytest

from switchhook.api.vns.webhook_test import try_webhook
from switchhook.domain.contract import HttpFailure, HttpOutcome, HttpReply, HttpRequest
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import CallId, Speaker, ToolCall, Utterance
from switchhook.domain.outcome import Ending, Verdict
from switchhook.domain.plan import BuiltinTool, JournalSpec
from switchhook.domain.report import CallReport
from tests.api.vns.cases import DATA, STARTED, VNS, WEBHOOKS, attempt, conversation, number, plan_of

CALL = ToolCall("c", "find_order", "{}")


class Backend:
    """Answers every request with the same outcome."""

    def __init__(self, outcome: HttpOutcome) -> None:
        self.outcome = outcome

    async def send(self, request: HttpRequest) -> HttpOutcome:
        return self.outcome


@pytest.mark.parametrize("name", ["call_start_reply.json", "call_start_reply_sloppy.txt"])
async def test_a_whole_call_keeps_its_secrets(name: str, caplog: pytest.LogCaptureFixture) -> None:
    body = (DATA / name).read_bytes()
    at_number = number(call_start={"url": "https://u:canary@b.example/?key=canary", "bearer": "canary"})
    shown: list[object] = [at_number]
    with caplog.at_level(logging.DEBUG):
        plan = plan_of(body, at_number)
        tool = VNS.tool_request(plan, attempt(), CALL, STARTED)
        spoken = Utterance(Speaker.AGENT, "Hello.", 1, STARTED)
        journal = JournalSpec(True, True, True)
        report = CallReport(attempt(), at_number, Verdict(Ending.COMPLETED, "x"), STARTED, STARTED, journal=journal)
        log = [(STARTED, note) for note in plan.notes]
        log += [(STARTED, VNS.log_tool_request(CALL)), (STARTED, VNS.log_tool_reply(CALL, HttpFailure("timeout", ""), "{}"))]
        end = VNS.end_body(report, log, [spoken])
        shown += [plan, report, tool, VNS.start_request(at_number, attempt()), VNS.end_request(at_number, end)]
        shown += [VNS.utterance_request(plan, attempt(), spoken), end.decode(), HttpReply(200, body)]
        shown += [VNS.builtin_output(tool_kind, plan, attempt(), CALL, STARTED) for tool_kind in BuiltinTool]
        for outcome in (
            HttpReply(200, body),
            HttpReply(500, body),
            HttpReply(200, body[:-20]),
            HttpReply(200, body, truncated=True),
        ):
            shown.append(VNS.read_start_outcome(at_number, attempt(), outcome))
            shown.append(await try_webhook(Backend(outcome), at_number, "call_start", CallId("g"), STARTED))
            shown.append(await try_webhook(Backend(outcome), at_number, "call_end", CallId("g"), STARTED))
    assert "canary" in str(conversation(plan).agent.headers), "the secrets were there"
    for item in shown:
        assert "canary" not in repr(item)
    assert "canary" not in caplog.text


@pytest.mark.parametrize("broken", [b"\\", b"}", b"'", b"canary", b'"', b"/*"])
def test_broken_replies_keep_their_secrets(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    body = (DATA / "call_start_reply.json").read_bytes()
    places = [at for at in range(len(body)) if body.startswith(b"canary", at)]
    with caplog.at_level(logging.DEBUG):
        for place in places:
            VNS.read_start_outcome(number(), attempt(), HttpReply(200, body[:place] + broken + body[place:]))
    assert places
    assert "canary" not in caplog.text


def test_bad_settings_keep_their_secrets() -> None:
    with pytest.raises(ApplyError) as caught:
        VNS.read_number_settings(
            {**WEBHOOKS, "call_start": {"url": "canary", "headers": {"Token": "canary\n", "X": ["canary"]}, "bearer": ["canary"]}}
        )
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)
