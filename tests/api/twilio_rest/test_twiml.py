"""TwiML as customers write it, made into flow actions."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from switchhook.api.twilio_rest.twiml import MOST_BYTES, parse, read_twiml
from switchhook.domain.dialling import DialPurpose
from switchhook.domain.plan import AskNext, Converse, HangUp, Pause, PlaySound, PressKeys, RouteTo, Say, StreamSpec
from switchhook.usecases.steered import FlowUnreadable

BASE = "https://backend.example/twiml/start.xml?call=1"


def read(content: str, base: str | None = None) -> tuple[object, ...]:
    return read_twiml(f"<Response>{content}</Response>".encode(), base)


def refused(content: str, base: str | None = None) -> tuple[int, str]:
    with pytest.raises(FlowUnreadable) as told:
        read(content, base)
    return told.value.code, str(told.value)


def test_what_the_official_package_writes() -> None:
    response = VoiceResponse()
    response.say("Ünïcode & <more>", voice="alice", language="en-US")
    response.play("https://cdn.example/wait.mp3", loop=3)
    response.play("", digits="1w2#")
    response.pause(length=2)
    dial = Dial(caller_id="+17206999999", timeout=20, action="/after?x=1", method="GET", answer_on_bridge=True)
    dial.number("+13035551212", status_callback="https://backend.example/told")
    response.append(dial)
    response.redirect("next.xml")
    response.hangup()
    assert read_twiml(str(response).encode(), BASE) == (
        Say("Ünïcode & <more>"),
        PlaySound("https://cdn.example/wait.mp3", 3),
        PressKeys("1w2#"),
        Pause(2.0),
        RouteTo(
            "+13035551212",
            "+17206999999",
            20.0,
            14400.0,
            returns=True,
            asks=AskNext("https://backend.example/after?x=1", "GET", after_dial=True),
            purpose=DialPurpose.TRANSFER,
        ),
        AskNext("https://backend.example/twiml/next.xml"),
        HangUp(),
    )


def test_a_bare_number_and_a_sip_address() -> None:
    [bare] = read("<Dial> +13035551212 </Dial>")
    [sip] = read("<Dial><Sip>sip:200@pbx.example</Sip></Dial>")
    assert isinstance(bare, RouteTo)
    assert isinstance(sip, RouteTo)
    assert (bare.number, bare.ring_s, bare.asks, bare.caller) == ("+13035551212", 30.0, None, None)
    assert sip.number == "sip:200@pbx.example"


def test_a_bot_takes_the_call() -> None:
    response = VoiceResponse()
    connect = Connect(action="/after")
    stream = connect.stream(url="wss://bot.example/media", name="n")
    stream.parameter(name="guid", value="42")
    response.append(connect)
    [talk, asks] = read_twiml(str(response).encode(), BASE)
    assert isinstance(talk, Converse)
    assert (talk.agent.url, talk.agent.stream) == ("wss://bot.example/media", StreamSpec(parameters={"guid": "42"}))
    assert asks == AskNext("https://backend.example/after")


def test_it_forgives_what_changes_nothing() -> None:
    flow = read('<!-- hello -->words<Say voice="x" unknown="y">a <break/> b\n c</Say><Say> </Say><Reject reason="busy"/>')
    assert flow == (Say("a b c"), HangUp())
    assert read_twiml(b'\n<?xml version="1.0" encoding="ISO-8859-1"?><Response><Say>\xe4</Say></Response>') == (Say("ä"),)
    assert read("") == ()


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        ("<Gather/>", 12200, "Gather"),
        ("<Connect/>", 12200, "Stream"),
        ("<Connect><Room>x</Room></Connect>", 12200, "Stream"),
        ("<Connect><Stream url='https://bot.example'/></Connect>", 31920, "wss://"),
        ("<Connect><Stream url='wss://b.example' track='both_tracks'/></Connect>", 12200, "track"),
        ("<Connect><Stream url='wss://b.example' statusCallback='/s'/></Connect>", 12200, "statusCallback"),
        ("<Connect><Stream url='wss://b.example'><Say>x</Say></Stream></Connect>", 12200, "Parameter"),
        ("<Record/>", 12200, "Record"),
        ("<say>case counts</say>", 12200, "say"),
        ("<Dial/>", 13223, "number"),
        ("<Dial><Conference>room</Conference></Dial>", 13215, "Conference"),
        ("<Dial><Number>+1</Number><Number>+2</Number></Dial>", 13215, "one destination"),
        ("<Dial><Sip>200</Sip></Dial>", 13223, "sip:"),
        ("<Dial record='record-from-answer'>+13035551212</Dial>", 12200, "record"),
        ("<Dial timeout='soon'>+13035551212</Dial>", 13212, "timeout"),
        ("<Dial action='/after'>+13035551212</Dial>", 13210, "action"),
        ("<Dial method='PUT' action='https://a.example'>+13035551212</Dial>", 13217, "method"),
        ("<Play>ftp://a.example/x.mp3</Play>", 11100, "Play"),
        ("<Play>https://a.example:0/x.mp3</Play>", 11100, "Play"),
        ("<Play/>", 11100, "Play"),
        ("<Play loop='-1'>https://a.example/x.mp3</Play>", 13410, "loop"),
        ("<Play digits='12x'/>", 12200, "digits"),
        ("<Pause length='x'/>", 13610, "length"),
        ("<Redirect method='HEAD'>https://a.example</Redirect>", 13710, "method"),
        ("<Redirect/>", 11100, "Redirect"),
        (f"<Say>{'x' * 4097}</Say>", 13520, "4096"),
    ],
)
def test_what_we_cannot_do_is_refused_by_name(content: str, code: int, named: str) -> None:
    found, message = refused(content)
    assert found == code
    assert named in message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 12100),
        (b"<Response>", 12100),
        (b"<Other/>", 12102),
        (b"not xml", 12100),
        (b'<!DOCTYPE a [<!ENTITY e "x">]><Response><Say>&e;</Say></Response>', 12100),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><Response/>', 12100),
        (b"<Response><Say>&e;</Say></Response>", 12100),
        (b'<?xml version="1.0" encoding="nonsense"?><Response/>', 12100),
        (b"<Response>" + b"<a>" * 100 + b"</a>" * 100 + b"</Response>", 12100),
        (b"<Response>" + b" " * MOST_BYTES + b"</Response>", 12100),
    ],
)
def test_documents_that_are_none(text: bytes, code: int) -> None:
    with pytest.raises(FlowUnreadable) as told:
        read_twiml(text)
    assert told.value.code == code


def test_endless_loops_are_bounded() -> None:
    assert read("<Play loop='0'>https://a.example/x.mp3</Play>") == (PlaySound("https://a.example/x.mp3", 1000),)
    assert len(read("<Say loop='0'>again</Say>")) == 100
    assert "verbs" in refused("<Say loop='100'>again</Say>" * 20)[1]


WORDS = st.sampled_from(
    ["<Response>", "</Response>", "<Dial", "<Say>", "</Say>", "<Play", " digits='", "'", "/>", ">", "&", "&amp;", "\x00", "<!"]
)


@given(st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=20).map(lambda words: "".join(words).encode())))
@example(b"<?xml version='1.0' encoding='utf-16'?><Response/>")
def test_nothing_but_its_own_error_comes_out(text: bytes) -> None:
    try:
        read_twiml(text, BASE)
    except FlowUnreadable as error:
        assert error.status == 400


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_text_survives(text: str) -> None:
    response = VoiceResponse()
    response.say(text)
    assert parse(str(response).encode()).text == text.strip()
