"""SRTP: the RFC's own keys, packets known elsewhere, ffmpeg as the other end, and what an attacker or a bad network sends."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import os
import socket
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.model import Encoding
from switchhook.media import tones
from switchhook.telephony.srtp import SrtpReceiver, SrtpSender
from switchhook.telephony.wire import rtcp, rtp
from switchhook.telephony.wire.sdes import SUITES, SrtpKey, fresh_keys
from tests.peers.processes import PeerProcess
from tests.peers.sound import write_wav

# RFC 3711 appendix B.3: master key and salt, and the session keys that follow from them.
MASTER = bytes.fromhex("e1f97a0d3e018be0d64fa32c06de4139" + "0ec675ad498afeebb6960b3aabe6")
SESSION_KEY = bytes.fromhex("c61e7a93744f39ee10734afe3ff7a087")
SESSION_SALT = int("30cbbc08863d8c85d49db34a9ae1", 16)
SESSION_AUTH = bytes.fromhex("cebe321f6ff7716b6fd4ab49af256a156d38baa4")
SOUND = b"\xab" * 160
KEYS = {key.suite: key for key in fresh_keys(os.urandom)}


def packet(sequence: int, ssrc: int = 0xCAFEBABE, payload: bytes = SOUND) -> bytes:
    return rtp.pack(0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc, payload)


def protected_by_hand(plain: bytes, rollovers: int, tag_bytes: int) -> bytes:
    """RFC 3711 §4.1.1 and §4.2.1, from the published session keys."""
    header = rtp.parse(plain)
    assert header is not None
    index = rollovers << 16 | header.sequence
    counter = (SESSION_SALT << 16) ^ (header.ssrc << 64) ^ (index << 16)
    cipher = Cipher(algorithms.AES(SESSION_KEY), modes.CTR(counter.to_bytes(16, "big"))).encryptor()
    sealed = plain[:12] + cipher.update(plain[12:])
    tag = hmac.new(SESSION_AUTH, sealed + rollovers.to_bytes(4, "big"), hashlib.sha1).digest()
    return sealed + tag[:tag_bytes]


@pytest.mark.parametrize(("suite", "tag_bytes"), [("AES_CM_128_HMAC_SHA1_80", 10), ("AES_CM_128_HMAC_SHA1_32", 4)])
def test_the_keys_of_the_rfc_give_the_packets_of_the_rfc_over_two_rollovers(suite: str, tag_bytes: int) -> None:
    sender = SrtpSender(SrtpKey(suite, MASTER))
    for number in range(0xFFFE, 0x2_0003):
        sealed = sender.protect(packet(number))
        if number & 0xFFFF in (0xFFFE, 0xFFFF, 0, 1, 2):
            assert sealed == protected_by_hand(packet(number), (number >> 16), tag_bytes), number


def test_a_packet_of_libsrtp_s_own_gcm_test() -> None:
    key = SrtpKey("AEAD_AES_128_GCM", bytes(range(16)) + bytes(range(0xA0, 0xAC)))
    plain = bytes.fromhex("800f1234decafbadcafebabe") + b"\xab" * 16
    sealed = plain[:12] + bytes.fromhex("c5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a392")
    assert SrtpSender(key).protect(plain) == sealed
    assert SrtpReceiver(key).unprotect(sealed) == plain


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_protected_opens_and_nothing_else_does(suite: str) -> None:
    sender, receiver = SrtpSender(KEYS[suite]), SrtpReceiver(KEYS[suite])
    sealed = sender.protect(packet(1))
    assert SOUND not in sealed
    assert receiver.unprotect(sealed) == packet(1)
    assert receiver.unprotect(sealed) == b"", "a repeated packet"
    forged = bytearray(sender.protect(packet(2)))
    forged[20] ^= 1
    assert receiver.unprotect(bytes(forged)) == b""
    stranger = SrtpSender(replace(KEYS[suite], master=os.urandom(len(KEYS[suite].master))))
    assert receiver.unprotect(stranger.protect(packet(3))) == b"", "under another key"
    assert receiver.unprotect(packet(4)) == b"", "plain RTP"
    assert receiver.rejected == 4
    report = rtcp.build(0xCAFEBABE, "name")
    assert receiver.unprotect_rtcp(sender.protect_rtcp(report)) == report
    assert receiver.unprotect_rtcp(report) == b"", "plain RTCP"
    assert receiver.unprotect(sender.protect_rtcp(report)) == report, "RTCP on the port of RTP"
    assert receiver.rejected == 5


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sockets of two ends, joined."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        for end in (ours, theirs):
            end.bind(("127.0.0.1", 0))
            end.settimeout(10)
        ours.connect(theirs.getsockname())
        theirs.connect(ours.getsockname())
        yield ours, theirs


@pytest.mark.parametrize("suite", SUITES)
def test_a_socket_that_sends_and_reads_by_srtp_gives_what_was_sent(suite: str, line: tuple[socket.socket, socket.socket]) -> None:
    """Also from sizes that no codec has, from streams that take turns, and after packets that do not open."""
    ours, theirs = line
    other = replace(KEYS[suite], master=os.urandom(len(KEYS[suite].master)))
    ways = [(SrtpSender(key).sending(ours.send), SrtpReceiver(key)) for key in (KEYS[suite], other)]
    readers = [receiver.receiving(theirs) for _, receiver in ways]
    for number, size in enumerate((160, 0, 1, 1_000, 159, 2_036 - 16, 160)):
        for (send, _), read in zip(ways, readers, strict=True):
            send(packet(number, payload=os.urandom(size)[:size]))
            send(sent := packet(number + 100, payload=b"\x55" * size))
            assert len(read(2_048)) == 12 + size
            assert read(2_048) == sent
    ways[0][0](packet(7))
    assert readers[1](2_048) == b"", "under another key"
    ours.send(packet(8))
    assert readers[0](2_048) == b"", "plain RTP"
    ours.send(b"")
    assert readers[0](2_048) == b""
    report = rtcp.build(0xCAFEBABE, "name")
    ours.send(SrtpSender(KEYS[suite]).protect_rtcp(report))
    assert readers[0](2_048) == report, "RTCP on the port of RTP"
    assert [receiver.rejected for _, receiver in ways] == [2, 1]
    with pytest.raises(ValueError, match="length"):
        ways[0][0](bytes(2_049))
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        readers[0](2_048)


def test_a_socket_reads_past_the_master_key_identifier(line: tuple[socket.socket, socket.socket]) -> None:
    key = KEYS["AES_CM_128_HMAC_SHA1_80"]
    sealed = SrtpSender(key).protect(packet(9))
    line[0].send(sealed[:-10] + b"\1" + sealed[-10:])
    assert SrtpReceiver(replace(key, mki_bytes=1)).receiving(line[1])(2_048) == packet(9)


@given(st.binary(max_size=2048), st.sampled_from(SUITES))
def test_any_datagram_that_a_socket_reads_is_dropped_and_counted(data: bytes, suite: str) -> None:
    receiver = SrtpReceiver(KEYS[suite])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.send(data)
        assert receiver.receiving(theirs)(2_048) == b""
    assert receiver.rejected == 1


def test_a_way_works_on_when_only_the_path_holds_it(line: tuple[socket.socket, socket.socket]) -> None:
    """The library's context lives as long as what uses it."""
    key = KEYS["AES_CM_128_HMAC_SHA1_80"]
    send, read = SrtpSender(key).sending(line[0].send), SrtpReceiver(key).receiving(line[1])
    gc.collect()
    for number in range(100):
        SrtpSender(key), SrtpReceiver(key)
        send(packet(number))
        assert read(2_048) == packet(number)


