"""Settings come from environment, file and defaults, and a wrong one is named with its cure."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from switchhook.domain.errors import SettingError
from switchhook.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing() -> None:
    settings = load_settings({}, None)
    assert settings.media_listener_port == settings.http_port + 1
    assert settings.sqlalchemy_url.endswith("/data/switchhook.db")


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "switchhook.toml").write_text('http_port = 9000\nmax_calls = 7\negress_allow = ["10.0.0.0/8"]\n')
    settings = load_settings({"SWITCHHOOK_HTTP_PORT": "9100"}, None)
    assert (settings.http_port, settings.max_calls) == (9100, 7)
    assert settings.egress_allow == (ip_network("10.0.0.0/8"),)


def test_lists_and_ranges_are_written_as_text() -> None:
    settings = load_settings(
        {
            "SWITCHHOOK_RTP_PORTS": "30000-30099",
            "SWITCHHOOK_EGRESS_ALLOW": "127.0.0.1/8, ::1/128",
            "SWITCHHOOK_SIP_TRANSPORTS": "udp",
        },
        None,
    )
    assert settings.rtp_ports == (30000, 30099)
    assert settings.egress_allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.sip_transports == ("udp",)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_the_dns_server_has_an_address_and_perhaps_a_port(text: str, server: tuple[str, int]) -> None:
    assert load_settings({"SWITCHHOOK_SIP_DNS_SERVER": text}, None).sip_dns_server == server


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SWITCHHOOK_HTTP_PROT": "1"}, ["SWITCHHOOK_HTTP_PROT", "did you mean SWITCHHOOK_HTTP_PORT"]),
        ({"SWITCHHOOK_ZZZ": "1"}, ["SWITCHHOOK_ZZZ", "docs/settings.md"]),
        ({"SWITCHHOOK_HTTP_PORT": "many"}, ["SWITCHHOOK_HTTP_PORT", "integer"]),
        ({"SWITCHHOOK_RTP_PORTS": "20000"}, ["SWITCHHOOK_RTP_PORTS", "FIRST-LAST"]),
        ({"SWITCHHOOK_RTP_PORTS": "9-8"}, ["rtp_ports", "1024-65535"]),
        ({"SWITCHHOOK_EGRESS_ALLOW": "10.0.0.0/8,somewhere"}, ["SWITCHHOOK_EGRESS_ALLOW", "'somewhere'", "10.0.0.0/8"]),
        ({"SWITCHHOOK_PUBLIC_URL": "voice.example.com"}, ["SWITCHHOOK_PUBLIC_URL", "https://voice.example.com"]),
        ({"SWITCHHOOK_PUBLIC_URL": "https://[voice"}, ["SWITCHHOOK_PUBLIC_URL"]),
        ({"SWITCHHOOK_PUBLIC_URL": "https://voice.example.com:https"}, ["SWITCHHOOK_PUBLIC_URL", "write the whole address"]),
        ({"SWITCHHOOK_PUBLIC_URL": "https://voice.example.com:0"}, ["SWITCHHOOK_PUBLIC_URL", "https://voice.example.com"]),
        ({"SWITCHHOOK_PUBLIC_URL": "https://voice.example.com/?"}, ["SWITCHHOOK_PUBLIC_URL", "write the whole address"]),
        ({"SWITCHHOOK_PUBLIC_URL": "https://voice.example.com#top"}, ["SWITCHHOOK_PUBLIC_URL", "write the whole address"]),
        ({"SWITCHHOOK_PUBLIC_MEDIA_URL": "https://voice.example.com"}, ["SWITCHHOOK_PUBLIC_MEDIA_URL", "wss://"]),
        ({"SWITCHHOOK_TWILIO_REST_URL": "api.twilio.com"}, ["SWITCHHOOK_TWILIO_REST_URL", "https://api.twilio.com"]),
        ({"SWITCHHOOK_SIP_ADVERTISED_HOST": "two words"}, ["SWITCHHOOK_SIP_ADVERTISED_HOST", "203.0.113.5"]),
        ({"SWITCHHOOK_SIP_ADVERTISED_HOST": "203.0.113.5:5060"}, ["SWITCHHOOK_SIP_ADVERTISED_HOST"]),
        ({"SWITCHHOOK_SIP_TRANSPORTS": "udp,tls"}, ["tls_certificate"]),
        ({"SWITCHHOOK_SIP_TRANSPORTS": "sctp"}, ["SWITCHHOOK_SIP_TRANSPORTS"]),
        ({"SWITCHHOOK_SIP_DNS_SERVER": "ns.example.com"}, ["SWITCHHOOK_SIP_DNS_SERVER", "numeric address"]),
        ({"SWITCHHOOK_SIP_DNS_SERVER": "192.0.2.53:0"}, ["SWITCHHOOK_SIP_DNS_SERVER", "numeric address"]),
        ({"SWITCHHOOK_MAX_CALLS": "0"}, ["SWITCHHOOK_MAX_CALLS"]),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings(environ, None)
    for word in words:
        assert word in str(caught.value)


def test_unknown_key_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("colour = 1\n")
    with pytest.raises(SettingError, match="colour"):
        load_settings({}, path)
    with pytest.raises(SettingError, match="no such file"):
        load_settings({}, tmp_path / "missing.toml")
    path.write_text("= 1")
    with pytest.raises(SettingError, match=r"other\.toml"):
        load_settings({}, path)
