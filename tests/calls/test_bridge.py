"""Two phones on two lines of one house: what each hears of the other, over real sockets on a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from switchhook.calls.bridge import Bridge, LineJoining
from switchhook.calls.parts import Joining
from switchhook.calls.transfer import WaitingSound
from switchhook.domain.model import Encoding
from switchhook.domain.ports import DigitPressed
from switchhook.media import tones
from switchhook.media.hold_sound import WaitingSounds
from switchhook.telephony.rtp_media import RtpMedia
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.wire import rtp
from switchhook.telephony.wire.dtmf import DtmfReceiver
from tests.peers.ports import passing_row
from tests.peers.stream_leg import StreamLeg
from tests.telephony.rtp_peer import RtpPeer, SteppedPacer, Talker

TYPES = {Encoding.PCMU: 0, Encoding.PCMA: 8}
CALLER_HZ, CALLEE_HZ = 440, 1000


class Party:
    """A phone and the leg that leads to it."""

    def __init__(self, house: House, encoding: Encoding, hz: float, frame_ms: int) -> None:
        self._house = house
        self.phone = RtpPeer()
        self.leg = StreamLeg(RtpStream(house.ports, house.pacer, entropy=random.Random(hz).randbytes))
        self.encoding = encoding
        self.configure()
        self.talker = Talker(self.phone, self.leg.stream.local_port, house.pacer, hz, frame_ms, encoding)
        self.talks = True

    def configure(self, **changes: object) -> None:
        values: dict[str, object] = {
            "remote": self.phone.address,
            "encoding": self.encoding,
            "payload_type": TYPES[self.encoding],
            "dtmf_payload_type": 101,
        }
        self.leg.stream.configure(RtpMedia(**(values | changes)))  # type: ignore[arg-type]  # checked when the test runs

    def __call__(self) -> None:
        if self.talks:
            self.talker()
        else:
            self.talker.skip()

    def packets(self) -> list[rtp.RtpPacket]:
        """What came to the phone since the last call."""
        return self.phone.take()

    def hears(self) -> float:
        """The pitch of what came to the phone in the end of the time since the last call."""
        return tones.frequency_hz(b"".join(packet.payload for packet in self.packets())[-1600:], self.encoding)


class House:
    """Two parties and the clock."""

    def __init__(self, encodings: tuple[Encoding, Encoding] = (Encoding.PCMU, Encoding.PCMU), frame_ms: int = 20) -> None:
        self.pacer = SteppedPacer()
        self.ports = RtpPorts("127.0.0.1", *passing_row(4))
        self.caller = Party(self, encodings[0], CALLER_HZ, frame_ms)
        self.callee = Party(self, encodings[1], CALLEE_HZ, frame_ms)
        self.bridges: list[Bridge] = []

    def now(self) -> float:
        return self.pacer.now

    def utc(self) -> datetime:
        return datetime(2026, 3, 12, tzinfo=UTC)

    def join(self, comfort: WaitingSounds | None = None) -> Bridge:
        bridge = Bridge(self.caller.leg, self.callee.leg, self, comfort)
        self.caller.leg.subscribe(lambda event: self._digit(self.caller, bridge, event))
        self.callee.leg.subscribe(lambda event: self._digit(self.callee, bridge, event))
        self.bridges.append(bridge)
        return bridge

    async def run(self, seconds: float) -> None:
        def both() -> None:
            self.caller()
            self.callee()

        await self.pacer.run(seconds, both)

    def close(self) -> None:
        for bridge in self.bridges:
            bridge.close()
        for party in (self.caller, self.callee):
            party.leg.close()
            party.phone.close()
        self.pacer.close()
        assert self.ports.leased == 0

    def _digit(self, party: Party, bridge: Bridge, event: object) -> None:
        party.leg.events.append(event)  # type: ignore[arg-type]  # events of legs alone come here
        if isinstance(event, DigitPressed):
            bridge.digit(party.leg, event.digit)


@pytest.fixture
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    made = House(**getattr(request, "param", {}))
    yield made
    made.close()


def assert_even(packets: list[rtp.RtpPacket]) -> None:
    """One packet after the other, 20 ms apart."""
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(packets)} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(packets)} == {160}


async def test_each_hears_the_other_as_one_even_talkspurt(house: House) -> None:
    await house.run(0.1)
    house.join()
    await house.run(3.0)
    for party, hz in ((house.caller, CALLEE_HZ), (house.callee, CALLER_HZ)):
        packets = party.packets()
        assert_even(packets[1:])
        assert sum(packet.marker for packet in packets) == 1
        sound = b"".join(packet.payload for packet in packets)
        assert tones.frequency_hz(sound[-1600:], Encoding.PCMU) == pytest.approx(hz, abs=3)
        begin = len(sound) - len(sound.lstrip(b"\xff"))
        assert sound[begin : begin + 16_000].strip(b"\xff") in tones.tone((hz,), 10_000, Encoding.PCMU)  # no byte is changed


async def test_sound_is_held_for_60_ms_at_most(house: House) -> None:
    house.join()
    house.caller.talks = house.callee.talks = False
    await house.run(1.0)
    house.callee.packets()
    house.caller.talks = True
    spoke_at = house.now()
    while all(packet.payload.count(0xFF) > 40 for packet in house.callee.packets()):
        await house.run(0.004)
    assert house.now() - spoke_at <= 0.064


@pytest.mark.parametrize("house", [{"frame_ms": 10}, {"frame_ms": 30}, {"frame_ms": 60}], indirect=True, ids=str)
async def test_packets_of_other_lengths_pass(house: House) -> None:
    house.join()
    await house.run(3.0)
    packets = house.callee.packets()
    assert_even(packets[1:])
    assert sum(packet.marker for packet in packets) == 1
    assert {len(packet.payload) for packet in packets} == {160}
    sound = b"".join(packet.payload for packet in packets)
    assert tones.frequency_hz(sound[-1600:], Encoding.PCMU) == pytest.approx(CALLER_HZ, abs=3)


@pytest.mark.parametrize("house", [{"encodings": (Encoding.PCMU, Encoding.PCMA)}], indirect=True, ids=["u-A"])
async def test_lines_of_different_flavour_are_translated_by_table(house: House) -> None:
    house.join()
    await house.run(1.0)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)


async def test_over_a_lossy_network_the_spurt_goes_on(house: House) -> None:
    dice = random.Random(7)
    house.caller.talker.loses = lambda: dice.random() < 0.05
    house.join()
    await house.run(10.0)
    packets = house.callee.packets()
    assert_even(packets[1:])
    assert sum(packet.marker for packet in packets) <= 3
    assert house.bridges[0].buffers[0].held_ms <= 120


async def test_a_digit_of_one_is_an_event_to_the_other(house: House) -> None:
    house.join()
    await house.run(0.5)
    house.caller.leg.stream.info_digit("5", house.now())
    await house.run(0.5)
    house.callee.leg.stream.info_digit("#", house.now())
    await house.run(0.5)
    for party, digit in ((house.callee, "5"), (house.caller, "#")):
        receiver = DtmfReceiver()
        events = [packet for packet in party.packets() if packet.payload_type == 101]
        heard = [receiver.push(packet.payload, packet.timestamp, 1.0) for packet in events]
        assert [one for one in heard if one] == [digit]
    assert house.callee.hears() == 0  # nothing since
    await house.run(1.0)
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)
    assert house.bridges[0].buffers[0].held_ms <= 60


async def test_where_events_were_not_agreed_on_a_digit_is_heard(house: House) -> None:
    house.callee.configure(dtmf_payload_type=None)
    house.caller.talks = False
    house.join()
    await house.run(0.5)
    house.callee.packets()
    house.caller.leg.stream.info_digit("5", house.now())
    await house.run(0.16)
    assert tones.dtmf_digit(b"".join(packet.payload for packet in house.callee.packets())[320:1200], Encoding.PCMU) == "5"


async def test_more_digits_than_can_be_played_do_no_harm(house: House) -> None:
    bridge = house.join()
    for _ in range(500):
        bridge.digit(house.caller.leg, "1")
    await house.run(0.5)
    assert len(house.callee.packets()) >= 25
    assert bridge.dropped_digits > 400


@pytest.mark.parametrize("comfort", [False, True])
async def test_a_hold_of_minutes_is_survived_by_both(house: House, comfort: bool) -> None:
    house.join(WaitingSounds() if comfort else None)
    await house.run(1.0)
    house.caller.configure(send=False, receive=False)
    house.caller.talks = False
    await house.run(1.0)
    assert house.callee.hears() == 0
    await house.run(179.0)
    assert house.caller.leg.events == house.callee.leg.events == []
    packets = house.callee.packets()
    assert_even(packets[-500:])
    loud = b"".join(packet.payload for packet in packets[-500:]).strip(b"\xff")
    assert bool(loud) is comfort
    house.caller.packets()
    house.caller.configure()
    house.caller.talks = True
    resumed = house.now()
    await house.run(0.5)
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    assert [buffer.held_ms <= 60 for buffer in house.bridges[0].buffers] == [True, True]
    assert house.now() - resumed < 1


async def test_a_party_that_holds_by_sending_music_is_heard(house: House) -> None:
    house.join()
    house.caller.configure(send=False)
    await house.run(40.0)
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)
    assert house.caller.leg.events == []


async def test_the_recording_goes_on_with_the_caller_on_one_side_and_the_callee_on_the_other(house: House) -> None:
    received, sent = bytearray(b"\xff" * 80_000), bytearray(b"\xff" * 80_000)

    class Tap:
        def received(self, payload: bytes, position: int) -> None:
            received[position : position + len(payload)] = payload

        def sent(self, payload: bytes, position: int) -> None:
            sent[position : position + len(payload)] = payload

    house.caller.leg.tap(Tap())
    house.caller.leg.playout.enqueue("agent", tones.tone((600,), 500, Encoding.PCMU), house.now())
    house.caller.leg.playout.finish("agent", house.now())
    await house.run(1.0)
    house.join()
    await house.run(2.0)
    assert tones.frequency_hz(bytes(sent[1600:3200]), Encoding.PCMU) == pytest.approx(600, abs=3)
    for second in (1.2, 2.0, 2.7):
        part = slice(round(second * 8000), round(second * 8000) + 1600)
        assert tones.frequency_hz(bytes(received[part]), Encoding.PCMU) == pytest.approx(CALLER_HZ, abs=3)
        assert tones.frequency_hz(bytes(sent[part]), Encoding.PCMU) == pytest.approx(CALLEE_HZ, abs=3)


async def test_an_announcement_is_heard_in_place_of_the_other(house: House) -> None:
    house.join()
    await house.run(1.0)
    house.caller.leg.playout.enqueue("notice", tones.tone((600,), 500, Encoding.PCMU), house.now())
    house.caller.leg.playout.finish("notice", house.now())
    await house.run(0.45)
    assert house.caller.hears() == pytest.approx(600, abs=3)
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)
    await house.run(0.5)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    assert house.bridges[0].buffers[1].held_ms <= 60


async def test_taken_apart_both_are_silent_within_a_frame_and_free_for_others(house: House) -> None:
    bridge = house.join()
    await house.run(1.0)
    bridge.close()
    bridge.close()
    await house.run(0.022)
    for party in (house.caller, house.callee):
        party.packets()
    await house.run(0.5)
    for party in (house.caller, house.callee):
        assert {packet.payload for packet in party.packets()} == {b"\xff" * 160}
    heard = bytearray()
    house.caller.leg.listen(lambda payload, now: heard.extend(payload))
    house.caller.leg.playout.enqueue("agent", tones.tone((600,), 500, Encoding.PCMU), house.now())
    await house.run(0.3)
    assert house.caller.hears() == pytest.approx(600, abs=3)
    assert tones.frequency_hz(bytes(heard[-1600:]), Encoding.PCMU) == pytest.approx(CALLER_HZ, abs=3)
    bridge.digit(house.caller.leg, "1")
    await house.run(0.3)
    assert {packet.payload_type for packet in house.callee.packets()} == {0}


async def test_a_line_that_is_gone_does_the_other_no_harm(house: House) -> None:
    bridge = house.join()
    await house.run(1.0)
    house.callee.leg.close()
    await house.run(1.0)
    bridge.digit(house.caller.leg, "1")
    bridge.close()
    await house.run(0.1)
    assert house.caller.hears() == 0


def ringback_share(party: Party) -> float:
    """How much of what came to the phone lately is ringback: its two tones against those of the other party, and noise."""
    heard = tones.samples_of(b"".join(packet.payload for packet in party.packets())[-1600:], party.encoding)
    ringing = min(tones.power(heard, hz) for hz in (440, 480))
    return ringing / (ringing + tones.power(heard, CALLEE_HZ) + tones.power(heard, 620) + 1)


@pytest.mark.parametrize("house", [{}, {"encodings": (Encoding.PCMA, Encoding.PCMU)}], indirect=True)
@pytest.mark.parametrize("comfort", [False, True])
@pytest.mark.parametrize("early", ["nothing", "silence", "line noise"])
async def test_ringback_goes_on_until_early_media_is_heard(house: House, early: str, comfort: bool) -> None:
    """A far side may announce early media (183 with SDP) and send none, or send silence, before it answers."""
    callee, loud = house.callee, house.callee.talker._sound
    soft = {"silence": 0.0, "line noise": 0.003}.get(early)
    callee.talks = soft is not None
    if soft is not None:
        callee.talker._sound = tones.tone((CALLEE_HZ,), 10_020, callee.encoding, soft)
    bridge = LineJoining(WaitingSounds(), house, comfort).join(house.caller.leg, callee.leg, early=True)
    for _ in range(3):  # two seconds of tone and four of silence; comfort sound would begin in the silence
        await house.run(1.5)
        assert ringback_share(house.caller) > 0.9
        await house.run(4.5)
        assert ringback_share(house.caller) < 0.1
    callee.talker._sound, callee.talks = loud, True
    await house.run(0.5)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    callee.talks = False
    await house.run(1.0)
    assert ringback_share(house.caller) < 0.1, "the far side's own ringing tone has pauses"
    bridge.answered()
    callee.talks = True
    await house.run(0.5)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    bridge.close()
    await house.run(0.1)


async def test_ringback_ends_when_the_far_side_answers_however_silent_it_is(house: House) -> None:
    house.callee.talks = False
    bridge = LineJoining(WaitingSounds(), house).join(house.caller.leg, house.callee.leg, early=True)
    await house.run(1.0)
    assert ringback_share(house.caller) > 0.9
    assert house.callee.hears() == pytest.approx(CALLER_HZ, abs=3)
    bridge.answered()
    bridge.answered()
    await house.run(0.022)
    house.caller.packets()
    await house.run(0.5)
    assert house.caller.hears() == 0
    house.callee.talks = True
    await house.run(0.5)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    bridge.close()


@pytest.mark.parametrize(("sound", "hz"), [(WaitingSound.RINGBACK, (440, 480)), (WaitingSound.HOLD, (525,))])
async def test_a_waiting_party_hears_ringback_or_hold_sound_until_it_is_joined(
    house: House, sound: WaitingSound, hz: tuple[int, ...]
) -> None:
    joining: Joining = LineJoining(WaitingSounds(), house)
    joining.play(house.caller.leg, sound)
    await house.run(0.3)
    heard = tones.samples_of(b"".join(packet.payload for packet in house.caller.packets())[-1600:], Encoding.PCMU)
    assert min(tones.power(heard, one) for one in hz) > 20 * tones.power(heard, 620)
    joining.quiet(house.caller.leg)
    await house.run(0.022)
    house.caller.packets()
    await house.run(0.1)
    assert house.caller.hears() == 0
    joined = joining.join(house.caller.leg, house.callee.leg)
    await house.run(0.5)
    assert house.caller.hears() == pytest.approx(CALLEE_HZ, abs=3)
    joined.close()
