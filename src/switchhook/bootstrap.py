"""The composition root: the one place that knows both the ports and what is plugged into them."""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from picows import WSUpgradeRequest

from switchhook.agents.conversation import Agent, ModelLoss
from switchhook.agents.embedded.dialogue import Dialogue
from switchhook.agents.media_stream.bot import StreamBot
from switchhook.agents.providers.grammar_stt import GrammarRecognizer
from switchhook.agents.providers.local_voice import LocalVoice
from switchhook.agents.realtime.agent import RealtimeAgent
from switchhook.agents.realtime.endpoint.door import Engine, RealtimeDoor
from switchhook.agents.realtime.endpoint.listener import MediaListener, Route
from switchhook.agents.realtime.socket import ModelSockets
from switchhook.api.app import HttpDoor, application
from switchhook.api.ops import health
from switchhook.api.ops.logs import set_up_logging
from switchhook.api.ops.metrics import Metrics, Sample
from switchhook.api.twilio.handshake import Handshakes
from switchhook.api.twilio.messages import TwilioMessages
from switchhook.api.twilio.owners import ConfiguredOwners
from switchhook.api.twilio.received import PublicPlace
from switchhook.api.twilio.signature import SETTINGS, SIGNATURE
from switchhook.api.twilio.voice_routes import VoiceDoors
from switchhook.api.twilio_rest import surface
from switchhook.api.veevo import routes as veevo_routes
from switchhook.api.veevo.contract import VeevoContract
from switchhook.api.vns import makecall_routes, recordings_routes, sms_routes
from switchhook.api.vns.contract import VnsContract
from switchhook.api.vns.routes import routes as vns_routes
from switchhook.calls.bridge import LineJoining
from switchhook.calls.parts import AgentMaker, CallParts, ModelLink
from switchhook.calls.session import current_call
from switchhook.calls.switchboard import Switchboard
from switchhook.domain.contract import Contract
from switchhook.domain.dialling import DialRequest
from switchhook.domain.errors import ApplyError, SettingError, SwitchhookError
from switchhook.domain.model import CallAttempt, CallId, Encoding, Srtp
from switchhook.domain.plan import AgentSpec
from switchhook.domain.ports import OfferedLeg, Playout
from switchhook.domain.records import AccountSettings, OutboxCounts, TwilioCredentials
from switchhook.egress import Egress
from switchhook.media.hold_sound import waiting_sounds
from switchhook.media.recording.recorder import Background, SpoolRecorders
from switchhook.media.recording.spool import SpoolHeader
from switchhook.media.workers import Workers
from switchhook.settings import Settings
from switchhook.store.opened import DataDirLock, Store, node_name
from switchhook.store.secrets import SecretBox, server_key
from switchhook.telephony.line_dialer import LineDialer, ProvenRouting
from switchhook.telephony.pacer import Pacer
from switchhook.telephony.rtp_ports import RtpPorts
from switchhook.telephony.rtp_stream import RtpStream
from switchhook.telephony.sip_dialer import SipDialer
from switchhook.telephony.sip_outgoing_leg import AttemptWatcher, CallPlacer, OutgoingSipLeg
from switchhook.telephony.sip_server import SipConfig, SipServer
from switchhook.telephony.sip_targets import DnsLookup, SipTargets
from switchhook.telephony.trunk_watch import TrunkWatch
from switchhook.telephony.trunks import TrunkDirectory
from switchhook.telephony.twilio_carrier import STREAM_PATH, Places
from switchhook.telephony.twilio_legs import TwilioLegs
from switchhook.telephony.twilio_line import LineParts, TwilioLine
from switchhook.telephony.twilio_media import TwilioDoor
from switchhook.telephony.twilio_rest import TwilioRest
from switchhook.usecases.accounts import TokenVerifier, token_digest
from switchhook.usecases.apply import Applier
from switchhook.usecases.callbook import CallBookkeeper
from switchhook.usecases.dialling import AccountDialling
from switchhook.usecases.directory_watch import DirectoryWatch
from switchhook.usecases.greeting import Greetings
from switchhook.usecases.incoming import Incoming
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.messaging import Messages
from switchhook.usecases.model_names import ModelNames, read_aliases
from switchhook.usecases.next_flows import trunk_user
from switchhook.usecases.number_desk import NumberDesk
from switchhook.usecases.outbox import Delivery
from switchhook.usecases.outgoing import Outgoing
from switchhook.usecases.prices import load_prices
from switchhook.usecases.recording_files import RecordingFiles
from switchhook.usecases.recordings import RecordingDesk
from switchhook.usecases.recovery import recover
from switchhook.usecases.signing import SigningHttp

