"""A SIP caller that says exactly what a test wants, and a user agent on a virtual clock to say it to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sip.flow import Flow, Send
from switchhook.telephony.wire.sip.message import Request, Response, parse_message
from switchhook.telephony.wire.sip.session_events import (
    Answered,
    DigitReported,
    Ended,
    Invited,
    MediaAgreed,
    SessionId,
    UserAgentEffect,
)
from switchhook.telephony.wire.sip.user_agent import (
    Admission,
    Admitted,
    Gatekeeper,
    UserAgent,
    UserAgentOptions,
)

OUR_HOST = "198.51.100.1"
OUR_PORT = 5060
LOCAL = LocalMedia(OUR_HOST, 20000)


def sdp(
    port: int = 4000, host: str = "192.0.2.10", payloads: str = "0 8 101", direction: str = "sendrecv", version: int = 1
) -> bytes:
    """A phone's description."""
    return (
        f"v=0\r\no=phone 1 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {payloads}\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na={direction}\r\n"
    ).encode()


def counting_entropy() -> Callable[[int], bytes]:
    """Bytes that never repeat and are the same in every run."""
    counter = itertools.count(1)
    return lambda count: next(counter).to_bytes(count, "big")


class OpenGate:
    """Lets everyone call."""

    def admit(self, request: Request, flow: Flow, now: float) -> Admission:
        return Admitted("trunk")


@dataclass
class Caller:
    """Writes the requests of one call as a UAC; remembers its dialog."""

    call_id: str = "call-1@phone"
    host: str = "192.0.2.10"
    port: int = 5062
    transport: str = "udp"
    rport: bool = True
    from_tag: str = "ft"
    to_tag: str | None = None
    cseq: int = 0
    target: str = f"sip:+17205550100@{OUR_HOST}"
    routes: list[str] = field(default_factory=list)
    branches: int = 0
    invite_branch: str = ""
    invite_uri: str = ""

    @property
    def flow(self) -> Flow:
        """The way its messages come."""
        return Flow(self.transport, self.host, self.port, 0 if self.transport == "udp" else 7)

    def branch(self) -> str:
        """A branch of its own."""
        self.branches += 1
        return f"z9hG4bK-{self.call_id}-{self.branches}"

    def write(
        self,
        method: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
        branch: str | None = None,
        cseq: int | None = None,
    ) -> bytes:
        """Any request; a new CSeq unless given."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        tag = f";tag={self.to_tag}" if self.to_tag else ""
        rport = ";rport" if self.rport else ""
        lines = [
            f"{method} {self.target} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.host}:{self.port};branch={branch or self.branch()}{rport}",
            f'From: "Ann" <sip:+17205550111@{self.host}>;tag={self.from_tag}',
            f"To: <sip:+17205550100@{OUR_HOST}>{tag}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
        ]
        names = {name.lower() for name, _ in headers}
        if "max-forwards" not in names:
            lines.append("Max-Forwards: 70")
        if "contact" not in names:
            lines.append(f"Contact: <sip:ann@{self.host}:{self.port}>")
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Type: {content_type}")
        lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def invite(self, body: bytes | None = None, headers: Sequence[tuple[str, str]] = (), branch: str | None = None) -> bytes:
        """An INVITE, first or again; with an offer unless `body` is empty."""
        self.invite_branch = branch or self.branch()
        self.invite_uri = self.target
        return self.write("INVITE", headers, sdp() if body is None else body, branch=self.invite_branch)

    def learn(self, response: Response) -> None:
        """Take tag, target and route set from a response (RFC 3261 §12.1.2)."""
        self.to_tag = response.to.tag
        if response.contact is not None:
            self.target = str(response.contact.uri)

    def ack(self, body: bytes = b"", cseq: int | None = None) -> bytes:
        """The ACK of a 2xx."""
        return self.write("ACK", body=body, cseq=self.cseq if cseq is None else cseq)

    def ack_failure(self) -> bytes:
        """The ACK of a failure, in the INVITE's transaction."""
        return self.write("ACK", branch=self.invite_branch, cseq=self.cseq)

    def cancel(self) -> bytes:
        """A CANCEL of the INVITE."""
        tag, self.to_tag = self.to_tag, None
        try:
            return self.write("CANCEL", branch=self.invite_branch, cseq=self.cseq)
        finally:
            self.to_tag = tag


