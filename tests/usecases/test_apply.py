from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.dialling import DiallingRules
from switchhook.domain.errors import ApplyError
from switchhook.domain.model import Srtp, TransferMode, Trunk
from switchhook.domain.records import TWILIO_URL, AccountSettings, DirectoryUpdate, TwilioCredentials, VeevoCredentials
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


SETTINGS = """
accounts:
  - name: acme
    dialling:
      countries: [US, ca, NO]
      deny_prefixes: ["+1900"]
      allow_prefixes: ["+1", "+47"]
      allow_premium: true
      calls_per_second: 0.5
      concurrent: 10
      max_seconds: 60
      max_spend_per_day: 20
      price_per_minute: 0.01
      do_not_call: ["+17205551212", "(720) 555-1213", "+44 (0)20 7946 0018"]
      calling_hours: ["09:00", "20:00"]
      default_country: CA
    twilio: {account_sid: "AC1", auth_token: "canary-twilio", rest_base_url: "http://127.0.0.1:9100/"}
    veevo: {webhook_secret: "canary-veevo", management_key: "rtk_canary"}
trunks:
  - name: carrier
    account: acme
    address: "sip:carrier.example"
    transport: tls
    srtp: off
    transfer: refer
    priority: 10
    max_calls: 20
    calls_per_second: 2
    probe_s: 30
    number_form: plain
    caller_ids: ["+17205550100"]
    default_caller_id: "+17205550100"
    extensions: ["0", "1000-1999", front-desk]
    follow_redirects: true
    tls_ca: /etc/ca.pem
    tls_verify: false
    tls_certificate: /etc/us.pem
    tls_key: /etc/us.key
"""
RULES = DiallingRules(
    countries=("US", "CA", "NO"),
    deny_prefixes=("+1900",),
    allow_prefixes=("+1", "+47"),
    allow_premium=True,
    calls_per_second=0.5,
    concurrent=10,
    max_seconds=60,
    max_spend_per_day=20,
    price_per_minute=0.01,
    do_not_call=("+17205551212", "+17205551213", "+442079460018"),
    calling_hours=("09:00", "20:00"),
    default_country="CA",
)


async def test_every_setting_of_accounts_and_trunks_is_kept(applier: Applier, store: Store) -> None:
    applied = await applier.apply(SETTINGS)
    assert applied.lines()[0] == "~ account acme"
    assert "canary" not in "\n".join(applied.lines())
    found = await store.directory.read()
    assert found.accounts == {
        "acme": AccountSettings(
            "acme",
            RULES,
            TwilioCredentials("AC1", "canary-twilio", "http://127.0.0.1:9100"),
            VeevoCredentials("canary-veevo", "rtk_canary"),
        ),
        "other": AccountSettings("other"),
    }
    assert "canary" not in repr(found.accounts)
    assert found.trunks["carrier"] == Trunk(
        name="carrier",
        account="acme",
        address="sip:carrier.example",
        transport="tls",
        srtp=Srtp.OFF,
        transfer=TransferMode.REFER,
        priority=10,
        max_calls=20,
        calls_per_second=2,
        probe_s=30,
        number_form="plain",
        caller_ids=("+17205550100",),
        default_caller_id="+17205550100",
        extensions=("0", "1000-1999", "front-desk"),
        follow_redirects=True,
        tls_ca="/etc/ca.pem",
        tls_verify=False,
        tls_certificate="/etc/us.pem",
        tls_key="/etc/us.key",
    )
    assert not (await applier.apply(SETTINGS)).changed


async def test_settings_that_the_file_does_not_name_stay(applier: Applier, store: Store) -> None:
    await applier.apply(SETTINGS)
    assert not (await applier.apply("accounts: [{name: acme}]")).changed
    changed = await applier.apply("accounts: [{name: acme, twilio: {account_sid: AC1, auth_token: canary-new}}]")
    assert changed.lines()[:-1] == [
        "~ account acme",
        "    twilio.auth_token: changed (not shown)",
        f"    twilio.rest_base_url: http://127.0.0.1:9100 → {TWILIO_URL}",
    ]
    kept = (await store.directory.read()).accounts["acme"]
    assert kept.dialling == RULES
    assert kept.veevo == VeevoCredentials("canary-veevo", "rtk_canary")


async def test_rules_are_replaced_as_a_whole_and_null_takes_settings_away(applier: Applier, store: Store) -> None:
    await applier.apply(SETTINGS)
    await applier.apply("accounts: [{name: acme, dialling: {concurrent: 3}, veevo: null}]")
    settings = (await store.directory.read()).accounts["acme"]
    assert settings.dialling == DiallingRules(concurrent=3)
    assert (settings.twilio is None, settings.veevo) == (False, None)
    applied = await applier.apply("accounts: [{name: acme, dialling: , twilio: }]")
    assert "    dialling.concurrent: 3 → 100" in applied.lines()
    assert (await store.directory.read()).accounts["acme"] == AccountSettings("acme")


@pytest.mark.parametrize("word", ["off", "offered", "required", '"off"', "no", "false"])
async def test_srtp_is_read_as_people_write_it(applier: Applier, store: Store, word: str) -> None:
    await applier.apply(trunk(f"srtp: {word}"))
    meant = Srtp(word) if word in ("offered", "required") else Srtp.OFF
    assert (await store.directory.read()).trunks["t"].srtp is meant


