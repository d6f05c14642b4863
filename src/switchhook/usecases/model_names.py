"""Which model an agent talks through, by name: read out of its address or session, and replaced where a name was retired.

Vendors retire model names; a backend that still sends an old one is kept alive by an alias that the operator opted in to
(contract §3.1). Nothing else of a session changes: every other member keeps the text it was sent as.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from switchhook.domain.errors import SettingError
from switchhook.domain.money import PriceTable
from switchhook.domain.plan import Action, AgentSpec, CallPlan, Converse

logger = logging.getLogger(__name__)

RETIRED = "retired"
"""The word that opts in to every replacement that the price table knows."""
MOST_WARNINGS = 256


def conversations(flow: tuple[Action, ...]) -> Iterator[Converse]:
    """Every conversation of a flow and of its failure branches."""
    for action in flow:
        if isinstance(action, Converse):
            yield action
            yield from conversations(action.on_failure)


def model_of(spec: AgentSpec) -> str | None:
    """The model's name: the address's `model`, which a server goes by, else the session's."""
    return _url_model(spec.url) or _session_model(spec.session_update)


def plan_model(plan: CallPlan) -> str | None:
    """The one model of a plan; None when it has none, or several."""
    models = {model_of(converse.agent) for converse in conversations(plan.flow)}
    return models.pop() if len(models) == 1 else None


def read_aliases(text: str | None, prices: PriceTable) -> Mapping[str, str]:
    """`OLD=NEW,OLD=NEW`, and the word `retired` among them. Raises SettingError naming the part and the cure."""
    aliases: dict[str, str] = {}
    for part in (text or "").split(","):
        part = part.strip()
        old, mark, new = (piece.strip() for piece in part.partition("="))
        if part == RETIRED:
            retired = {name: row.replaced_by for row in prices.models if row.replaced_by for name in row.names}
            aliases = {**retired, **aliases}
        elif mark and old and new:
            aliases[old] = new
        elif part:
            raise SettingError(f"SWITCHHOOK_MODEL_ALIASES: {part} is no alias: write OLD=NEW, or the word {RETIRED}")
    return aliases


class ModelNames:
    """Replaces names in plans, and warns of those that end."""

    def __init__(self, aliases: Mapping[str, str], prices: PriceTable) -> None:
        self._aliases = aliases
        self._prices = prices
        self._warned: set[str] = set()

    def current(self, plan: CallPlan, today: date) -> CallPlan:
        """The plan with its agents' models replaced where the operator opted in; a name that will end is warned of, once."""
        for converse in conversations(plan.flow):
            self._warn(model_of(converse.agent), today)
        if not any(self._touched(converse.agent) for converse in conversations(plan.flow)):
            return plan
        return replace(plan, flow=self._renamed(plan.flow))

    def _touched(self, spec: AgentSpec) -> bool:
        return _url_model(spec.url) in self._aliases or _session_model(spec.session_update) in self._aliases

    def _renamed(self, flow: tuple[Action, ...]) -> tuple[Action, ...]:
        return tuple(
            replace(action, agent=self._rename(action.agent), on_failure=self._renamed(action.on_failure))
            if isinstance(action, Converse)
            else action
            for action in flow
        )

    def _rename(self, spec: AgentSpec) -> AgentSpec:
        return replace(
            spec,
            url=_with_url_model(spec.url, self._aliases),
            session_update=_with_session_model(spec.session_update, self._aliases),
        )

    def _warn(self, model: str | None, today: date) -> None:
        if model is None or model in self._aliases or model in self._warned or len(self._warned) >= MOST_WARNINGS:
            return
        prices = self._prices.model(model, today)
        if prices is not None and prices.shut_down is not None:
            self._warned.add(model)
            cure = f"; SWITCHHOOK_MODEL_ALIASES={RETIRED} uses {prices.replaced_by} instead" if prices.replaced_by else ""
            logger.warning("the model %s is shut down on %s%s", model, prices.shut_down.isoformat(), cure)


def _url_model(url: str) -> str | None:
    try:
        return next((value for name, value in parse_qsl(urlsplit(url).query) if name == "model"), None)
    except ValueError:
        return None


def _session_model(session_update: bytes) -> str | None:
    try:
        session = _members(_members(session_update)["session"])
        model = msgspec.json.decode(session["model"])
    except (KeyError, msgspec.MsgspecError):
        return None
    return model if isinstance(model, str) else None


def _with_url_model(url: str, aliases: Mapping[str, str]) -> str:
    model = _url_model(url)
    if model is None or model not in aliases:
        return url
    parts = urlsplit(url)
    pieces = [urlencode({"model": aliases[model]}) if _names_model(piece) else piece for piece in parts.query.split("&")]
    return urlunsplit(parts._replace(query="&".join(pieces)))


def _names_model(piece: str) -> bool:
    return piece.partition("=")[0] == "model"


def _with_session_model(session_update: bytes, aliases: Mapping[str, str]) -> bytes:
    model = _session_model(session_update)
    if model is None or model not in aliases:
        return session_update
    event = _members(session_update)
    session = {**_members(event["session"]), "model": msgspec.Raw(msgspec.json.encode(aliases[model]))}
    return msgspec.json.encode({**event, "session": session})


def _members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
