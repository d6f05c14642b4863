"""TwiML as the official package writes it, and as an XML parser reads it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, VoiceResponse
from twilio.twiml.voice_response import Dial as OfficialDial

from switchhook.telephony.wire.twiml import Dial, connect_stream, dial, hang_up, reject

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=30)


def tree(text: str) -> Any:
    def node(element: ElementTree.Element) -> Any:
        return element.tag, dict(element.attrib), element.text or "", [node(child) for child in element]

    return node(ElementTree.fromstring(text))


@given(texts, texts)
def test_a_stream_is_written_as_the_official_package_does(url: str, leg: str) -> None:
    official, connect = VoiceResponse(), Connect()
    connect.stream(url=url).parameter(name="leg", value=leg)
    official.append(connect)
    official.hangup()
    assert tree(connect_stream(url, leg)) == tree(str(official))


@given(texts, texts.filter(bool), texts)
def test_a_dial_is_written_as_the_official_package_does(called: str, caller: str, place: str) -> None:
    official = VoiceResponse()
    verb = OfficialDial(caller_id=caller, timeout=30, time_limit=60, action=place, method="POST", answer_on_bridge=True)
    verb.number(called, status_callback=place, status_callback_event="answered", status_callback_method="POST")
    official.append(verb)
    assert tree(dial(Dial(called, caller, 30, 60, place, place))) == tree(str(official))


def test_an_anonymous_caller_is_left_to_the_carrier() -> None:
    assert "callerId" not in dial(Dial("+12025550147", "", 30, 60, "https://a", "https://b"))


def test_a_refusal_says_why() -> None:
    for busy, reason in ((True, "busy"), (False, "rejected")):
        official = VoiceResponse()
        official.reject(reason=reason)
        assert tree(reject(busy)) == tree(str(official))
    assert tree(hang_up()) == tree("<Response><Hangup/></Response>")
