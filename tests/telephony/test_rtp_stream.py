"""The RTP of a leg over real sockets, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import pairwise

import pytest
import uvloop

from switchhook.domain.errors import PortsExhausted
from switchhook.domain.model import Encoding
from switchhook.domain.ports import DigitPressed, PlayoutDrained
from switchhook.media import g711, tones
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_path import RtpPath
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import MediaTimeout, RtpEvent, RtpStream
from switchhook.telephony.wire import rtcp, rtp
from switchhook.telephony.wire.dtmf import DIGITS, DtmfReceiver
from tests.peers.ports import passing_row
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker, settle

ULAW_SILENCE = b"\xff" * 160


class Bench:
    """A stream, the phone at its other end, and what was heard and told."""

    def __init__(self) -> None:
        self.pacer = SteppedPacer()
        self.ports = RtpPorts("127.0.0.1", *passing_row(8))
        self.stream = RtpStream(self.ports, self.pacer, entropy=random.Random(1).randbytes)
        self.peer = RtpPeer()
        self.heard: list[tuple[float, bytes]] = []
        self.events: list[RtpEvent] = []
        self.received: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, bytes]] = []
        self.stream.listen(lambda payload, now: self.heard.append((now, payload)))
        self.stream.subscribe(self.events.append)
        self._peers = [self.peer]

    def media(self, **changes: object) -> RtpMedia:
        """The usual agreement, with changes."""
        values: dict[str, object] = {
            "remote": self.peer.address,
            "encoding": Encoding.PCMU,
            "payload_type": 0,
            "dtmf_payload_type": 101,
        }
        return RtpMedia(**(values | changes))  # type: ignore[arg-type]  # names of fields are checked when the test runs

    def talker(self, hz: float = 440, frame_ms: int = 20, encoding: Encoding = Encoding.PCMU) -> Talker:
        return Talker(self.peer, self.stream.local_port, self.pacer, hz, frame_ms, encoding)

    def another_peer(self, host: str = "127.0.0.1") -> RtpPeer:
        self._peers.append(RtpPeer(host))
        return self._peers[-1]

    def say(self, key: str, sound: bytes) -> None:
        self.stream.playout.enqueue(key, sound, self.pacer.now)
        self.stream.playout.finish(key, self.pacer.now)

    @property
    def sound(self) -> bytes:
        return b"".join(payload for _, payload in self.heard)

    def close(self) -> None:
        self.stream.close()
        self.pacer.close()
        for peer in self._peers:
            peer.close()


class Tap:
    """Keeps what a recorder would."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def received(self, payload: bytes, position: int) -> None:
        self._bench.received.append((position, payload))

    def sent(self, payload: bytes, position: int) -> None:
        self._bench.sent.append((position, payload))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.close()
    assert made.ports.leased == 0


def tone(hz: float, ms: int = 1000) -> bytes:
    return tones.tone((hz,), ms, Encoding.PCMU)


def assert_true_clock(packets: list[rtp.RtpPacket]) -> None:
    """One source, no sequence number left out, and time that only goes forward."""
    assert len({packet.ssrc for packet in packets}) == 1
    for before, after in pairwise(packets):
        assert (after.sequence - before.sequence) & 0xFFFF == 1
        assert 0 < (after.timestamp - before.timestamp) & 0xFFFFFFFF < 0x80000000


