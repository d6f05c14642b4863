"""The media door on a real port: who gets in, a talk both ways, and every way in which a stream ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import picows
import pytest
import pytest_asyncio

from switchhook.domain.ports import DigitPressed, LegAnswered, LegEnded, LegEvent
from switchhook.telephony import twilio_media
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.twilio_leg import TwilioLeg
from switchhook.telephony.twilio_legs import TwilioLegs
from switchhook.telephony.twilio_media import TwilioDoor
from tests.telephony.twilio_carrier import Orders

WAIT_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - real sockets tell nobody
            await asyncio.sleep(0.005)


@dataclass
class House:
    """A door that listens, and its legs."""

    legs: TwilioLegs
    door: TwilioDoor
    url: str
    carriers: list[Carrier]
    told: list[LegEvent] = field(default_factory=list)

    async def carrier(self, signature: str = "good") -> Carrier:
        made = Carrier()
        await picows.ws_connect(lambda: made, self.url, extra_headers={"X-Twilio-Signature": signature})
        self.carriers.append(made)
        return made

    def leg(self) -> TwilioLeg:
        leg = self.legs.offered(Orders(), "CA1")
        leg.subscribe(self.told.append)
        leg.answer()
        return leg


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    pacer = Pacer(time.monotonic)
    legs = TwilioLegs(pacer)
    door = TwilioDoor(lambda request: request.headers.get("X-Twilio-Signature") == "good", legs.claim, encrypted=False)
    server = await picows.ws_create_server(door.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    carriers: list[Carrier] = []
    try:
        yield House(legs, door, f"ws://127.0.0.1:{port}/twilio/media", carriers)
    finally:
        for carrier in carriers:
            if carrier.transport is not None:
                carrier.transport.disconnect(graceful=False)
        await until(lambda: not door.streams and all(carrier.over for carrier in carriers))
        server.close()
        await server.wait_closed()
        pacer.close()
        await asyncio.sleep(0)


class Carrier(picows.WSListener):
    """The carrier's end of one socket."""

    def __init__(self) -> None:
        self.transport: picows.WSTransport | None = None
        self.frames: list[dict[str, Any]] = []
        self.over = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            self.frames.append(json.loads(frame.get_payload_as_bytes()))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.over = True

    def raw(self, data: bytes, kind: picows.WSMsgType = picows.WSMsgType.TEXT, fin: bool = True) -> None:
        assert self.transport is not None
        self.transport.send(kind, data, fin)

    def send(self, event: str, **fields: Any) -> None:
        body = {"event": event, "sequenceNumber": "1", **fields, "streamSid": "MZ1"}
        self.raw(json.dumps(body, separators=(",", ":")).encode())

    def start(self, stream_id: str, call_sid: str = "CA1") -> None:
        self.send("connected", protocol="Call", version="1.0.0")
        self.send("start", start={"callSid": call_sid, "streamSid": "MZ1", "customParameters": {"leg": stream_id}})

    def say(self, sound: bytes) -> None:
        payload = base64.b64encode(sound).decode()
        self.send("media", media={"track": "inbound", "chunk": "1", "timestamp": "20", "payload": payload})


async def test_a_handshake_without_the_right_signature_is_refused(house: House) -> None:
    for signature in ("", "bad"):
        with pytest.raises(picows.WSInvalidStatusError) as refused:
            await house.carrier(signature)
        assert refused.value.response is not None
        assert int(refused.value.response.status) == 403
    assert house.door.streams == 0


