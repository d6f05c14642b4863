"""A telephone: places a SIP call over UDP, talks, listens, presses digits, holds and hangs up.

    async with Phone("127.0.0.1") as phone:
        call = await phone.dial("sip:+17206999999@127.0.0.1:5060")
        await call.answered()
        await call.heard()                  # the far side speaks …
        await call.quiet(700)               # … and stops
        await call.say(ulaw)
        await call.press("5")
        await call.ended(timeout_s=10)      # the far side hangs up

It is independent of the server's own SIP code, so that each checks the other. Sound given to it is µ-law, 8 kHz; every waiting
method has a deadline and raises TimeoutError with a sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from switchhook_demo import sip_text
from switchhook_demo.rtp_line import Ear, RtpLine
from switchhook_demo.sip_text import Media, Message

T1_S = 0.5
T2_S = 4.0
TIMEOUT_S = 32.0
"""RFC 3261 timers T1, T2 and B/F (64 × T1)."""
T = TypeVar("T")
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY"


class CallRefusedError(Exception):
    """The call was answered with a final response other than 200."""

    def __init__(self, status: int, reason: str, response: Message) -> None:
        super().__init__(f"the call was refused: {status} {reason}")
        self.status = status
        self.reason = reason
        self.response = response


class CallOverError(Exception):
    """Something was asked of a call that has ended."""


@dataclass(slots=True)
class _Sending:
    """A request under way: repeated until a response comes (RFC 3261 §17.1)."""

    request: Message
    done: asyncio.Future[Message]
    timer: asyncio.TimerHandle | None = None
    provisionals: list[Message] = field(default_factory=list)


class Phone(asyncio.DatagramProtocol):
    """One SIP endpoint on one UDP port; it can have several calls at a time."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        user: str = "+17205550100",
        display_name: str | None = None,
        credentials: tuple[str, str] | None = None,
        encodings: tuple[str, ...] = ("PCMU", "PCMA"),
    ) -> None:
        """`credentials` are (user name, password) for a digest challenge."""
        self.host = host
        self.user = user
        self.display_name = display_name
        self.credentials = credentials
        self.encodings = encodings
        self.calls: dict[str, Call] = {}
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._sending: dict[tuple[str, str], _Sending] = {}
        self._answers: dict[tuple[str, str], tuple[bytes, tuple[str, int]]] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for call in list(self.calls.values()):
            await call.close()
        for sending in self._sending.values():
            if sending.timer is not None:
                sending.timer.cancel()
            sending.done.cancel()
        if self._transport is not None:
            self._transport.close()

    @property
    def contact(self) -> str:
        """The Contact of this telephone."""
        return f"<sip:{self.user}@{self.host}:{self.port}>"

    async def dial(self, uri: str, headers: dict[str, str] | None = None) -> Call:
        """Send an INVITE; the call then rings, is answered or refused. `headers` join the INVITE as they are."""
        call = Call(self, uri)
        self.calls[call.call_id] = call
        call.invite(headers or {})
        return call

    def send(self, message: Message, remote: tuple[str, int]) -> None:
        """Put a message on the wire once."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(bytes(message), remote)

    def request(self, request: Message, remote: tuple[str, int]) -> _Sending:
        """Send a request and repeat it until it is answered; `done` gets the final response or a TimeoutError."""
        loop = asyncio.get_running_loop()
        sending = _Sending(request, loop.create_future())
        key = (request.branch, request.method)
        self._sending[key] = sending
        deadline = loop.time() + TIMEOUT_S

        def repeat(interval_s: float) -> None:
            if sending.done.done() or (request.method == "INVITE" and sending.provisionals):
                return
            if loop.time() >= deadline:
                sending.done.set_exception(TimeoutError(f"no answer to {request.method} within {TIMEOUT_S:g} s"))
                return
            self.send(request, remote)
            following = interval_s * 2 if request.method == "INVITE" else min(interval_s * 2, T2_S)
            sending.timer = loop.call_later(interval_s, repeat, following)

        repeat(T1_S)
        return sending

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Sort one datagram: a response to what we sent, or a request within a call."""
        message = sip_text.parse(data)
        if message is None:
            return
        if message.status:
            self._on_response(message)
        elif message.method != "ACK":
            self._on_request(message, addr)

    def error_received(self, exc: Exception) -> None:
        """A closed port at the far side: the timers decide, as RFC 3261 wants for a lost datagram."""

    def _on_response(self, response: Message) -> None:
        method = response.cseq[1]
        sending = self._sending.get((response.branch, method))
        call = self.calls.get(response.get("call-id"))
        if sending is None:
            return
        if response.status < 200:
            sending.provisionals.append(response)
            if call is not None and method == "INVITE":
                call.on_provisional(response)
        elif sending.done.done():
            if method == "INVITE" and call is not None:
                call.acknowledge(sending.request, response)  # the 200 or the refusal came again: so does the ACK
        else:
            if sending.timer is not None:
                sending.timer.cancel()
            sending.done.set_result(response)

    def _on_request(self, request: Message, remote: tuple[str, int]) -> None:
        key = (request.branch, request.method)
        if key in self._answers:
            data, where = self._answers[key]
            if self._transport is not None:
                self._transport.sendto(data, where)
            return
        call = self.calls.get(request.get("call-id"))
        answer = call.on_request(request) if call is not None else request.reply(481, "Call/Transaction Does Not Exist")
        if request.method == "OPTIONS" and call is None:
            answer = request.reply(200, "OK", sip_text.token())
        answer.add("contact", self.contact)
        answer.add("allow", ALLOW)
        self._answers[key] = (bytes(answer), remote)
        self.send(answer, remote)


