"""`/api/customer/recordings`: list, download and delete (contract §1.9).

The list's JSON is ours, since the vendor's is not visible: an array, newest first. Without a query it has the newest thousand; a
`Link: <…>; rel="next"` header (RFC 8288) leads to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Protocol

from aiohttp import hdrs, web

from switchhook.api.vns.endpoints import BadRequest, Endpoint, failure, success
from switchhook.api.vns.forms import utc_ticks
from switchhook.domain.model import CallId
from switchhook.domain.ports import Clock
from switchhook.domain.records import KeptRecording, RecordingQuery, RecordingRecord

MOST_LISTED = 1_000
ELSEWHERE = "The recording lies on another server of this installation; ask the one that took the call"
SALVAGED = "X-Recording-Salvaged"
"""Response header of a recording that a crash cut short or damaged."""
_CONTENT_TYPES = {"opus": "audio/ogg; codecs=opus", "mp3": "audio/mpeg", "wav": "audio/wav"}
_ENCRYPTED = "application/octet-stream"
_GUID = re.compile(r"[0-9a-f-]{1,64}")


class Recordings(Protocol):
    """What is asked of the house; `usecases.kept_recordings.KeptRecordings`."""

    def page(self, query: RecordingQuery) -> Awaitable[Sequence[KeptRecording]]:
        """Finished recordings, newest first."""

    def file(self, account: str, call_id: CallId) -> Awaitable[tuple[RecordingRecord, Path | None] | None]:
        """A finished recording of the account and where it lies: without a path on another server's disk. None: there is none."""

    def delete(self, account: str, call_id: CallId) -> Awaitable[bool]:
        """Whether there was such a recording."""


def endpoints(recordings: Recordings, clock: Clock) -> list[Endpoint]:
    """GET and DELETE."""

    async def listed(request: web.Request, account: str) -> web.StreamResponse:
        query = read_query(request.query, account, clock.utc())
        found = list(await recordings.page(query))
        response = web.json_response([shown(recording) for recording in found[: query.limit - 1]])
        if len(found) == query.limit:
            following = request.rel_url.update_query(cursor=_cursor(found[-2].record))
            response.headers[hdrs.LINK] = f'<{following}>; rel="next"'
        return response

    async def download(request: web.Request, account: str) -> web.StreamResponse:
        found = await recordings.file(account, _guid(request))
        if found is None:
            return failure(404, "Not found")
        record, path = found
        # RFC 9110 §15.5.20: this server is the wrong one to ask.
        return failure(421, ELSEWHERE) if path is None else _file(record, path)

    async def delete(request: web.Request, account: str) -> web.StreamResponse:
        return success() if await recordings.delete(account, _guid(request)) else failure(404, "Not found")

    return [
        Endpoint("GET", "/recordings", listed),
        Endpoint("GET", "/recordings/{sessionGuid}", download),
        Endpoint("DELETE", "/recordings/{sessionGuid}", delete),
    ]


def read_query(given: Mapping[str, str], account: str, now: datetime) -> RecordingQuery:
    """`limit`, `cursor`, `customerCallId`, `from` and `to`; other names are ignored. Raises BadRequest.

    The limit is one higher than asked, so that it shows whether more follow.
    """
    return RecordingQuery(
        account,
        now,
        limit=_limit(given.get("limit")) + 1,
        customer_call_id=given.get("customerCallId"),
        since=_time("from", given.get("from")),
        until=_time("to", given.get("to"), days=1),
        after=_after(given.get("cursor")),
    )


def shown(recording: KeptRecording) -> dict[str, object]:
    """A recording in the list."""
    record, ended_at = recording.record, recording.call_ended_at
    return {
        "sessionGuid": record.call_id,
        "customerCallId": recording.customer_call_id,
        "callStart": utc_ticks(recording.call_started_at),
        "callEnd": None if ended_at is None else utc_ticks(ended_at),
        "format": record.format,
        "encrypted": record.encrypted,
        "sizeBytes": record.size_bytes,
        "salvaged": record.salvaged,
    }


def _file(record: RecordingRecord, path: Path) -> web.FileResponse:
    headers = {
        hdrs.CONTENT_TYPE: _ENCRYPTED if record.encrypted else _CONTENT_TYPES[record.format],
        hdrs.CONTENT_DISPOSITION: f'attachment; filename="{path.name}"',
        hdrs.CACHE_CONTROL: "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if record.salvaged:
        headers[SALVAGED] = "true"
    return web.FileResponse(path, headers=headers)


def _guid(request: web.Request) -> CallId:
    """A text that is no guid finds nothing."""
    text = request.match_info["sessionGuid"].lower()
    return CallId(text if _GUID.fullmatch(text) else "")


def _limit(text: str | None) -> int:
    if text is None:
        return MOST_LISTED
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MOST_LISTED):
        raise BadRequest(f"limit: write a number from 1 to {MOST_LISTED}")
    return int(text)


def _time(name: str, text: str | None, days: int = 0) -> datetime | None:
    """A time or a day; without a zone it is UTC. Of a day, `days` are added: `to` includes the whole of it."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-03-12"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=days)
        # A plus sign in a query is a space unless it is escaped.
        time = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: write a UTC time such as 2026-03-12T10:42:15Z or a day such as 2026-03-12") from None


def _cursor(record: RecordingRecord) -> str:
    return f"{record.created_at.astimezone(UTC):%Y%m%dT%H%M%S%f}.{record.call_id}"


def _after(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    time, dot, call_id = cursor.partition(".")
    try:
        if not dot or not time.isascii() or "\0" in call_id:
            raise ValueError
        return datetime.strptime(time, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC), call_id
    except ValueError:
        raise BadRequest("cursor: take it from the Link header of the page before") from None
