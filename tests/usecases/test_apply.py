from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.errors import ApplyError
from switchhook.domain.model import Trunk
from switchhook.domain.records import DirectoryUpdate
from switchhook.store.opened import Store
from switchhook.usecases.accounts import token_digest
from switchhook.usecases.apply import Applier
from switchhook.usecases.apply_schema import read_file
from switchhook.usecases.directory_watch import DirectoryWatch
from tests.usecases.fakes import PlainContract

FILE = """
accounts:
  - name: acme
    tokens: [{name: main, value: "canary-token"}]
  - name: shop
trunks:
  - name: local
    account: acme
    address: "sip:127.0.0.1:5070"
    allow_from: ["127.0.0.0/8", "10.0.0.7"]
    username: alice
    password: canary-password
    register: false
numbers:
  - number: "(720) 555-0100"
    account: shop
    contract: plain
    url: "https://user:canary-basic@b.example/hook?key=canary-query"
    headers: {Token: canary-header}
    limits: [1, 2]
"""


@pytest.fixture
def applier(store: Store) -> Applier:
    return Applier(store.directory, {"plain": PlainContract()})


async def test_a_file_is_applied(applier: Applier, store: Store) -> None:
    applied = await applier.apply(FILE)
    assert applied.changed
    assert applied.lines() == [
        "= account acme",
        "+ token acme/main",
        "+ account shop",
        "+ trunk local",
        "+ number +17205550100",
        "4 added, 0 changed, 0 removed, 1 unchanged; what the file does not name is left alone",
    ]
    found = await store.directory.read()
    assert found.tokens["acme"] == {"main": token_digest("canary-token")}
    assert found.trunks["local"] == Trunk(
        "local", "acme", "sip:127.0.0.1:5070", ("127.0.0.0/8", "10.0.0.7/32"), "alice", "canary-password", False
    )
    assert found.numbers["+17205550100"].settings["limits"] == [1, 2]
    assert "+17206999999" in found.numbers, "what the file does not name is left alone"


async def test_applying_again_changes_nothing(applier: Applier, store: Store) -> None:
    await applier.apply(FILE)
    version = await store.directory.version()
    again = await applier.apply(FILE)
    assert not again.changed
    assert {line[0] for line in again.lines()[:-1]} == {"="}
    assert await store.directory.version() == version


async def test_a_dry_run_shows_and_changes_nothing(applier: Applier, store: Store) -> None:
    shown = await applier.apply(FILE, dry_run=True)
    assert shown.changed
    assert shown.lines()[-1].startswith("4 would be added")
    assert await store.directory.version() == 1
    assert (await applier.apply(FILE)).lines()[:-1] == shown.lines()[:-1]


async def test_a_difference_is_shown_without_its_secrets(applier: Applier) -> None:
    await applier.apply(FILE)
    changed = (
        FILE.replace("canary-token", "canary-token-2")
        .replace("canary-password", "canary-password-2")
        .replace("canary-header", "canary-header-2")
        .replace("5070", "5080")
        .replace("b.example/hook?key=canary-query", "c.example/hook?key=canary-query-2")
        .replace("[1, 2]", "[1]")
    )
    applied = await applier.apply(changed)
    text = "\n".join(applied.lines())
    assert "canary" not in text
    assert text.splitlines() == [
        "= account acme",
        "~ token acme/main",
        "    value: changed (not shown)",
        "= account shop",
        "~ trunk local",
        "    address: sip:127.0.0.1:5070 → sip:127.0.0.1:5080",
        "    password: changed (not shown)",
        "~ number +17205550100",
        "    headers.Token: changed (not shown)",
        "    limits: [1, 2] → [1]",
        "    url: https://b.example/hook?… → https://c.example/hook?…",
        "0 added, 3 changed, 0 removed, 2 unchanged; what the file does not name is left alone",
    ]
    assert not (await applier.apply(changed)).changed


async def test_entries_are_removed_when_the_file_says_so(applier: Applier, store: Store) -> None:
    await applier.apply(FILE)
    removal = """
accounts: [{name: acme, tokens: [{name: main, remove: true}, {name: gone, remove: true}]}]
trunks: [{name: local, remove: true}]
numbers: [{number: "+17205550100", remove: true}]
"""
    applied = await applier.apply(removal)
    assert applied.lines() == [
        "= account acme",
        "- token acme/main",
        "= token acme/gone (is not there)",
        "- trunk local",
        "- number +17205550100",
        "0 added, 0 changed, 3 removed, 2 unchanged; what the file does not name is left alone",
    ]
    found = await store.directory.read()
    assert (found.tokens["acme"], found.trunks, sorted(found.numbers)) == ({}, {}, ["+17206999999"])
    assert not (await applier.apply(removal)).changed


@pytest.mark.parametrize("text", ["", "{}", "accounts:\ntrunks:\nnumbers:\n", "accounts: [{name: acme, tokens: }]"])
async def test_a_file_with_nothing_in_it_is_fine(applier: Applier, text: str) -> None:
    assert not (await applier.apply(text)).changed


def number(line: str = "", contract: str = "plain", account: str = "acme", called: str = '"+17205550100"') -> str:
    keys = [f"account: {account}", f"contract: {contract}", "url: https://b.example", line]
    return f"numbers:\n  - number: {called}\n" + "".join(f"    {key}\n" for key in keys)


