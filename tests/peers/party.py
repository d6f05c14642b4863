"""A telephone on a port of its own that also takes calls: a carrier's far end, a transfer's destination, a phone system.

It shares no code with the server (see `switchhook_demo.phone`), so that each checks the other.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from switchhook_demo import sip_text
from switchhook_demo.phone import Call, Phone
from switchhook_demo.sip_text import Message

REASONS = {180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 486: "Busy Here", 603: "Decline"}
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, REFER"
WAIT_S = 20.0


class PartyCall(Call):
    """A call of a `Party`, in either direction."""

    def __init__(self, phone: Phone, uri: str) -> None:
        super().__init__(phone, uri)
        self.invite_got: Message | None = None
        """Of a call that was taken: the INVITE as it came."""
        self.acknowledged = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.refer_answer = 202
        """What a REFER of the far side is answered with."""
        self.referred = asyncio.Event()
        self.allow = ALLOW
        """The methods it takes, as it says."""
        self.session_expires: str | None = None
        """What its 200s say of the session's timer (RFC 4028)."""
        self._last: Message | None = None

    @property
    def replaces(self) -> str:
        """How another call names this one when it takes its place, seen from the far side (RFC 3891)."""
        ours, theirs = sip_text.parameter(self._local, "tag"), sip_text.parameter(self._remote, "tag")
        return f"{self.call_id};to-tag={theirs};from-tag={ours}"

    # -- a call that was taken

    def take(self, invite: Message, source: tuple[str, int]) -> Message:
        """Begin with the INVITE; gives the 100."""
        self.invite_got = invite
        self.call_id = invite.get("call-id")
        self._local = f"{invite.get('to')};tag={sip_text.token()}"
        self._remote = invite.get("from")
        self._target = sip_text.address_uri(invite.get("contact"))
        self._next_hop = source
        self._last = invite.reply(100, "Trying")
        return self._last

    @property
    def caller(self) -> str:
        """The user of the INVITE's From: the number we are shown."""
        assert self.invite_got is not None
        return sip_text.address_uri(self.invite_got.get("from")).removeprefix("sip:").partition("@")[0]

    def ring(self, status: int = 180, early: bool = False) -> None:
        """A provisional answer, with sound when `early`."""
        self._respond(status, self._media() if early else b"")

    def answer(self) -> None:
        """200 with sound."""
        self.answered_at = asyncio.get_running_loop().time()
        self._respond(200, self._media(), self._timer())

    def refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        """A final answer that is none."""
        self._respond(status, b"", headers)
        self._end("us")

    def vanish(self) -> None:
        """Be gone without a word; `close` then sends nothing."""
        self.answered_at = None
        self._end("us")

    def repeated(self) -> Message | None:
        """What a repeated INVITE gets."""
        return self._last

    async def close(self) -> None:
        """End the call whatever its state; one that waits for a decision is refused."""
        if self.invite_got is not None and self.answered_at is None and self.ended_at is None:
            self.refuse(480)
        await super().close()

    def _media(self) -> bytes:
        assert self.invite_got is not None
        self._take_media(self.invite_got.body)
        return self._offer("sendrecv")

    def _timer(self) -> dict[str, str]:
        return {} if self.session_expires is None else {"Session-Expires": self.session_expires}

    def _respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        assert self.invite_got is not None
        reply = self.invite_got.reply(status, REASONS.get(status, "Reason"), sip_text.parameter(self._local, "tag"))
        reply.add("contact", self.phone.contact)
        reply.add("allow", self.allow)
        for name, value in (headers or {}).items():
            reply.add(name, value)
        if body:
            reply.body = body
            reply.add("content-type", "application/sdp")
        self._last = reply
        self.phone.send(reply, self._next_hop)

    # -- within a call

    def _request(self, method: str, body: bytes, headers: dict[str, str]) -> Message:
        request = super()._request(method, body, headers)
        request.headers = [(name, self.allow if name == "allow" else value) for name, value in request.headers]
        return request

    def on_request(self, request: Message) -> Message:
        """CANCEL ends an unanswered call with 487; REFER is answered as the test says."""
        if request.method == "CANCEL" and self.answered_at is None:
            self.requests.append(request)
            self.cancelled.set()
            self._respond(487, b"")
            self._end("them")
            return request.reply(200, "OK", sip_text.parameter(self._local, "tag"))
        if request.method == "REFER":
            self.requests.append(request)
            self.referred.set()
            return request.reply(self.refer_answer, REASONS.get(self.refer_answer, "Reason"))
        answer = super().on_request(request)
        if request.method in ("INVITE", "UPDATE"):
            for name, value in self._timer().items():
                answer.add(name, value)
        return answer

    async def update(self, headers: dict[str, str]) -> Message:
        """Refresh the session without a word of its sound (RFC 3311, RFC 4028 §7.4); gives the answer."""
        return await self._transact("UPDATE", b"", headers, WAIT_S)

    async def refer(self, target: str) -> int:
        """Ask the far side to put us through; gives its answer."""
        header = {"Refer-To": f"<{target}>", "Referred-By": f"<sip:{self.phone.user}@{self.phone.host}>"}
        return (await self._transact("REFER", b"", header, WAIT_S)).status

    async def notify(self, status: int, over: bool) -> int:
        """Tell how the far side's REFER goes; gives the answer."""
        state = "terminated;reason=noresource" if over else "active;expires=60"
        headers = {"Event": "refer", "Subscription-State": state, "Content-Type": "message/sipfrag;version=2.0"}
        body = f"SIP/2.0 {status} {REASONS.get(status, 'Reason')}\r\n".encode()
        return (await self._transact("NOTIFY", body, headers, WAIT_S)).status

    def told(self) -> list[str]:
        """The status lines of NOTIFY that came, in order."""
        return [got.body.decode().strip() for got in self.requests if got.method == "NOTIFY"]


