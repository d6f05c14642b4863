"""The store as one thing: a database, its writer and the repositories."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from switchhook.domain.errors import SettingError
from switchhook.store.call_search import CallSearches
from switchhook.store.calls import CallRepository
from switchhook.store.database import Database
from switchhook.store.directory import DirectoryRepository
from switchhook.store.made_once import made_once
from switchhook.store.outbox import OutboxRepository
from switchhook.store.recordings import RecordingRepository
from switchhook.store.secrets import SecretBox
from switchhook.store.spend import SpendRepository
from switchhook.store.writer import Writer

LOCK_FILE = "server.lock"
NODE_FILE = "node"


class Store:
    """Everything that is remembered.

    `url`: the database, in SQLAlchemy's form. `node`: the lasting name of this server; after a restart it finds its own calls and
    events by it. Order: `open`, then `run` as a task for as long as anything writes, at the end `close`.
    """

    def __init__(self, url: str, box: SecretBox, node: str) -> None:
        self._database = Database(url)
        self.writer = Writer(self._database)
        self.directory = DirectoryRepository(self._database, self.writer, box)
        self.calls = CallRepository(self._database, self.writer, node)
        self.searches = CallSearches(self._database)
        self.outbox = OutboxRepository(self._database, self.writer, node)
        self.recordings = RecordingRepository(self._database, self.writer, node)
        self.spend = SpendRepository(self._database, self.writer)

    async def open(self) -> None:
        """Bring the tables up to date. Raises StoreUnavailable."""
        await self._database.migrate()

    async def run(self) -> None:
        """Write what is submitted, until `close`."""
        await self.writer.run()

    async def close(self) -> None:
        """Write what was submitted, let `run` return and close the connections."""
        await self.writer.close()
        await self._database.close()


def node_name(data_dir: Path) -> str:
    """This server's lasting name: after a restart it finds its own calls by it. Raises SettingError when its file is empty."""
    path = data_dir / NODE_FILE
    name = made_once(path, uuid.uuid4().hex.encode()).decode("ascii", "replace").strip()
    if not name:
        raise SettingError(f"{path} is empty: remove it, and the server gives itself a name")
    return name


class DataDirLock:
    """Keeps a second server out of the data directory: it would take the first one's live calls for dead."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = data_dir / LOCK_FILE
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise SettingError(
                f"another server runs in {data_dir}: stop it, or give this one its own SWITCHHOOK_DATA_DIR"
            ) from None

    def release(self) -> None:
        """Let go; the end of the process does the same."""
        os.close(self._descriptor)
