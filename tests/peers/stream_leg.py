"""A leg that is nothing but its RTP, for tests of what goes on between legs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.ports import DigitPressed, FrameTap, Leg, LegEnded, LegEvent, Playout
from switchhook.telephony.rtp_stream import MediaTimeout, RtpEvent, RtpStream


class StreamLeg:
    """Implements `domain.ports.Leg` over a stream; signalling ends here."""

    encrypted = False
    transfer_mode = TransferMode.BRIDGE

    def __init__(self, stream: RtpStream) -> None:
        self.stream = stream
        self.events: list[LegEvent] = []
        self.on_event: Callable[[LegEvent], None] = self.events.append
        stream.subscribe(self._told)

    @property
    def encoding(self) -> Encoding:
        return self.stream.encoding

    @property
    def playout(self) -> Playout:
        return self.stream.playout

    @property
    def figures(self) -> Mapping[str, float]:
        return {}

    def subscribe(self, on_event: Callable[[LegEvent], None]) -> None:
        self.on_event = on_event

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        self.stream.listen(on_audio)

    def tap(self, tap: FrameTap | None) -> None:
        self.stream.tap(tap)

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        self.stream.send_digit(digit, duration_ms)

    def hang_up(self) -> None:
        self.stream.close()

    def close(self) -> None:
        self.stream.close()

    def refer(self, target: str, replaces: Leg | None = None, caller: str = "", ring_s: float = 30.0) -> None:
        raise AssertionError("there is nobody to ask")

    def recall(self) -> None:
        raise AssertionError("nobody was handed on")

    def refer_result(self, status: int) -> None:
        raise AssertionError("nobody has asked")

    def _told(self, event: RtpEvent) -> None:
        told = LegEnded("media-timeout") if isinstance(event, MediaTimeout) else event
        if isinstance(told, DigitPressed | LegEnded):
            self.on_event(told)