async def test_a_talk_both_ways(house: House) -> None:
    leg = house.leg()
    heard: list[bytes] = []
    leg.listen(lambda payload, now: heard.append(payload))
    carrier = await house.carrier()
    carrier.start(leg.stream_id)
    carrier.say(b"\x05" * 160)
    carrier.send("dtmf", dtmf={"track": "inbound_track", "digit": "5"})
    await until(lambda: len(house.told) == 2)
    assert house.told == [LegAnswered(), DigitPressed("5")]
    assert heard == [b"\x05" * 160]
    assert leg.encrypted is False
    leg.playout.enqueue("a", b"\x01" * 800, time.monotonic())
    leg.playout.finish("a", time.monotonic())
    await until(lambda: len(carrier.frames) == 3)
    assert [frame["event"] for frame in carrier.frames] == ["mark", "media", "mark"]
    assert base64.b64decode(carrier.frames[1]["media"]["payload"]) == b"\x01" * 800
    leg.playout.interrupt(time.monotonic())
    await until(lambda: len(carrier.frames) == 4)
    assert carrier.frames[3] == {"event": "clear", "streamSid": "MZ1"}
    for frame in carrier.frames:
        if frame["event"] == "mark":
            carrier.send("mark", mark=frame["mark"])
    parts = json.dumps({"event": "dtmf", "dtmf": {"digit": "9"}}).encode()
    carrier.raw(parts[:10], fin=False)
    carrier.raw(parts[10:], picows.WSMsgType.CONTINUATION)
    await until(lambda: DigitPressed("9") in house.told)
    leg.hang_up()
    await until(lambda: carrier.over and not house.door.streams)
    assert house.told[-1] == LegEnded("hung-up")


async def test_a_listener_that_fails_costs_a_frame_and_not_the_call(house: House, caplog: pytest.LogCaptureFixture) -> None:
    leg = house.leg()
    heard: list[bytes] = []

    def listen(payload: bytes, now: float) -> None:
        heard.append(payload)
        if len(heard) == 1:
            raise RuntimeError("broken")

    leg.listen(listen)
    carrier = await house.carrier()
    carrier.start(leg.stream_id)
    carrier.say(b"\x01" * 160)
    carrier.say(b"\x02" * 160)
    await until(lambda: len(heard) == 2)
    assert "could not be dealt with" in caplog.text
    assert house.told == [LegAnswered()]


@pytest.mark.parametrize("way", ["stop", "close", "reset"])
async def test_the_carrier_ends_the_stream(house: House, way: str) -> None:
    leg = house.leg()
    carrier = await house.carrier()
    carrier.start(leg.stream_id)
    await until(lambda: house.told)
    assert carrier.transport is not None
    if way == "stop":
        carrier.send("stop", stop={"callSid": "CA1"})
    else:
        carrier.transport.disconnect(graceful=way == "close")
    await until(lambda: len(house.told) == 2)
    assert house.told[1] == LegEnded("caller-hung-up")
    await until(lambda: carrier.over and not house.door.streams)
    assert len(house.legs) == (0 if way == "stop" else 1), "without a word the call may still be up, and is ended over REST"


async def test_streams_of_nobody_are_closed(house: House) -> None:
    leg = house.leg()
    strangers = [await house.carrier() for _ in range(4)]
    strangers[0].start("nobody")
    strangers[1].start(leg.stream_id, "CA2")
    strangers[2].raw(b"garbage")
    strangers[3].raw(b"[" * 70_000)
    await until(lambda: all(stranger.over for stranger in strangers))
    own, late = await house.carrier(), await house.carrier()
    own.start(leg.stream_id)
    await until(lambda: house.told)
    late.start(leg.stream_id)
    await until(lambda: late.over)
    assert not own.over
    assert house.told == [LegAnswered()]


async def test_a_socket_without_a_start_is_closed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_media, "START_S", 0.1)
    carrier = await house.carrier()
    carrier.send("connected")
    await until(lambda: carrier.over)
    await until(lambda: not house.door.streams)


async def test_a_carrier_that_does_not_read_is_sent_no_more_than_fits(house: House) -> None:
    leg = house.leg()
    carrier = await house.carrier()
    carrier.start(leg.stream_id)
    await until(lambda: house.told)
    assert carrier.transport is not None
    carrier.transport.underlying_transport.pause_reading()

    class Loud:
        def next_frame(self, now: float) -> bytes | None:
            return b"\x01" * 8_000_000

    leg.playout.play_from(Loud())
    await until(lambda: leg.figures["packets_out"] > 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await until(lambda: leg.figures["packets_out"] > 2)
    assert leg.figures["packets_out"] <= 2
    leg.close()
