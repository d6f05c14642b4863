"""What Twilio's clients send: forms and queries, read into what the use cases take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from switchhook.domain.plan import AskNext, RecordingSpec
from switchhook.domain.web_address import address_fits
from switchhook.usecases.call_recordings import RecordingStatus
from switchhook.usecases.live_calls import CallQuery
from switchhook.usecases.ordered_calls import EVENTS, OutboundOrder, StatusCallback
from switchhook.usecases.recording_news import EVENTS as RECORDING_EVENTS
from switchhook.usecases.recording_news import RecordingCallback
from switchhook.usecases.steered import CallStatus, SteeringRefused

BAD_PARAMETER, BAD_URL, NO_TO, NO_FROM = 20001, 21205, 21201, 21213
MOST_LISTED, LISTED = 1000, 50
_LONGEST_URL = 4000
_KEYS = re.compile(r"[0-9*#wWA-D]{0,32}")
_NOT_FOR_LIVE = ("StatusCallback", "TimeLimit")
_NOT_HERE = ("ApplicationSid", "MachineDetection", "AsyncAmd", "RecordingStatusCallback", "CallerId", "SipAuthUsername", "Byoc")
_OFF = ("", "false", "none")
_RECORDED = {"RecordingChannels": "dual", "RecordingTrack": "both", "Trim": "do-not-trim"}
_TIME = {"StartTime<": "until", "StartTime<=": "until", "StartTime>": "since", "StartTime>=": "since"}


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a request; a name may occur again."""

    fields: Sequence[tuple[str, str]]

    def get(self, name: str) -> str:
        """The last value, without white space around it; empty when there is none."""
        return next((value.strip() for key, value in reversed(self.fields) if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value."""
        return [value for key, value in self.fields if key == name]


@dataclass(frozen=True, slots=True)
class CallChange:
    """What is to become of a live call; all None: nothing."""

    ending: CallStatus | None = None
    """COMPLETED or CANCELED."""
    twiml: bytes | None = None
    question: AskNext | None = None


def read_change(form: Form) -> CallChange:
    """`POST /Calls/{sid}`. Raises SteeringRefused."""
    for name in _NOT_FOR_LIVE:
        if form.get(name):
            raise _bad(f"{name}: cannot be changed for a live call on this server; leave it out")
    ending = form.get("Status")
    if ending:
        if ending not in ("completed", "canceled"):
            raise _bad("Status: must be completed or canceled")
        return CallChange(CallStatus(ending))
    return CallChange(None, *_instructions(form))


def read_order(form: Form) -> OutboundOrder:
    """`POST /Calls`. Raises SteeringRefused."""
    for name in _NOT_HERE:
        if form.get(name).lower() not in _OFF:
            raise _bad(f"{name}: is not supported on this server; leave it out")
    _refuse_other_recordings(form)
    if not form.get("To"):
        raise SteeringRefused(400, NO_TO, "To: is missing; give a telephone number")
    if not form.get("From"):
        raise SteeringRefused(400, NO_FROM, "From: is missing; give a number of the account")
    twiml, question = _instructions(form)
    if twiml is None and question is None:
        raise SteeringRefused(400, BAD_URL, "Url: is missing; give Url or Twiml")
    keys = form.get("SendDigits")
    if not _KEYS.fullmatch(keys):
        raise _bad("SendDigits: may have at most 32 of 0-9, *, #, A-D, and w for half a second")
    return OutboundOrder(
        form.get("To"),
        form.get("From"),
        twiml,
        question,
        keys,
        ring_s=_seconds(form, "Timeout", 60, 600),
        talk_s=_seconds(form, "TimeLimit", 14_400, 86_400),
        recording=RecordingSpec("wav") if form.get("Record").lower() == "true" else None,
        told=_callback(form),
    )


def read_query(form: Form) -> CallQuery:
    """`GET /Calls`; the limit is one higher than asked, so that it shows whether more follow. Raises SteeringRefused."""
    times: dict[str, datetime] = {}
    for name, value in form.fields:
        if name in _TIME and value:
            times[_TIME[name]] = _time(name, value)
    if form.get("StartTime"):
        day = _time("StartTime", form.get("StartTime")).replace(hour=0, minute=0, second=0, microsecond=0)
        times = {"since": day, "until": day + timedelta(days=1)}
    status = form.get("Status")
    if status and status not in {known.value for known in CallStatus}:
        raise _bad(f"Status: must be one of {', '.join(known.value for known in CallStatus)}")
    return CallQuery(
        limit=page_size(form) + 1,
        status=CallStatus(status) if status else None,
        called=form.get("To") or None,
        caller=form.get("From") or None,
        since=times.get("since"),
        until=times.get("until"),
        after=_after(form.get("PageToken")),
    )


def page_size(form: Form) -> int:
    """How many to list."""
    return min(_whole(form, "PageSize", LISTED), MOST_LISTED) or LISTED


def page_number(form: Form) -> int:
    """Which page it says it is."""
    return _whole(form, "Page", 0)


def page_token(started_at: datetime, call_id: str) -> str:
    """Where the next page begins."""
    return f"PA{started_at.astimezone(UTC):%Y%m%dT%H%M%S%f}.{call_id}"


def read_recording_order(form: Form, origin: str) -> RecordingCallback | None:
    """`POST /Calls/{sid}/Recordings`: where to tell of it, if anywhere; `origin` is how we are reached. Raises SteeringRefused.

    What asks for another kind of recording than ours is refused.
    """
    _refuse_other_recordings(form)
    url = form.get("RecordingStatusCallback")
    if not url:
        return None
    events = _events(form, "RecordingStatusCallbackEvent", RECORDING_EVENTS)
    return RecordingCallback(_url("RecordingStatusCallback", url), origin, _method(form, "RecordingStatusCallbackMethod"), events)


def read_recording_status(form: Form) -> RecordingStatus:
    """`POST …/Recordings/{sid}`. Raises SteeringRefused."""
    status = form.get("Status")
    if status not in ("stopped", "paused", "in-progress"):
        raise _bad("Status: must be stopped, paused or in-progress")
    if form.get("PauseBehavior") not in ("", "silence"):
        raise _bad("PauseBehavior: a paused recording is silent on this server; give silence or leave it out")
    return RecordingStatus(status)


def _instructions(form: Form) -> tuple[bytes | None, AskNext | None]:
    twiml, url = form.get("Twiml"), form.get("Url")
    if twiml and url:
        raise _bad("Twiml: give Url or Twiml, not both")
    if twiml:
        return twiml.encode("utf-8", "replace"), None
    if not url:
        return None, None
    other = form.get("FallbackUrl")
    fallback = AskNext(_url("FallbackUrl", other), _method(form, "FallbackMethod")) if other else None
    return None, AskNext(_url("Url", url), _method(form, "Method"), fallback=fallback)


def _callback(form: Form) -> StatusCallback | None:
    url = form.get("StatusCallback")
    if not url:
        return None
    events = _events(form, "StatusCallbackEvent", EVENTS)
    return StatusCallback(_url("StatusCallback", url), _method(form, "StatusCallbackMethod"), events)


def _events(form: Form, name: str, known: Sequence[str]) -> frozenset[str]:
    # Some clients send all events in one value.
    events = [event for value in form.all(name) for event in value.split()]
    if not set(events) <= set(known):
        raise _bad(f"{name}: must be of {', '.join(known)}")
    return frozenset(events or ["completed"])


def _refuse_other_recordings(form: Form) -> None:
    """Ours have both sides, each on its channel, in their full length."""
    for name, ours in _RECORDED.items():
        if form.get(name).lower() not in ("", ours):
            raise _bad(f"{name}: is always {ours} on this server; leave it out")


def _method(form: Form, name: str) -> str:
    method = form.get(name).upper() or "POST"
    if method not in ("GET", "POST"):
        raise _bad(f"{name}: must be GET or POST")
    return method


def _url(name: str, text: str) -> str:
    if not address_fits(text, ("http", "https")) or not text.isprintable() or len(text) > _LONGEST_URL:
        raise SteeringRefused(400, BAD_URL, f"{name}: must be an address that begins with https:// or http://")
    return text


def _seconds(form: Form, name: str, default: int, most: int) -> float:
    return float(min(max(_whole(form, name, default), 1), most))


def _whole(form: Form, name: str, default: int) -> int:
    text = form.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise _bad(f"{name}: must be a whole number")
    return int(text)


def _time(name: str, text: str) -> datetime:
    try:
        if len(text) == len("2026-03-12"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        time = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _bad(f"{name}: write a day such as 2026-03-12 or a time such as 2026-03-12T10:42:15Z") from None


def _after(token: str) -> tuple[datetime, str] | None:
    if not token:
        return None
    time, _, call_id = token.removeprefix("PA").partition(".")
    try:
        if not time.isascii() or not call_id or "\0" in call_id:
            raise ValueError
        return datetime.strptime(time, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC), call_id
    except ValueError:
        raise _bad("PageToken: take it from the next_page_uri of the page before") from None


def _bad(message: str) -> SteeringRefused:
    return SteeringRefused(400, BAD_PARAMETER, message)


def query_of(fields: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """For the addresses of pages."""
    return dict(fields)
