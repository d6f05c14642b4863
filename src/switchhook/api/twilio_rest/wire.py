"""The JSON of Twilio's REST API, as its clients read it: calls, recordings, pages, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import hdrs, web

from switchhook.domain.call_sid import call_sid
from switchhook.usecases.call_recordings import RecordingView
from switchhook.usecases.next_flows import API_VERSION, direction_of
from switchhook.usecases.steered import CallView, Principal, shown_number

PREFIX = f"/{API_VERSION}/Accounts"
MORE_INFO = "https://www.twilio.com/docs/errors/"
_SUBRESOURCES = (
    "events",
    "notifications",
    "payments",
    "recordings",
    "siprec",
    "streams",
    "transcriptions",
    "user_defined_message_subscriptions",
    "user_defined_messages",
)


def error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """`{"code": 20404, "message": …, "more_info": …, "status": 404}`."""
    body = {"code": code, "message": message, "more_info": f"{MORE_INFO}{code}", "status": status}
    return web.json_response(body, status=status, headers=headers)


def unauthorized() -> web.Response:
    """Nothing is told but that the pair does not fit."""
    return error(401, 20003, "Authenticate", {hdrs.WWW_AUTHENTICATE: 'Basic realm="Twilio API"'})


def account(who: Principal) -> dict[str, Any]:
    """An Account resource; the token, which who asks knows, is told to nobody."""
    sid = who.pair.account_sid
    return {
        "sid": sid,
        "owner_account_sid": sid,
        "friendly_name": who.account,
        "type": "Full",
        "status": "active",
        "auth_token": None,
        "date_created": None,
        "date_updated": None,
        "uri": f"{PREFIX}/{sid}.json",
        "subresource_uris": {name: f"{PREFIX}/{sid}/{_path(name)}.json" for name in ("calls", "recordings")},
    }


def call(view: CallView, account_sid: str) -> dict[str, Any]:
    """A Call resource; what nobody here knows is null."""
    attempt = view.attempt
    sid = call_sid(attempt)
    uri = f"{PREFIX}/{account_sid}/Calls/{sid}"
    called, caller = shown_number(attempt.called), shown_number(attempt.caller)
    return {
        "sid": sid,
        "date_created": rfc2822(attempt.started_at),
        "date_updated": rfc2822(view.ended_at or view.connected_at or attempt.started_at),
        "parent_call_sid": None,
        "account_sid": account_sid,
        "to": called,
        "to_formatted": called,
        "from": caller,
        "from_formatted": caller,
        "phone_number_sid": None,
        "status": view.status.value,
        "start_time": rfc2822(view.connected_at),
        "end_time": rfc2822(view.ended_at),
        "duration": None if view.seconds is None else str(view.seconds),
        "price": None,
        "price_unit": "USD",
        "direction": direction_of(attempt),
        "answered_by": None,
        "api_version": API_VERSION,
        "forwarded_from": None,
        "group_sid": None,
        "caller_name": attempt.caller_name,
        "queue_time": "0",
        "trunk_sid": None,
        "annotation": None,
        "uri": f"{uri}.json",
        "subresource_uris": {name: f"{uri}/{_path(name)}.json" for name in _SUBRESOURCES},
    }


def recording(view: RecordingView, account_sid: str, below_call: bool) -> dict[str, Any]:
    """A Recording resource."""
    place = f"Calls/{view.call_sid}/Recordings" if below_call else "Recordings"
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "call_sid": view.call_sid,
        "conference_sid": None,
        "date_created": rfc2822(view.started_at),
        "date_updated": rfc2822(view.started_at),
        "start_time": rfc2822(view.started_at),
        "duration": None if view.seconds is None else str(view.seconds),
        "sid": view.sid,
        "price": None,
        "price_unit": "USD",
        "status": view.status.value,
        "channels": 2,
        "source": "StartCallRecordingAPI",
        "error_code": None,
        "track": "both",
        "encryption_details": None,
        "uri": f"{PREFIX}/{account_sid}/{place}/{view.sid}.json",
        "media_url": f"{PREFIX}/{account_sid}/Recordings/{view.sid}",
        "subresource_uris": {},
    }


def page(
    name: str, found: Sequence[Mapping[str, Any]], path: str, query: Mapping[str, str], turn: tuple[int, int, str | None]
) -> dict[str, Any]:
    """A page of a list; `turn` is its number, its size and the token of the next one, or None when this is the last."""
    number, size, token = turn
    kept = {key: value for key, value in query.items() if key not in ("Page", "PageSize", "PageToken")}

    def uri(**more: object) -> str:
        return f"{path}?{urlencode({**kept, 'PageSize': size, **more})}"

    return {
        name: list(found),
        "page": number,
        "page_size": size,
        "start": number * size,
        "end": number * size + max(0, len(found) - 1),
        "uri": uri(Page=number),
        "first_page_uri": uri(Page=0),
        "previous_page_uri": None,
        "next_page_uri": None if token is None else uri(Page=number + 1, PageToken=token),
    }


def rfc2822(time: datetime | None) -> str | None:
    """`Thu, 12 Mar 2026 10:42:15 +0000`."""
    return None if time is None else format_datetime(time.replace(microsecond=0))


def _path(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
