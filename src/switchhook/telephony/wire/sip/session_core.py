"""What a session needs of the user agent around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.grammar import format_host_port
from switchhook.telephony.wire.sip.message import Message, Request, Response
from switchhook.telephony.wire.sip.session_events import RequestAnswered, SessionEvent, SessionId
from switchhook.telephony.wire.sip.session_timer import SessionTimerPolicy
from switchhook.telephony.wire.sip.transaction_layer import TransactionLayer

ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY")
"""The methods we take."""
EXTENSIONS = ("100rel", "timer", "replaces", "norefersub")
"""The option tags we know (Supported, Require)."""
SDP = "application/sdp"


@dataclass(frozen=True, slots=True)
class SessionCore:
    """The parts of the user agent that its sessions share."""

    layer: TransactionLayer
    entropy: Callable[[int], bytes]
    emit: Callable[[SessionEvent | RequestAnswered], None]
    advertise: Callable[[Flow], tuple[str, int]]
    forget: Callable[[SessionId], None]
    reschedule: Callable[[SessionId], None]
    timer_policy: SessionTimerPolicy
    product: str
    """Our name in Server and User-Agent."""
    refer_s: float = 60.0
    """How long we wait to hear what came of a REFER of ours."""

    def contact(self, flow: Flow) -> str:
        """Our Contact towards a peer."""
        host, port = self.advertise(flow)
        transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
        return f"<sip:{format_host_port(host, port)}{transport}>"

    def pick(self, count: int) -> int:
        """A random number below `count`."""
        return int.from_bytes(self.entropy(4), "big") % count


def refusal(request: Request, status: int, reason: str | None = None, to_tag: str | None = None) -> Response:
    """A failure response with the headers its status asks for."""
    response = request.reply(status, reason, to_tag)
    if status in (405, 501):
        _list(response, "Allow", ALLOW)
    elif status == 415:
        response.headers.add("Accept", SDP)
    elif status == 420:
        for tag in request.require:
            if tag not in EXTENSIONS:
                response.headers.add("Unsupported", tag)
    return response


def describe(message: Message) -> None:
    """Say what we can do: Allow and Supported."""
    _list(message, "Allow", ALLOW)
    _list(message, "Supported", EXTENSIONS)


def _list(message: Message, name: str, words: Sequence[str]) -> None:
    message.headers.set(name, words[0])
    for word in words[1:]:
        message.headers.add(name, word)


def unknown_extensions(request: Request) -> bool:
    """Whether Require names what we do not know (RFC 3261 §8.2.2.3)."""
    return any(tag not in EXTENSIONS for tag in request.require)
