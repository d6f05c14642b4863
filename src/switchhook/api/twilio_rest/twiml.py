"""TwiML from customers, made into flow actions (contract `vns-veevo` §4.2, §4.5).

Strict about what would change a call without a word: a verb or an attribute that we cannot do is refused with its name.
Forgiving about the rest, as Twilio is: unknown attributes, comments, text between verbs. Documents with a DTD are refused, so
that there are no entities to expand or fetch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin
from xml.parsers import expat

from switchhook.domain.dialling import DialPurpose
from switchhook.domain.plan import (
    Action,
    AgentSpec,
    AskNext,
    Converse,
    HangUp,
    Pause,
    PlaySound,
    PressKeys,
    RouteTo,
    Say,
    StreamSpec,
)
from switchhook.domain.web_address import address_fits
from switchhook.usecases.steered import FlowUnreadable

MOST_BYTES = 64 << 10
MOST_VERBS = 500
MOST_DEPTH = 16
SAY_CHARS = 4096
ENDLESS = 1000
"""`loop="0"` plays this often: the call's longest duration ends it before."""
SAY_ENDLESS = 100
UNREADABLE = 12100
NO_RESPONSE = 12102
NOT_HERE = 12200
BAD_URL = 11100
BAD_STREAM = 31920
MOST_PARAMETERS = 32
_DIAL_ACTION, _DIAL_TIMEOUT, _DIAL_NOUN, _DIAL_LIMIT, _DIAL_METHOD = 13210, 13212, 13215, 13216, 13217
_NO_NUMBER = 13223
_PLAY_LOOP, _SAY_LOOP, _SAY_TEXT, _PAUSE_LENGTH, _REDIRECT_METHOD = 13410, 13510, 13520, 13610, 13710
_KEYS = re.compile(r"[0-9*#wWA-Da-d]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,5}")
_RING_S = (5, 600)
_OFF = ("", "false", "do-not-record")


@dataclass(slots=True)
class Element:
    """An XML element with what is in it."""

    name: str
    attributes: Mapping[str, str]
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """Its text, and that of all elements in it, in order."""

    @property
    def text(self) -> str:
        """The text without white space at its ends."""
        return "".join(self.pieces).strip()


def read_twiml(text: bytes, base_url: str | None = None) -> tuple[Action, ...]:
    """The flow that a document describes; addresses in it are relative to `base_url`. Raises FlowUnreadable."""
    response = parse(text)
    if response.name != "Response":
        raise FlowUnreadable(NO_RESPONSE, f"the document begins with <{response.name[:40]}>; it must be a <Response>")
    flow: list[Action] = []
    for verb in response.children:
        read = _VERBS.get(verb.name)
        if read is None:
            known = ", ".join(sorted(_VERBS))
            raise FlowUnreadable(NOT_HERE, f"<{verb.name[:40]}> is not supported on this server; it knows {known}")
        flow += read(verb, base_url)
        if len(flow) > MOST_VERBS + ENDLESS:
            raise FlowUnreadable(NOT_HERE, f"the document has more than {MOST_VERBS} verbs")
    return tuple(flow)


