"""What the caller, the model and the customer notice of tools: the customer's own, and MCP."""

from __future__ import annotations

import json

import pytest

from tests.agents.realtime.talk import Talk, well_behaved


def test_parallel_tools_run_at_once_and_are_followed_by_one_response() -> None:
    talk = Talk().start()
    first, second = talk.does(lambda model: (model.respond(), model.call("a", '{"x":1}'), model.call("b")))[1:]
    assert [tool.call.name for tool in talk.tools] == ["a", "b"]
    talk.returns(first, "one")
    talk.does(lambda model: model.finish())
    assert talk.model.requests == 0
    talk.returns(second, "two")
    talk.returns(second, "again")
    assert talk.model.calls == {first: "one", second: "two"}
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_quick_tool_does_not_ask_for_a_response_while_a_later_call_of_the_same_response_runs() -> None:
    talk = Talk().start()
    quick = talk.does(lambda model: (model.respond(), model.call("quick")))[1]
    talk.returns(quick, "done")
    slow = talk.does(lambda model: (model.call("slow"), model.finish()))[0]
    talk.wait(5)
    assert talk.model.requests == 0
    talk.returns(slow, "done too")
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_result_that_the_lost_model_never_spoke_of_is_told_to_the_next() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book", '{"seats":2}'), model.finish()))[1]
    talk.returns(call, "table 7")
    talk.lose()
    assert any("table 7" in text for _, text in talk.model.texts())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_runaway_model_gets_errors_instead_of_tools() -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), [model.call("loop") for _ in range(40)], model.finish()))
    assert len(talk.tools) == 32
    assert sum("Too many" in (output or "") for output in talk.model.calls.values()) == 8
    well_behaved(talk)


def test_a_tools_output_with_half_a_surrogate_pair_is_delivered() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    talk.returns(call, "smile \ud83d!")
    assert talk.model.calls[call] == "smile ?!"


@pytest.mark.parametrize("status", ["completed", "cancelled", "incomplete"])
@pytest.mark.parametrize("tell", [True, False])
def test_a_tool_runs_once_whatever_becomes_of_its_response(status: str, tell: bool) -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book", tell=tell)))[1]
    talk.does(lambda model: model.finish(status))
    assert [tool.call.call_id for tool in talk.tools] == [call]
    talk.returns(call, "booked")
    assert talk.model.calls[call] == "booked"
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_call_that_was_not_finished_does_not_run() -> None:
    talk = Talk().start()
    item = {"type": "function_call", "call_id": "c", "name": "book", "arguments": '{"half', "status": "incomplete"}
    talk.frame(json.dumps({"type": "response.output_item.done", "response_id": "r", "item": item}).encode())
    assert talk.tools == []


def test_a_tools_answer_waits_for_the_response_that_asked() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a")))[1]
    talk.returns(call, "done")
    assert talk.model.requests == 0
    talk.does(lambda model: model.finish())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_late_result_waits_for_the_caller_and_the_models_own_answer_is_enough() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    turn = talk.does(lambda model: model.speech_started())
    talk.returns(call, "late")
    assert talk.model.calls[call] == "late"
    talk.wait(2)
    assert talk.model.requests == 0
    talk.does(lambda model: model.speech_stopped(turn))
    talk.wait(0.5)
    talk.does(lambda model: (model.respond(), model.say("Here it is"), model.finish()))
    talk.wait(5)
    assert talk.model.requests == 0


def test_a_server_that_never_names_our_items_is_not_asked_once_too_often() -> None:
    talk = Talk().start()
    talk.model.names_items = False
    talk.press("1#")
    talk.does(lambda model: (model.respond(), model.say("One"), model.finish()))
    assert talk.model.requests == 1
    talk.does(lambda model: model.emit("response.mcp_call.completed", item_id="m", output_index=0))
    talk.does(lambda model: (model.respond(), model.say("It goes on by itself"), model.finish()))
    talk.wait(5)
    assert talk.model.requests == 1


def test_a_late_result_is_spoken_of_when_the_model_does_not_answer_by_itself() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("a"), model.finish()))[1]
    turn = talk.does(lambda model: model.speech_started())
    talk.returns(call, "late")
    talk.does(lambda model: model.speech_stopped(turn))
    talk.wait(0.9)
    assert talk.model.requests == 0
    talk.wait(0.2)
    assert talk.model.requests == 1


def test_a_result_that_comes_after_the_session_was_replaced_is_told_as_text() -> None:
    talk = Talk().start()
    call = talk.does(lambda model: (model.respond(), model.call("book"), model.finish()))[1]
    talk.lose()
    assert len(talk.sessions) == 2
    talk.returns(call, "table 7")
    assert any("table 7" in text for _, text in talk.model.texts())
    assert talk.model.requests == 1
    well_behaved(talk)


def test_a_refused_request_for_a_response_is_made_again_when_the_other_response_is_done() -> None:
    talk = Talk(speaks_first=True).start()
    request = talk.model.sent("response.create")[0]
    error = {"code": "conversation_already_has_active_response", "event_id": request.get("event_id"), "message": "busy"}
    talk.does(lambda model: model.respond())
    talk.frame(json.dumps({"type": "error", "error": error}).encode())
    talk.does(lambda model: model.finish())
    assert len(talk.sessions) == 1
    well_behaved(talk)


def test_a_request_refused_for_good_does_not_cost_the_session() -> None:
    talk = Talk(speaks_first=True).start()
    request = talk.model.sent("response.create")[0]
    talk.frame(json.dumps({"type": "error", "error": {"code": "nope", "event_id": request.get("event_id")}}).encode())
    talk.wait(60)
    assert len(talk.sessions) == 1
    assert talk.ends == []


def test_a_failed_response_that_said_nothing_is_tried_once_more() -> None:
    talk = Talk(speaks_first=True).start()
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(1)
    assert talk.model.requests == 2
    talk.does(lambda model: (model.respond(), model.finish("failed")))
    talk.wait(5)
    assert talk.model.requests == 2
    well_behaved(talk)


# -- MCP -----------------------------------------------------------------------------------------


def test_mcp_approvals_are_denied_once() -> None:
    talk = Talk().start()
    request = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "delete_all", "server_label": "s", "arguments": "{}"}
    talk.does(lambda model: model.add_item(request))
    done = {"type": "conversation.item.done", "item": request}
    talk.frame(json.dumps(done).encode())
    talk.frame(json.dumps({"type": "response.output_item.done", "response_id": "r", "item": request}).encode())
    answers = [event["item"] for event in talk.model.sent("conversation.item.create")]
    assert [(item["approval_request_id"], item["approve"]) for item in answers] == [("mcpr_1", False)]
    assert any("delete_all" in line for line in talk.logs)
    well_behaved(talk)


@pytest.mark.parametrize(("model_goes_on", "requests"), [(True, 0), (False, 1)])
def test_after_an_mcp_call_the_model_goes_on(model_goes_on: bool, requests: int) -> None:
    talk = Talk().start()
    talk.does(lambda model: (model.respond(), model.finish()))
    talk.frame(b'{"type":"response.mcp_call.completed","item_id":"m","output_index":0}')
    if model_goes_on:
        talk.does(lambda model: (model.respond(), model.finish()))
    talk.wait(1.5)
    assert talk.model.requests == requests