log = logging.getLogger(__name__)

DELIVERIES_GRACE_S = 10.0
"""How long a stopping server waits for the replies to end webhooks under way."""
COUNT_EVERY_S = 15.0
REFUSALS_GRACE_S = 5.0
"""How long a stopping server waits for the records of calls it refused at the last moment."""
LEARNING = frozenset({"veevo"})
"""Contracts whose start webhook brings the credentials of the call's Twilio account."""
RECORDINGS_GRACE_S = 30.0
"""How long a stopping server waits for recording files; what is not made then is made at the next start."""


class SystemClock:
    """The machine's clocks."""

    now = staticmethod(time.monotonic)
    """Monotonic seconds; asked for each packet, so there is no frame of Python around it."""

    def utc(self) -> datetime:
        """Wall time."""
        return datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC)


def contracts() -> Mapping[str, Contract]:
    """Every contract by the name that numbers use."""
    found: list[Contract] = [VnsContract(), VeevoContract()]
    return {contract.name: contract for contract in found}


class RealtimeAgents(AgentMaker):
    """Agents that talk through a Realtime model, or are bots of the customer's."""

    def __init__(self, sockets: ModelSockets, clock: SystemClock) -> None:
        self._sockets = sockets
        self._clock = clock

    def agent(self, spec: AgentSpec, playout: Playout, encoding: Encoding) -> Agent:
        """An agent that has not started."""
        if spec.stream is not None:
            return StreamBot(spec, spec.stream, playout, encoding)
        return RealtimeAgent(spec, playout, encoding, self._clock, lambda: f"item_{uuid.uuid4().hex[:24]}")

    def link(
        self, on_open: Callable[[], None], on_frame: Callable[[bytes], None], on_lost: Callable[[ModelLoss], None]
    ) -> ModelLink:
        """A socket that is not open."""
        return self._sockets.link(on_open, on_frame, on_lost)


def open_store(settings: Settings) -> tuple[Store, SecretBox]:
    """The store that the settings name, and the box that seals its secrets."""
    box = SecretBox(server_key(settings.data_dir, settings.secret_key))
    return Store(settings.sqlalchemy_url, box, node_name(settings.data_dir)), box