def trunk(line: str = "", address: str = '"sip:h"') -> str:
    return f"trunks:\n  - name: t\n    account: acme\n    address: {address}\n    {line}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("accounts: [", "the file is not YAML: line 1, column"),
        ("accounts: [{name: 2026-13-01}]", "the file is not YAML: it holds a date or a number that is none"),
        ("accounts: " + "[" * 400, "the file is not YAML"),
        ("- a", "the file must hold accounts:, trunks: or numbers:"),
        ("account: []", "account: there is no such key; did you mean accounts?"),
        ("accounts: [{name: acme}]\naccounts: []", "line 2, column 1: the key accounts is there twice"),
        ("accounts: [{nmae: acme}]", "accounts[0].nmae: there is no such key; did you mean name?"),
        ("accounts: [{nmae: acme}]", "accounts[0].name: is missing"),
        ("accounts: [{name: a/b}]", "accounts[0].name: write letters, digits"),
        ("accounts: [{name: 7}]", "accounts[0].name: must be text; put it in quotes"),
        ("accounts: [acme]", "accounts[0]: must be an object with keys"),
        ("accounts: [{name: a}, {name: a}]", "accounts[1].name: a is in the file twice; keep one"),
        ("accounts: [{name: a, tokens: [{name: t}]}]", "accounts[0].tokens[0]: needs a value"),
        (
            "accounts: [{name: a, tokens: [{name: t, value: 12345}]}]",
            "accounts[0].tokens[0].value: must be text; put it in quotes",
        ),
        (
            'accounts: [{name: a, tokens: [{name: t, value: "ü"}]}]',
            "accounts[0].tokens[0].value: cannot be sent in an HTTP header",
        ),
        (
            "accounts: [{name: a, tokens: [{name: t, valeu: x}]}]",
            "accounts[0].tokens[0].valeu: there is no such key; did you mean value?",
        ),
        (
            "accounts: [{name: a, tokens: [{name: t, value: x}]}, {name: b, tokens: [{name: u, value: x}]}]",
            "accounts[1].tokens[0].value: is the token a/t already; make another one",
        ),
        (trunk(address='"127.0.0.1:5070"'), 'trunks[0].address: is no SIP address; write "sip:host:port"'),
        (trunk("allow_from: [10.0.0.300]"), 'trunks[0].allow_from[0]: is no address block; write "203.0.113.0/24"'),
        (trunk("username: a"), "trunks[0]: needs a username and a password together"),
        (trunk("register: true"), "trunks[0]: can register only with a username and a password"),
        (trunk("usrname: a"), "trunks[0].usrname: there is no such key; did you mean username?"),
        ("trunks: [{name: t}]", "trunks[0]: needs an account and an address"),
        (trunk().replace("acme", "nobody"), "trunks[0].account: there is no account nobody; add it under accounts:"),
        (number(called="+17205550100"), 'numbers[0].number: put the number in quotes: "+17205551212"'),
        (number(called='"alice"'), "numbers[0].number: is no telephone number; write it with its country code"),
        (number(account="nobody"), "numbers[0].account: there is no account nobody; add it under accounts:"),
        (number(contract="vsn"), "numbers[0].contract: there is no contract vsn; known: plain"),
        (number("lmits: [1]"), "numbers[0] (+17205550100): lmits: is no setting of the plain contract"),
        ('numbers: [{number: "+17205550100"}]', "numbers[0]: needs an account and a contract"),
        (number() + number().replace("numbers:\n", "").replace("+1", ""), "numbers[1].number: +17205550100 is in the file twice"),
    ],
)
async def test_a_mistake_is_named_with_its_place_and_cure(applier: Applier, store: Store, text: str, complaint: str) -> None:
    with pytest.raises(ApplyError) as caught:
        await applier.apply(text)
    assert complaint in str(caught.value)
    assert await store.directory.version() == 1, "nothing is changed"


async def test_every_mistake_of_a_file_is_told_at_once(applier: Applier) -> None:
    with pytest.raises(ApplyError) as caught:
        await applier.apply(trunk().replace("acme", "nobody") + number(contract="vsn"))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["trunks[0].account", "numbers[0].contract"]


YAML_PIECES = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"#\n\t %@",
        "\n  ",
        ": ",
        "- ",
        "name",
        "accounts",
        "numbers",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!float ",
        "!!binary ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "2026-13-01",
        "0x",
        "1:99",
        ".inf",
        "~",
        "=",
        "!!python/object:os.system ",
    ]
)


@given(st.text(max_size=200) | st.lists(YAML_PIECES, max_size=30).map("".join))
def test_no_text_does_worse_than_an_apply_error(text: str) -> None:
    with contextlib.suppress(ApplyError):
        read_file(text)


async def test_a_running_server_is_told_of_changes(store: Store) -> None:
    refreshed = 0

    async def refresh() -> None:
        nonlocal refreshed
        refreshed += 1

    applier = Applier(store.directory, {"plain": PlainContract()}, refresh)
    await applier.apply(FILE, dry_run=True)
    assert refreshed == 0
    await applier.apply(FILE)
    await applier.apply(FILE)
    assert refreshed == 1


async def test_changes_by_another_process_are_noticed(store: Store) -> None:
    seen: list[int] = []

    async def refresh() -> None:
        seen.append(len(await store.directory.trunks()))

    watch = DirectoryWatch(store.directory, refresh)
    assert await watch.look()
    assert not await watch.look()
    await store.directory.write(DirectoryUpdate(trunks=(Trunk("t", "acme", "sip:h"),)))
    assert await watch.look()
    assert seen == [0, 1]


async def test_no_secret_of_the_file_is_on_the_disk(applier: Applier, tmp_path: Path) -> None:
    await applier.apply(FILE)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"canary" not in content, path
    assert any(b"sip:127.0.0.1:5070" in path.read_bytes() for path in tmp_path.iterdir()), "what is no secret must be found"
