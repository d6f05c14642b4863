"""Whom a call shows and how its numbers are written, as the far end of each trunk gets them in the INVITE."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.peers.party import Party, PartyCall
from tests.server.exchange import DESTINATION, TRANSFER, Exchange
from tests.server.house import NUMBER
from tests.server.model import Model
from tests.server.policies import (
    BRITISH,
    NATIONAL_TRUNK,
    ONE_CALL,
    PLAIN_TRUNK,
    STRICT_TRUNK,
    Tenant,
    invite_of,
    tagless,
    user_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEFAULT_ID = "+17206999935"
OTHER_NUMBER = STRICT_TRUNK.other_number or ""


async def ordered(policies: Exchange, caller: str, **fields: Any) -> tuple[PartyCall, dict[str, Any]]:
    """The far end's call of an order, refused as busy, and the CallEnd."""
    async with Model() as model, policies.party() as party:
        policies.answer_with(model)
        guid = await policies.place(caller, **fields)
        call = await party.call()
        call.refuse(486)
        end = await policies.end_of(guid)
    assert (end["outboundCallResult"], end["status"]) == ("Busy", 0)
    return call, end


async def transferred(policies: Exchange, tenant: Tenant, caller: str, **arguments: Any) -> PartyCall:
    """The destination's call of a transfer of this caller, refused as busy."""
    async with Model() as model, policies.party() as party, Party(tenant.host, caller) as telephone:
        policies.answer_with(model, [TRANSFER])
        call = await telephone.dial(policies.uri(tenant.number))
        await call.answered()
        session = await model.session()
        await session.got("response.create")
        session.calls_tool("call_t", TRANSFER, {"transferNumber": DESTINATION, **arguments})
        destination = await party.call()
        destination.refuse(486)
        assert json.loads(await session.output_of("call_t"))["transferCallResult"] == "Busy"
        await call.hang_up()
    return destination


def uri_of(header: str) -> str:
    """The URI of a From, To or P-Asserted-Identity."""
    return header.partition("<")[2].partition(">")[0]


@pytest.mark.parametrize(("caller", "seen"), [(STRICT_TRUNK.number, STRICT_TRUNK.number), (OTHER_NUMBER, DEFAULT_ID)])
async def test_an_ordered_call_shows_what_the_trunk_allows(policies: Exchange, caller: str, seen: str) -> None:
    """A number of `caller_ids` itself; for any other the `default_caller_id`. The webhooks keep the number that was asked for."""
    call, end = await ordered(policies, caller)
    assert call.caller == seen
    assert user_of(uri_of(invite_of(call).get("p-asserted-identity"))) == seen
    assert invite_of(call).get("from").partition(" ")[0] in ("Acme", '"Acme"')
    assert end["callerId"] == caller.removeprefix("+1")


@pytest.mark.parametrize(
    ("caller", "arguments", "seen"),
    [
        ("+13035550142", {}, DEFAULT_ID),
        ("+13035550142", {"useVnsNumberAsCallerId": True}, STRICT_TRUNK.number),
        (DEFAULT_ID, {}, DEFAULT_ID),
    ],
)
async def test_a_transfer_shows_what_the_trunk_allows(
    policies: Exchange, caller: str, arguments: dict[str, Any], seen: str
) -> None:
    call = await transferred(policies, STRICT_TRUNK, caller, **arguments)
    assert call.caller == seen


@pytest.mark.parametrize(("tenant", "asserted"), [(STRICT_TRUNK, DEFAULT_ID), (ONE_CALL, None)])
async def test_an_anonymous_caller_stays_anonymous(policies: Exchange, tenant: Tenant, asserted: str | None) -> None:
    """The party sees no number; a trunk that knows whose calls it takes is told, for itself alone (RFC 3323, RFC 3325)."""
    invite = invite_of(await transferred(policies, tenant, "anonymous"))
    assert tagless(invite.get("from")) in (
        '"Anonymous" <sip:anonymous@anonymous.invalid>',
        "Anonymous <sip:anonymous@anonymous.invalid>",
    )
    assert invite.get("privacy") == "id"
    assert user_of(uri_of(invite.get("p-asserted-identity"))) == (asserted or "")


@pytest.mark.parametrize(
    ("tenant", "called", "dialled", "caller"),
    [
        (ONE_CALL, "(720) 555-0199", "+17205550199", ONE_CALL.number),
        (ONE_CALL, "720.555.0199", "+17205550199", ONE_CALL.number),
        (ONE_CALL, "1 720 555 0199", "+17205550199", ONE_CALL.number),
        (ONE_CALL, "tel:+1-720-555-0199", "+17205550199", ONE_CALL.number),
        (BRITISH, "020 7946 0123", "+442079460123", BRITISH.number),
        (BRITISH, "+44 (0)20 7946 0123", "+442079460123", BRITISH.number),
        (BRITISH, "00 44 20 7946 0123", "+442079460123", BRITISH.number),
        (PLAIN_TRUNK, "720-555-0199", "17205550199", PLAIN_TRUNK.number[1:]),
        (NATIONAL_TRUNK, "+1 720 555 0199", "7205550199", NATIONAL_TRUNK.number[2:]),
        (NATIONAL_TRUNK, "+442079460123", "+442079460123", NATIONAL_TRUNK.number[2:]),
    ],
)
async def test_numbers_as_people_write_them(policies: Exchange, tenant: Tenant, called: str, dialled: str, caller: str) -> None:
    """Completed by `default_country`, and written in the trunk's `number_form`."""
    call, _ = await ordered(policies, tenant.number, calledNumber=called)
    invite = invite_of(call)
    assert invite.uri == f"sip:{dialled}@127.0.0.1:{policies.port}"
    assert user_of(uri_of(invite.get("to"))) == dialled
    assert call.caller == caller


@pytest.mark.parametrize("caller", [DEFAULT_ID, NUMBER, ONE_CALL.number, "+447700900123", "Acme", "anonymous"])
async def test_a_caller_id_that_is_not_the_accounts(policies: Exchange, caller: str) -> None:
    """Nothing is dialled, whatever the trunk would let it show; the reply names the field."""
    async with policies.party() as party:
        status, body, _ = await policies.ask(STRICT_TRUNK.number, callerId=caller, customerCallId=f"shows-{caller}")
        why = "callerId: is no number of this account; give one that is configured, since its webhooks run the call"
        assert (status, body) == (400, {"status": 400, "errorMessage": why})
        assert await policies.row("reason", "customer_call_id = ?", f"shows-{caller}") == "unknown-number"
        assert not party.taken
    assert not policies.backend.requests