class Server:
    """A whole server on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.contracts = contracts()
        self.store, box = open_store(settings)
        self.egress = Egress(settings.egress_allow, self.clock)
        self.webhooks, self.prices = SigningHttp(self.egress, self._webhook_secret), load_prices(settings.prices)
        self.workers = Workers(settings.workers)
        self.encoders = Workers(1)  # of its own: encoding a long recording must not hold up a spoken word
        self.voice = LocalVoice(self.workers)
        self.tokens = TokenVerifier(self.store.directory, self.clock)
        self.delivery = Delivery(self.store.outbox, self.store.directory, self.contracts, self.webhooks, self.clock)
        self.book = CallBookkeeper(self.store.calls, self.contracts, self.webhooks, self.clock, self.delivery.offer, self.prices)
        files = RecordingFiles(settings.data_dir / "recordings")
        self.recordings, self.kept = self._recording_desks(files, box)
        self.recorders = SpoolRecorders(files.spools, box, self.clock, self._background(), self._on_opened, self._on_sealed)
        self.ports, self.pacer = RtpPorts(settings.sip_host, *settings.rtp_ports), Pacer(self.clock.now)
        self.trunks = TrunkDirectory()
        self.sip = SipServer(_sip_config(settings), self.trunks, self._stream, self._on_call, self.clock, os.urandom)
        self.dialling = AccountDialling(self.store.spend, self.clock, own_sip_hosts(settings))
        self.watch, self.dialer = self._trunk_parts()
        self.twilio, self.streams, self.lines = self._twilio_parts()
        self.joining = LineJoining(waiting_sounds(settings.ringback_country, settings.hold_sound), self.clock)
        self.switchboard = Switchboard(self._call_parts(), settings.max_calls)
        self.sip.on_declined, self.sip.on_replacing = self.switchboard.declined, self.switchboard.replace
        self.outgoing = Outgoing(
            self.store.directory, self.dialling, self.switchboard, self.lines.line_of, self.clock, _new_call_id
        )
        self.metrics = Metrics(self._samples)
        self.http = HttpDoor(settings.http_host, settings.http_port, application(self._mounts(), self.metrics.observe))
        self._loop = asyncio.get_running_loop()
        self.realtime = RealtimeDoor(self._engine(), self._account_of, settings.max_calls)
        self.media = MediaListener(settings.http_host, settings.media_listener_port, self._media_routes())
        self._accounts, self.accounts = dict[bytes, str](), dict[str, AccountSettings]()
        self._tasks: asyncio.TaskGroup | None = None
        self._making, self._telling = set[asyncio.Task[None]](), set[asyncio.Task[None]]()
        self._services: list[asyncio.Task[None]] = []
        self._delivering: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None
        self._undelivered = OutboxCounts()

    async def run(self, apply_file: Path | None, announce: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        for kind in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(kind, stop.set)
        await self.store.open()
        async with asyncio.TaskGroup() as tasks, self.realtime:
            self._tasks = tasks
            writing = tasks.create_task(self.store.run())
            try:
                await self._start(apply_file)
                announce(self._ready_line())
                await stop.wait()
                await self._drain()
            finally:
                await self._stop()
                await self.store.close()
                await writing

    # -- start -----------------------------------------------------------------------------------

    async def _start(self, apply_file: Path | None) -> None:
        if apply_file is not None:
            for line in await apply_to(self.store, self.contracts, apply_file, dry_run=False):
                log.info("applied", extra={"change": line})
        closed = await recover(self.store.calls, self.store.directory, self.contracts, self.clock)
        if closed:
            log.warning("calls of a stopped server were closed", extra={"calls": closed})
        await self._take_directory()
        self._delivering = self._serve(self.delivery.run())
        self._serve(self.book.run())
        self._serve(DirectoryWatch(self.store.directory, self._take_directory).run())
        self._serve(self._count_undelivered())
        self._serve(self.kept.run())
        self._serve(self.dialling.run())
        ready = asyncio.Event()
        self._taking = self._serve(self.switchboard.run(ready))
        await ready.wait()
        self._spawn(self._salvage())
        await self.http.start()
        await _listen(self.media.start(), "SWITCHHOOK_MEDIA_PORT")
        await _listen(self.sip.start(), "SWITCHHOOK_SIP_HOST or SWITCHHOOK_SIP_PORT")
        self.watch.start()
        _settle_memory()

    async def _take_directory(self) -> None:
        """Trunks and tokens are looked up without waiting; the numbers are read with each call."""
        directory = await self.store.directory.read()
        self.trunks.replace(directory.trunks.values())
        self.sip.number_owner = {number.number: number.account for number in directory.numbers.values()}.get
        if any(trunk.srtp is not Srtp.OFF for trunk in directory.trunks.values()):
            import switchhook.telephony.srtp  # noqa: F401 - now, so that the first encrypted call's sound does not wait for it
        self._accounts = {digest: name for name, tokens in directory.tokens.items() for digest in tokens.values()}
        self._twilio = {name: account.twilio for name, account in directory.accounts.items() if account.twilio is not None}
        self.accounts = dict(directory.accounts)
        self.dialling.replace(directory.accounts, directory.numbers.values(), directory.trunks.values())
        self.tokens.forget()

    async def _twilio_of(self, account: str) -> TwilioCredentials | None:
        settings = self.accounts.get(account)
        return settings.twilio if settings else None

    async def _webhook_secret(self, account: str) -> str | None:
        settings = self.accounts.get(account)
        return settings.veevo.webhook_secret if settings is not None and settings.veevo is not None else None

    def _managed_account(self, key: str) -> str | None:
        """The account whose management key this is."""
        digest = token_digest(key)
        for name, settings in self.accounts.items():
            known = settings.veevo.management_key if settings.veevo is not None else None
            if known and hmac.compare_digest(token_digest(known), digest):
                return name
        return None

    def _account_of(self, token: str) -> str | None:
        return self._accounts.get(token_digest(token))

    async def _count_undelivered(self) -> None:
        while True:
            try:
                self._undelivered = await self.store.outbox.counts()
            except Exception:
                log.exception("the outbox could not be counted; the figures of before stay")
            await asyncio.sleep(COUNT_EVERY_S)

    async def _salvage(self) -> None:
        count = await self.recordings.salvage()
        if count:
            log.warning("recordings were salvaged", extra={"recordings": count})

    # -- end -------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        log.info("draining", extra={"calls": self.switchboard.live})
        # Registrars are told at once: new calls had better go elsewhere while the old ones are finished.
        await asyncio.gather(self.watch.stop(), self.switchboard.drain(self.settings.drain_s))

    async def _stop(self) -> None:
        await self.dialer.close()
        await self.watch.close()
        await self.sip.stop()
        self.switchboard.close()
        self.streams.close()
        await self.twilio.close()
        if self._taking is not None:
            await asyncio.wait([self._taking], timeout=REFUSALS_GRACE_S)
        await self.media.stop()
        await self.http.stop()
        await self._finish_recordings()
        if self._delivering is not None:
            self.delivery.stop()
            await asyncio.wait([self._delivering], timeout=DELIVERIES_GRACE_S)
        await self.dialling.close()
        left = [*self._making, *self._telling, *self._services]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.egress.close()
        await self.workers.close()
        await self.encoders.close()
        self.pacer.close()

    async def _finish_recordings(self) -> None:
        """Sealed spools are told through the loop, and a job may start another one: wait until none is left, or for so long.

        Customers are told meanwhile what became of their calls and recordings.
        """
        end = self.clock.now() + RECORDINGS_GRACE_S
        while (left := end - self.clock.now()) > 0:
            await asyncio.to_thread(self.recorders.writer.close)
            await asyncio.sleep(0)
            if not (self._making or self._telling):
                return
            await asyncio.wait(self._making | self._telling, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    # -- parts -----------------------------------------------------------------------------------

    def _call_parts(self) -> CallParts:
        self.next_flows = surface.next_flows(self.egress, self.store.directory, self._trunk_user)
        names = ModelNames(read_aliases(self.settings.model_aliases, self.prices), self.prices)
        return CallParts(
            routing=ProvenRouting(
                Incoming(self.store.directory, self.store.calls, self.contracts, self.webhooks, self.clock, names), self.twilio
            ),
            book=self.book,
            agents=RealtimeAgents(ModelSockets(self.egress), self.clock),
            recorders=self.recorders,
            voice=self.voice,
            clock=self.clock,
            dialer=self.lines,
            dialling=self.dialling,
            joining=self.joining,
            greetings=Greetings(self.egress, self.workers.run, self.clock),
            next_flows=self.next_flows,
        )

    def _mounts(self) -> list[Any]:
        checks: dict[str, health.Check] = {
            "database": self._check_database,
            "sip": self._check_sip,
            "draining": self._check_drain,
        }
        messages = Messages(self.store.directory, self.dialling, TwilioMessages(self.egress, self._twilio_of))
        customer = [
            *makecall_routes.endpoints(self.outgoing.place),
            *recordings_routes.endpoints(self.kept, self.clock),
            *sms_routes.endpoints(messages),
        ]
        desk = NumberDesk(self.store.directory, self.contracts["veevo"], self._take_directory)
        veevo = veevo_routes.routes(self._managed_account, desk, self.settings.egress_allow)
        owners = ConfiguredOwners(self.store.directory, self._twilio_pairs, LEARNING)
        place = PublicPlace(self.settings.public_url, self.settings.trusted_proxies)
        twilio = VoiceDoors(self.twilio, owners, place, self.clock.now).routes()
        vns = vns_routes(self.tokens.verify_token, customer)
        return [health.routes(checks, self.metrics), vns, veevo, twilio, self._steering(place)]

    def _steering(self, place: PublicPlace) -> list[Any]:
        """The Twilio-compatible surface with which backends steer their calls."""
        store, board = self.store, self.switchboard
        stores = surface.Stores(store.directory, store.calls, store.searches, store.recordings)
        house = surface.House(
            stores,
            board,
            self.outgoing,
            self.kept,
            self._twilio_pairs,
            self.clock,
            self.egress,
            self.encoders.run,
            self._spawn_telling,
            place.origin_of,
        )
        return surface.routes(house, self.next_flows)

    def _trunk_user(self, account: str, uri: str) -> str | None:
        return trunk_user((trunk.address for trunk in self.trunks.of_account(account)), uri)

    def _media_routes(self) -> dict[str, Route]:
        return {"/v1/realtime": self.realtime.accept, STREAM_PATH: self.streams.accept}

    def _twilio_pairs(self) -> dict[str, TwilioCredentials]:
        return {name: account.twilio for name, account in self.accounts.items() if account.twilio is not None}

    def _twilio_parts(self) -> tuple[TwilioLine, TwilioDoor, LineDialer]:
        settings, legs = self.settings, TwilioLegs(self.pacer, self.settings.media_timeout_s)
        parts = LineParts(
            TwilioRest(self.egress, asyncio.sleep),
            legs,
            places_of(settings),
            lambda account: self._twilio_pairs().get(account),
            self.clock,
            _new_call_id,
            settings.twilio_rest_url,
        )
        line = TwilioLine(parts, self._on_call)
        handshakes = Handshakes(settings.public_media_url, line.stream_tokens)

        def verify(request: WSUpgradeRequest) -> bool:
            headers = request.headers
            return handshakes.signed(request.path.decode("latin-1"), headers.get(SIGNATURE, ""), headers.get(SETTINGS, ""))

        encrypted = (settings.public_media_url or "").startswith("wss:")
        lines = LineDialer(self.dialer, line, lambda account: bool(self.trunks.of_account(account)))
        return line, TwilioDoor(verify, legs.claim, encrypted), lines

    def _on_call(self, attempt: CallAttempt, leg: OfferedLeg) -> None:
        self.switchboard.offer(attempt, leg)

    def _engine(self) -> Engine:
        return Engine(Dialogue, GrammarRecognizer(self.workers), self.voice)

    def _trunk_parts(self) -> tuple[TrunkWatch, SipDialer]:
        node = node_name(self.settings.data_dir)
        watch = TrunkWatch(self.trunks, sip_targets(self.settings), self.sip, os.urandom, random.random, node)
        return watch, SipDialer(self.trunks, watch, self.sip, self._new_leg, self.dialling.review)

    def _new_leg(self, server: CallPlacer, request: DialRequest, watcher: AttemptWatcher) -> OutgoingSipLeg:
        return OutgoingSipLeg(server, self._stream, request, watcher)

    def _stream(self) -> RtpStream:
        return RtpStream(self.ports, self.pacer, self.settings.media_timeout_s)

    async def _check_database(self) -> str | None:
        await self.store.directory.version()
        return None

    async def _check_sip(self) -> str | None:
        return None if self.sip.address(self.settings.sip_transports[0]) else "not listening"

    async def _check_drain(self) -> str | None:
        return "no new calls are taken" if self.switchboard.draining else None

    def _samples(self) -> Iterator[Sample]:
        board = self.switchboard
        yield Sample("switchhook_calls_live", "Calls under way", board.live)
        yield Sample("switchhook_calls_limit", "Most calls at one time", board.max_calls)
        for name, count in board.figures().items():
            yield Sample(f"switchhook_calls_{name}", f"Calls {name}", count, "counter")
        yield Sample("switchhook_dialling_live", "Outbound calls and transfers that hold a permit to dial", self.dialling.live)
        for rule, count in self.dialling.refused.items():
            text = "Calls refused by the dialling policy"
            yield Sample("switchhook_dialling_refused", text, count, "counter", labels={"rule": rule})
        yield Sample("switchhook_tasks", "Tasks of the event loop", len(asyncio.all_tasks()))
        yield Sample("switchhook_rtp_ports_leased", "RTP port pairs in use", self.ports.leased)
        yield Sample("switchhook_realtime_sessions", "Sessions at our Realtime endpoint", self.realtime.sessions)
        yield Sample("switchhook_twilio_streams", "Media streams of Twilio that are open", self.streams.streams)
        yield Sample("switchhook_outbox_pending", "End webhooks that wait to be sent", self._undelivered.pending)
        yield Sample("switchhook_outbox_parked", "End webhooks that were given up on", self._undelivered.parked)
        yield Sample("switchhook_deliveries_under_way", "End webhooks being sent", self.delivery.under_way)
        yield Sample("switchhook_recordings_making", "Recording files being made", len(self._making))
        yield Sample("switchhook_recordings_kept", "Finished recordings", self.kept.kept[0])
        yield Sample("switchhook_recordings_kept_bytes", "Size of the finished recordings", self.kept.kept[1])
        dropped = self.recorders.writer.dropped
        yield Sample("switchhook_recording_seconds_dropped", "Seconds of sound that were not recorded", dropped, "counter")
        yield Sample("switchhook_rtp_frames_skipped", "Frames skipped by a late loop", self.pacer.skipped_frames, "counter")
        for state, trunk, holds in self.watch.figures():
            yield Sample(f"switchhook_trunk_{state}", f"Trunks that are {state}", holds, labels={"trunk": trunk})
        for name, count in self.sip.figures.items():
            gauge = name in ("transactions", "dialogs", "connections")
            yield Sample(f"switchhook_sip_{name}", f"SIP {name}", count, "gauge" if gauge else "counter")

    def _ready_line(self) -> str:
        settings = self.settings
        sip = ", ".join(
            f"{name} {address[0]}:{address[1]}" for name in settings.sip_transports if (address := self.sip.address(name))
        )
        host = settings.http_host
        return f"switchhook is ready: SIP {sip}; HTTP {host}:{self.http.port}; media WebSockets {host}:{self.media.port}"

    # -- tasks -----------------------------------------------------------------------------------

    def _serve(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that lives as long as the server; if it fails, the server stops."""
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._services.append(task)
        return task

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task on recordings, which a stopping server waits for."""
        self._keep(work, self._making)

    def _spawn_telling(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that tells a customer by status callbacks; a stopping server waits for it too."""
        self._keep(work, self._telling)

    def _keep(self, work: Coroutine[Any, Any, None], where: set[asyncio.Task[None]]) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(_guarded(work))
        where.add(task)
        task.add_done_callback(where.discard)

    def _recording_desks(self, files: RecordingFiles, box: SecretBox) -> tuple[RecordingDesk, KeptRecordings]:
        store, keep = self.store.recordings, timedelta(days=self.settings.recording_days)
        desk = RecordingDesk(files, box, store, self.encoders.run, self.clock, keep)
        return desk, KeptRecordings(files, store, self.clock)

    def _background(self) -> Background:
        return Background(self.workers.run, self._spawn, asyncio.get_running_loop().call_soon_threadsafe)

    def _on_opened(self, header: SpoolHeader) -> None:
        self._spawn(self.recordings.opened(header))

    def _on_sealed(self, call_id: CallId) -> None:
        self._spawn(self.recordings.make(call_id))


