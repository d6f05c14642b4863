"""The surface as a whole: its use cases put together behind its doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from switchhook.api.twilio.signature import SIGNATURE, signature_of
from switchhook.api.twilio_rest.persistence import PersistentHttp
from switchhook.api.twilio_rest.routes import SteeringDoors
from switchhook.api.twilio_rest.twiml import read_twiml
from switchhook.domain.contract import Http
from switchhook.domain.ports import Clock
from switchhook.usecases.call_recordings import CallRecordings
from switchhook.usecases.kept_recordings import KeptRecordings
from switchhook.usecases.live_calls import AccountPairs, CallSearching, LiveCalls
from switchhook.usecases.next_flows import Fields, NextFlowDesk, SipUser
from switchhook.usecases.ordered_calls import OrderedCalls, Telling
from switchhook.usecases.outgoing import Outgoing
from switchhook.usecases.recording_news import RecordingNews
from switchhook.usecases.repositories import CallStore, NumberFinder, RecordingStore
from switchhook.usecases.steered import Board


@dataclass(frozen=True, slots=True)
class Stores:
    """What is remembered."""

    numbers: NumberFinder
    calls: CallStore
    searches: CallSearching
    recordings: RecordingStore


@dataclass(frozen=True, slots=True)
class House:
    """What the surface is given."""

    stores: Stores
    board: Board
    outgoing: Outgoing
    kept: KeptRecordings
    pairs: AccountPairs
    clock: Clock
    http: Http
    run: Callable[..., Awaitable[Any]]
    """Runs a function in a worker process."""
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    """Keeps a coroutine alive until it is done."""
    origin_of: Callable[[web.Request], str]
    """Scheme, host and port by which a request reached us."""


def signed(auth_token: str, url: str, fields: Fields) -> Mapping[str, str]:
    """The header by which the customer knows that a request is ours (contract `vns-veevo` §4.4)."""
    return {SIGNATURE: signature_of(auth_token, url, fields)}


def next_flows(http: Http, numbers: NumberFinder, sip_user: SipUser) -> NextFlowDesk:
    """What live calls ask how they go on; `routes` tells it who is live."""
    return NextFlowDesk(http, read_twiml, signed, numbers, sip_user)


def routes(house: House, flows: NextFlowDesk) -> list[web.RouteDef]:
    """To be mounted."""
    stores, clock = house.stores, house.clock
    live = LiveCalls(house.board, stores.calls, stores.searches, flows, house.pairs, clock)
    callbacks = PersistentHttp(house.http)
    telling = Telling(callbacks, signed, clock, house.spawn)
    ordered = OrderedCalls(house.outgoing, house.board, (stores.numbers, stores.calls), flows, telling)
    kept = (stores.recordings, house.kept)
    recordings = CallRecordings(live, kept, RecordingNews(kept, callbacks, signed, house.spawn), house.run, clock)
    return SteeringDoors(live, ordered, recordings, house.origin_of).routes()