def parse(text: bytes) -> Element:
    """The document's element. Raises FlowUnreadable."""
    if len(text) > MOST_BYTES:
        raise FlowUnreadable(UNREADABLE, f"the document is longer than {MOST_BYTES >> 10} KiB")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = builder.refuse_doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text.strip(), True)
    except expat.ExpatError as error:
        why = f"the document is no XML: {expat.ErrorString(error.code)} in line {error.lineno}"
        raise FlowUnreadable(UNREADABLE, why) from None
    except (ValueError, LookupError):  # an encoding that nobody knows
        raise FlowUnreadable(UNREADABLE, "the document's encoding is not known; send UTF-8") from None
    assert builder.root is not None  # well-formed XML has one
    return builder.root


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []

    def refuse_doctype(self, *_: object) -> None:
        raise FlowUnreadable(UNREADABLE, "the document has a DOCTYPE; leave it out")

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        element = Element(name, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        if len(self._open) > MOST_DEPTH:
            raise FlowUnreadable(UNREADABLE, "the document is nested too deeply")

    def end(self, name: str) -> None:
        self._open.pop()

    def data(self, text: str) -> None:
        for element in self._open:
            element.pieces.append(text)


# -- verbs ---------------------------------------------------------------------------------------


def _say(verb: Element, base_url: str | None) -> list[Action]:
    text = " ".join(verb.text.split())
    if len(text) > SAY_CHARS:
        raise FlowUnreadable(_SAY_TEXT, f"Say: the text is longer than {SAY_CHARS} characters")
    times = _loop(verb, _SAY_LOOP)
    return [Say(text)] * min(times, SAY_ENDLESS) if text else []


def _play(verb: Element, base_url: str | None) -> list[Action]:
    keys = verb.attributes.get("digits", "")
    if keys:
        if not _KEYS.fullmatch(keys):
            raise FlowUnreadable(NOT_HERE, "Play: digits may have 0-9, *, #, A-D, and w for half a second")
        return [PressKeys("".join(key if key in "wW" else key.upper() for key in keys))]
    return [PlaySound(_url("Play", verb.text, base_url, BAD_URL), _loop(verb, _PLAY_LOOP))]


def _pause(verb: Element, base_url: str | None) -> list[Action]:
    return [Pause(float(_seconds("Pause: length", verb.attributes.get("length", "1"), _PAUSE_LENGTH)))]


def _hang_up(verb: Element, base_url: str | None) -> list[Action]:
    return [HangUp()]


def _redirect(verb: Element, base_url: str | None) -> list[Action]:
    method = _method("Redirect", verb.attributes, _REDIRECT_METHOD)
    return [AskNext(_url("Redirect", verb.text, base_url, BAD_URL), method)]


def _dial(verb: Element, base_url: str | None) -> list[Action]:
    given = verb.attributes
    for name in ("record", "sequential", "referUrl"):
        if given.get(name, "").lower() not in _OFF:
            raise FlowUnreadable(NOT_HERE, f"Dial: {name} is not supported on this server; leave it out")
    asks = None
    if "action" in given:
        method = _method("Dial", given, _DIAL_METHOD)
        asks = AskNext(_url("Dial: action", given["action"], base_url, _DIAL_ACTION), method, after_dial=True)
    ring_s = _seconds("Dial: timeout", given.get("timeout", "30"), _DIAL_TIMEOUT)
    limit_s = _seconds("Dial: timeLimit", given.get("timeLimit", "14400"), _DIAL_LIMIT)
    caller = given.get("callerId", "").strip()
    return [
        RouteTo(
            _called(verb),
            caller or None,
            float(min(max(ring_s, _RING_S[0]), _RING_S[1])),
            float(max(limit_s, 1)),
            returns=True,
            asks=asks,
            purpose=DialPurpose.TRANSFER,
        )
    ]


def _connect(verb: Element, base_url: str | None) -> list[Action]:
    """A bot of the customer's takes the call until it closes the stream."""
    if len(verb.children) != 1 or verb.children[0].name != "Stream":
        raise FlowUnreadable(NOT_HERE, "Connect: one <Stream> is supported on this server, and nothing else")
    stream = verb.children[0]
    if stream.attributes.get("statusCallback"):
        raise FlowUnreadable(NOT_HERE, "Stream: statusCallback is not supported on this server; leave it out")
    if stream.attributes.get("track", "inbound_track") != "inbound_track":
        raise FlowUnreadable(NOT_HERE, "Stream: track must be inbound_track within <Connect>")
    parameters = {child.attributes.get("name", ""): child.attributes.get("value", "") for child in stream.children}
    if len(parameters) > MOST_PARAMETERS or any(child.name != "Parameter" for child in stream.children):
        raise FlowUnreadable(NOT_HERE, f"Stream: may hold at most {MOST_PARAMETERS} <Parameter>, and nothing else")
    url = _url("Stream: url", stream.attributes.get("url", ""), None, BAD_STREAM, ("wss", "ws"))
    talk = Converse(AgentSpec(url, stream=StreamSpec(parameters=parameters)))
    if "action" not in verb.attributes:
        return [talk]
    method = _method("Connect", verb.attributes, NOT_HERE)
    return [talk, AskNext(_url("Connect: action", verb.attributes["action"], base_url, BAD_URL), method)]


def _called(verb: Element) -> str:
    """The one destination: the verb's text, or its <Number> or <Sip>."""
    if not verb.children:
        number = verb.text
    elif len(verb.children) > 1:
        raise FlowUnreadable(_DIAL_NOUN, "Dial: one destination at a time is supported on this server")
    else:
        noun = verb.children[0]
        if noun.name not in ("Number", "Sip"):
            raise FlowUnreadable(_DIAL_NOUN, f"Dial: <{noun.name[:40]}> is not supported on this server; use Number or Sip")
        for name in ("url", "sendDigits"):
            if noun.attributes.get(name):
                raise FlowUnreadable(NOT_HERE, f"Dial: {name} of <{noun.name}> is not supported on this server; leave it out")
        number = noun.text
        if noun.name == "Sip" and not number.lower().startswith(("sip:", "sips:")):
            raise FlowUnreadable(_NO_NUMBER, "Dial: <Sip> must hold a sip: address")
    if not number or len(number) > 255 or not number.isprintable():
        raise FlowUnreadable(_NO_NUMBER, "Dial: the number is missing; write it in E.164: +17205551212")
    return number


_VERBS: Mapping[str, Callable[[Element, str | None], list[Action]]] = {
    "Connect": _connect,
    "Say": _say,
    "Play": _play,
    "Pause": _pause,
    "Dial": _dial,
    "Hangup": _hang_up,
    "Reject": _hang_up,  # the call is answered by now: what is left of a rejection is its end
    "Redirect": _redirect,
}


# -- attributes ----------------------------------------------------------------------------------


def _loop(verb: Element, code: int) -> int:
    text = verb.attributes.get("loop", "1").strip()
    if not _SECONDS.fullmatch(text):
        raise FlowUnreadable(code, f"{verb.name}: loop must be a number from 0 to {ENDLESS}")
    return min(int(text), ENDLESS) or ENDLESS


def _seconds(what: str, text: str, code: int) -> int:
    if not _SECONDS.fullmatch(text.strip()):
        raise FlowUnreadable(code, f"{what} must be a number of seconds")
    return int(text)


def _method(what: str, attributes: Mapping[str, str], code: int) -> str:
    method = attributes.get("method", "POST").strip().upper()
    if method not in ("GET", "POST"):
        raise FlowUnreadable(code, f"{what}: method must be GET or POST")
    return method


def _url(what: str, text: str, base_url: str | None, code: int, schemes: tuple[str, ...] = ("https", "http")) -> str:
    """An absolute address; the empty one is the document's own."""
    try:
        url = urljoin(base_url or "", text.strip())
    except ValueError:
        url = ""
    if not address_fits(url, schemes) or not url.isprintable():
        told = "" if base_url or text.strip() == url else ": there is no document that it could be relative to"
        raise FlowUnreadable(code, f"{what} must be an address that begins with {schemes[0]}:// or {schemes[1]}://{told}")
    return url
