"""Runs a dialogue script: the brain of the embedded engine. Sans-I/O; README.md here describes the scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from switchhook.agents.brain import Action, BrainRefused, CallTool, Say, Tool
from switchhook.agents.embedded import plain_script, speech
from switchhook.agents.embedded.phrases import Phrase, parse, words_of
from switchhook.agents.embedded.reader import read_script
from switchhook.agents.embedded.script import Choice, Script, ScriptInvalid, State, fill, look_up
from switchhook.agents.providers.grammar import Grammar

_FENCE = re.compile(r"```switchhook-dialogue[^\n]*\n(.*?)\n[ \t]*```", re.DOTALL)
_KEYS = re.compile(r"\s*DTMF:\s*([0-9A-D*#]+)\s*", re.IGNORECASE)
_MAX_STEPS = 50
"""A script that goes from state to state without listening is stopped here."""
_MAX_INPUTS = 20
_MAX_TEXT = 500
_SORRY = "Sorry, I did not understand."
_STILL_THERE = "Are you still there?"
_ONE_MOMENT = "One moment, please."
_FAILED = "Sorry, that did not work."
_YES = parse("yes [please] | yeah | correct | that is right")
_NO = parse("no [thank you] | wrong | that is wrong")


class Dialogue:
    """Implements `agents.brain.Brain`."""

    def __init__(self) -> None:
        self._source: object = None
        self._script = plain_script.build(())
        self._tools: frozenset[str] = frozenset()
        self._restart()

    def configure(self, instructions: str, tools: Sequence[Tool]) -> None:
        """Take the script in the instructions' fenced `switchhook-dialogue` block, or build one from the tools.

        The dialogue goes on where it is when the script is the same as before. Raises BrainRefused.
        """
        self._tools = frozenset(tool.name for tool in tools)
        fenced = _FENCE.search(instructions.replace("\r\n", "\n"))
        source: object = fenced[1] if fenced else tuple(tools)
        if source == self._source:
            return
        try:
            self._script = read_script(fenced[1]) if fenced else plain_script.build(tools)
        except ScriptInvalid as error:
            raise BrainRefused(f"switchhook-dialogue: {error}") from error
        self._source = source
        self._restart()

    def _restart(self) -> None:
        self._state: State | None = None
        self._values: dict[str, Any] = {}
        self._inputs: list[str | None] = []
        self._misses = 0
        self._asked: Choice | None = None
        """The choice whose confirming question waits for yes or no."""
        self._calling: State | None = None
        self._result: dict[str, Any] | None = None
        self._actions: list[Action] = []
        self._tools_allowed = True

    @property
    def state(self) -> str | None:
        """Name of the state the dialogue is in; None before it began."""
        return self._state.name if self._state else None

    @property
    def grammar(self) -> Grammar | None:
        """The phrases of the present state, and those of every state."""
        if self._asked is not None:
            return _grammar(self._script, [_YES, _NO, *(p for choice in self._script.always for p in choice.phrases)])
        return _grammar(self._script, [phrase for choice in self._choices() for phrase in choice.phrases])

    def heard(self, text: str) -> None:
        """The caller spoke."""
        self._add(text)

    def typed(self, text: str) -> None:
        """The caller typed or pressed keys."""
        self._add(text[:_MAX_TEXT])

    def silent(self) -> None:
        """The caller said nothing."""
        self._add(None)

    def _add(self, given: str | None) -> None:
        self._inputs = [*self._inputs, given][-_MAX_INPUTS:]

    def tool_returned(self, name: str, output: str) -> None:
        """A tool gave its output; one that was not called from here is left alone."""
        if self._calling is not None and name == self._calling.tool:
            self._result = _as_fields(output)

    def respond(self, instructions: str | None, tools_allowed: bool) -> list[Action]:
        """Say a text that the instructions give word for word, else take the dialogue one turn further."""
        if (text := speech.verbatim(instructions)) is not None:
            return [Say(text, speech.spoken(text))]
        self._tools_allowed = tools_allowed
        self._actions = []
        inputs, self._inputs = self._inputs, []
        if self._state is None:
            self._enter(self._script.start)
            if inputs and self._calling is None:
                self._take(inputs)
        elif self._calling is not None:
            self._go_on_after_tool()
        elif inputs:
            self._take(inputs)
        else:
            self._prompt()
        return self._in_order()

    def _in_order(self) -> list[Action]:
        """Tools first, so that they run while the caller listens; then all that is to be said, as one text."""
        calls: list[Action] = [action for action in self._actions if isinstance(action, CallTool)]
        said = [action for action in self._actions if isinstance(action, Say) and action.text]
        if said:
            calls.append(Say(" ".join(s.text for s in said), " ".join(s.spoken for s in said)))
        return calls

    def _say(self, template: str) -> None:
        text = str(fill(template, self._values) or "") if template else ""
        text = " ".join(text.split())
        self._actions.append(Say(text, speech.spoken(text)))

    def _prompt(self) -> None:
        if self._asked is not None:
            self._say(self._asked.confirm)
        elif self._state is not None:
            self._say(self._state.say)

    def _enter(self, name: str) -> None:
        """Go to a state, and on from there until one listens, waits for a tool or ends."""
        self._asked = None
        for _ in range(_MAX_STEPS):
            state = self._script.states[name]
            if state.needs is not None and state.goto is not None and self._values.get(state.needs):
                name = state.goto
                continue
            self._state = state
            self._misses = 0
            if state.tool is not None:
                following = self._call(state)
            else:
                self._say(state.say)
                following = None if state.listens else state.goto
            if following is None:
                return
            name = following

    def _call(self, state: State) -> str | None:
        """Call a state's tool; gives the state to go on with at once when the tool is not at hand."""
        assert state.tool is not None
        if not self._tools_allowed or state.tool not in self._tools:
            return self._after(state, {"error": f"the session has no tool {state.tool}"})
        self._say(state.say)
        self._calling, self._result = state, None
        arguments = {key: value for key, value in fill(state.arguments, self._values).items() if value is not None}
        self._actions.append(CallTool(state.tool, json.dumps(arguments, ensure_ascii=False)))
        return None

    def _go_on_after_tool(self) -> None:
        assert self._calling is not None
        if self._result is None:
            self._say(_ONE_MOMENT)
            return
        state, self._calling = self._calling, None
        self._enter(self._after(state, self._result))

    def _after(self, state: State, result: dict[str, Any]) -> str:
        """Keep a result and return the state it leads to."""
        self._values["result"] = result
        if result.get("error"):
            if state.failed is not None:
                return state.failed
            self._say(_FAILED)
        for branch in state.results:
            if all(look_up(path, result) == expected for path, expected in branch.when.items()):
                return branch.goto
        assert state.goto is not None, "the reader demands it"
        return state.goto

    def _choices(self) -> tuple[Choice, ...]:
        state = self._state or self._first_listening()
        if state is None or not state.listens:
            return ()
        return (*state.choices, *self._script.always)

    def _first_listening(self) -> State | None:
        """Before the dialogue began: where its start leads."""
        state = self._script.states[self._script.start]
        for _ in range(_MAX_STEPS):
            if state.listens or state.tool is not None or state.goto is None:
                return state
            state = self._script.states[state.goto]
        return None

    def _take(self, inputs: Sequence[str | None]) -> None:
        """The newest input that means something counts."""
        if self._asked is not None and self._answer(self._asked, inputs):
            return
        for given in reversed(inputs):
            if given and (found := self._find(given)) is not None:
                self._asked = None
                self._choose(*found)
                return
        if self._state is None or not self._state.listens:
            return
        self._miss(heard=any(given is not None for given in inputs))

    def _answer(self, asked: Choice, inputs: Sequence[str | None]) -> bool:
        for given in reversed(inputs):
            words = words_of(given or "")
            keys = _pressed(given or "")
            if keys == "1" or _YES.match(words, {}) is not None:
                self._asked = None
                self._follow(asked)
                return True
            if keys == "2" or _NO.match(words, {}) is not None:
                self._asked = None
                self._prompt()
                return True
        return False

    def _find(self, given: str) -> tuple[Choice, dict[str, str]] | None:
        if (keys := _pressed(given)) is not None:
            return self._find_keys(keys)
        words = words_of(given)
        ends = {name: slot.ends for name, slot in self._script.slots.items()}
        for choice in self._choices():
            for phrase in choice.phrases:
                spans = phrase.match(words, ends)
                if spans is not None:
                    return choice, {name: self._script.slots[name].read(words[a:b]) for name, (a, b) in spans.items()}
        return None

    def _find_keys(self, keys: str) -> tuple[Choice, dict[str, str]] | None:
        bare = keys.rstrip("#") or keys
        for choice in self._choices():
            if choice.keys in (keys, bare):
                return choice, {}
            if choice.keyed_slot is not None:
                value = self._script.slots[choice.keyed_slot].read_keys(bare)
                if value is not None:
                    return choice, {choice.keyed_slot: value}
        return None

    def _choose(self, choice: Choice, values: dict[str, str]) -> None:
        self._values.update(values)
        self._values.update({name: fill(template, self._values) for name, template in choice.assign.items()})
        if choice.confirm:
            self._asked = choice
            self._misses = 0
            self._say(choice.confirm)
        else:
            self._follow(choice)

    def _follow(self, choice: Choice) -> None:
        self._say(choice.say)
        self._enter(choice.goto)

    def _miss(self, heard: bool) -> None:
        state = self._state
        assert state is not None
        self._misses += 1
        if self._misses >= state.tries and state.give_up is not None:
            self._enter(state.give_up)
            return
        self._say((state.no_match or _SORRY) if heard else (state.no_input or _STILL_THERE))
        self._prompt()


def _grammar(script: Script, spoken: Sequence[Phrase]) -> Grammar | None:
    if not spoken:
        return None
    used = {name for phrase in spoken for name in phrase.slots}
    rules = tuple((name, slot.expansions) for name, slot in script.slots.items() if name in used)
    return Grammar(tuple(phrase.expansion for phrase in spoken), rules)


def _pressed(given: str) -> str | None:
    match = _KEYS.fullmatch(given)
    return match[1].upper() if match else None


def _as_fields(output: str) -> dict[str, Any]:
    """A tool's output as fields; one that is no JSON object is the field `text`."""
    try:
        data = json.loads(output)
    except (ValueError, RecursionError):
        return {"text": output}
    return data if isinstance(data, dict) else {"text": data if isinstance(data, str) else output}
