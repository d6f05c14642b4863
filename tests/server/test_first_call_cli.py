"""Every command with input as people get it wrong: one sentence that names what is wrong and what to do, never a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.peers.ports import free_port
from tests.peers.server import Server, config
from tests.server.desk import Desk
from tests.server.house import NUMBER, House, house_config

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _content(**number: Any) -> dict[str, Any]:
    return config("http://127.0.0.1:9", **number)


def _file(folder: Path, content: Any) -> str:
    path = folder / "wanted.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


async def _told(server: Server, *arguments: str, code: int = 1, settings: Mapping[str, str] | None = None) -> str:
    """What a command prints; it must end with this code and in words."""
    process = await asyncio.create_subprocess_exec(
        *server.command(*arguments),
        env={**server.environ, **(settings or {})},
        cwd=server.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        raise AssertionError(f"{arguments} goes on instead of saying what is wrong") from None
    told = output.decode()
    assert process.returncode == code, told
    assert "Traceback" not in told
    return told


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Settings and a folder for commands; nothing is started."""
    return Server(tmp_path, _content())


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("SWITCHHOOK_HTP_PORT", "80", ("SWITCHHOOK_HTP_PORT", "did you mean SWITCHHOOK_HTTP_PORT")),
        ("SWITCHHOOK_RTP_PORTS", "20000", ("SWITCHHOOK_RTP_PORTS", "20000-29999")),
        ("SWITCHHOOK_EGRESS_ALLOW", "10.0.0.0/8,home", ("SWITCHHOOK_EGRESS_ALLOW", "home")),
        ("SWITCHHOOK_DATABASE_URL", "mysql://x/y", ("SWITCHHOOK_DATABASE_URL",)),
        ("SWITCHHOOK_SECRET_KEY", "short", ("SWITCHHOOK_SECRET_KEY",)),
        ("SWITCHHOOK_PUBLIC_URL", "voice.example.com", ("SWITCHHOOK_PUBLIC_URL", "https://")),
        ("SWITCHHOOK_DATA_DIR", "/dev/null/data", ("/dev/null/data",)),
        ("SWITCHHOOK_SIP_HOST", "not an address", ("SWITCHHOOK_SIP_HOST",)),
    ],
)
async def test_a_setting_that_is_wrong_stops_the_server_by_name(
    server: Server, variable: str, value: str, told: tuple[str, ...]
) -> None:
    said = await _told(server, "serve", settings={variable: value})
    assert said.startswith("switchhook: ")
    assert len(said.splitlines()) == 1, said
    for word in told:
        assert word in said


async def test_a_settings_file(server: Server) -> None:
    """An unknown key, broken TOML and a file that is not there are named; a good file is used."""
    file = server.folder / "switchhook.toml"
    file.write_text("htp_port = 80\n")
    assert "htp_port" in await _told(server, "check")
    file.write_text("http_port = \n")
    assert "switchhook.toml" in await _told(server, "check")
    assert "elsewhere.toml" in await _told(server, "--config", "elsewhere.toml", "check")
    file.write_text("max_calls = 7\n")
    assert "7 by SWITCHHOOK_MAX_CALLS" in await _told(server, "check", code=0, settings={"SWITCHHOOK_EGRESS_ALLOW": ""})


def _number(**changes: Any) -> dict[str, Any]:
    content = _content()
    content["numbers"][0] |= changes
    return content


FORMS: list[tuple[str, dict[str, Any], str, str]] = [
    ("trunks", {"allow_from": ["127.0.0.0/99"]}, "trunks[0].allow_from[0]", "203.0.113.0/24"),
    ("trunks", {"name": "half", "username": "x"}, "trunks[1]", "password"),
    ("trunks", {"name": "lost", "address": "carrier.example"}, "trunks[2].address", "sip:host"),
    ("numbers", {"number": "12"}, "numbers[0].number", "+1"),
]
MEANINGS: list[tuple[str, dict[str, Any], str, str]] = [
    ("numbers", {"cal_start": {}}, "numbers[0]", "cal_start"),
    ("numbers", {"call_start": {"headers": {}}}, "numbers[1]", "call_start.url"),
    ("numbers", {"call_start": {"url": "ftp://x/"}}, "numbers[2]", "http"),
    ("numbers", {"contract": "vms"}, "numbers[3]", "vns"),
    ("numbers", {"account": "acne"}, "numbers[4].account", "acne"),
    ("numbers", {"tool_timeout_s": 500}, "numbers[5]", "tool_timeout_s"),
    ("numbers", {"number_format": "us"}, "numbers[6]", "national"),
]


@pytest.mark.parametrize("mistakes", [FORMS, MEANINGS], ids=["form", "meaning"])
async def test_mistakes_of_a_file_are_told_together(
    server: Server, tmp_path: Path, mistakes: list[tuple[str, dict[str, Any], str, str]]
) -> None:
    """Each in a line with its place and its cure; nothing of the file is taken."""
    content = _content()
    made: dict[str, list[dict[str, Any]]] = {"numbers": [], "trunks": []}
    for count, (section, change, _, _) in enumerate(mistakes):
        own = {"number": f"+172069998{count:02}"} if section == "numbers" else {}
        made[section].append({**deepcopy(content[section][0]), **own, **change})
    lines = (await _told(server, "apply", _file(tmp_path, {**content, **made}))).splitlines()
    for _, _, place, cure in mistakes:
        assert any(place in line and cure in line for line in lines), (place, cure, lines)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("accounts: [", ("YAML", "line 1")),
        ({"acounts": []}, ("acounts", "accounts")),
        ("numbers:\n- number: +17206999999\n  account: acme\n", ("number", "quotes")),
    ],
)
async def test_a_file_that_cannot_be_read(server: Server, tmp_path: Path, content: Any, told: tuple[str, ...]) -> None:
    said = await _told(server, "apply", _file(tmp_path, content))
    for word in told:
        assert word in said


