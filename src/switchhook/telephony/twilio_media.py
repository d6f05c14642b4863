"""The way in for Twilio's Media Streams: checks a handshake, finds the leg that `start` names, and carries frames both ways."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from switchhook.telephony.twilio_leg import MediaStream
from switchhook.telephony.wire.twilio_stream import (
    MAX_MESSAGE_BYTES,
    Digit,
    FrameError,
    Mark,
    Media,
    Message,
    Start,
    Stop,
    read,
    read_sound,
)

_log = logging.getLogger(__name__)

LEG_PARAMETER = "leg"
"""The `<Parameter>` that names the leg."""
START_S = 10.0
"""A socket that sends no `start` within this is closed."""


class StreamedLeg(Protocol):
    """What the door tells a leg; `telephony.twilio_leg` implements it."""

    def open_stream(self, stream: MediaStream, encrypted: bool) -> bool:
        """`start` came; False when the leg wants no stream."""

    def hear(self, payload: bytes, frame: bytes) -> None:
        """Sound of the party."""

    def on_digit(self, digit: str) -> None:
        """A key was pressed."""

    def on_mark(self, name: str) -> None:
        """A mark came back."""

    def on_choked(self, choked: bool) -> None:
        """The socket takes no more for now, or takes it again."""

    def lose_stream(self, stream: MediaStream, stopped: bool) -> None:
        """The stream is over."""


class TwilioDoor:
    """Serves `/twilio/media`.

    `verify` says whether a handshake bears a valid `X-Twilio-Signature`. `claim` takes the id that the stream's parameter `leg`
    names and the call's SID, and gives the leg that waits for it. `encrypted`: the public address is `wss`.
    """

    def __init__(
        self, verify: Callable[[WSUpgradeRequest], bool], claim: Callable[[str, str], StreamedLeg | None], encrypted: bool
    ) -> None:
        self._verify = verify
        self.claim = claim
        self.encrypted = encrypted
        self._sockets: set[StreamSocket] = set()

    @property
    def streams(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    def accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        """The route: check a handshake and give what serves its socket."""
        if not self._verify(request):
            response = WSUpgradeResponse.create_error_response(HTTPStatus.FORBIDDEN, b"", {"Connection": "close"})
            return WSUpgradeResponseWithListener(response, None)
        socket = StreamSocket(self)
        self._sockets.add(socket)
        return socket

    def close(self) -> None:
        """Close every socket."""
        for socket in list(self._sockets):
            socket.close()

    def gone(self, socket: StreamSocket) -> None:
        """A socket is over."""
        self._sockets.discard(socket)


class StreamSocket(WSListener):
    """One socket of the carrier; implements `MediaStream`.

    Backpressure: what comes is taken at once and nothing of it is queued. When the carrier does not read, the leg is told and
    sends no more sound until it does; no more than a second of sound is ever under way.
    """

    def __init__(self, door: TwilioDoor) -> None:
        self.stream_sid = ""
        self._door = door
        self._transport: WSTransport | None = None
        self._leg: StreamedLeg | None = None
        self._parts: list[bytes] = []
        self._over = False
        # A handshake that is accepted but never completed gives its place back too.
        self._patience = asyncio.get_running_loop().call_later(START_S, self._too_late)

    # -- MediaStream ----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send one text frame; a socket that is gone takes none."""
        if self._transport is not None and not self._over:
            self._transport.send(WSMsgType.TEXT, frame)

    def close(self) -> None:
        """Close the socket; idempotent. The leg hears no more of it but `stop`, when that is on its way already."""
        self._close(WSCloseCode.OK)

    # -- picows ---------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        if self._over:
            transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame. What fails on it costs that frame, and not the call."""
        try:
            self._on_frame(frame)
        except Exception:  # noqa: BLE001 — picows would close the socket
            _log.exception("a frame of a media stream could not be dealt with")

    def pause_writing(self) -> None:
        """The carrier does not read as fast as we send."""
        if self._leg is not None and not self._over:
            self._leg.on_choked(True)

    def resume_writing(self) -> None:
        """The carrier has caught up."""
        if self._leg is not None and not self._over:
            self._leg.on_choked(False)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        self._end(stopped=False)

    # -- inside ---------------------------------------------------------------------------------

    def _on_frame(self, frame: WSFrame) -> None:
        """Sound in one whole frame, which is how it comes, goes straight to the leg."""
        kind = frame.msg_type
        if kind is WSMsgType.TEXT and frame.fin:
            data = frame.get_payload_as_bytes()
            leg = self._leg
            if leg is not None and (payload := read_sound(data)) is not None and not self._over:
                leg.hear(payload, data)
            else:
                self._receive(data)
        elif kind is WSMsgType.CLOSE:
            self._close(WSCloseCode.OK)
        elif kind in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._gather(frame)

    def _gather(self, frame: WSFrame) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > MAX_MESSAGE_BYTES:
            self._close(WSCloseCode.MESSAGE_TOO_BIG)
        elif frame.fin:
            data, self._parts = b"".join(self._parts), []
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            message = read(data)
        except FrameError as error:
            _log.warning("a media stream is closed: %s", error)
            self._close(WSCloseCode.POLICY_VIOLATION)
            return
        if message is not None:
            self._take(message, data)

    def _take(self, message: Message, data: bytes) -> None:
        leg = self._leg
        if isinstance(message, Start):
            self._start(message)
        elif isinstance(message, Stop):
            self._end(stopped=True)
            self._close(WSCloseCode.OK)
        elif leg is not None and not self._over:
            match message:
                case Media(payload=payload):
                    leg.hear(payload, data)
                case Digit(digit=digit):
                    leg.on_digit(digit)
                case Mark(name=name):
                    leg.on_mark(name)

    def _start(self, start: Start) -> None:
        if self._leg is not None or self._over:
            return
        leg = self._door.claim(start.parameters.get(LEG_PARAMETER, ""), start.call_sid)
        if leg is None:
            _log.warning("a media stream is closed: it names no call that waits for one", extra={"call_sid": start.call_sid})
            self._close(WSCloseCode.POLICY_VIOLATION)
            return
        self._patience.cancel()
        self.stream_sid = start.stream_sid
        self._leg = leg
        if not leg.open_stream(self, self._door.encrypted):
            _log.info("a media stream is closed: its call wants none", extra={"call_sid": start.call_sid})
            self._leg = None
            self._close(WSCloseCode.OK)

    def _too_late(self) -> None:
        _log.warning("a media stream is closed: it sent no start within %d s", START_S)
        self._close(WSCloseCode.POLICY_VIOLATION)

    def _close(self, code: WSCloseCode) -> None:
        self._over = True
        self._patience.cancel()
        transport = self._transport
        if transport is None:
            self._door.gone(self)
        elif not transport.is_disconnected:
            transport.send_close(code)
            transport.disconnect()

    def _end(self, stopped: bool) -> None:
        """Tell the leg, once that the stream stopped or once that it was lost."""
        self._over = True
        self._patience.cancel()
        leg = self._leg
        if leg is not None:
            if not stopped:
                self._leg = None
                self._door.gone(self)
            leg.lose_stream(self, stopped)
        elif not stopped:
            self._door.gone(self)
