"""`/api/customer/recordings` over a real socket: what a customer's program sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from switchhook.api.vns.endpoints import BadRequest
from switchhook.api.vns.recordings_routes import endpoints, read_query
from switchhook.domain.errors import StoreUnavailable
from switchhook.domain.model import CallId
from switchhook.domain.records import KeptRecording, RecordingQuery, RecordingRecord, RecordingState
from tests.api.vns.customer import DATABASE_AWAY, OTHER, TOKEN, customer

NOW = datetime(2026, 3, 20, 2, 43, 39, 652158, tzinfo=UTC)
GUID = CallId("9e6a9d8e-6a92-4b3f-9a2c-1c63c1f3a8f1")
URL = "/api/customer/recordings"
NOT_FOUND = {"status": 404, "errorMessage": "Not found"}
SOUND = bytes(range(256)) * 40


class FixedClock:
    def now(self) -> float:
        return 0.0

    def utc(self) -> datetime:
        return NOW


class Shelf:
    """What `usecases.kept_recordings` does, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[CallId, RecordingRecord] = {}
        self.queries: list[RecordingQuery] = []
        self.broken: Exception | None = None
        self.others: set[CallId] = set()

    def add(self, call_id: CallId = GUID, **fields: Any) -> RecordingRecord:
        record = RecordingRecord(call_id, "acme", "opus", False, "", RecordingState.READY, NOW, len(SOUND))
        record = self.records[call_id] = replace(record, **fields)
        self.path(record).write_bytes(SOUND)
        return record

    def path(self, record: RecordingRecord) -> Path:
        return self.folder / f"{record.call_id}.{record.format}{'.enc' if record.encrypted else ''}"

    async def page(self, query: RecordingQuery) -> Sequence[KeptRecording]:
        if self.broken is not None:
            raise self.broken
        self.queries.append(query)
        mine = [record for record in self.records.values() if record.account == query.account]
        mine.sort(key=lambda record: (record.created_at, record.call_id), reverse=True)
        if query.after is not None:
            mine = [record for record in mine if (record.created_at, record.call_id) < query.after]
        start = NOW - timedelta(seconds=2)
        return [KeptRecording(record, start, NOW, "CallId-001") for record in mine[: query.limit]]

    async def file(self, account: str, call_id: CallId) -> tuple[RecordingRecord, Path | None] | None:
        record = self.records.get(call_id)
        if record is None or record.account != account:
            return None
        return record, None if call_id in self.others else self.path(record)

    async def delete(self, account: str, call_id: CallId) -> bool:
        return await self.file(account, call_id) is not None and self.records.pop(call_id) is not None


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
async def client(shelf: Shelf) -> AsyncIterator[aiohttp.ClientSession]:
    async with customer(endpoints(shelf, FixedClock())) as session:
        yield session