async def test_both_parties_hear_each_other(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hello", tone(1000))
    await bench.pacer.run(1.1, bench.talker(440))
    packets = bench.peer.take()[1:]  # the first was the silence of the beginning
    spoken = b"".join(packet.payload for packet in packets)
    assert tones.frequency_hz(spoken[1600:4000], Encoding.PCMU) == pytest.approx(1000, abs=3)
    assert tones.frequency_hz(bench.sound[1600:4000], Encoding.PCMU) == pytest.approx(440, abs=3)
    assert spoken[:8000] == tone(1000)
    assert bench.sound == tones.tone((440,), 10_000, Encoding.PCMU)[: len(bench.sound)]
    assert len(bench.heard) >= 54
    assert_true_clock(packets)


async def test_silence_flows_from_configure_on(bench: Bench) -> None:
    await bench.pacer.run(0.1)
    assert bench.peer.take() == []
    bench.stream.configure(bench.media())
    await bench.pacer.run(1.0)
    packets = bench.peer.take()
    assert len(packets) == 51
    assert {packet.payload for packet in packets} == {ULAW_SILENCE}
    assert {packet.marker for packet in packets} == {False}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(packets)} == {160}


async def test_a_talkspurt_starts_at_once_with_marker_and_true_timestamp(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.108)
    silence = bench.peer.take()
    bench.say("hi", tone(1000, 60))
    first = bench.peer.take()  # no time has passed
    assert [packet.marker for packet in first] == [True]
    assert first[0].payload == tone(1000, 60)[:160]
    assert (first[0].timestamp - silence[-1].timestamp) & 0xFFFFFFFF == 8 * 8  # 8 ms after the last beat
    await bench.pacer.run(0.1)
    rest = bench.peer.take()
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(first + rest)} == {160}
    assert not any(packet.marker for packet in rest)
    assert_true_clock(silence + first + rest)


