"""A line that a carrier with Twilio's interface carries, as the rest of the house sees it: whoever dialled, one leg.

Three sides meet here: the call core (`domain.ports.OfferedLeg`), the media socket (`telephony.twilio_media` opens, feeds and
loses streams) and the HTTP side (`CarrierOrders` is what a leg asks of it; `on_…` is what it tells).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from switchhook.domain.dialling import TRANSFER_RING_S
from switchhook.domain.model import Encoding, TransferMode
from switchhook.domain.ports import DigitPressed, FrameTap, Leg, LegEnded, LegEvent, PlayoutDrained, ReferProgress
from switchhook.driver import Driver
from switchhook.media import g711, tones
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_call import (
    AnswerWebhook,
    CallEffect,
    CloseStream,
    EndCall,
    Recall,
    Redirect,
    RejectWebhook,
    Stage,
    Tell,
    TwilioCall,
)
from switchhook.telephony.twilio_playout import TwilioPlayout
from switchhook.telephony.wire.sip.uri import is_sip_uri
from switchhook.telephony.wire.twilio_stream import read_timestamp_ms

MEDIA_TIMEOUT_S = 30.0
_MAX_EARLY_EVENTS = 64
_DIGIT_PAUSE_MS = 60
_SNAP_SAMPLES = 80
"""Times are whole milliseconds: a frame this near the end of the one before follows it."""
_AHEAD_SAMPLES = g711.RATE_HZ
"""A frame that claims to be this far ahead of the clock has a time that means nothing."""


class CarrierOrders(Protocol):
    """What one leg asks of the HTTP side. Called on the event loop; they return at once and never raise."""

    def answer(self) -> None:
        """Answer the voice webhook with `<Connect><Stream>`, the leg's `stream_id` as its parameter `leg`, then `<Hangup/>`."""

    def reject(self, reason: str) -> None:
        """Answer the voice webhook with `<Reject>`: `busy` or `rejected`."""

    def complete(self) -> None:
        """End the call over REST with `Status=completed`, also one that is queued or rings. A call that is gone is no error."""

    def redirect(self, target: str, ring_s: float) -> None:
        """Redirect the call over REST to `<Dial action>` that lets it ring so long; when that fails call `on_redirect_failed`."""

    def recall(self) -> None:
        """Redirect the call over REST to `<Connect><Stream>` for the same `stream_id`, after any order to dial; when that fails
        call `on_recall_failed`."""


class MediaStream(Protocol):
    """One open media socket."""

    stream_sid: str

    def send(self, frame: bytes) -> None:
        """Send one text frame; a socket that is gone takes none."""

    def close(self) -> None:
        """Close the socket; idempotent. No loss of it need be told."""


