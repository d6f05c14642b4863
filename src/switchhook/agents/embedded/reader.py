"""Reads a dialogue script from YAML and says exactly what is wrong with one that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from switchhook.agents.embedded import phrases, slots
from switchhook.agents.embedded.script import Branch, Choice, Script, ScriptInvalid, State

MAX_CHARACTERS = 100_000
_SCRIPT_KEYS = {"start", "slots", "always", "states"}
_CHOICE_KEYS = {"phrases", "keys", "say", "set", "confirm", "goto"}
_LISTEN_KEYS = {"listen", "needs", "no_match", "no_input", "tries", "give_up"}
_TOOL_KEYS = {"tool", "arguments", "results", "failed"}
_STATE_KEYS = {"say", "goto", "end"} | _LISTEN_KEYS | _TOOL_KEYS


def read_script(text: str) -> Script:
    """Read a script. Raises ScriptInvalid naming the place, such as `states.menu.listen[2].goto`."""
    if len(text) > MAX_CHARACTERS:
        raise ScriptInvalid(f"the script has more than {MAX_CHARACTERS} characters")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ScriptInvalid(f"the script is not YAML{where}") from error
    return script_of(data)


def script_of(given: Any) -> Script:
    """Make a script of the YAML's plain data. Raises ScriptInvalid."""
    data = _mapping(given, "the script", _SCRIPT_KEYS)
    known = slots.built_in()
    for name, given in _mapping(data.get("slots", {}), "slots").items():
        known[_name(name, "slots")] = _slot(given, f"slots.{name}")
    read = _StateReader(known)
    states = {name: read.state(name, given) for name, given in _mapping(data.get("states"), "states").items()}
    always = tuple(read.choice(given, f"always[{i}]", None) for i, given in enumerate(_list(data.get("always", []), "always")))
    start = _text(data, "start", "the script")
    _check_targets(Script(start, states, known, always))
    return Script(start, states, known, always)


def _check_targets(script: Script) -> None:
    """Every name that something leads to must be a state, and nothing may be a dead end."""

    def check(target: str | None, where: str) -> None:
        if target is not None and target not in script.states:
            raise ScriptInvalid(f"{where}: there is no state `{target}`")

    check(script.start, "start")
    for i, choice in enumerate(script.always):
        check(choice.goto, f"always[{i}].goto")
    for state in script.states.values():
        place = f"states.{state.name}"
        check(state.goto, f"{place}.goto")
        check(state.failed, f"{place}.failed")
        check(state.give_up, f"{place}.give_up")
        for i, choice in enumerate(state.choices):
            check(choice.goto, f"{place}.listen[{i}].goto")
        for i, branch in enumerate(state.results):
            check(branch.goto, f"{place}.results[{i}].goto")


class _StateReader:
    """Reads states and choices, which use the slots."""

    def __init__(self, known: Mapping[str, slots.Slot]) -> None:
        self._slots = known

    def state(self, name: object, given: Any) -> State:
        place = f"states.{name}"
        data = _mapping(given, place, _STATE_KEYS)
        _check_kind(data, place)
        goto = _optional_text(data, "goto", place)
        listen = _list(data.get("listen", []), f"{place}.listen")
        needs = _optional_text(data, "needs", place)
        if needs is not None:
            self._known_slot(needs, f"{place}.needs")
        return State(
            name=_name(name, "states"),
            say=_optional_text(data, "say", place) or "",
            choices=tuple(self.choice(entry, f"{place}.listen[{i}]", goto) for i, entry in enumerate(listen)),
            listens="listen" in data,
            goto=goto,
            needs=needs,
            no_match=_optional_text(data, "no_match", place) or "",
            no_input=_optional_text(data, "no_input", place) or "",
            tries=_count(data, "tries", place, 3),
            give_up=_optional_text(data, "give_up", place),
            tool=_optional_text(data, "tool", place),
            arguments=_mapping(data.get("arguments", {}), f"{place}.arguments"),
            results=tuple(_branch(b, f"{place}.results[{i}]") for i, b in enumerate(_list(data.get("results", []), place))),
            failed=_optional_text(data, "failed", place),
        )

    def choice(self, given: Any, place: str, fallback: str | None) -> Choice:
        data = _mapping(given, place, _CHOICE_KEYS)
        goto = _optional_text(data, "goto", place) or fallback
        if goto is None:
            raise ScriptInvalid(f"{place}: say where it leads with `goto`, here or in the state")
        texts = data.get("phrases", [])
        spoken = tuple(_phrase(text, f"{place}.phrases") for text in ([texts] if isinstance(texts, str) else _list(texts, place)))
        for slot in {slot for phrase in spoken for slot in phrase.slots}:
            self._known_slot(slot, f"{place}.phrases")
        keys = data.get("keys")
        keys = None if keys is None else str(keys)
        keyed_slot = keys[1:-1] if keys and keys.startswith("{") and keys.endswith("}") else None
        if keyed_slot is not None:
            self._known_slot(keyed_slot, f"{place}.keys")
        if not spoken and not keys:
            raise ScriptInvalid(f"{place}: give `phrases`, `keys` or both")
        return Choice(
            goto=goto,
            phrases=spoken,
            keys=None if keyed_slot else keys,
            keyed_slot=keyed_slot,
            say=_optional_text(data, "say", place) or "",
            assign={str(key): str(value) for key, value in _mapping(data.get("set", {}), f"{place}.set").items()},
            confirm=_optional_text(data, "confirm", place) or "",
        )

    def _known_slot(self, name: str, place: str) -> None:
        if name not in self._slots:
            raise ScriptInvalid(f"{place}: there is no slot `{name}`; the slots are {', '.join(sorted(self._slots))}")