async def test_the_list(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    shelf.add(salvaged=True)
    shelf.add(CallId("other-one"), account="other")
    async with client.get(URL, headers=TOKEN) as reply:
        assert reply.status == 200
        assert reply.content_type == "application/json"
        assert "Link" not in reply.headers
        assert await reply.json() == [
            {
                "sessionGuid": GUID,
                "customerCallId": "CallId-001",
                "callStart": "2026-03-20T02:43:37.6521580Z",
                "callEnd": "2026-03-20T02:43:39.6521580Z",
                "format": "opus",
                "encrypted": False,
                "sizeBytes": len(SOUND),
                "salvaged": True,
            }
        ]


async def test_a_list_is_walked_page_by_page(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    for number in range(5):
        shelf.add(CallId(f"{number}"), created_at=NOW + timedelta(microseconds=number // 2))
    url, seen = f"{URL}?limit=2&customerCallId=a%26b", list[str]()
    while url:
        async with client.get(url, headers=TOKEN) as reply:
            seen += [recording["sessionGuid"] for recording in await reply.json()]
            url = str(yarl.URL(reply.links["next"]["url"]).relative()) if "next" in reply.links else ""
    assert seen == ["4", "3", "2", "1", "0"]
    assert all(query.customer_call_id == "a&b" for query in shelf.queries)


async def test_one_on_another_servers_disk_is_not_said_to_be_nowhere(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    shelf.add()
    shelf.others.add(GUID)
    async with client.get(f"{URL}/{GUID}", headers=TOKEN) as reply:
        assert (reply.status, (await reply.json())["status"]) == (421, 421)
        assert "another server" in (await reply.json())["errorMessage"]
    async with client.get(f"{URL}/{GUID}", headers=OTHER) as reply:
        assert reply.status == 404


async def test_the_filters_reach_the_question(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    asked = {"from": "2026-03-12T10:42:15Z", "to": "2026-03-13", "customerCallId": "order 7", "limit": "10", "other": "x"}
    async with client.get(URL, params=asked, headers=TOKEN) as reply:
        assert await reply.json() == []
    [query] = shelf.queries
    assert query == RecordingQuery(
        "acme",
        NOW,
        11,
        "order 7",
        datetime(2026, 3, 12, 10, 42, 15, tzinfo=UTC),
        datetime(2026, 3, 14, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "text", ["2026-03-12T12:42:15+02:00", "2026-03-12T12:42:15 02:00", "2026-03-12T10:42:15", "2026-03-12 10:42:15"]
)
def test_times_are_read_as_they_are_written(text: str) -> None:
    assert read_query({"from": text}, "acme", NOW).since == datetime(2026, 3, 12, 10, 42, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "ten"),
        ("limit", "²"),
        ("from", "yesterday"),
        ("to", "2026-02-30"),
        ("from", "0001-01-01T00:00:00+23:00"),
        ("to", "9999-12-31"),
        ("cursor", "x"),
        ("cursor", "20260312T104215000000"),
    ],
)
async def test_a_bad_query_is_told_by_its_field(client: aiohttp.ClientSession, name: str, value: str) -> None:
    async with client.get(URL, params={name: value}, headers=TOKEN) as reply:
        told = await reply.json()
        assert (reply.status, told["status"]) == (400, 400)
        assert told["errorMessage"].startswith(f"{name}: ")


@given(st.dictionaries(st.sampled_from(["limit", "cursor", "from", "to", "customerCallId"]), st.text()))
def test_no_query_breaks_the_reader(given_query: dict[str, str]) -> None:
    try:
        query = read_query(given_query, "acme", NOW)
    except BadRequest as error:
        assert str(error).partition(":")[0] in given_query
    else:
        assert 2 <= query.limit <= 1001


@pytest.mark.parametrize(
    ("format", "encrypted", "content_type", "name"),
    [
        ("opus", False, "audio/ogg; codecs=opus", f"{GUID}.opus"),
        ("mp3", False, "audio/mpeg", f"{GUID}.mp3"),
        ("wav", False, "audio/wav", f"{GUID}.wav"),
        ("mp3", True, "application/octet-stream", f"{GUID}.mp3.enc"),
    ],
)
async def test_a_download(
    client: aiohttp.ClientSession, shelf: Shelf, format: str, encrypted: bool, content_type: str, name: str
) -> None:
    shelf.add(format=format, encrypted=encrypted)
    async with client.get(f"{URL}/{GUID.upper()}", headers=TOKEN) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == content_type
        assert reply.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert reply.headers["Cache-Control"] == "private, no-store"
        assert "X-Recording-Salvaged" not in reply.headers
        assert await reply.read() == SOUND


async def test_head_tells_size_and_marks_without_the_sound(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    shelf.add(salvaged=True)
    async with client.head(f"{URL}/{GUID}", headers=TOKEN) as reply:
        assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(SOUND)))
        assert reply.headers["X-Recording-Salvaged"] == "true"
        assert await reply.read() == b""
    async with client.head(URL, headers=TOKEN) as reply:
        assert (reply.status, await reply.read()) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=100-", range(100, len(SOUND))),
        ("bytes=-5", range(len(SOUND) - 5, len(SOUND))),
        ("bytes=5-999999", range(5, len(SOUND))),
    ],
)
async def test_a_part_of_a_download(client: aiohttp.ClientSession, shelf: Shelf, asked: str, span: range) -> None:
    shelf.add()
    async with client.get(f"{URL}/{GUID}", headers={**TOKEN, "Range": asked}) as reply:
        assert reply.status == 206
        assert reply.headers["Content-Range"] == f"bytes {span.start}-{span.stop - 1}/{len(SOUND)}"
        assert await reply.read() == SOUND[span.start : span.stop]


async def test_a_part_that_is_not_there(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    shelf.add()
    async with client.get(f"{URL}/{GUID}", headers={**TOKEN, "Range": "bytes=999999-"}) as reply:
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(SOUND)}")


async def test_deleting_works_once(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    shelf.add()
    async with client.delete(f"{URL}/{GUID}", headers=TOKEN) as reply:
        assert (reply.status, await reply.json()) == (200, {"status": 0, "errorMessage": "Success"})
    for method in ("DELETE", "GET"):
        async with client.request(method, f"{URL}/{GUID}", headers=TOKEN) as reply:
            assert (reply.status, await reply.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("guid", [GUID, "unknown", "%00", "..%2f..%2fserver.key", "x" * 500, "%ff"])
async def test_what_is_not_the_accounts_is_not_there(client: aiohttp.ClientSession, shelf: Shelf, guid: str) -> None:
    shelf.add()
    for method in ("GET", "DELETE"):
        async with client.request(method, f"{URL}/{guid}", headers=OTHER) as reply:
            assert (reply.status, await reply.json()) == (404, NOT_FOUND)
    assert GUID in shelf.records


@pytest.mark.parametrize("headers", [{}, {"Token": ""}, {"Token": "wrong"}, {"Authorization": "Bearer secret-token"}])
async def test_nothing_without_a_token(client: aiohttp.ClientSession, shelf: Shelf, headers: dict[str, str]) -> None:
    shelf.add()
    for method, path in (("GET", URL), ("GET", f"{URL}/{GUID}"), ("DELETE", f"{URL}/{GUID}"), ("PUT", URL)):
        async with client.request(method, path, headers=headers) as reply:
            assert (reply.status, await reply.json()) == (401, {"status": 401, "errorMessage": "Unauthorized"})


async def test_other_methods_are_refused_in_the_contracts_shape(client: aiohttp.ClientSession) -> None:
    async with client.put(f"{URL}/{GUID}", headers=TOKEN) as reply:
        assert (reply.status, reply.headers["Allow"]) == (405, "DELETE, GET, HEAD")
        assert await reply.json() == {"status": 405, "errorMessage": "Method not allowed"}
    async with client.get(f"{URL}/{GUID}/more", headers=TOKEN) as reply:
        assert reply.status == 501


async def test_trouble_is_told_in_the_contracts_shape(client: aiohttp.ClientSession, shelf: Shelf) -> None:
    async with client.get(URL, headers=DATABASE_AWAY) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    for broken, status in ((StoreUnavailable(), 503), (ValueError("secret"), 500)):
        shelf.broken = broken
        async with client.get(URL, headers=TOKEN) as reply:
            told = await reply.json()
            assert (reply.status, told["status"]) == (status, status)
            assert "secret" not in told["errorMessage"]
