"""Dialogues as a caller notices them: what is said, which tool is called with what."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.agents.brain import Action, BrainRefused, CallTool, Say, Tool
from switchhook.agents.embedded.dialogue import Dialogue

SCRIPT = """
start: greeting
always:
  - {phrases: "[thank you] goodbye", goto: farewell}
states:
  greeting: {say: Hello., goto: menu}
  menu:
    say: Which day?
    listen:
      - {phrases: "[on] {day} [please]", keys: "{day}", goto: ask}
      - {phrases: "cancel {digits}", keys: "9", confirm: "Cancel {digits}?", goto: cancelled}
    no_match: Pardon?
    no_input: Hello?
    tries: 2
    give_up: farewell
  ask:
    say: Looking at {day}.
    tool: look_up
    arguments: {day: "{day}", party: 2, note: "for {day}", nothing: "{unknown}"}
    results: [{when: {free: true}, goto: offer}]
    failed: broken
    goto: full
  offer: {say: "Free at {result.times}, first {result.times.0}.", goto: menu}
  full: {say: Nothing free., goto: menu}
  broken: {say: The calendar is down., goto: menu}
  cancelled: {say: Cancelled., goto: menu}
  farewell: {say: Goodbye., goto: over}
  over: {end: true}
"""


def dialogue(tools: Sequence[str] = ("look_up",)) -> Dialogue:
    made = Dialogue()
    made.configure(f"You are kind.\n```switchhook-dialogue\n{SCRIPT}\n```\nMore.", [Tool(name) for name in tools])
    return made


def begun(tools: Sequence[str] = ("look_up",)) -> Dialogue:
    made = dialogue(tools)
    assert said(made.respond(None, True)) == "Hello. Which day?"
    return made


def said(actions: Sequence[Action]) -> str:
    return " ".join(action.text for action in actions if isinstance(action, Say))


def called(actions: Sequence[Action]) -> list[tuple[str, object]]:
    return [(action.name, json.loads(action.arguments)) for action in actions if isinstance(action, CallTool)]


def test_a_phrase_fills_a_slot_and_a_tool_is_called_with_it() -> None:
    talk = begun()
    talk.heard("on tuesday please")
    actions = talk.respond(None, True)
    assert isinstance(actions[0], CallTool), "the tool runs while the caller listens"
    assert called(actions) == [("look_up", {"day": "Tuesday", "party": 2, "note": "for Tuesday"})]
    assert said(actions) == "Looking at Tuesday."
    talk.tool_returned("look_up", json.dumps({"free": True, "times": ["10:00", "14:30"]}))
    (offer,) = talk.respond(None, True)
    assert offer == Say(
        "Free at 10:00 and 14:30, first 10:00. Which day?", "Free at 10 a m and 2 thirty p m, first 10 a m. Which day?"
    )


def test_results_branch_and_errors_have_their_own_way() -> None:
    for output, answer in (
        ('{"free": false}', "Nothing free."),
        ("no json", "Nothing free."),
        ('{"error": "timeout"}', "The calendar is down."),
    ):
        talk = begun()
        talk.typed("DTMF: 2#")
        assert called(talk.respond(None, True))[0][1] == {"day": "Tuesday", "party": 2, "note": "for Tuesday"}
        talk.tool_returned("look_up", output)
        assert said(talk.respond(None, True)) == f"{answer} Which day?"


def test_a_tool_that_is_not_there_or_not_allowed_fails_at_once() -> None:
    for talk, allowed in ((begun(()), True), (begun(), False)):
        talk.heard("tuesday")
        assert talk.respond(None, allowed) == [Say("The calendar is down. Which day?", "The calendar is down. Which day?")]


def test_while_a_tool_runs_the_caller_is_asked_to_wait_and_the_result_is_not_lost() -> None:
    talk = begun()
    talk.heard("tuesday")
    talk.respond(None, True)
    talk.heard("friday")
    assert said(talk.respond(None, True)) == "One moment, please."
    assert talk.grammar is None
    talk.tool_returned("another", '{"free": true}')
    assert said(talk.respond(None, True)) == "One moment, please."
    talk.tool_returned("look_up", '{"free": false}')
    assert said(talk.respond(None, True)) == "Nothing free. Which day?"


def test_an_action_that_must_be_confirmed_waits_for_yes() -> None:
    talk = begun()
    talk.heard("cancel four two seven one")
    (question,) = talk.respond(None, True)
    assert question == Say("Cancel 4271?", "Cancel 4 2 7 1?")
    talk.heard("no thank you")
    assert said(talk.respond(None, True)) == "Which day?"
    talk.heard("cancel four two seven one")
    talk.respond(None, True)
    talk.heard("")
    assert said(talk.respond(None, True)) == "Pardon? Cancel 4271?"
    talk.typed("DTMF: 1")
    assert said(talk.respond(None, True)) == "Cancelled. Which day?"


def test_no_match_and_no_input_prompt_again_and_then_give_up() -> None:
    talk = begun()
    talk.heard("")
    assert said(talk.respond(None, True)) == "Pardon? Which day?"
    talk.silent()
    assert said(talk.respond(None, True)) == "Goodbye."
    talk.heard("tuesday")
    assert talk.respond(None, True) == [], "it is over"
    talk = begun()
    talk.silent()
    assert said(talk.respond(None, True)) == "Hello? Which day?"


def test_of_several_utterances_the_newest_that_means_something_counts() -> None:
    talk = begun()
    for text in ("friday", "tuesday", "", "nonsense"):
        talk.heard(text)
    assert said(talk.respond(None, True)) == "Looking at Tuesday."


def test_words_that_came_before_the_greeting_are_answered_with_it() -> None:
    talk = dialogue()
    talk.typed("Tuesday")
    assert said(talk.respond(None, True)) == "Hello. Which day? Looking at Tuesday."


def test_a_response_without_anything_said_repeats_the_prompt() -> None:
    assert said(begun().respond(None, True)) == "Which day?"


def test_a_text_given_word_for_word_is_said_and_changes_nothing() -> None:
    talk = begun()
    order = 'Say exactly this to the caller and nothing else: "Goodbye, and thanks for \\"all\\"."'
    assert said(talk.respond(order, False)) == 'Goodbye, and thanks for "all".'
    assert said(talk.respond("Greet the caller with “Good day”", True)) == "Good day"
    assert said(talk.respond("Be friendly.", True)) == "Which day?"


def test_the_same_script_again_goes_on_another_begins_anew() -> None:
    talk = begun()
    talk.configure(f"Changed.\n```switchhook-dialogue\n{SCRIPT}\n```", [Tool("look_up")])
    talk.heard("tuesday")
    assert said(talk.respond(None, True)) == "Looking at Tuesday."
    talk.configure("No script.", ())
    assert said(talk.respond(None, True)).startswith("Hello.")


def test_a_bad_script_is_refused_and_the_old_one_stays() -> None:
    talk = begun()
    with pytest.raises(BrainRefused, match=r"switchhook-dialogue: start: there is no state"):
        talk.configure("```switchhook-dialogue\nstart: x\nstates: {}\n```", ())
    talk.heard("goodbye")
    assert said(talk.respond(None, True)) == "Goodbye."


def test_the_grammar_follows_the_state() -> None:
    talk = begun()
    grammar = talk.grammar
    assert grammar is not None
    assert grammar.phrases == ("[on] <day> [please]", "cancel <digits>", "[thank you] goodbye")
    assert {name for name, _ in grammar.rules} == {"day", "digits"}
    talk.heard("cancel four two seven one")
    talk.respond(None, True)
    grammar = talk.grammar
    assert grammar is not None and any("yes" in phrase for phrase in grammar.phrases)


def test_a_script_that_runs_in_a_circle_stops() -> None:
    talk = Dialogue()
    talk.configure("```switchhook-dialogue\nstart: a\nstates:\n  a: {say: A, goto: b}\n  b: {goto: a}\n```", ())
    assert said(talk.respond(None, True)).startswith("A A")


TOOLS = [
    Tool(
        "check_stock", "Check the stock. Long story.", {"properties": {"item": {"enum": ["Red wine", "7"]}}, "required": ["item"]}
    ),
    Tool("book", "Book {a table}", {"properties": {}, "required": ["day", "start_time", "party"]}),
    Tool("vns_end_conversation"),
]


def test_a_session_without_a_script_gets_a_menu_of_its_tools() -> None:
    talk = Dialogue()
    talk.configure("You are a helpful assistant.", TOOLS)
    opening = said(talk.respond(None, True))
    assert "For check the stock, say option one or press 1. For book a table, say option two or press 2." in opening
    talk.heard("option one please")
    assert said(talk.respond(None, True)) == "Please say or key in the item."
    talk.heard("red wine")
    actions = talk.respond(None, True)
    assert called(actions) == [("check_stock", {"item": "Red wine"})]
    talk.tool_returned("check_stock", '{"in_stock": true, "bottles": 12}')
    assert said(talk.respond(None, True)).startswith("in stock yes, bottles 12.")
    for given_input in ("DTMF: 2", "on friday", "friday", "DTMF: 3", "DTMF: 4#"):
        talk.typed(given_input)
        actions = talk.respond(None, True)
    assert called(actions) == [("book", {"day": "Friday", "start_time": "15:00", "party": "4"})]


def test_a_menu_without_tools_still_talks_and_ends() -> None:
    talk = Dialogue()
    assert said(talk.respond(None, True)) == "Hello. To end the call, say goodbye."
    talk.heard("goodbye")
    assert said(talk.respond(None, True)) == "Goodbye."
    talk = Dialogue()
    talk.configure("", TOOLS)
    talk.respond(None, True)
    talk.heard("thank you goodbye")
    assert called(talk.respond(None, True)) == [("vns_end_conversation", {"farewell": "Thank you for calling. Goodbye."})]


INPUTS = st.one_of(
    st.tuples(st.just("heard"), st.sampled_from(["", "tuesday", "goodbye", "cancel one two three four", "yes", "no", "x" * 900])),
    st.tuples(st.just("typed"), st.sampled_from(["DTMF: 2", "DTMF: 9", "dtmf: *#", "DTMF:", "friday", "…"])),
    st.tuples(st.just("tool"), st.sampled_from(['{"free": true}', '{"error": 1}', "[]", "nul", '"x"', "[" * 3000])),
    st.tuples(st.sampled_from(["silent", "respond", "quiet"]), st.just("")),
)


@settings(deadline=None)
@given(st.lists(INPUTS, max_size=40))
def test_any_order_of_inputs_is_answered_with_one_message_and_one_call_at_most(inputs: list[tuple[str, str]]) -> None:
    talk = dialogue()
    for kind, text in inputs:
        match kind:
            case "heard":
                talk.heard(text)
            case "typed":
                talk.typed(text)
            case "tool":
                talk.tool_returned("look_up", text)
            case "silent":
                talk.silent()
            case _:
                actions = talk.respond(None, kind == "respond")
                assert len(actions) <= 2 and len(called(actions)) <= 1
                assert kind == "respond" or not called(actions)
        assert talk.grammar is None or talk.grammar.phrases
