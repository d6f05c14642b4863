"""Offer and answer over the life of one session (RFC 3261 §13.2.1, RFC 3264, RFC 3311): who has offered, and what stands."""

from __future__ import annotations

from switchhook.telephony.wire import offer_answer
from switchhook.telephony.wire.offer_answer import LocalMedia, Negotiated, NotAcceptable
from switchhook.telephony.wire.sdes import SrtpMode, fresh_keys
from switchhook.telephony.wire.sdp import SdpError, SessionDescription
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.message import Request, Response
from switchhook.telephony.wire.sip.session_core import SDP


class SessionMedia:
    """The descriptions of one session. `of_invite` judges the INVITE's before anyone is asked about the call."""

    def __init__(self, offer: SessionDescription | None, proposed: Negotiated | None) -> None:
        self._offer = offer
        self._local: LocalMedia | None = None
        self._ours: SessionDescription | None = None
        self.proposed = proposed
        """What an answer would agree on, by the INVITE's offer; None when it has none."""
        self.awaiting_answer = False
        """An offer of ours stands: in a 2xx, to be answered in the ACK, or in our INVITE."""

    @classmethod
    def of_invite(cls, request: Request, srtp: SrtpMode = SrtpMode.OFF) -> SessionMedia:
        """Read the offer of an INVITE; `srtp` is what the answer will be held to.

        Raises:
            RemoteProtocolError: 415, 400 or 488.
        """
        if not request.body:
            return cls(None, None)
        offer = _read(request)
        # An answer is tried, and thrown away: neither its address nor its keys are ours.
        _, proposed = _answer(offer, LocalMedia("127.0.0.1", 9, srtp=srtp, srtp_keys=fresh_keys(bytes)))
        return cls(offer, proposed)

    @classmethod
    def of_offer(cls, local: LocalMedia) -> SessionMedia:
        """One dialog of an INVITE of ours; the dialogs of its forks have all got the same offer."""
        media = cls(None, None)
        media._local = local
        media._make_offer(local)
        return media

    @property
    def offer_sent(self) -> bytes:
        """The SDP of our INVITE."""
        return self._ours.serialize() if self._ours else b""

    def answered_in(self, response: Response) -> Negotiated | None:
        """Read the answer in a response to our INVITE; None when it has none, which a provisional response need not.

        Raises:
            RemoteProtocolError: 400 or 488, it cannot be used.
        """
        if response.body_of(SDP) is None:
            return None
        agreed = self._accept(response)
        self.awaiting_answer = False
        return agreed

    @property
    def offered(self) -> bool:
        """Whether the INVITE carried an offer."""
        return self._offer is not None

    def open(self, local: LocalMedia) -> tuple[bytes, Negotiated | None]:
        """The SDP of the 200 that answers the INVITE: our answer and what it agrees on, or our offer."""
        self._local = local
        if self._offer is None:
            return self._make_offer(local), None
        ours, agreed = offer_answer.answer(self._offer, local)
        self._ours = ours
        return ours.serialize(), agreed

    def reoffered(self, request: Request) -> tuple[bytes, Negotiated | None]:
        """The SDP of the 2xx to a re-INVITE or UPDATE: our answer to its offer, or our offer when it has none.

        Raises:
            RemoteProtocolError: 400 or 488; what stood before goes on.
        """
        local = self._standing()
        if not request.body:
            return self._make_offer(local), None
        ours, agreed = _answer(_read(request), local)
        self._ours = offer_answer.versioned(ours, self._ours)
        return self._ours.serialize(), agreed

    def answered_by(self, ack: Request) -> Negotiated:
        """Read the answer in an ACK.

        Raises:
            RemoteProtocolError: 400 or 488, there is none or it cannot be used.
        """
        self.awaiting_answer = False
        if not ack.body:
            raise RemoteProtocolError(400, "The ACK carries no SDP answer")
        return self._accept(ack)

    def current_offer(self) -> bytes:
        """Our description again, as the offer of a re-INVITE that changes nothing (RFC 4028 §7.4)."""
        return self._make_offer(self._standing(), awaited=False)

    def refreshed_by(self, response: Response) -> Negotiated | None:
        """Read the answer in the 2xx to a refresh of ours; an UPDATE without SDP is answered without.

        Raises:
            RemoteProtocolError: 400 or 488.
        """
        return self._accept(response) if response.body else None

    def _make_offer(self, local: LocalMedia, awaited: bool = True) -> bytes:
        self._ours = offer_answer.versioned(offer_answer.offer(local, self._ours), self._ours)
        self.awaiting_answer = awaited
        return self._ours.serialize()

    def _accept(self, message: Request | Response) -> Negotiated:
        answer = _read(message)
        if self._ours is None:
            raise RemoteProtocolError(400, "An SDP answer without an offer")
        try:
            return offer_answer.accept_answer(self._ours, answer)
        except NotAcceptable as error:
            raise RemoteProtocolError(488, f"Not Acceptable Here: {error}") from None

    def _standing(self) -> LocalMedia:
        if self._local is None:
            raise RemoteProtocolError(500, "The Session Has No Media Yet")
        return self._local


def _read(message: Request | Response) -> SessionDescription:
    if (message.headers.get("Content-Encoding") or "identity").lower() != "identity":
        raise RemoteProtocolError(415, "Unsupported Content Encoding")
    body = message.body_of(SDP)
    if body is None:
        raise RemoteProtocolError(415, "Unsupported Media Type")
    try:
        return SessionDescription.parse(body)
    except SdpError as error:
        raise RemoteProtocolError(400, f"Bad SDP: {error}") from None


def _answer(offer: SessionDescription, local: LocalMedia) -> tuple[SessionDescription, Negotiated]:
    try:
        return offer_answer.answer(offer, local)
    except NotAcceptable as error:
        raise RemoteProtocolError(488, f"Not Acceptable Here: {error}") from None
