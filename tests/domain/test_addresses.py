"""The address policy: the public Internet and what the operator allows, nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.addresses import literal, networks, permitted
from switchhook.domain.errors import SettingError

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
]
PUBLIC = [
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.167.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused_without_allow_list(text: str) -> None:
    assert not permitted(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert permitted(ip_address(text))


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("fd00::7", "fd00::/8"),
        ("fe80::1%eth0", "fe80::/10"),
        ("10.0.0.9", "10.0.0.9"),
    ],
)
def test_allow_list_opens_a_block(text: str, block: str) -> None:
    assert permitted(ip_address(text), networks([block]))
    assert not permitted(ip_address("192.168.7.7"), networks([block]))


def test_bad_block_is_named_with_its_cure() -> None:
    with pytest.raises(SettingError, match=r"'10\.0\.0\.1/8'.*write a CIDR block"):
        networks(["10.0.0.1/8"])


@pytest.mark.parametrize(
    ("host", "found"), [("127.0.0.1", True), ("[::1]", True), ("fe80::1%eth0", True), ("localhost", False), ("127.1", False)]
)
def test_literal(host: str, found: bool) -> None:
    assert (literal(host) is not None) is found


@given(st.ip_addresses())
def test_never_laxer_than_the_standard_library(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv4Address) and (
        address.is_private or address.is_multicast or address.is_loopback or address.is_reserved
    ):
        assert not permitted(address)
    if isinstance(address, IPv6Address) and (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_site_local
    ):
        assert not permitted(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_wrapping(address: IPv4Address) -> None:
    for wrapped in (IPv6Address(f"::ffff:{address}"), IPv6Address((0x64FF9B << 96) | int(address))):
        assert permitted(wrapped) is permitted(address)