class AgentOnClock:
    """A user agent on a virtual clock. What it sends to each address, and its events, are kept with their times."""

    def __init__(self, gate: Gatekeeper | None = None, options: UserAgentOptions | None = None) -> None:
        self.now = 100.0
        self.agent = UserAgent(
            gate or OpenGate(), lambda flow: (OUR_HOST, OUR_PORT), counting_entropy(), options or UserAgentOptions()
        )
        self.sent: list[tuple[float, Request | Response, Flow]] = []
        self.events: list[tuple[float, UserAgentEffect]] = []
        self.on_event: Callable[[UserAgentEffect], None] | None = None

    def receive(self, data: bytes, flow: Flow) -> list[Request | Response]:
        """Give it a message; returns what it sent at once."""
        before = len(self.sent)
        self.agent.receive_bytes(data, flow, self.now)
        self.settle()
        return [message for _, message, _ in self.sent[before:]]

    def do(self, act: Callable[[UserAgent, float], object]) -> list[Request | Response]:
        """A decision of the call; returns what was sent at once."""
        before = len(self.sent)
        act(self.agent, self.now)
        self.settle()
        return [message for _, message, _ in self.sent[before:]]

    def advance(self, seconds: float) -> list[tuple[float, Request | Response]]:
        """Let time pass; returns what was sent meanwhile, with times from the start of this stretch."""
        start, before = self.now, len(self.sent)
        until = self.now + seconds
        while (due := self.agent.deadline) is not None and due <= until:
            assert due >= self.now - 1e-9, "a deadline in the past"
            self.now = due
            self.agent.tick(due)
            self.settle()
            after = self.agent.deadline
            assert after is None or after > due or self._progress(due), f"the deadline {due} stays"
        self.now = until
        return [(round(at - start, 6), message) for at, message, _ in self.sent[before:]]

    def _progress(self, due: float) -> bool:
        # Several machines may be due at one instant; they must come to an end.
        for _ in range(100):
            self.agent.tick(due)
            self.settle()
            after = self.agent.deadline
            if after is None or after > due:
                return True
        return False

    def settle(self) -> None:
        """Perform the effects."""
        while effects := self.agent.take():
            for effect in effects:
                if isinstance(effect, Send):
                    self.sent.append((self.now, parse_message(effect.data), effect.flow))
                else:
                    self.events.append((self.now, effect))
                    if self.on_event is not None:
                        self.on_event(effect)

    # -- short cuts

    def call(self, caller: Caller, **invite: object) -> SessionId:
        """Place a call; returns its session."""
        self.receive(caller.invite(**invite), caller.flow)  # type: ignore[arg-type]  # the keywords of `invite`
        return self.invited[-1].session

    def answered_call(self, caller: Caller, **invite: object) -> SessionId:
        """Place a call, answer it and acknowledge."""
        session = self.call(caller, **invite)
        [ok] = self.do(lambda agent, now: agent.answer(session, LOCAL, now))
        assert isinstance(ok, Response)
        caller.learn(ok)
        self.receive(caller.ack(), caller.flow)
        return session

    @property
    def invited(self) -> list[Invited]:
        """Calls that came in."""
        return [event for _, event in self.events if isinstance(event, Invited)]

    @property
    def ended(self) -> list[Ended]:
        """Calls that are over."""
        return [event for _, event in self.events if isinstance(event, Ended)]

    @property
    def media(self) -> list[MediaAgreed]:
        """Agreements."""
        return [event for _, event in self.events if isinstance(event, MediaAgreed)]

    @property
    def digits(self) -> list[DigitReported]:
        """Digits by INFO."""
        return [event for _, event in self.events if isinstance(event, DigitReported)]

    @property
    def answers(self) -> list[Answered]:
        """Calls that were answered."""
        return [event for _, event in self.events if isinstance(event, Answered)]

    @property
    def empty(self) -> bool:
        """Nothing is kept any more."""
        return not len(self.agent.layer) and not self.agent.sessions and self.agent.deadline is None


def statuses(messages: Sequence[Request | Response]) -> list[int | str]:
    """Statuses of responses and methods of requests."""
    return [message.status if isinstance(message, Response) else message.method for message in messages]