class TwilioLeg:
    """Implements `domain.ports.OfferedLeg`, and `Leg` for a call that we dial (`ring_s` given).

    Events come after the method that causes them has returned, in order; what happens before `subscribe` is kept for it. A
    line that we leave counts as ended at once; what is owed to the carrier goes on by itself (see `twilio_call`).
    """

    def __init__(
        self,
        orders: CarrierOrders,
        pacer: Pacer,
        media_timeout_s: float = MEDIA_TIMEOUT_S,
        ring_s: float | None = None,
        stream_id: str = "",
        call_sid: str = "",
    ) -> None:
        self.stream_id = stream_id
        """Names the leg to the media door; opaque, and the same for every stream of the leg."""
        self.call_sid = call_sid
        """The carrier's name for the call; the HTTP side sets that of a call we dial as soon as it knows it."""
        self.on_over: Callable[[TwilioLeg], None] | None = None
        """Told once, when nothing more is owed to the carrier either."""
        self.shown_caller = ""
        """The number that whom the carrier dials is shown; empty: the carrier's choice."""
        self._orders = orders
        self._clock = pacer.clock
        self._loop = asyncio.get_running_loop()
        self._call = TwilioCall(media_timeout_s, self._clock(), ring_s)
        self._driver = Driver(self._call, self._perform)
        self._playout = TwilioPlayout(pacer, on_drained=lambda: self._tell(PlayoutDrained()))
        self._stream: MediaStream | None = None
        self._encrypted = True
        self._on_event: Callable[[LegEvent], None] | None = None
        self._on_audio: Callable[[bytes, float], None] | None = None
        self._tap: FrameTap | None = None
        self._early: list[LegEvent] = []
        self._closed = self._ended = False
        self._packets_in = 0
        # The leg's time line: it begins with the answer.
        self._origin_s = -1.0
        self._placed_to = 0
        self._stream_begins: int | None = None
        self._driver.drain()

    # -- domain.ports.Leg -----------------------------------------------------------------------

    @property
    def encoding(self) -> Encoding:
        """Media Streams speak µ-law alone."""
        return Encoding.PCMU

    @property
    def playout(self) -> TwilioPlayout:
        """What the party hears; what is queued before the stream opens is played then."""
        return self._playout

    @property
    def encrypted(self) -> bool:
        """Whether the carrier reaches us over TLS."""
        return self._encrypted

    def subscribe(self, on_event: Callable[[LegEvent], None]) -> None:
        """Name the one receiver of this leg's events."""
        self._on_event = on_event
        early, self._early = self._early, []
        for event in early:
            self._loop.call_soon(self._hand_over, event)

    def listen(self, on_audio: Callable[[bytes, float], None] | None) -> None:
        """Name the one receiver of the party's sound: (µ-law payload, monotonic now)."""
        self._on_audio = None if self._ended else on_audio

    def tap(self, tap: FrameTap | None) -> None:
        """Attach the recorder, or take it off. What is sent is shown to it once it was heard."""
        if self._tap is not None:
            self._playout.settle(self._clock())
        self._tap = None if self._ended else tap
        self._playout.on_heard = None if self._tap is None else self._heard

    def hang_up(self) -> None:
        """End the line: the stream is closed and `<Hangup/>` follows; a call without a stream is ended over REST."""
        self._feed(self._call.hang_up)

    def close(self) -> None:
        """Give back the socket and the beat at once, and hang up if that has not happened; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.hang_up()

    def send_digit(self, digit: str, duration_ms: int = 160) -> None:
        """Play a DTMF digit as tones in the sound: Media Streams have no other way. Raises ValueError."""
        tone = tones.dtmf(digit, duration_ms, Encoding.PCMU)
        self._playout.play_tone(tone + tones.silence(_DIGIT_PAUSE_MS, Encoding.PCMU), self._clock())

    @property
    def transfer_mode(self) -> TransferMode:
        """The carrier dials on our order."""
        return TransferMode.CARRIER

    def refer(self, target: str, replaces: Leg | None = None, caller: str = "", ring_s: float = TRANSFER_RING_S) -> None:
        """Have the carrier dial `target` for the party and let it ring so long; `ReferProgress` follows, and on failure the party
        comes back."""
        if is_sip_uri(target):
            # An extension behind a trunk of the account: the carrier cannot reach it, so we bridge.
            self._tell(ReferProgress(404, final=True, accepted=False))
            return
        self.shown_caller = caller
        self._feed(lambda now: self._call.refer(target, ring_s, now))

    def recall(self) -> None:
        """Have the carrier bring back the party that it dials for; what is played meanwhile is heard then."""
        self._feed(self._call.recall)

    def refer_result(self, status: int) -> None:
        """A party on such a line asks for no transfers."""

    @property
    def figures(self) -> Mapping[str, float]:
        """Frames of sound in, messages with sound out."""
        return {"packets_in": self._packets_in, "packets_out": self._playout.messages}

    # -- domain.ports.OfferedLeg ----------------------------------------------------------------

    def ring(self) -> None:
        """The carrier lets it ring by itself."""

    def answer(self) -> None:
        """Answer the voice webhook; `LegAnswered` follows when the stream begins."""
        self._feed(self._call.answer)

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        """Refuse an unanswered call: busy for 486, 503 and 600, else rejected."""
        self._feed(lambda now: self._call.reject(status, now))

    # -- what the HTTP side tells ---------------------------------------------------------------

    def on_status(self, status: str, sip_code: int | None = None) -> None:
        """A status callback: CallStatus (`ringing`, `in-progress`, `completed`, `busy`…) and SipResponseCode. A request of any
        other kind whose CallStatus is final should be told here first, so that a party that is gone is not waited for."""
        self._feed(lambda now: self._call.status(status, sip_code, now))

    def on_failed(self, reason: str, detail: str) -> None:
        """The line does not work: `trunk-failed` for a call that the carrier did not take, else `line-failed`."""
        self._feed(lambda now: self._call.fail(reason, detail, now))

    def on_redirect_failed(self, status: int = 503) -> None:
        """REST refused the order to dial, or did not answer; told as a SIP status."""
        self._feed(lambda now: self._call.redirect_failed(status, now))

    def on_recall_failed(self) -> None:
        """REST refused the order to bring the party back, or did not answer."""
        self._feed(self._call.recall_failed)

    @property
    def recalled(self) -> bool:
        """Whether that order is on its way: whatever else the carrier asks about the call, it is to wait."""
        return self._call.recalled

    def on_dial_answered(self) -> None:
        """The status callback of `<Number>` says that the dialled party has answered (`in-progress`)."""
        self._feed(self._call.dial_answered)

    def on_dial_over(self, dial_status: str) -> bool:
        """The `action` of `<Dial>` came with this DialCallStatus. True: answer it with `<Connect><Stream>` for the same
        `stream_id`, the party comes back; False: answer it with `<Hangup/>`."""
        comes_back = False

        def tell(now: float) -> None:
            nonlocal comes_back
            comes_back = self._call.dial_over(dial_status, now)

        self._feed(tell)
        return comes_back

    # -- what the media door tells --------------------------------------------------------------

    def open_stream(self, stream: MediaStream, encrypted: bool) -> bool:
        """`start` came for this leg; False: the leg wants no stream, and the socket should be closed."""
        if not self._call.wants_stream:
            return False
        old, self._stream = self._stream, stream
        if old is not None:
            self._playout.detach(self._clock())
            old.close()
        now = self._clock()
        if self._origin_s < 0:
            self._origin_s = now
        self._encrypted, self._stream_begins = encrypted, None
        self._feed(self._call.stream_started)
        self._playout.attach(stream.stream_sid, stream.send, now)
        return True

    def hear(self, payload: bytes, frame: bytes) -> None:
        """Sound of the party; `frame` is the message it came in, for its time."""
        now = self._clock()
        self._call.media_at = now
        self._packets_in += 1
        tap = self._tap
        if tap is not None:
            tap.received(payload, self._place(frame, len(payload), now))
        on_audio = self._on_audio
        if on_audio is not None:
            on_audio(payload, now)

    def on_digit(self, digit: str) -> None:
        """The party pressed a key."""
        self._tell(DigitPressed(digit))

    def on_mark(self, name: str) -> None:
        """A mark came back."""
        self._playout.mark(name, self._clock())

    def on_choked(self, choked: bool) -> None:
        """The socket takes no more for now, or takes it again."""
        self._playout.choke(choked, self._clock())

    def lose_stream(self, stream: MediaStream, stopped: bool) -> None:
        """The socket is gone, or (`stopped`) the carrier ends the stream."""
        if stream is self._stream:
            self._stream = None
            self._feed(lambda now: self._call.stream_gone(stopped, now))
            self._playout.detach(self._clock())

    # -- inside ---------------------------------------------------------------------------------

    def _feed(self, change: Callable[[float], None]) -> None:
        self._driver.feed(change)
        if self._call.stage is Stage.OVER:
            self._leave()

    def _perform(self, effect: CallEffect) -> None:
        match effect:
            case AnswerWebhook():
                self._orders.answer()
            case RejectWebhook(reason=reason):
                self._orders.reject(reason)
            case CloseStream():
                if self._stream is not None:
                    self._stream.close()
            case EndCall():
                self._orders.complete()
            case Redirect(target=target, ring_s=ring_s):
                self._orders.redirect(target, ring_s)
            case Recall():
                self._orders.recall()
            case Tell(event=event):
                self._pass_on(event)
        if self._call.stage is Stage.OVER:
            self._leave()

    def _pass_on(self, event: LegEvent) -> None:
        if isinstance(event, LegEnded):
            self._release()
        self._tell(event)

    def _release(self) -> None:
        """Nobody is heard or spoken to any more. What was heard until now is recorded; `Drained` would say too much."""
        self._playout.on_drained = None
        self._playout.detach(self._clock())
        self._playout.close()
        self._ended = True
        self._on_audio = self._tap = self._playout.on_heard = None

    def _leave(self) -> None:
        """Nothing is owed to anybody."""
        self._driver.close()
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over(self)

    def _heard(self, payload: bytes, at_s: float) -> None:
        if self._tap is not None:
            self._tap.sent(payload, max(0, round((at_s - self._origin_s) * g711.RATE_HZ)))

    def _place(self, frame: bytes, samples: int, now: float) -> int:
        """Where a frame lies on the leg's time line: behind the one before, where its time does not say otherwise."""
        at, begins, timestamp_ms = self._placed_to, self._stream_begins, read_timestamp_ms(frame)
        if timestamp_ms is not None and (begins is None or abs(begins + timestamp_ms * 8 - at) > _SNAP_SAMPLES):
            at = self._place_anew(timestamp_ms, samples, now)
        self._placed_to = at + samples
        return at

    def _place_anew(self, timestamp_ms: int, samples: int, now: float) -> int:
        """Where a stream's first frame lies, or one after a hole. It never goes back; a time that cannot be is the clock's."""
        clock, expected = int((now - self._origin_s) * g711.RATE_HZ), self._placed_to
        if self._stream_begins is None:
            self._stream_begins = max(expected, clock - samples) - timestamp_ms * 8
        at = self._stream_begins + timestamp_ms * 8
        if abs(at - expected) <= _SNAP_SAMPLES:
            return expected
        if at < expected or at > clock + _AHEAD_SAMPLES:
            at = max(expected, clock - samples)
            self._stream_begins = at - timestamp_ms * 8
        return at

    def _tell(self, event: LegEvent) -> None:
        if self._ended and not isinstance(event, LegEnded):
            return
        if self._on_event is not None:
            self._loop.call_soon(self._hand_over, event)
        elif len(self._early) < _MAX_EARLY_EVENTS or isinstance(event, LegEnded):
            self._early.append(event)

    def _hand_over(self, event: LegEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
