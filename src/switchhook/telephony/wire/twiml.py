"""The TwiML that we give to Twilio (contract `vns-veevo` §4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

LEG = "leg"
"""Name of the `<Parameter>` that names a stream's leg."""


@dataclass(frozen=True, slots=True)
class Dial:
    """A `<Dial>` with one `<Number>`."""

    called: str
    """E.164."""
    caller: str
    """`callerId`; empty: Twilio shows the caller's own."""
    ring_s: int
    max_s: int
    """`timeLimit`."""
    action: str
    """Asked when it is over (`DialCallStatus`)."""
    answered: str
    """Told when the called party has answered."""


def connect_stream(url: str, leg: str) -> str:
    """Put the caller on a media stream; when our side closes it, the call ends."""
    parameter = _element("Parameter", {"name": LEG, "value": leg})
    return _response(_element("Connect", {}, _element("Stream", {"url": url}, parameter)) + "<Hangup/>")


def reject(busy: bool) -> str:
    """Refuse a call that was not answered; nobody pays for it."""
    return _response(_element("Reject", {"reason": "busy" if busy else "rejected"}))


def hang_up() -> str:
    """End the call."""
    return _response("<Hangup/>")


def wait() -> str:
    """Leave the call as it is until an order over REST takes it elsewhere."""
    return _response(_element("Pause", {"length": "60"}) + "<Hangup/>")


def dial(order: Dial) -> str:
    """Call somebody and put the caller through when there is an answer; the caller hears the far side's ringing until then."""
    told = {"statusCallback": order.answered, "statusCallbackEvent": "answered", "statusCallbackMethod": "POST"}
    attributes = {"callerId": order.caller} if order.caller else {}
    attributes |= {"timeout": str(order.ring_s), "timeLimit": str(order.max_s), "action": order.action, "method": "POST"}
    number = _element("Number", told, escape(order.called))
    return _response(_element("Dial", {**attributes, "answerOnBridge": "true"}, number))


def _response(content: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{content}</Response>'


def _element(name: str, attributes: dict[str, str], content: str = "") -> str:
    shown = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>"