def test_loss_disorder_and_rollover_do_not_lose_the_stream() -> None:
    key = KEYS["AES_CM_128_HMAC_SHA1_80"]
    sender, receiver = SrtpSender(key), SrtpReceiver(key)
    sealed = {number: sender.protect(packet(number)) for number in range(0xFF00, 0x10100)}
    order = [number for number in range(0xFF00, 0x10100) if number % 7]
    order[5::11], order[6::11] = order[6::11], order[5::11]
    for number in order:
        assert receiver.unprotect(sealed[number]) == packet(number), number
    assert receiver.unprotect(sealed[0xFF00 + 7 * 2]) == b"", "older than the replay window"


def test_a_restarted_peer_has_a_new_source_and_is_heard() -> None:
    key = KEYS["AEAD_AES_256_GCM"]
    receiver = SrtpReceiver(key)
    first, second = SrtpSender(key), SrtpSender(key)
    assert receiver.unprotect(first.protect(packet(40_000, ssrc=1))) == packet(40_000, ssrc=1)
    assert receiver.unprotect(second.protect(packet(3, ssrc=2))) == packet(3, ssrc=2)
    assert receiver.unprotect(first.protect(packet(40_001, ssrc=1))) == packet(40_001, ssrc=1)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("mki_bytes", [1, 4])