async def test_drained_is_told_once_when_the_last_sample_was_heard(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hi", tone(1000, 100))
    await bench.pacer.run(0.096)
    assert bench.events == []
    await bench.pacer.run(0.01)
    assert bench.events == [PlayoutDrained()]
    await bench.pacer.run(0.5)
    assert bench.events == [PlayoutDrained()]


async def test_sound_queued_when_drained_is_told_begins_a_talkspurt_on_that_beat(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.stream.subscribe(lambda event: bench.say("two", tone(500, 20)) if bench.pacer.now < 1000.05 else None)
    bench.say("one", tone(1000, 40))
    await bench.pacer.run(0.2)
    packets = bench.peer.take()
    assert [packet.marker for packet in packets[1:5]] == [True, False, True, False]
    assert packets[3].payload == tone(500, 20)
    assert_true_clock(packets)


async def test_an_interruption_is_silence_on_the_next_frame(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("long", tone(1000))
    await bench.pacer.run(0.132)
    bench.peer.take()
    [heard] = bench.stream.playout.interrupt(bench.pacer.now)
    assert heard.heard_ms == pytest.approx(132, abs=5)
    await bench.pacer.run(0.1)
    assert {packet.payload for packet in bench.peer.take()} == {ULAW_SILENCE}


async def test_on_hold_nothing_is_sent_and_what_is_queued_waits(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hi", tone(1000, 200))
    await bench.pacer.run(0.052)
    before = bench.peer.take()
    bench.stream.configure(bench.media(send=False))
    await bench.pacer.run(1.0)
    assert bench.peer.take() == []
    assert bench.stream.playout.heard_ms("hi", bench.pacer.now) == 60
    bench.stream.configure(bench.media(send=True))
    await bench.pacer.run(0.3)
    after = bench.peer.take()
    assert after[0].marker
    assert after[0].payload == tone(1000, 200)[480:640]
    away = ((after[0].timestamp - before[-1].timestamp) & 0xFFFFFFFF) / 8
    assert away == pytest.approx(1012, abs=5)
    assert bench.stream.playout.heard_ms("hi", bench.pacer.now) == 200
    assert bench.events == [PlayoutDrained()]


async def test_a_held_party_is_not_heard_and_does_not_time_out(bench: Bench) -> None:
    bench.stream.configure(bench.media(receive=False))
    await bench.pacer.run(1.0, bench.talker())
    await bench.pacer.run(40.0)
    assert bench.heard == []
    assert bench.events == []


async def test_a_dead_line_is_told_once_for_each_stretch_of_silence(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(1.0, bench.talker())
    await bench.pacer.run(29.5)
    assert bench.events == []
    await bench.pacer.run(2.0)
    assert bench.events == [MediaTimeout()]
    await bench.pacer.run(28.0)
    assert bench.events == [MediaTimeout()]
    await bench.pacer.run(4.0)
    assert bench.events == [MediaTimeout(), MediaTimeout()]


async def test_the_wait_for_a_party_begins_when_it_is_taken_off_hold(bench: Bench) -> None:
    bench.stream.configure(bench.media(receive=False))
    await bench.pacer.run(25.0)
    bench.stream.configure(bench.media())
    await bench.pacer.run(25.0)
    assert bench.events == []
    await bench.pacer.run(7.0)
    assert bench.events == [MediaTimeout()]


async def test_a_party_that_holds_us_in_silence_is_not_taken_for_dead_until_it_resumes(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(1.0, bench.talker())
    bench.stream.configure(bench.media(send=False))  # the party's offer was sendonly
    await bench.pacer.run(40.0)
    assert bench.events == []
    bench.stream.configure(bench.media())
    await bench.pacer.run(29.0)
    assert bench.events == []
    await bench.pacer.run(3.0)
    assert bench.events == [MediaTimeout()]


async def test_sound_before_configure_is_not_heard(bench: Bench) -> None:
    for _ in range(5):
        bench.peer.send(bench.stream.local_port, b"\x01" * 160)
    await bench.pacer.run(0.1)
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.1)
    assert bench.heard == []


async def test_sound_follows_the_peer_to_the_port_it_sends_from(bench: Bench) -> None:
    behind_nat = bench.another_peer()
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.1)
    for _ in range(5):
        behind_nat.send(bench.stream.local_port, b"\x01" * 160)
    await bench.pacer.run(0.1)
    assert bench.stream.remote == behind_nat.address
    bench.peer.take()
    await bench.pacer.run(0.1)
    assert len(behind_nat.take()) >= 5
    assert bench.peer.take() == []
    assert bench.sound[:160] == b"\x01" * 160


async def test_last_packets_of_an_earlier_call_from_the_same_host_take_nobodys_place(bench: Bench) -> None:
    earlier = bench.another_peer()
    bench.stream.configure(bench.media())
    for _ in range(4):
        earlier.send(bench.stream.local_port, b"\x66" * 160)
    await bench.pacer.run(0.4, bench.talker(440))
    assert bench.stream.remote == bench.peer.address
    assert b"\x66" not in bench.sound
    assert tones.frequency_hz(bench.sound[:1600], Encoding.PCMU) == pytest.approx(440, abs=5)


async def test_an_address_that_was_not_signalled_is_followed_after_five_packets_that_are_then_heard(bench: Bench) -> None:
    stranger = bench.another_peer("127.0.0.2")
    bench.stream.configure(bench.media())
    for number in range(4):
        stranger.send(bench.stream.local_port, bytes([number]) * 160)
        await bench.pacer.run(0.02)
    assert bench.stream.remote == bench.peer.address
    assert bench.heard == []
    stranger.send(bench.stream.local_port, b"\x04" * 160)
    await bench.pacer.run(0.02)
    assert bench.stream.remote == stranger.address
    assert [payload[0] for _, payload in bench.heard] == [0, 1, 2, 3, 4]


async def test_a_stranger_has_no_chance_while_the_signalled_peer_sends(bench: Bench) -> None:
    stranger = bench.another_peer("127.0.0.2")
    bench.stream.configure(bench.media())
    for _ in range(4):
        stranger.send(bench.stream.local_port, b"\x66" * 160)
    bench.peer.send(bench.stream.local_port, b"\x01" * 160)
    for _ in range(20):
        stranger.send(bench.stream.local_port, b"\x66" * 160)
        bench.peer.send(bench.stream.local_port, b"\x01" * 160)
        await bench.pacer.run(0.02)
    assert bench.stream.remote == bench.peer.address
    assert set(bench.sound) == {1}


async def test_a_new_address_by_re_invite_is_followed(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.5, bench.talker(440))
    moved = bench.another_peer()
    bench.stream.configure(bench.media(remote=moved.address))
    await bench.pacer.run(0.1)
    assert len(moved.take()) >= 5
    bench.heard.clear()
    bench.peer = moved
    await bench.pacer.run(0.5, bench.talker(900))
    assert tones.frequency_hz(bench.sound[:1600], Encoding.PCMU) == pytest.approx(900, abs=5)
    assert_true_clock(moved.take())


async def test_without_an_address_it_is_quiet_until_packets_tell(bench: Bench) -> None:
    bench.stream.configure(bench.media(remote=None))
    bench.say("hi", tone(1000, 100))
    await bench.pacer.run(0.2)
    assert bench.stream.stats.packets_out == 0
    await bench.pacer.run(0.4, bench.talker())
    packets = bench.peer.take()
    assert packets[0].marker
    assert b"".join(packet.payload for packet in packets)[:800] == tone(1000, 100)


@pytest.mark.parametrize("host", ["phone.example.org", "0.0.0.0", "::"])
async def test_a_name_or_no_address_is_not_sent_to(bench: Bench, host: str) -> None:
    bench.stream.configure(bench.media(remote=(host, 4000)))
    await bench.pacer.run(0.1)
    assert bench.stream.remote is None
    assert bench.stream.stats.packets_out == 0


async def test_a_codec_change_is_translated_on_the_line_alone(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.2, bench.talker(440))
    bench.stream.configure(bench.media(encoding=Encoding.PCMA, payload_type=8))
    bench.peer.take()
    bench.heard.clear()
    bench.say("hi", tone(1000, 200))
    await bench.pacer.run(0.3, bench.talker(700, encoding=Encoding.PCMA))
    assert bench.stream.encoding is Encoding.PCMU
    packets = bench.peer.take()
    assert {packet.payload_type for packet in packets} == {8}
    spoken = b"".join(packet.payload for packet in packets)
    assert tones.frequency_hz(spoken[:1600], Encoding.PCMA) == pytest.approx(1000, abs=3)
    assert g711.level(spoken[-160:], Encoding.PCMA) <= 8
    assert tones.frequency_hz(bench.sound[320:1920], Encoding.PCMU) == pytest.approx(700, abs=5)


async def test_the_other_flavour_is_heard_where_it_was_agreed_on_and_else_counted(bench: Bench) -> None:
    bench.stream.configure(bench.media(other_types={8: Encoding.PCMA}))
    await bench.pacer.run(0.3, bench.talker(700, encoding=Encoding.PCMA))
    assert tones.frequency_hz(bench.sound[:1600], Encoding.PCMU) == pytest.approx(700, abs=5)
    bench.heard.clear()
    bench.peer.send(bench.stream.local_port, b"\x01" * 160, payload_type=96)
    bench.peer.socket.sendto(b"\x01garbage", ("127.0.0.1", bench.stream.local_port))
    await bench.pacer.run(0.02)
    assert bench.heard == []
    assert bench.stream.stats.ignored == 2


@pytest.mark.parametrize("frame_ms", [10, 30, 40, 60])
async def test_frames_of_any_length_are_heard(bench: Bench, frame_ms: int) -> None:
    bench.stream.tap(Tap(bench))
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.6, bench.talker(440, frame_ms))
    assert bench.sound == tones.tone((440,), 10_000, Encoding.PCMU)[: len(bench.sound)]
    assert len(bench.sound) >= 4320
    assert {position % (frame_ms * 8) for position, _ in bench.received} == {bench.received[0][0] % (frame_ms * 8)}
    assert bench.stream.stats.lost == 0


@pytest.mark.parametrize("seed", range(3))
async def test_over_a_lossy_network_the_tone_goes_on(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    bench.stream.configure(bench.media())
    talker = bench.talker(440)
    talker.loses = lambda: chance.random() < 0.05
    await bench.pacer.run(3.0, talker)
    talker.loses = lambda: False
    await bench.pacer.run(0.1, talker)
    stats = bench.stream.stats
    assert stats.lost > 0
    assert 0 < stats.concealed_ms <= 60 * stats.lost
    assert len(bench.sound) / 8 == pytest.approx(3100, abs=41)
    good = sum(
        abs(tones.frequency_hz(bench.sound[at : at + 800], Encoding.PCMU) - 440) < 15
        for at in range(0, len(bench.sound) - 800, 800)
    )
    assert good >= 0.9 * (len(bench.sound) // 800)


async def test_a_gap_is_given_up_within_60_ms(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    talker = bench.talker(440)
    await bench.pacer.run(0.1, talker)
    lost_at = bench.pacer.now
    talker.loses = lambda: bench.pacer.now <= lost_at + 0.02
    await bench.pacer.run(0.3, talker)
    gaps = [after - before for (before, _), (after, _) in pairwise(bench.heard)]
    assert max(gaps) <= 0.1  # 20 to the lost packet, 20 to the next, and at most 60 of hold
    assert bench.stream.stats.concealed_ms == 20


async def test_a_party_that_stops_sending_is_heard_as_silence_and_recorded_as_a_gap(bench: Bench) -> None:
    bench.stream.tap(Tap(bench))
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.2, bench.talker())
    await bench.pacer.run(1.0)
    assert bench.sound.endswith(b"\xff" * 7200)
    assert len(bench.sound) / 8 == pytest.approx(1200, abs=40)
    frames = len(bench.received)
    bench.peer.timestamp += 8000
    await bench.pacer.run(0.2, bench.talker())
    assert len(bench.sound) / 8 == pytest.approx(1400, abs=40)
    assert bench.received[frames][0] == pytest.approx(1.2 * 8000, abs=320)
    assert bench.stream.stats.lost == 0


async def test_comfort_noise_is_heard_as_silence_at_once(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.1, bench.talker())
    bench.heard.clear()
    bench.peer.send(bench.stream.local_port, b"\x40", payload_type=13)
    await bench.pacer.run(0.09)
    assert 3 <= len(bench.heard) <= 4
    assert set(bench.sound) == {0xFF}


async def test_a_stalled_loop_finds_the_waiting_packets_and_adds_no_silence(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    talker = bench.talker()
    await bench.pacer.run(0.1, talker)
    for _ in range(8):
        bench.peer.send(bench.stream.local_port, b"\x01" * 160)
    await bench.pacer.stall(0.16)
    assert [payload[0] for _, payload in bench.heard][-8:] == [1] * 8
    assert bench.sound.count(ULAW_SILENCE) == 0


async def test_after_a_stall_frames_are_skipped_and_time_stays_true(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hi", tone(1000, 400))
    await bench.pacer.run(0.1)
    before = bench.peer.take()
    await bench.pacer.stall(0.5)
    await bench.pacer.run(0.4)
    after = bench.peer.take()
    assert len(after) <= 22
    assert b"".join(packet.payload for packet in before + after)[160:3360] == tone(1000, 400)
    assert (after[-1].timestamp - before[0].timestamp) & 0xFFFFFFFF == pytest.approx(8000, abs=160)
    assert_true_clock(before + after)


async def test_a_key_is_told_once_by_events_and_by_info(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.1, bench.talker())
    for number in range(1, 7):
        end = 0x80 if number > 3 else 0
        bench.peer.send(bench.stream.local_port, bytes((5, end | 10)) + (160 * min(number, 4)).to_bytes(2, "big"), 101)
        await bench.pacer.run(0.02)
    bench.stream.info_digit("5", bench.pacer.now)
    bench.stream.info_digit("#", bench.pacer.now)
    assert bench.events == [DigitPressed("5"), DigitPressed("#")]


async def test_digits_go_out_as_events_and_sound_waits(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hi", tone(1000, 100))
    await bench.pacer.run(0.03)
    bench.stream.send_digit("4", 100)
    bench.stream.send_digit("2", 100)
    await bench.pacer.run(1.0)
    packets = bench.peer.take()
    events = [packet for packet in packets if packet.payload_type == 101]
    reader = DtmfReceiver()
    told = [reader.push(packet.payload, packet.timestamp, 0.0) for packet in events]
    assert "".join(digit for digit in told if digit) == "42"
    assert [packet.marker for packet in events].count(True) == 2
    assert len({packet.timestamp for packet in events}) == 2
    assert [packet.payload[1] & 0x80 for packet in events].count(0x80) == 6
    spoken = b"".join(packet.payload for packet in packets if packet.payload_type == 0)
    assert spoken.replace(b"\xff", b"") == tone(1000, 100).replace(b"\xff", b"")
    assert len({packet.sequence for packet in packets}) == len(packets)


async def test_without_events_digits_go_out_as_tones(bench: Bench) -> None:
    bench.stream.configure(bench.media(dtmf_payload_type=None))
    for digit in "7#":
        bench.stream.send_digit(digit, 100)
    await bench.pacer.run(0.5)
    spoken = b"".join(packet.payload for packet in bench.peer.take())
    heard = [tones.dtmf_digit(spoken[at : at + 400], Encoding.PCMU) for at in range(0, len(spoken) - 400, 400)]
    assert "".join(dict.fromkeys(digit for digit in heard if digit)) == "7#"
    with pytest.raises(ValueError, match="no DTMF digit"):
        bench.stream.send_digit("?")
    assert set(DIGITS) >= set("7#")


async def test_the_recorder_sees_both_sides_in_their_place(bench: Bench) -> None:
    bench.stream.tap(Tap(bench))
    await bench.pacer.run(0.5)
    bench.stream.configure(bench.media())
    await bench.pacer.run(1.008)
    talker = bench.talker()
    bench.say("hi", tone(1000, 100))
    await bench.pacer.run(0.492, talker)
    assert [position for position, _ in bench.sent] == [8064 + 160 * n for n in range(5)]
    assert b"".join(payload for _, payload in bench.sent) == tone(1000, 100)
    assert bench.received[0][0] == pytest.approx(8064, abs=32)
    assert {after - before for (before, _), (after, _) in pairwise(bench.received)} == {160}
    assert bench.stream.position == 12_000
    count = len(bench.received)
    bench.stream.tap(None)
    await bench.pacer.run(0.1, talker)
    assert len(bench.received) == count


async def test_reports_go_to_the_next_port_and_tell_the_round_trip(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(8.0, bench.talker())
    report = rtcp.parse(bench.peer.reports()[0])
    assert report is not None and report.sender is not None
    assert report.cname
    assert report.sender.packets > 50
    assert report.blocks[0].ssrc == 77
    assert report.blocks[0].packets_lost == 0
    ntp = report.sender.ntp
    await bench.pacer.run(0.5)
    delay = rtcp.ntp_middle(rtcp.ntp_time(bench.pacer.now)) - rtcp.ntp_middle(ntp) - 65536 // 20
    answer = rtcp.build(77, "peer", block=rtcp.ReceptionBlock(report.ssrc, 0, 3, 0, 0, rtcp.ntp_middle(ntp), delay))
    bench.peer.rtcp.sendto(answer, ("127.0.0.1", bench.stream.local_port + 1))
    await settle()
    stats = bench.stream.stats
    assert stats.round_trip_ms == pytest.approx(50, abs=1)
    assert stats.peer_lost == 3
    bench.stream.close()
    goodbye = rtcp.parse(bench.peer.reports()[-1])
    assert goodbye is not None and goodbye.goodbye


async def test_a_peer_without_a_socket_does_no_harm(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    await bench.pacer.run(0.1, bench.talker())
    bench.peer.close()  # each packet now comes back as an ICMP error
    await bench.pacer.run(1.0)
    assert bench.stream.stats.packets_out >= 50


async def test_a_peer_at_the_last_port_gets_sound_and_no_reports(bench: Bench) -> None:
    bench.stream.configure(bench.media(remote=("127.0.0.1", 65_535)))
    await bench.pacer.run(8.0)  # long enough for a report
    assert bench.stream.stats.packets_out >= 400
    bench.stream.close()
    assert bench.ports.leased == 0


async def test_a_goodbye_that_fails_keeps_no_port(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: RtpPath, packet: bytes) -> None:
        raise ValueError("broken")

    bench.stream.configure(bench.media())
    monkeypatch.setattr(RtpPath, "send_report", broken)
    with pytest.raises(ValueError, match="broken"):
        bench.stream.close()
    assert bench.ports.leased == 0
    bench.peer.take()
    await bench.pacer.run(0.1)
    assert bench.peer.take() == []


async def test_close_gives_everything_back_and_is_idempotent(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.say("hi", tone(1000))
    await bench.pacer.run(0.1)
    bench.stream.close()
    bench.stream.close()
    assert bench.ports.leased == 0
    bench.stream.configure(bench.media())
    bench.say("more", tone(1000))
    bench.peer.take()
    await bench.pacer.run(0.2)
    assert bench.peer.take() == []
    assert bench.events == []


async def test_a_receiver_of_events_may_close_the_stream(bench: Bench) -> None:
    bench.stream.configure(bench.media())
    bench.stream.subscribe(lambda event: bench.stream.close())
    bench.say("bye", tone(1000, 40))
    await bench.pacer.run(0.3)
    assert bench.ports.leased == 0
    assert all(payload != ULAW_SILENCE for payload in [packet.payload for packet in bench.peer.take()][1:3])


async def test_no_stream_without_a_port(bench: Bench) -> None:
    others = [RtpStream(bench.ports, bench.pacer) for _ in range(3)]
    with pytest.raises(PortsExhausted):
        RtpStream(bench.ports, bench.pacer)
    for other in others:
        other.close()


async def test_ipv6_carries_sound_too() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    pacer = SteppedPacer()
    stream = RtpStream(RtpPorts("::1", *passing_row(2)), pacer)
    heard: list[bytes] = []
    stream.listen(lambda payload, now: heard.append(payload))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind(("::1", 0))
        peer.setblocking(False)
        stream.configure(RtpMedia(("::1", peer.getsockname()[1]), Encoding.PCMU, 0))
        for number in range(3):
            peer.sendto(rtp.pack(0, number, number * 160, 1, b"\x01" * 160), ("::1", stream.local_port))
            await pacer.run(0.02)
        assert len(heard) == 3
        assert len(peer.recv(2048)) == 172
    stream.close()


async def converse() -> None:
    """Two streams on the real clock: one speaks, the other must hear just that."""
    pacer = Pacer()
    ports = RtpPorts("127.0.0.1", *passing_row(4))
    one, two = RtpStream(ports, pacer), RtpStream(ports, pacer)
    heard, enough = bytearray(), asyncio.Event()

    def listen(payload: bytes, now: float) -> None:
        heard.extend(payload.replace(ULAW_SILENCE, b""))
        if len(heard) >= 2400:
            enough.set()

    two.listen(listen)
    one.configure(RtpMedia(("127.0.0.1", two.local_port), Encoding.PCMU, 0))
    two.configure(RtpMedia(("127.0.0.1", one.local_port), Encoding.PCMU, 0))
    one.playout.enqueue("tone", tone(1000, 300), pacer.clock())
    one.playout.finish("tone", pacer.clock())
    await asyncio.wait_for(enough.wait(), 10)
    assert bytes(heard) == tone(1000, 300)
    one.close()
    two.close()
    pacer.close()
    assert ports.leased == 0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_on_the_real_clock_of_each_loop_two_streams_hear_each_other(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    run(converse())