class Party(Phone):
    """`async with Party(port=5070) as party`: calls that come are in `taken`, and each waits for the test's decision."""

    def __init__(self, host: str = "127.0.0.1", user: str = "+17205550100", port: int = 0, answers: bool = False) -> None:
        """`answers`: every call is rung and answered at once."""
        super().__init__(host, user)
        self.taken: list[PartyCall] = []
        self._port = port
        self._answers_all = answers
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self._port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for call in reversed(self.taken):  # one INVITE after another may have been of the same call
            await call.close()
        await super().__aexit__(kind, error, trace)

    async def dial(self, uri: str, headers: dict[str, str] | None = None) -> PartyCall:
        """Place a call."""
        call = PartyCall(self, uri)
        self.calls[call.call_id] = call
        call.invite(headers or {})
        return call

    async def call(self, count: int = 1, deadline_s: float = WAIT_S) -> PartyCall:
        """Wait for the call of this number that comes in, the first being 1."""
        async with asyncio.timeout(deadline_s):
            while len(self.taken) < count:
                self._came.clear()
                await self._came.wait()
        return self.taken[count - 1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """An ACK tells that the call stands; a first INVITE is a call."""
        message = sip_text.parse(data)
        if message is None:
            return
        call = self.calls.get(message.get("call-id"))
        if message.method == "ACK" and isinstance(call, PartyCall):
            call.acknowledged.set()
        elif message.method == "INVITE" and not sip_text.parameter(message.get("to"), "tag"):
            self._on_invite(message, addr)
        else:
            super().datagram_received(data, addr)

    def _on_invite(self, invite: Message, source: tuple[str, int]) -> None:
        known = self.calls.get(invite.get("call-id"))
        if isinstance(known, PartyCall) and known.invite_got is not None and known.invite_got.branch == invite.branch:
            again = known.repeated()
            if again is not None:
                self.send(again, source)
            return
        call = PartyCall(self, invite.uri)
        self.send(call.take(invite, source), source)
        self.calls[call.call_id] = call
        self.taken.append(call)
        self._came.set()
        if self._answers_all:
            call.ring()
            call.answer()