def test_the_master_key_identifier_is_passed_over(suite: str, mki_bytes: int) -> None:
    """RFC 3711 §3.1 and §3.4: before the tag; with GCM, whose tag belongs to the ciphertext, at the end (RFC 7714 §8.2, §9.2)."""
    key = KEYS[suite]
    sender, receiver = SrtpSender(key), SrtpReceiver(replace(key, mki_bytes=mki_bytes))
    gcm = "GCM" in suite
    mki = b"\0" * (mki_bytes - 1) + b"\1"

    def marked(sealed: bytes, tag_bytes: int) -> bytes:
        at = len(sealed) - (0 if gcm else tag_bytes)
        return sealed[:at] + mki + sealed[at:]

    sealed = sender.protect(packet(9))
    assert receiver.unprotect(marked(sealed, 4 if suite.endswith("32") else 10)) == packet(9)
    report = rtcp.build(0xCAFEBABE, "name")
    assert receiver.unprotect_rtcp(marked(sender.protect_rtcp(report), 10)) == report
    assert receiver.rejected == 0


@given(st.binary(max_size=2048), st.sampled_from(SUITES), st.integers(0, 4))
def test_any_datagram_is_dropped_and_counted(data: bytes, suite: str, mki_bytes: int) -> None:
    receiver = SrtpReceiver(replace(KEYS[suite], mki_bytes=mki_bytes))
    assert receiver.unprotect(data) == b""
    assert receiver.unprotect_rtcp(data) == b""
    assert receiver.rejected == 2


def test_a_key_shows_nothing_of_itself() -> None:
    key = SrtpKey(SUITES[0], MASTER)
    for secret in (repr(MASTER), MASTER.hex(), b64encode(MASTER).decode()):
        assert secret not in repr(key) + str(key)


@pytest.mark.peer("ffmpeg")
@pytest.mark.parametrize("suite", ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"])
async def test_ffmpeg_s_srtp_is_heard(suite: str, tmp_path: Path) -> None:
    """An implementation that shares no code with ours encrypts a tone."""
    write_wav(tmp_path / "tone.wav", 440, 2000)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.setblocking(False)
        receiver = SrtpReceiver(SrtpKey(suite, MASTER))
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-i", str(tmp_path / "tone.wav"), "-c:a", "pcm_mulaw"]
        command += ["-f", "rtp", "-srtp_out_suite", suite, "-srtp_out_params", b64encode(MASTER).decode()]
        heard = b""
        async with PeerProcess([*command, f"srtp://127.0.0.1:{phone.getsockname()[1]}"], tmp_path) as process:
            try:
                async with asyncio.timeout(20):
                    while len(heard) < 8000:
                        found = rtp.parse(receiver.unprotect(await loop.sock_recv(phone, 2048)))
                        assert found is not None
                        heard += found.payload
            except TimeoutError:
                raise AssertionError(f"{len(heard)} samples heard: {process.read()}") from None
    assert tones.frequency_hz(heard, Encoding.PCMU) == pytest.approx(440, abs=3)
    assert receiver.rejected == 0
