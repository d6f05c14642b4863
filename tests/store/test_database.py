from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from switchhook.domain.errors import SettingError, StoreUnavailable
from switchhook.store.database import Database
from switchhook.store.migrate import alembic_config
from switchhook.store.opened import DataDirLock
from switchhook.store.schema import REVISION, metadata


async def test_the_migrations_make_the_tables_of_the_schema(url: str) -> None:
    database = Database(url)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert await database.read(differences) == []
    await database.close()


def test_the_code_needs_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [REVISION]


async def test_migrating_twice_and_at_once_is_harmless(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path}/made/switchhook.db") for _ in range(2)]
    await asyncio.gather(*(database.migrate() for database in databases))
    await databases[0].migrate()
    found = await databases[1].read(lambda connection: connection.execute(text("SELECT version_num FROM alembic_version")).all())
    assert [tuple(row) for row in found] == [(REVISION,)]
    for database in databases:
        await database.close()


async def test_a_database_of_a_later_version_is_left_alone(url: str) -> None:
    database = Database(url)
    await database.transact(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")).close()
    )
    with pytest.raises(StoreUnavailable, match=r"from revision 9999.*9999"):
        await database.migrate()
    await database.close()


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/made/switchhook.db")
    await database.migrate()
    for path in (tmp_path / "made").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    await database.close()


async def test_sqlite_is_set_up_for_one_writer_and_many_readers(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/switchhook.db")

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await database.read(pragmas) == ["wal", 1, 5000, 2]
    await database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://x/y", "mysql is not served; use sqlite or postgresql"),
        ("nonsense", "not an SQLAlchemy URL"),
    ],
)
def test_a_database_that_is_not_served_is_refused_with_the_cure(url: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Database(url)


async def test_a_server_that_is_away_is_said_so_without_its_password() -> None:
    database = Database("postgresql://user:canary-password@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable) as caught:
        await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar())
    assert "canary-password" not in str(caught.value)
    await database.close()


async def test_an_error_does_not_show_the_values_of_its_statement(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/switchhook.db")
    await database.migrate()

    def work(connection: Connection) -> None:
        connection.execute(metadata.tables["accounts"].insert(), [{"name": "canary-value"}, {"name": "canary-value"}])

    with pytest.raises(IntegrityError) as caught:
        await database.transact(work)
    assert "canary-value" not in str(caught.value)
    await database.close()


def test_two_servers_cannot_share_a_data_directory(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    with pytest.raises(SettingError, match="another server runs in"):
        DataDirLock(tmp_path)
    lock.release()
    DataDirLock(tmp_path).release()
