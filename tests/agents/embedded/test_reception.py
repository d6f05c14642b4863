"""The demo's reception desk, without sound: every way through it leads on, and the tools get what the caller meant."""

from __future__ import annotations

import json

import pytest
import yaml

from switchhook.agents.brain import Action, CallTool, Say, Tool
from switchhook.agents.embedded.dialogue import Dialogue
from switchhook_demo.backend import RECEPTION, book_appointment, check_availability

TEXT = RECEPTION.read_text()
TOOLS = [Tool(tool["name"], tool["description"], tool["parameters"]) for tool in yaml.safe_load(TEXT)["tools"]]


class Desk:
    """A caller at the desk, with the sample backend's tools."""

    def __init__(self, tools: list[Tool] = TOOLS) -> None:
        self.dialogue = Dialogue()
        self.dialogue.configure(TEXT, tools)
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.greeting = self._played(self.dialogue.respond(None, True))

    def says(self, text: str) -> str:
        self.dialogue.typed(text)
        return self._played(self.dialogue.respond(None, True))

    def _played(self, actions: list[Action]) -> str:
        said: list[str] = []
        for action in actions:
            match action:
                case Say(text):
                    said.append(text)
                case CallTool(name, arguments):
                    given = json.loads(arguments)
                    self.calls.append((name, given))
                    result = check_availability(**given) if name == "check_availability" else {}
                    result = book_appointment(**given) if name == "book_appointment" else result
                    self.dialogue.tool_returned(name, json.dumps(result))
        if any(isinstance(action, CallTool) for action in actions):
            said.append(self._played(self.dialogue.respond(None, True)))
        return " ".join(said)


def test_the_demos_conversation() -> None:
    desk = Desk()
    assert desk.greeting.startswith("Welcome to the practice.")
    desk.says("i would like to book an appointment")
    assert "I have 10:00 and 14:30" in desk.says("friday")
    assert "Friday at 14:30, is that right?" in desk.says("DTMF: 2")
    assert "The reference is 51430" in desk.says("yes please")
    assert "We are open from 8:00 to 17:00" in desk.says("what are your opening hours")
    desk.says("goodbye")
    assert [name for name, _ in desk.calls] == ["check_availability", "book_appointment", "vns_end_conversation"]
    assert desk.calls[1][1] == {"day": "Friday", "time": "14:30"}


@pytest.mark.parametrize(
    ("time", "booked"),
    [("at ten", "10:00"), ("half past two", "14:30"), ("DTMF: 1", "10:00"), ("DTMF: 1430#", "14:30"), ("DTMF: 9", "09:00")],
)
def test_the_time_is_what_the_caller_said_or_keyed(time: str, booked: str) -> None:
    desk = Desk()
    desk.says("book an appointment on tuesday")
    desk.says(time)
    desk.says("yes")
    assert desk.calls[-1] == ("book_appointment", {"day": "Tuesday", "time": booked})


def test_a_full_day_another_day_and_a_second_booking() -> None:
    desk = Desk()
    desk.says("book an appointment")
    assert "Sunday is not possible. The practice is open from Monday to Friday." in desk.says("on sunday")
    desk.says("thursday")
    desk.says("another day please")
    desk.says("DTMF: 3")
    desk.says("DTMF: 1")
    assert "Wednesday at 10:00" in desk.says("no") or "On Wednesday" in desk.says("no")
    desk.says("DTMF: 1")
    desk.says("yes")
    assert desk.calls[-1][1] == {"day": "Wednesday", "time": "10:00"}
    assert "For which day" in desk.says("i want to book an appointment")


def test_orders_people_repeats_and_giving_up() -> None:
    desk = Desk()
    assert "Did you say 4271?" in desk.says("look up my order") + desk.says("DTMF: 4271#")
    assert "Order 4271 is on its way" in desk.says("yes")
    assert "Nobody is free" in desk.says("speak to an operator")
    assert "book an appointment" in desk.says("say that again please")
    for _ in range(3):
        desk.says("gibberish")
    assert desk.calls[-1][0] == "vns_end_conversation"


def test_without_the_servers_tool_the_farewell_is_spoken() -> None:
    assert Desk([]).says("goodbye") == "Thank you for calling. Goodbye."
