"""A SIP callee that says exactly what a test wants to INVITEs of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from switchhook.telephony.wire.sip.address import NameAddr
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.outgoing_session import OutgoingInvite
from switchhook.telephony.wire.sip.session_events import SessionId
from switchhook.telephony.wire.sip.user_agent import UserAgent
from tests.peers.sip_caller import LOCAL, OUR_HOST, OUR_PORT, AgentOnClock, sdp

HOST = "192.0.2.20"
FLOW = Flow("udp", HOST, 5060)
ASKED = OutgoingInvite(
    flow=FLOW,
    request_uri=f"sip:+17205550199@{HOST}",
    from_=NameAddr.parse(f'"Acme" <sip:+17205550100@{OUR_HOST}>'),
    to=NameAddr.parse(f"<sip:+17205550199@{HOST}>"),
    media=LOCAL,
)
Headers = Sequence[tuple[str, str]]


class Callee:
    """The far end of one call that `ua` places; it finds our messages in what the agent has sent."""

    def __init__(self, ua: AgentOnClock, asked: OutgoingInvite = ASKED, **changes: object) -> None:
        self.ua = ua
        self.flow = asked.flow
        self.session = SessionId(0)
        self._cseq = 0
        given = replace(asked, **changes)  # type: ignore[arg-type]  # fields of OutgoingInvite
        before = len(ua.sent)

        def place(agent: UserAgent, now: float) -> None:
            self.session = agent.invite(given, now)

        ua.do(place)
        self.first = before

    # -- what we sent

    def requests(self, method: str) -> list[Request]:
        """Our requests of this method, in order, repetitions included."""
        found = [message for _, message, _ in self.ua.sent[self.first :] if isinstance(message, Request)]
        return [request for request in found if request.method == method]

    @property
    def invite(self) -> Request:
        """Our last INVITE outside a dialog."""
        return [request for request in self.requests("INVITE") if request.to.tag is None][-1]

    @property
    def methods(self) -> list[str]:
        """Of all that we sent."""
        return [message.method for _, message, _ in self.ua.sent[self.first :] if isinstance(message, Request)]

    @property
    def responses(self) -> list[int]:
        """The statuses of our responses."""
        return [message.status for _, message, _ in self.ua.sent[self.first :] if isinstance(message, Response)]

    # -- what it says

    def reply(
        self, status: int, body: bytes = b"", headers: Headers = (), tag: str = "ct", to: Request | None = None
    ) -> list[Request | Response]:
        """A response, to the last INVITE unless `to` is given; returns what we sent on it at once."""
        request = to or self.invite
        response = request.reply(status, None, tag if status > 100 else None)
        names = {name.lower() for name, _ in headers}
        if "contact" not in names and 100 < status < 300:
            response.headers.add("Contact", f"<sip:callee-{tag}@{HOST}:5060>")
        for name, value in headers:
            response.headers.add(name, value)
        if body:
            response.headers.add("Content-Type", "application/sdp")
            response.body = body
        return self.ua.receive(bytes(response), self.flow)

    def answer(self, tag: str = "ct", headers: Headers = (), body: bytes | None = None) -> list[Request | Response]:
        """A 200 with SDP."""
        return self.reply(200, sdp(host=HOST) if body is None else body, headers, tag)

    def send(
        self, method: str, body: bytes = b"", headers: Headers = (), tag: str = "ct", content_type: str = "application/sdp"
    ) -> list[Request | Response]:
        """A request in the dialog with this tag."""
        self._cseq += 0 if method == "ACK" else 1
        invite = self.invite
        lines = [
            f"{method} sip:{OUR_HOST}:{OUR_PORT} SIP/2.0",
            f"Via: SIP/2.0/UDP {HOST}:5060;branch=z9hG4bK-{invite.call_id}-{tag}-{self._cseq};rport",
            f"From: {invite.headers.get('To')};tag={tag}",
            f"To: {invite.headers.get('From')}",
            f"Call-ID: {invite.call_id}",
            f"CSeq: {self._cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:callee-{tag}@{HOST}:5060>",
            *(f"{name}: {value}" for name, value in headers),
            *([f"Content-Type: {content_type}"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return self.ua.receive(("\r\n".join(lines) + "\r\n\r\n").encode() + body, self.flow)

    def agree_to(self, method: str) -> None:
        """200 to our last request of this method."""
        self.ua.receive(bytes(self.requests(method)[-1].reply(200)), self.flow)

    def do(self, act: Callable[[UserAgent, SessionId, float], None]) -> list[Request | Response]:
        """A decision of our side."""
        return self.ua.do(lambda agent, now: act(agent, self.session, now))

    def hang_up(self) -> list[Request | Response]:
        """We hang up, or give up."""
        return self.do(lambda agent, session, now: agent.hang_up(session, now))