def places_of(settings: Settings) -> Places | None:
    """Where Twilio reaches this server; None unless both addresses are set."""
    if settings.public_url is None or settings.public_media_url is None:
        return None
    return Places(settings.public_url.rstrip("/"), settings.public_media_url.rstrip("/"))


def _new_call_id() -> CallId:
    return CallId(str(uuid.uuid4()))


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    """A recording that goes wrong costs that recording; its spool stays for the next start. So with what a customer is told."""
    try:
        await work
    except Exception:
        log.exception("the work on a recording or a status callback failed")


async def _listen(start: Coroutine[Any, Any, None], setting: str) -> None:
    """Begin to listen; a port that is taken is named with the setting that chooses another."""
    try:
        await start
    except OSError as error:
        raise SettingError(f"{error.strerror or error}; choose another {setting}") from error


def _settle_memory() -> None:
    """What lives for good is not walked again by the garbage collector, and full collections are rare: each one is a gap in the
    sound of every call."""
    gc.collect()
    gc.freeze()
    # Young passes stay short (5,000 objects), and what short calls leave in cycles does not pile up.
    gc.set_threshold(5_000, 50, 100)


def own_sip_hosts(settings: Settings) -> tuple[str, ...]:
    """What peers call this server in SIP addresses, as far as the settings tell."""
    return tuple(host for host in (settings.sip_advertised_host, settings.sip_host) if host and host not in ("0.0.0.0", "::"))


