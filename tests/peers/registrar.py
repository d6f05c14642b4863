"""A carrier's registrar: it wants a digest proof, grants a binding for so long, and sends calls to it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections import deque
from collections.abc import Sequence

from switchhook_demo import sip_text
from switchhook_demo.sip_text import Message
from tests.peers.party import Party, PartyCall
from tests.peers.stream_party import StreamParty

REALM = "carrier.test"
_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^,\s]+))')


class Registrar(Party):
    """`async with Registrar(port=5070) as registrar`: takes REGISTER as RFC 3261 §10.3 wants; also a `Party` for calls."""

    def __init__(self, port: int, username: str, password: str, expires_s: int = 3600, answers: Sequence[int] = ()) -> None:
        """`answers`: statuses of the first proven REGISTERs; those after them get 200."""
        super().__init__(port=port)
        self.proven: list[tuple[float, Message]] = []
        """Each REGISTER whose proof was good, with the loop's time; one that was repeated is here once."""
        self.binding = ""
        """The Contact's URI, or nothing."""
        self._username = username
        self._password = password
        self._expires_s = expires_s
        self._statuses = deque(answers)
        self._given: dict[str, Message] = {}
        self._news = asyncio.Event()

    async def registered(self, count: int, deadline_s: float = 20.0) -> Message:
        """Wait for the proven REGISTER of this number, the first being 1."""
        async with asyncio.timeout(deadline_s):
            while len(self.proven) < count:
                self._news.clear()
                await self._news.wait()
        return self.proven[count - 1][1]

    async def send_call(self, number: str) -> PartyCall:
        """A call for a number: the binding's Contact takes the place of the number in the Request-URI (RFC 3261 §16.5)."""
        call = RegisteredCall(self, self.binding, number)
        self.calls[call.call_id] = call
        call.invite({})
        return call

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """REGISTER is answered here, the rest as any telephone does."""
        message = sip_text.parse(data)
        if message is None or message.method != "REGISTER":
            super().datagram_received(data, addr)
            return
        answer = self._given.get(message.branch)
        if answer is None:
            answer = self._given[message.branch] = self._judge(message)
        self.send(answer, addr)

    def _judge(self, request: Message) -> Message:
        if not self._is_proven(request):
            challenge = request.reply(401, "Unauthorized", sip_text.token())
            challenge.add("www-authenticate", f'Digest realm="{REALM}", nonce="4b1d", algorithm=MD5, qop="auth"')
            return challenge
        self.proven.append((asyncio.get_running_loop().time(), request))
        self._news.set()
        status = self._statuses.popleft() if self._statuses else 200
        answer = request.reply(status, "OK" if status == 200 else "Refused", sip_text.token())
        if status == 200:
            self._bind(request, answer)
        return answer

    def _bind(self, request: Message, answer: Message) -> None:
        contact = request.get("contact")
        taken_back = request.get("expires") == "0"
        self.binding = "" if taken_back else sip_text.address_uri(contact)
        if not taken_back:
            answer.add("contact", f"{contact};expires={self._expires_s}")

    def _is_proven(self, request: Message) -> bool:
        """RFC 7616 §3.4.1 with MD5 and qop=auth."""
        found: list[tuple[str, str, str]] = _FIELD.findall(request.get("authorization"))
        given = {name.lower(): quoted or bare for name, quoted, bare in found}
        if given.get("username") != self._username or given.get("realm") != REALM:
            return False
        secret = _md5(f"{self._username}:{REALM}:{self._password}")
        action = _md5(f"REGISTER:{given.get('uri')}")
        expected = _md5(f"{secret}:{given.get('nonce')}:{given.get('nc')}:{given.get('cnonce')}:auth:{action}")
        return given.get("response") == expected


class StreamRegistrar(Registrar, StreamParty):
    """The same over TCP, or with `tls` over TLS: calls come by the connection of the REGISTER (RFC 5626 §5.3)."""

    def __init__(self, port: int, username: str, password: str, expires_s: int = 3600, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(port, username, password, expires_s)
        self._tls = tls


class RegisteredCall(PartyCall):
    """A call that a registrar sends to a binding; its To still tells the number."""

    def __init__(self, registrar: Registrar, contact: str, number: str) -> None:
        super().__init__(registrar, contact)
        self._remote = f"<sip:{number}@{REALM}>"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