async def test_a_dry_run_refuses_what_would_be_refused(server: Server, tmp_path: Path) -> None:
    """And a file that is good is not taken by it."""
    assert "contract" in await _told(server, "apply", "--dry-run", _file(tmp_path, _number(contract="vms")))
    for _ in range(2):
        said = await _told(server, "apply", "--dry-run", _file(tmp_path, _content()), code=0)
        assert "4 would be added" in said


async def test_a_server_does_not_start_with_a_file_that_is_wrong(server: Server, tmp_path: Path) -> None:
    """`serve --apply`: the same sentence, and no ready line."""
    said = await _told(server, "serve", "--apply", _file(tmp_path, _number(contract="vms")))
    assert "contract" in said
    assert "ready" not in said
    assert "nowhere.yaml" in await _told(server, "serve", "--apply", "nowhere.yaml")
    assert "nowhere.yaml" in await _told(server, "apply", "nowhere.yaml")


async def test_check_names_what_cannot_be_reached(server: Server, tmp_path: Path) -> None:
    """A webhook where nobody listens, one that is not allowed, a name that does not exist, a trunk that is silent."""
    async with Desk() as desk:
        content = _content()
        [number] = content["numbers"]
        good = {"url": f"{desk.url}/start"}
        dead = {"url": f"http://127.0.0.1:{free_port()}/"}
        webhooks = {
            NUMBER: (good, good),
            "+17206999801": (dead, good),
            "+17206999802": (good, {"url": "http://10.1.2.3/"}),
            "+17206999803": (good, {"url": "http://nobody.invalid/"}),
        }
        content["numbers"] = [
            {**deepcopy(number), "number": own, "call_start": start, "call_end": end} for own, (start, end) in webhooks.items()
        ]
        content["trunks"] = [
            {"name": "nobody", "account": "acme", "address": "sip:nobody.invalid", "allow_from": []},
            {"name": "silent", "account": "acme", "address": f"sip:127.0.0.1:{free_port()}", "probe_s": 30},
        ]
        await _told(server, "apply", _file(tmp_path, content), code=0)
        said = await _told(server, "check")
    lines = {line.partition(": ")[0]: line for line in said.splitlines()}
    assert "can be reached" in lines[f"number {NUMBER}"]
    for own in list(webhooks)[1:]:
        assert "cannot be reached" in lines[f"number {own}"]
    assert "SWITCHHOOK_EGRESS_ALLOW" in lines["number +17206999802"]
    assert "start webhook" in lines["number +17206999801"]
    assert "end webhook at 10.1.2.3" in lines["number +17206999802"]
    assert "nobody.invalid" in lines["number +17206999803"]
    assert "nobody.invalid" in lines["trunk nobody"]
    assert lines["trunk silent"] != "trunk silent: answers"
    assert "free" in said
    assert "database: in order, 1 accounts, 2 trunks, 4 numbers" in said


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, ("COMMAND",)),
        (("ring",), 2, ("ring", "serve")),
        (("webhook", "test", "nonsense"), 1, ("nonsense",)),
        (("webhook", "test", "+17205551234"), 1, ("+17205551234", "apply")),
        (("webhook", "resend", "no-such-call"), 1, ("no-such-call",)),
        (("policy", "explain", "+17205551234"), 1, ("--account", "apply")),
        (("recording", "decrypt", "nowhere.wav.enc", "--password-file", "nowhere.txt"), 1, ("nowhere.txt",)),
        (("recording", "decrypt", "sound.wav"), 2, ("-o", ".enc")),
    ],
)
async def test_a_command_that_is_wrong(server: Server, arguments: tuple[str, ...], code: int, told: tuple[str, ...]) -> None:
    said = await _told(server, *arguments, code=code)
    for word in told:
        assert word in said


async def test_a_recording_that_is_none(server: Server, tmp_path: Path) -> None:
    """Not there, empty, of another make, or the output exists: told by name, and nothing is written."""
    (tmp_path / "pw").write_text("Sesam\n")
    decrypt = ("recording", "decrypt", "--password-file", "pw")
    assert "nowhere.wav.enc" in await _told(server, *decrypt, "nowhere.wav.enc")
    for content in (b"", b"short", b"x" * 5000):
        (tmp_path / "sound.wav.enc").write_bytes(content)
        await _told(server, *decrypt, "sound.wav.enc")
        assert not (tmp_path / "sound.wav").exists()
    (tmp_path / "sound.wav").write_bytes(b"mine")
    await _told(server, *decrypt, "sound.wav.enc")
    assert (tmp_path / "sound.wav").read_bytes() == b"mine"


async def test_a_running_servers_file_again_and_a_dry_run(house: House, tmp_path: Path) -> None:
    """Applied again it changes nothing; a dry run tells what a changed file would do, and the server goes on as it was."""
    content = house_config(house.backend)
    for _ in range(2):
        assert "0 added, 0 changed, 0 removed" in await _told(house.server, "apply", _file(tmp_path, content), code=0)
    content["numbers"][0]["tool_timeout_s"] = 7
    content["trunks"][0]["remove"] = True
    said = await _told(house.server, "apply", "--dry-run", _file(tmp_path, content), code=0)
    assert "0 would be added, 1 would be changed, 1 would be removed" in said
    assert "tool_timeout_s" in said
    content = house_config(house.backend)
    assert "0 added, 0 changed, 0 removed" in await _told(house.server, "apply", _file(tmp_path, content), code=0)
