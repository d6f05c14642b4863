"""`/2010-04-01/Accounts/{sid}/…`: calls and recordings, authenticated by a Twilio pair, errors in Twilio's shape."""

from __future__ import annotations

import logging
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from switchhook.api.twilio_rest import forms, wire
from switchhook.api.twilio_rest.forms import Form
from switchhook.domain.errors import StoreUnavailable
from switchhook.usecases.call_recordings import FORMATS, CallRecordings
from switchhook.usecases.live_calls import LiveCalls
from switchhook.usecases.next_flows import API_VERSION
from switchhook.usecases.ordered_calls import OrderedCalls
from switchhook.usecases.steered import CallStatus, Principal, SteeringRefused

logger = logging.getLogger(__name__)

MAX_FIELDS = 500
_CALL = r"Calls/(?P<call>CA[0-9a-f]{32})"
_RECORDING = r"Recordings/(?P<recording>RE[0-9a-f]{32})"
_CONTENT_TYPES = {"wav": "audio/x-wav", "mp3": "audio/mpeg"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose pair has been proven."""

    request: web.Request
    who: Principal
    form: Form
    """Of the body, or the query of a GET."""
    names: Mapping[str, str]
    """What the path names: `call`, `recording`, `format`."""

    @property
    def account_sid(self) -> str:
        """Of the pair, as in the path."""
        return self.who.pair.account_sid


Answer = Callable[[Asked], Awaitable[web.StreamResponse]]


class SteeringDoors:
    """The doors of the surface."""

    def __init__(
        self, live: LiveCalls, ordered: OrderedCalls, recordings: CallRecordings, origin_of: Callable[[web.Request], str]
    ) -> None:
        """`origin_of`: scheme and host by which a request reached us."""
        self._origin_of = origin_of
        self._live = live
        self._ordered = ordered
        self._recordings = recordings
        json = r"(?:\.json)?"
        self._table: list[tuple[re.Pattern[str], Mapping[str, Answer]]] = [
            (re.compile(path), answers)
            for path, answers in (
                ("", {"GET": self._account}),
                (rf"Calls{json}", {"GET": self._list, "POST": self._place}),
                (rf"{_CALL}{json}", {"GET": self._fetch, "POST": self._change}),
                (rf"{_CALL}/Recordings{json}", {"GET": self._recordings_of, "POST": self._record}),
                (
                    rf"{_CALL}/Recordings/(?P<recording>RE[0-9a-f]{{32}}|Twilio\.CURRENT){json}",
                    {"GET": self._recording, "POST": self._change_recording, "DELETE": self._delete},
                ),
                (rf"Recordings{json}", {"GET": self._recordings_listed}),
                (rf"{_RECORDING}\.json", {"GET": self._recording, "DELETE": self._delete}),
                (rf"{_RECORDING}(?:\.(?P<format>wav|mp3))?", {"GET": self._sound, "DELETE": self._delete}),
            )
        ]

    def routes(self) -> list[web.RouteDef]:
        """To be mounted."""
        return [
            web.route("*", rf"/{API_VERSION}/Accounts/{{account:[^/.]+}}{{json:(?:\.json)?}}", self._handle),
            web.route("*", f"/{API_VERSION}/Accounts/{{account}}/{{rest:.*}}", self._handle),
            web.route("*", f"/{API_VERSION}/{{rest:.*}}", self._handle),
        ]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except SteeringRefused as refused:
            return wire.error(refused.status, refused.code, str(refused))
        except web.HTTPException as error:
            return wire.error(error.status, 20000 + error.status, error.reason)
        except StoreUnavailable:
            return wire.error(503, 20503, "The database cannot be reached; try again", {hdrs.RETRY_AFTER: "5"})
        except Exception:  # the edge of the request's task; the path alone is logged, a query may hold a secret
            logger.exception("request failed: %s %s", request.method, request.path)
            return wire.error(500, 20500, "Internal server error")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        who = self._principal(request)
        if who is None:
            return wire.unauthorized()
        path = request.match_info.get("rest", "")
        for pattern, answers in self._table:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            method = "GET" if request.method == "HEAD" else request.method
            if method not in answers:
                allowed = ", ".join(sorted(answers))
                return wire.error(405, 20004, f"Method not allowed; use {allowed}", {hdrs.ALLOW: allowed})
            names = {name: value for name, value in found.groupdict().items() if value is not None}
            return await answers[method](Asked(request, who, await _form(request), names))
        raise SteeringRefused(404, 20404, f"The requested resource {request.path} was not found")

    def _principal(self, request: web.Request) -> Principal | None:
        """Who proves to be the account that the path names; a path that names none is nobody's in particular."""
        scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        try:
            user, colon, token = b64decode(value.strip(), validate=True).decode().partition(":")
        except ValueError:
            return None
        fits = scheme.lower() == "basic" and colon and user and request.match_info.get("account", user) == user
        return self._live.principal(user, token) if fits else None

    async def _account(self, asked: Asked) -> web.StreamResponse:
        """Clients read it to see whether their pair is good."""
        return web.json_response(wire.account(asked.who))

    # -- calls ----------------------------------------------------------------------------------

    async def _list(self, asked: Asked) -> web.StreamResponse:
        query, size = forms.read_query(asked.form), forms.page_size(asked.form)
        found = list(await self._live.calls(asked.who, query))
        token = None
        if len(found) > size:
            last = found[size - 1].attempt
            token = forms.page_token(last.started_at, last.call_id)
        shown = [wire.call(view, asked.account_sid) for view in found[:size]]
        turn = (forms.page_number(asked.form), size, token)
        path = f"{wire.PREFIX}/{asked.account_sid}/Calls.json"
        return web.json_response(wire.page("calls", shown, path, forms.query_of(asked.form.fields), turn))

    async def _fetch(self, asked: Asked) -> web.StreamResponse:
        return web.json_response(wire.call(await self._live.call(asked.who, asked.names["call"]), asked.account_sid))

    async def _change(self, asked: Asked) -> web.StreamResponse:
        change, sid = forms.read_change(asked.form), asked.names["call"]
        if change.ending is not None:
            view = await self._live.hang_up(asked.who, sid, only_unanswered=change.ending is CallStatus.CANCELED)
        elif change.twiml is not None or change.question is not None:
            view = await self._live.redirect(asked.who, sid, change.twiml, change.question)
        else:
            view = await self._live.call(asked.who, sid)
        return web.json_response(wire.call(view, asked.account_sid))

    async def _place(self, asked: Asked) -> web.StreamResponse:
        if asked.who.calls is not None:
            why = "The pair of one call places no others; use the one of the account (twilio: in the apply file)"
            raise SteeringRefused(403, 20403, why)
        view = await self._ordered.place(asked.who, forms.read_order(asked.form))
        return web.json_response(wire.call(view, asked.account_sid), status=201)

    # -- recordings -----------------------------------------------------------------------------

    async def _recordings_of(self, asked: Asked) -> web.StreamResponse:
        return await self._recordings_page(asked, asked.names["call"], f"Calls/{asked.names['call']}/Recordings.json")

    async def _recordings_listed(self, asked: Asked) -> web.StreamResponse:
        sid = asked.form.get("CallSid")
        if not sid:
            raise SteeringRefused(400, forms.BAD_PARAMETER, "CallSid: is missing; recordings are listed by their call here")
        return await self._recordings_page(asked, sid, "Recordings.json")

    async def _recordings_page(self, asked: Asked, sid: str, path: str) -> web.StreamResponse:
        found = await self._recordings.of_call(asked.who, sid)
        shown = [wire.recording(view, asked.account_sid, "call" in asked.names) for view in found]
        turn = (0, forms.page_size(asked.form), None)
        path = f"{wire.PREFIX}/{asked.account_sid}/{path}"
        return web.json_response(wire.page("recordings", shown, path, forms.query_of(asked.form.fields), turn))

    async def _record(self, asked: Asked) -> web.StreamResponse:
        told = forms.read_recording_order(asked.form, self._origin_of(asked.request))
        view = await self._recordings.start(asked.who, asked.names["call"], told)
        return web.json_response(wire.recording(view, asked.account_sid, below_call=True), status=201)

    async def _recording(self, asked: Asked) -> web.StreamResponse:
        sid = asked.names.get("call")
        if sid is not None:
            found = await self._recordings.of_call(asked.who, sid)
            view = next((one for one in found if asked.names["recording"] in ("Twilio.CURRENT", one.sid)), None)
            if view is None:
                raise SteeringRefused(404, 20404, "The requested recording was not found")
        else:
            view = await self._recordings.one(asked.who, asked.names["recording"])
        return web.json_response(wire.recording(view, asked.account_sid, sid is not None))

    async def _change_recording(self, asked: Asked) -> web.StreamResponse:
        status = forms.read_recording_status(asked.form)
        view = await self._recordings.change(asked.who, asked.names["call"], asked.names["recording"], status)
        return web.json_response(wire.recording(view, asked.account_sid, below_call=True))

    async def _delete(self, asked: Asked) -> web.StreamResponse:
        await self._recordings.delete(asked.who, asked.names["recording"])
        return web.Response(status=204)

    async def _sound(self, asked: Asked) -> web.StreamResponse:
        kind = asked.names.get("format", FORMATS[0])
        async with await self._recordings.file(asked.who, asked.names["recording"], kind) as path:
            headers = {
                hdrs.CONTENT_TYPE: _CONTENT_TYPES[kind],
                hdrs.CACHE_CONTROL: "private, no-store",
                "X-Content-Type-Options": "nosniff",
            }
            response = web.FileResponse(path, headers=headers)
            await response.prepare(asked.request)  # sends it all; afterwards the file may go
            return response


async def _form(request: web.Request) -> Form:
    """Raises HTTPRequestEntityTooLarge, SteeringRefused."""
    try:
        if request.method in ("GET", "HEAD", "DELETE"):
            text = request.rel_url.raw_query_string
        else:
            text = (await request.read()).decode()
        return Form(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise SteeringRefused(400, forms.BAD_PARAMETER, "The form cannot be read; send UTF-8, url-encoded") from None