def account(text: str) -> str:
    return f"accounts: [{{name: acme, {text}}}]"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (account("dialling: [US]"), "accounts[0].dialling: must be an object with keys"),
        (account("dialling: {country: US}"), "accounts[0].dialling.country: there is no such key; did you mean countries?"),
        (account("dialling: {countries: [UK]}"), "accounts[0].dialling.countries[0]: is no country; write its two letters"),
        (account("dialling: {countries: US}"), "accounts[0].dialling.countries: must be a list: [a, b]"),
        (account("dialling: {default_country: Germany}"), "accounts[0].dialling.default_country: is no country"),
        (account("dialling: {deny_prefixes: [+1900]}"), "accounts[0].dialling.deny_prefixes[0]: put the number in quotes"),
        (
            account('dialling: {deny_prefixes: ["1900"]}'),
            "accounts[0].dialling.deny_prefixes[0]: is no prefix of a number; write the plus",
        ),
        (account("dialling: {calls_per_second: 0}"), "accounts[0].dialling.calls_per_second: must be greater than 0"),
        (account("dialling: {calls_per_second: .inf}"), "accounts[0].dialling.calls_per_second: must be a finite number"),
        (account('dialling: {concurrent: "100"}'), "accounts[0].dialling.concurrent: must be a valid integer"),
        (account("dialling: {concurrent: -1}"), "accounts[0].dialling.concurrent: must be greater than or equal to 0"),
        (account("dialling: {max_seconds: 0}"), "accounts[0].dialling.max_seconds: must be greater than 0"),
        (account("dialling: {allow_premium: 1}"), "accounts[0].dialling.allow_premium: must be a valid boolean"),
        (account("dialling: {max_spend_per_day: 5}"), "accounts[0].dialling: max_spend_per_day needs price_per_minute"),
        (account('dialling: {do_not_call: ["x"]}'), "accounts[0].dialling.do_not_call[0]: is no telephone number"),
        (
            account("dialling: {calling_hours: [09:00, 20:00]}"),
            "accounts[0].dialling.calling_hours: must be two times of day in quotes",
        ),
        (account('dialling: {calling_hours: ["9:00", "20:00"]}'), "accounts[0].dialling.calling_hours: must be two times of day"),
        (
            account('dialling: {calling_hours: ["20:00", "09:00"]}'),
            "accounts[0].dialling.calling_hours: must begin before it ends",
        ),
        (account("twilio: {account_sid: AC1}"), "accounts[0].twilio.auth_token: is missing; write it"),
        (
            account("twilio: {account_sid: AC1, auth_token: a, token: b}"),
            "accounts[0].twilio.token: there is no such key; did you mean auth_token?",
        ),
        (
            account('twilio: {account_sid: AC1, auth_token: a, rest_base_url: "api.twilio.com"}'),
            'accounts[0].twilio.rest_base_url: is no address of a service; write "https://host"',
        ),
        (account("veevo: {management_key: rtk_1}"), "accounts[0].veevo.webhook_secret: is missing"),
        (account("veevo: {webhook_secret: 1}"), "accounts[0].veevo.webhook_secret: must be text; put it in quotes"),
        (
            "accounts: [{name: acme, veevo: &v {webhook_secret: a, management_key: k}}, {name: b, veevo: *v}]",
            "accounts[1].veevo.management_key: is that of the account acme already; make another one",
        ),
        (trunk("transport: ws"), "trunks[0].transport: write 'udp', 'tcp' or 'tls'"),
        (trunk("srtp: on"), "trunks[0].srtp: write 'off', 'offered' or 'required'"),
        (trunk("transfer: blind"), "trunks[0].transfer: write 'bridge' or 'refer'"),
        (trunk("number_form: E164"), "trunks[0].number_form: write 'e164', 'plain' or 'national'"),
        (trunk("priority: first"), "trunks[0].priority: must be a valid integer"),
        (trunk("probe_s: 0"), "trunks[0].probe_s: must be greater than or equal to 1"),
        (trunk("caller_ids: [17205550100]"), "trunks[0].caller_ids[0]: put the number in quotes"),
        (trunk("extensions: [1001]"), 'trunks[0].extensions[0]: put the extension in quotes: "1001"'),
        (trunk('extensions: ["1000-999"]'), 'trunks[0].extensions[0]: is no extension; write "1001", "1000-1999"'),
        (trunk('extensions: ["1999-1000"]'), "trunks[0].extensions[0]: is no extension"),
        (trunk('extensions: ["7205551212"]'), "trunks[0].extensions[0]: is no extension"),
        (trunk('extensions: ["2000000000-9999999999"]'), "trunks[0].extensions[0]: is no extension"),
        (trunk('extensions: ["^1...$", "1001"]'), "trunks[0].extensions[0]: is no extension"),
        (trunk('extensions: ["*67"]'), "trunks[0].extensions[0]: is no extension"),
        (trunk('extensions: "1001"'), "trunks[0].extensions: must be a list: [a, b]"),
        (trunk("tls_key: /k.pem"), "trunks[0]: needs tls_certificate and tls_key together, or neither"),
        (trunk("tls_ca: /ca.pem"), "trunks[0]: has tls_… keys but does not use TLS; write transport: tls"),
        (trunk("max_call: 1"), "trunks[0].max_call: there is no such key; did you mean max_calls?"),
    ],
)
async def test_a_bad_setting_is_named_with_its_cure(applier: Applier, store: Store, text: str, complaint: str) -> None:
    with pytest.raises(ApplyError) as caught:
        await applier.apply(text)
    assert complaint in str(caught.value)
    assert await store.directory.version() == 1, "nothing is changed"


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