class Call:
    """One call of a telephone, made by `Phone.dial`."""

    def __init__(self, phone: Phone, uri: str) -> None:
        self.phone = phone
        self.uri = uri
        self.call_id = f"{sip_text.token()}@{phone.host}"
        self.line = RtpLine(phone.host)
        self.provisionals: list[int] = []
        """Status codes of the provisional responses, in order."""
        self.requests: list[Message] = []
        """Requests of the far side within the call."""
        self.media: Media | None = None
        """What the far side's latest description says."""
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.ended_by: str | None = None
        """`us` or `them`."""
        self._local = f"<sip:{phone.user}@{phone.host}>;tag={sip_text.token()}"
        if phone.display_name:
            self._local = f'"{phone.display_name}" {self._local}'
        self._remote = f"<{uri}>"
        self._target = uri
        self._routes: list[str] = []
        self._next_hop = sip_text.host_port(uri)
        self._cseq = 0
        self._sdp_version = 0
        self._invite: _Sending | None = None
        self._establishing: asyncio.Task[None] | None = None
        self._cancelled = False
        self._over = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def ear(self) -> Ear:
        """What was heard."""
        return self.line.ear

    # Signalling ---------------------------------------------------------------------------------------------------------

    def invite(self, headers: dict[str, str]) -> None:
        """Send the first INVITE; `Phone.dial` does this."""
        self._establishing = asyncio.get_running_loop().create_task(self._establish(headers))

    async def _establish(self, headers: dict[str, str]) -> None:
        """INVITE, once more with credentials when challenged, and ACK."""
        extra = dict(headers)
        for _ in range(2):
            request = self._request("INVITE", self._offer("sendrecv"), extra)
            self._invite = self.phone.request(request, self._next_hop)
            response = await self._invite.done
            self.acknowledge(request, response)
            answer = self._credentials_for(request, response)
            if answer is None:
                break
            extra |= answer
        if response.status >= 300:
            self._end("them")
            raise CallRefusedError(response.status, response.reason, response)
        self._remote = response.get("to")
        self.answered_at = asyncio.get_running_loop().time()
        self._take_media(response.body)
        if self._cancelled:
            await self.hang_up()  # the 200 crossed our CANCEL (RFC 3261 §9.1)

    def _credentials_for(self, request: Message, response: Message) -> dict[str, str] | None:
        """The header that answers a digest challenge, if this is one and we have credentials."""
        names = {401: ("www-authenticate", "Authorization"), 407: ("proxy-authenticate", "Proxy-Authorization")}
        if response.status not in names or self.phone.credentials is None:
            return None
        challenge, header = names[response.status]
        value = sip_text.digest_answer(response.get(challenge), request.method, request.uri, *self.phone.credentials)
        return {header: value}

    def acknowledge(self, request: Message, response: Message) -> None:
        """Send the ACK: to a refusal within its transaction (RFC 3261 §17.1.1.3), to a 200 as its own request (§13.2.2.4)."""
        if response.status < 300:
            self._routes = list(reversed(response.get_all("record-route")))
            self._target = sip_text.address_uri(response.get("contact")) or self._target
            self._next_hop = sip_text.host_port(sip_text.address_uri(self._routes[0]) if self._routes else self._target)
        ack = Message(method="ACK", uri=self._target if response.status < 300 else request.uri)
        ack.add("via", self._via() if response.status < 300 else request.get("via"))
        ack.add("from", self._local)
        ack.add("to", response.get("to"))
        ack.add("call-id", self.call_id)
        ack.add("cseq", f"{request.cseq[0]} ACK")
        ack.add("max-forwards", "70")
        for route in self._routes:
            ack.add("route", route)
        self.phone.send(ack, self._next_hop)

    def on_provisional(self, response: Message) -> None:
        """A 1xx for our INVITE arrived; early media starts the line."""
        self.provisionals.append(response.status)
        if response.body:
            self._take_media(response.body)
        self._progress.set()

    def on_request(self, request: Message) -> Message:
        """Answer a request of the far side within the call."""
        self.requests.append(request)
        if request.method == "BYE":
            self._end("them")
        elif request.method in ("INVITE", "UPDATE") and request.body:
            self._take_media(request.body)
        elif request.method not in ("INVITE", "UPDATE", "INFO", "OPTIONS", "NOTIFY", "CANCEL"):
            return request.reply(501, "Not Implemented")
        answer = request.reply(200, "OK")
        if request.method in ("INVITE", "UPDATE"):
            mirrored = {"sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
            answer.body = self._offer(mirrored.get(self.media.direction if self.media else "", "sendrecv"))
            answer.add("content-type", "application/sdp")
        return answer

    async def ringing(self, timeout_s: float = 10) -> int:
        """Wait for a provisional response above 100; returns it."""

        async def seen() -> int:
            while not (early := [status for status in self.provisionals if status > 100]):
                self._progress.clear()
                await self._progress.wait()
            return early[0]

        return await _within(seen(), timeout_s, "the far side did not ring")

    async def answered(self, timeout_s: float = 20) -> None:
        """Wait for the 200. Raises CallRefusedError when another final response comes."""
        if self._establishing is None:
            raise CallOverError("the call was never placed")
        await _within(asyncio.shield(self._establishing), timeout_s, "the call was not answered")

    async def ended(self, timeout_s: float = 30) -> str:
        """Wait for the end of the call; returns who ended it, `us` or `them`."""
        await _within(self._over.wait(), timeout_s, "the call did not end")
        return self.ended_by or "us"

    async def hang_up(self, timeout_s: float = 5) -> None:
        """Send BYE and wait for its answer; nothing when the call is over already."""
        if self.answered_at is not None and not self._over.is_set():
            self._end("us")
            await self._transact("BYE", b"", {}, timeout_s)

    async def cancel(self, timeout_s: float = 5) -> None:
        """Give up a call that is not answered; the INVITE's own answer (487) then comes through `answered`."""
        if self._invite is None or self._invite.done.done():
            raise CallOverError("only a ringing call can be cancelled")
        self._cancelled = True
        invite = self._invite.request
        request = Message(method="CANCEL", uri=invite.uri)
        for name in ("via", "from", "to", "call-id"):
            request.add(name, invite.get(name))
        request.add("cseq", f"{invite.cseq[0]} CANCEL")
        request.add("max-forwards", "70")
        await _within(self.phone.request(request, self._next_hop).done, timeout_s, "no answer to CANCEL")

    async def hold(self) -> None:
        """Put the far side on hold by re-INVITE; it hears nothing until `resume`."""
        await self.reinvite("sendonly")
        self.line.sending = False

    async def resume(self) -> None:
        """Take the far side off hold."""
        self.line.sending = True
        await self.reinvite("sendrecv")

    async def reinvite(self, direction: str, timeout_s: float = 5) -> Message:
        """Offer a direction anew and acknowledge the answer. Raises CallRefusedError when the far side will not."""
        response = await self._transact("INVITE", self._offer(direction), {}, timeout_s)
        if response.status >= 300:
            raise CallRefusedError(response.status, response.reason, response)
        self._take_media(response.body)
        return response

    async def info(self, content_type: str, body: bytes) -> Message:
        """Send an INFO; returns the final response."""
        return await self._transact("INFO", body, {"Content-Type": content_type}, 5)

    async def close(self) -> None:
        """End the call whatever its state and release the line. Never raises for a far side that does not answer."""
        try:
            if self.answered_at is None and self._invite is not None and not self._invite.done.done():
                await self.cancel(2)
            await self.hang_up(2)
        except (TimeoutError, CallOverError):
            pass
        if self._establishing is not None:
            self._establishing.cancel()
            await asyncio.gather(self._establishing, return_exceptions=True)
        self._end("us")
        self.phone.calls.pop(self.call_id, None)
        await self.line.close()

    # Sound --------------------------------------------------------------------------------------------------------------

    async def say(self, *lines: bytes, pause_ms: int = 0) -> None:
        """Play µ-law lines one after another with a pause between; returns when the last packet has left."""
        for index, sound in enumerate(lines):
            if index and pause_ms:
                self.line.queue(b"\xff" * (8 * pause_ms))
            self.line.queue(sound)
        await self._unless_over(self.line.said())

    def start_saying(self, ulaw: bytes) -> None:
        """Play without waiting."""
        self.line.queue(ulaw)

    async def press(self, digits: str, method: str = "rfc4733") -> None:
        """Press keys one after another: as telephone events, or with `info` as SIP INFO (application/dtmf-relay)."""
        for digit in digits:
            if method == "info":
                await self.info("application/dtmf-relay", f"Signal={digit}\r\nDuration=160\r\n".encode())
            else:
                self.line.press(digit)
        if method != "info":
            await self._unless_over(self.line.said())

    async def heard(self, since: float | None = None, timeout_s: float = 10) -> float:
        """Wait for voice that arrives after `since` (default: from this moment on); returns when it began."""
        start = asyncio.get_running_loop().time() if since is None else since
        return await self.ear.voice(start, timeout_s)

    async def quiet(self, quiet_ms: int = 700, timeout_s: float = 30) -> None:
        """Wait until the far side has been silent for so long."""
        await self.ear.quiet(quiet_ms, timeout_s)

    # Within -------------------------------------------------------------------------------------------------------------

    async def _unless_over(self, waiting: Coroutine[None, None, None]) -> None:
        """Wait for the line, but not beyond the end of the call."""
        work = asyncio.ensure_future(waiting)
        over = asyncio.ensure_future(self._over.wait())
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not work.done():
            work.cancel()
            raise CallOverError("the call ended while we were speaking")

    async def _transact(self, method: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Message:
        """A request within the call, once more with credentials when challenged."""
        extra = dict(headers)
        for _ in range(2):
            request = self._request(method, body, extra)
            response = await _within(self.phone.request(request, self._next_hop).done, timeout_s, f"no answer to {method}")
            if method == "INVITE":
                self.acknowledge(request, response)
            answer = self._credentials_for(request, response)
            if answer is None:
                break
            extra |= answer
        return response

    def _request(self, method: str, body: bytes, headers: dict[str, str]) -> Message:
        self._cseq += 1
        request = Message(method=method, uri=self._target, body=body)
        request.add("via", self._via())
        request.add("from", self._local)
        request.add("to", self._remote)
        request.add("call-id", self.call_id)
        request.add("cseq", f"{self._cseq} {method}")
        request.add("contact", self.phone.contact)
        request.add("max-forwards", "70")
        request.add("allow", ALLOW)
        request.add("user-agent", "switchhook-phone")
        for route in self._routes:
            request.add("route", route)
        for name, value in headers.items():
            request.add(name, value)
        if body and not request.get("content-type"):
            request.add("content-type", "application/sdp")
        return request

    def _via(self) -> str:
        return f"SIP/2.0/UDP {self.phone.host}:{self.phone.port};branch=z9hG4bK{sip_text.token()};rport"

    def _offer(self, direction: str) -> bytes:
        self._sdp_version += 1
        return sip_text.write_sdp(self.phone.host, self.line.port, self.phone.encodings, direction, self._sdp_version)

    def _take_media(self, body: bytes) -> None:
        """Turn the line to where the far side's description points."""
        media = sip_text.read_sdp(body)
        if media is None:
            return
        self.media = media
        self.line.connect((media.host, media.port), media.encoding, media.dtmf_payload_type)

    def _end(self, by: str) -> None:
        if not self._over.is_set():
            self.ended_by = by
            self.ended_at = asyncio.get_running_loop().time()
            self._over.set()


async def _within(work: Awaitable[T], timeout_s: float, what: str) -> T:
    """Wait, but not for ever; the TimeoutError says what did not happen."""
    try:
        return await asyncio.wait_for(work, timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"{what} within {timeout_s:g} s") from error
