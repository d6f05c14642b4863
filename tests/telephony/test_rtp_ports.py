"""Leases of RTP ports: even with the odd one after it, every one back in the end."""

from __future__ import annotations

import os
import resource
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchhook.domain.errors import PortsExhausted
from switchhook.telephony.rtp_ports import PortLease, RtpPorts, disconnect
from tests.peers.ports import passing_row


def test_a_lease_binds_an_even_port_and_the_next() -> None:
    ports = RtpPorts("127.0.0.1", *passing_row(6))
    lease = ports.lease()
    assert lease.port % 2 == 0
    assert lease.rtp.getsockname() == ("127.0.0.1", lease.port)
    assert lease.rtcp.getsockname() == ("127.0.0.1", lease.port + 1)
    assert not lease.rtp.getblocking()
    assert (ports.leased, ports.free) == (1, 2)
    ports.release(lease)
    ports.release(lease)
    assert (ports.leased, ports.free) == (0, 3)


def test_ports_of_other_programs_are_passed_over() -> None:
    first, last = passing_row(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", first + 1))  # the RTCP half of the first pair
        ports = RtpPorts("127.0.0.1", first, last)
        lease = ports.lease()
        assert lease.port == first + 2
        with pytest.raises(PortsExhausted):
            ports.lease()
        ports.release(lease)
    again = [ports.lease(), ports.lease()]
    assert {lease.port for lease in again} == {first, first + 2}
    for lease in again:
        ports.release(lease)


def test_what_was_given_back_last_is_leased_last() -> None:
    ports = RtpPorts("127.0.0.1", *passing_row(8))
    one = ports.lease()
    ports.release(one)
    following = [ports.lease() for _ in range(4)]
    assert following[-1].port == one.port
    for lease in following:
        ports.release(lease)


@pytest.mark.parametrize(("first", "last"), [(30001, 30001), (30000, 30000), (30010, 30000), (65534, 65600), (-4, 10)])
def test_a_range_without_a_pair_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="RTP port range"):
        RtpPorts("127.0.0.1", first, last)


def test_an_odd_start_begins_at_the_next_even_port() -> None:
    ports = RtpPorts("127.0.0.1", 40001, 40004)
    assert ports.free == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40))
def test_whatever_is_leased_and_returned_all_are_back_after_close(moves: list[int]) -> None:
    ports = RtpPorts("127.0.0.1", *passing_row(12))
    out: list[PortLease] = []
    for move in moves:
        if move < 6 and len(out) < 6:
            out.append(ports.lease())
        elif out:
            ports.release(out.pop(move % len(out)))
        assert ports.leased == len(out) == len({lease.port for lease in out})
        assert ports.leased + ports.free == 6
    for lease in out:
        ports.release(lease)
    assert (ports.leased, ports.free) == (0, 6)


def test_without_file_descriptors_no_port_is_lost() -> None:
    ports = RtpPorts("127.0.0.1", *passing_row(4))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    for spare in (0, 1):  # not even the first socket, or not the second
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + spare, limits[1]))
        try:
            with pytest.raises(PortsExhausted, match="no socket"):
                ports.lease()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (ports.leased, ports.free) == (0, 2)
    ports.release(ports.lease())


def test_a_disconnected_socket_hears_everyone_again() -> None:
    ports = RtpPorts("127.0.0.1", *passing_row(2))
    lease = ports.lease()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        peer.bind(("127.0.0.1", 0))
        lease.rtp.connect(peer.getsockname())
        other.sendto(b"dropped", ("127.0.0.1", lease.port))
        disconnect(lease.rtp)
        other.sendto(b"heard", ("127.0.0.1", lease.port))
        assert lease.rtp.recv(100) == b"heard"
    ports.release(lease)
