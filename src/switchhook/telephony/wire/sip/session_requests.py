"""Requests inside a dialog: what each method does to the session, and the answer it gets (RFC 3261 §12.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from switchhook.telephony.wire.sip import info_digits
from switchhook.telephony.wire.sip.dialog_session import DialogSession, Phase
from switchhook.telephony.wire.sip.errors import RemoteProtocolError
from switchhook.telephony.wire.sip.message import Request
from switchhook.telephony.wire.sip.session_core import SDP, unknown_extensions
from switchhook.telephony.wire.sip.transaction_layer import ServerExchange

_RETRY_SECONDS = 11
"""RFC 3261 §14.2: a Retry-After between 0 and 10 s."""


def receive(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    """Answer one request of the peer (not ACK, not CANCEL)."""
    request = exchange.request
    if not session.dialog.in_order(request):
        session.refuse_request(exchange, 500, "Request Out of Order", now)
        return
    if unknown_extensions(request):
        session.refuse_request(exchange, 420, None, now)
        return
    handler = _HANDLERS.get(request.method)
    if handler is None:
        status = 405 if request.method in _KNOWN_METHODS else 501
        session.refuse_request(exchange, status, None, now)
        return
    if session.phase is Phase.OVER and request.method != "BYE":
        session.refuse_request(exchange, 481, None, now)
        return
    try:
        handler(session, exchange, now)
    except RemoteProtocolError as error:
        session.refuse_request(exchange, error.status_hint, error.reason, now)


def peer_reason(request: Request) -> str:
    """The Reason header of a BYE or CANCEL, for the call's record (RFC 3326)."""
    return "; ".join(str(reason) for reason in request.reasons)[:200]


def _bye(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    request = exchange.request
    detail = peer_reason(request)
    exchange.respond(request.reply(200, None, session.local_tag), now)
    if session.phase is Phase.RINGING:
        session.cancelled(detail, now)
    else:
        session.ended_by_peer(detail, now)


def _invite(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    request = exchange.request
    if session.phase is Phase.RINGING:
        # RFC 3261 §14.2: the first INVITE has no final response yet.
        _try_later(session, exchange, now)
    elif _own_offer_stands(session):
        session.refuse_request(exchange, 491, None, now)
    else:
        session.timer.check(request)
        target = session.dialog.target_after(request)
        _take_sdp_only(request)
        body, agreed = session.media.reoffered(request)
        session.dialog.remote_target = target
        if session.phase is Phase.ANSWERED:
            # Its sender has the 200 of the first INVITE; only the ACK is late (RFC 5407 §3.1.4).
            session.phase = Phase.CONFIRMED
        session.succeed(exchange, body, now)
        session.agree(agreed)


def _update(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    request = exchange.request
    has_offer = bool(request.body)
    if has_offer and not session.takes_offers:
        # RFC 3311 §5.2: the offer of the INVITE is not answered yet.
        _try_later(session, exchange, now)
        return
    if has_offer and _own_offer_stands(session):
        session.refuse_request(exchange, 491, None, now)
        return
    session.timer.check(request)
    target = session.dialog.target_after(request)
    body, agreed = b"", None
    if has_offer:
        _take_sdp_only(request)
        body, agreed = session.media.reoffered(request)
    session.dialog.remote_target = target
    response = session.ok(request, body)
    if session.phase is not Phase.RINGING:
        for name, value in session.timer.accept(request, now):
            response.headers.add(name, value)
    exchange.respond(response, now)
    session.agree(agreed)


def _prack(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    rack = exchange.request.rack
    if rack is None:
        raise RemoteProtocolError(400, "RAck: missing")
    if session.reliable is None or not session.reliable.acknowledged_by(rack):
        session.refuse_request(exchange, 481, "No Such Provisional Response", now)
        return
    if exchange.request.body:
        # Our provisional responses carry no SDP, so the INVITE's offer still stands (RFC 3262 §5).
        _try_later(session, exchange, now)
        return
    exchange.respond(session.ok(exchange.request), now)


def _info(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    request = exchange.request
    kind = request.content_type or ""
    if not request.body:
        exchange.respond(session.ok(request), now)
        return
    if kind not in (info_digits.RELAY, info_digits.PLAIN):
        response = request.reply(415, None, session.local_tag)
        response.headers.add("Accept", info_digits.RELAY)
        response.headers.add("Accept", info_digits.PLAIN)
        exchange.respond(response, now)
        return
    pressed = info_digits.parse_digit(kind, request.body)
    if pressed is None:
        session.refuse_request(exchange, 400, "No DTMF Digit in the Body", now)
        return
    exchange.respond(session.ok(request), now)
    session.digit(*pressed)


def _options(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    response = session.ok(exchange.request)
    response.headers.add("Accept", SDP)
    exchange.respond(response, now)


def _refer(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    session.transfer.asked(exchange, now)


def _notify(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    session.transfer.notified(exchange, now)


def _try_later(session: DialogSession, exchange: ServerExchange, now: float) -> None:
    response = exchange.request.reply(500, "An Offer Is Outstanding", session.local_tag)
    response.headers.add("Retry-After", str(session.core.pick(_RETRY_SECONDS)))
    exchange.respond(response, now)


def _own_offer_stands(session: DialogSession) -> bool:
    """Glare (RFC 3261 §14.2, RFC 3311 §5.2)."""
    return session.media.awaiting_answer or session.refresh.offering


def _take_sdp_only(request: Request) -> None:
    if request.body and request.body_of(SDP) is None:
        raise RemoteProtocolError(415, "Unsupported Media Type")


_HANDLERS: Mapping[str, Callable[[DialogSession, ServerExchange, float], None]] = {
    "BYE": _bye,
    "INVITE": _invite,
    "UPDATE": _update,
    "PRACK": _prack,
    "INFO": _info,
    "OPTIONS": _options,
    "REFER": _refer,
    "NOTIFY": _notify,
}
_KNOWN_METHODS = frozenset({"MESSAGE", "SUBSCRIBE", "PUBLISH", "REGISTER"})