def _check_kind(data: Mapping[str, Any], place: str) -> None:
    listens, calls, ends = "listen" in data, "tool" in data, data.get("end") is True
    if listens + calls + ends > 1:
        raise ScriptInvalid(f"{place}: a state has one of `listen`, `tool` and `end: true`")
    if not (listens or calls or ends or "goto" in data):
        raise ScriptInvalid(f"{place}: say what happens with `listen`, `tool`, `goto` or `end: true`")
    if calls and "goto" not in data:
        raise ScriptInvalid(f"{place}: a state with a `tool` needs `goto`, where its result leads")
    if "needs" in data and "goto" not in data:
        raise ScriptInvalid(f"{place}: a state with `needs` needs `goto`, where a known value leads")
    for keys, present, kind in ((_LISTEN_KEYS, listens, "listen"), (_TOOL_KEYS, calls, "tool")):
        if not present and (stray := keys & set(data)):
            raise ScriptInvalid(f"{place}: `{sorted(stray)[0]}` needs `{kind}`")


def _slot(given: Any, place: str) -> slots.Slot:
    data = _mapping(given, place, {"digits", "words"})
    if "digits" in data:
        least, _, most = str(data["digits"]).partition("-")
        if least.isdigit() and (most or least).isdigit() and 1 <= int(least) <= int(most or least) <= slots.MAX_DIGITS:
            return slots.of_digits(int(least), int(most or least))
        raise ScriptInvalid(f"{place}.digits: give a count or a range such as 3-8, at most {slots.MAX_DIGITS}")
    words = _mapping(data.get("words"), f"{place}.words")
    options: dict[str, list[phrases.Phrase]] = {}
    for value, spoken in words.items():
        texts = [spoken] if isinstance(spoken, str) else _list(spoken, f"{place}.words.{value}")
        options[str(value)] = [_phrase(text, f"{place}.words.{value}") for text in texts]
        if any(phrase.slots for phrase in options[str(value)]):
            raise ScriptInvalid(f"{place}.words.{value}: a slot's words hold no slot")
    if not any(options.values()):
        raise ScriptInvalid(f"{place}: give `words` (value: phrases) or `digits`")
    return slots.of_words(options)


def _branch(given: Any, place: str) -> Branch:
    data = _mapping(given, place, {"when", "goto"})
    return Branch(_mapping(data.get("when"), f"{place}.when"), _text(data, "goto", place))


def _phrase(text: Any, place: str) -> phrases.Phrase:
    if not isinstance(text, str):
        raise ScriptInvalid(f"{place}: phrases are texts; put quotation marks around `{text}`")
    try:
        return phrases.parse(text)
    except phrases.PhraseInvalid as error:
        raise ScriptInvalid(f"{place}: {error}") from error


def _mapping(given: Any, place: str, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ScriptInvalid(f"{place}: give a mapping")
    if keys is not None and (unknown := sorted(str(key) for key in given if key not in keys)):
        raise ScriptInvalid(f"{place}: unknown key `{unknown[0]}`; the keys are {', '.join(sorted(keys))}")
    return {str(key): value for key, value in given.items()}


def _list(given: Any, place: str) -> list[Any]:
    if not isinstance(given, list):
        raise ScriptInvalid(f"{place}: give a list")
    return given


def _name(given: object, place: str) -> str:
    name = str(given)
    if not name.replace("_", "").isalnum() or not name.isascii() or name != name.lower() or name[0].isdigit():
        raise ScriptInvalid(f"{place}: `{name}` is no name; use lower-case letters, digits and _")
    return name


def _text(data: Mapping[str, Any], key: str, place: str) -> str:
    found = _optional_text(data, key, place)
    if found is None:
        raise ScriptInvalid(f"{place}: `{key}` is missing")
    return found


def _optional_text(data: Mapping[str, Any], key: str, place: str) -> str | None:
    value = data.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ScriptInvalid(f"{place}.{key}: give a text")


def _count(data: Mapping[str, Any], key: str, place: str, default: int) -> int:
    value = data.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 20:
        return value
    raise ScriptInvalid(f"{place}.{key}: give a number from 1 to 20")
