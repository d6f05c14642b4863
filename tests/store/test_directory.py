from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from switchhook.domain.dialling import DiallingRules
from switchhook.domain.errors import DirectoryChanged, SecretUnreadable
from switchhook.domain.model import Number, Srtp, TransferMode
from switchhook.domain.records import AccountSettings, DirectoryUpdate, TwilioCredentials, VeevoCredentials
from switchhook.store import directory as directory_module
from switchhook.store.opened import Store
from tests.store.opening import SqliteFiles, running_store
from tests.store.samples import CANARY, NUMBER, TRUNK, attempt, begun, ended, event

DIGEST = hashlib.sha256(f"{CANARY}-token".encode()).digest()
ACME = AccountSettings(
    "acme",
    DiallingRules(countries=("US",), do_not_call=("+17205551212",), calling_hours=("09:00", "20:00")),
    TwilioCredentials("AC1", f"{CANARY}-twilio"),
    VeevoCredentials(f"{CANARY}-veevo", f"{CANARY}-management"),
)
OTHER = AccountSettings("other")
EVERYTHING = DirectoryUpdate(accounts=(ACME, OTHER), tokens=(("acme", "main", DIGEST),), trunks=(TRUNK,), numbers=(NUMBER,))


async def test_what_is_written_is_read_back(store: Store) -> None:
    await store.directory.write(EVERYTHING)
    found = await store.directory.read()
    assert found.tokens == {"acme": {"main": DIGEST}, "other": {}}
    assert found.accounts == {"acme": ACME, "other": OTHER}
    assert found.trunks == {"local": TRUNK}
    assert found.numbers == {NUMBER.number: NUMBER}
    assert await store.directory.find_number(NUMBER.number) == NUMBER
    assert await store.directory.find_number("+17200000000") is None
    assert await store.directory.find_token(DIGEST) == ("acme", DIGEST)
    assert await store.directory.find_token(bytes(32)) is None
    assert await store.directory.trunks() == [TRUNK]


async def test_entries_are_replaced_and_removed(store: Store) -> None:
    await store.directory.write(EVERYTHING)
    moved = Number(NUMBER.number, "other", "veevo", {"a": [1, "ü"]})
    await store.directory.write(DirectoryUpdate(trunks=(replace(TRUNK, username=None, password=None),), numbers=(moved,)))
    found = await store.directory.read()
    assert found.numbers == {NUMBER.number: moved}
    assert found.trunks["local"].password is None
    await store.directory.write(
        DirectoryUpdate(remove_tokens=(("acme", "main"),), remove_trunks=("local",), remove_numbers=(NUMBER.number,))
    )
    found = await store.directory.read()
    assert (found.tokens, found.trunks, found.numbers) == ({"acme": {}, "other": {}}, {}, {})


async def test_an_account_is_replaced_with_all_its_settings(store: Store) -> None:
    await store.directory.write(EVERYTHING)
    await store.directory.write(DirectoryUpdate(accounts=(AccountSettings("acme"),)))
    found = await store.directory.read()
    assert found.accounts == {"acme": AccountSettings("acme"), "other": OTHER}
    assert found.tokens["acme"] == {"main": DIGEST}


async def test_every_setting_of_a_trunk_is_kept(store: Store) -> None:
    trunk = replace(
        TRUNK,
        transport="tls",
        srtp=Srtp.REQUIRED,
        transfer=TransferMode.REFER,
        priority=7,
        max_calls=3,
        calls_per_second=0.5,
        probe_s=30.0,
        number_form="plain",
        caller_ids=("+17205550100",),
        default_caller_id="+17205550100",
        follow_redirects=True,
        tls_ca="/ca.pem",
        tls_verify=False,
        tls_certificate="/us.pem",
        tls_key="/us.key",
    )
    await store.directory.write(EVERYTHING)
    await store.directory.write(DirectoryUpdate(trunks=(trunk,)))
    assert (await store.directory.read()).trunks == {"local": trunk}


async def test_a_token_can_move_to_another_name_at_once(store: Store) -> None:
    await store.directory.write(EVERYTHING)
    await store.directory.write(DirectoryUpdate(remove_tokens=(("acme", "main"),), tokens=(("acme", "second", DIGEST),)))
    assert (await store.directory.read()).tokens["acme"] == {"second": DIGEST}


async def test_all_changes_are_made_or_none(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.directory.write(DirectoryUpdate(accounts=(ACME,), numbers=(replace(NUMBER, account="nobody"),)))
    assert (await store.directory.read()).tokens == {}
    assert await store.directory.version() == 0


async def test_the_version_rises_with_each_change(store: Store) -> None:
    assert await store.directory.version() == 0
    await store.directory.write(EVERYTHING)
    await store.directory.write(EVERYTHING)
    assert await store.directory.version() == 2


async def test_what_was_decided_on_another_version_is_not_written(store: Store) -> None:
    await store.directory.write(replace(EVERYTHING, based_on=0))
    moved = DirectoryUpdate(numbers=(Number(NUMBER.number, "other", "veevo", {}),), based_on=0)
    with pytest.raises(DirectoryChanged):
        await store.directory.write(moved)
    assert await store.directory.version() == 1
    assert await store.directory.find_number(NUMBER.number) == NUMBER
    await store.directory.write(replace(moved, based_on=1))
    assert (await store.directory.read()).numbers[NUMBER.number].account == "other"


async def test_a_change_by_another_process_shows_within_a_second(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = replace(NUMBER, settings={"elsewhere": True})
    async with running_store(url) as server, running_store(url, node="command line") as command:
        await server.directory.write(EVERYTHING)
        monkeypatch.setattr(directory_module, "FRESH_S", 0.0)
        first = await server.directory.find_number(NUMBER.number)
        assert first == NUMBER
        assert await server.directory.find_number(NUMBER.number) is first, "what is remembered of a number holds until it changes"
        await command.directory.write(DirectoryUpdate(numbers=(moved,)))
        assert await server.directory.find_number(NUMBER.number) == moved
        monkeypatch.setattr(directory_module, "FRESH_S", 3600.0)
        assert await server.directory.find_number(NUMBER.number) == moved
        await server.directory.write(DirectoryUpdate(numbers=(NUMBER,)))
        assert await server.directory.find_number(NUMBER.number) == NUMBER, "its own change shows at once"


async def test_no_secret_is_in_the_files(sqlite_files: SqliteFiles, tmp_path: Path) -> None:
    async with running_store(await sqlite_files.fresh(tmp_path)) as store:
        await store.directory.write(EVERYTHING)
        record = begun()
        await store.calls.begin(record)
        await store.calls.finish(ended(record), (), event(record))
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    files |= {f"closed {path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    assert any(attempt().caller.encode() in content for content in files.values()), "the canary's neighbours must be found"
    assert [name for name, content in files.items() if CANARY.encode() in content] == []


async def test_another_server_key_cannot_read_the_settings(url: str) -> None:
    async with running_store(url) as store:
        await store.directory.write(EVERYTHING)
    async with running_store(url, key=b"k" * 32) as store:
        with pytest.raises(SecretUnreadable):
            await store.directory.find_number(NUMBER.number)