def sip_targets(settings: Settings) -> SipTargets:
    family = socket.AF_INET6 if ":" in settings.sip_host else socket.AF_INET
    return SipTargets(DnsLookup(family, settings.sip_dns_server), random.random, time.monotonic, settings.sip_transports)


def _sip_config(settings: Settings) -> SipConfig:
    return SipConfig(
        host=settings.sip_host,
        port=settings.sip_port,
        transports=settings.sip_transports,
        tls_port=settings.sip_tls_port,
        tls_certificate=str(settings.tls_certificate) if settings.tls_certificate else None,
        tls_key=str(settings.tls_key) if settings.tls_key else None,
        tls_client_ca=str(settings.sip_tls_client_ca) if settings.sip_tls_client_ca else None,
        advertised_host=settings.sip_advertised_host,
        unknown_sources=settings.sip_unknown_sources,
    )


# -- commands ------------------------------------------------------------------------------------


async def serve(settings: Settings, apply_path: Path | None, announce: Callable[[str], None]) -> int:
    """`switchhook serve`."""
    set_up_logging(settings.log_level, settings.log_format, current_call.get)
    lock = DataDirLock(settings.data_dir)
    try:
        await Server(settings).run(apply_path, announce)
    except BaseExceptionGroup as group:
        raise _cause(group) from None
    finally:
        lock.release()
    return 0


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person should read: the one thing that went wrong, or all of it when there were several."""
    rest = group.subgroup(lambda error: isinstance(error, SwitchhookError))
    known: BaseException = group if rest is None else rest
    while isinstance(known, BaseExceptionGroup) and len(known.exceptions) == 1:
        known = known.exceptions[0]
    return known


async def apply_to(store: Store, known: Mapping[str, Contract], file: Path, dry_run: bool) -> list[str]:
    """Make the configuration as a file says; gives the lines of the difference. Raises ApplyError."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ApplyError(f"{file}: {error}") from None
    applied = await Applier(store.directory, known).apply(text, dry_run)
    return applied.lines()
