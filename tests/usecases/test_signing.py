"""The signature of what goes out: right by another implementation, made anew with each try, nowhere to be seen."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest

from switchhook.domain.contract import BodySignature, HttpFailure, HttpReply, HttpRequest
from switchhook.domain.errors import StoreUnavailable
from switchhook.usecases.signing import SigningHttp, signature
from tests.usecases.fakes import Customer

REQUEST = HttpRequest("http://acme/end", b'{"a":1}', {"Token": "abc"}, sign=BodySignature("acme", "X-Veevo-Signature"))

VERIFIER = """
const crypto = require("crypto");
const told = JSON.parse(require("fs").readFileSync(0, "utf8"));
const body = Buffer.from(told.body, "base64");
const expected = crypto.createHmac("sha256", told.secret).update(body).digest("hex");
const verdicts = told.signatures.map((given) => {
  try { return crypto.timingSafeEqual(Buffer.from(given), Buffer.from(expected)); } catch (error) { return error.name; }
});
console.log(JSON.stringify(verdicts));
"""
"""As the vendor's sample does it; `timingSafeEqual` throws on another length."""


async def acme(account: str) -> str | None:
    return "whsec-canary" if account == "acme" else None


@pytest.mark.peer("node")
@pytest.mark.parametrize("body", [b"{}", '{"content":"é ✓"}'.encode(), b"\xff\x00", b"x" * 200_000])
def test_a_node_backend_takes_it_for_genuine(body: bytes) -> None:
    import base64

    secret = "whsec-käse"
    good = signature(secret, body)
    given = {"body": base64.b64encode(body).decode(), "secret": secret, "signatures": [good, signature("other", body)]}
    ran = subprocess.run(
        ["node", "-e", VERIFIER], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(ran.stdout) == [True, False]
    assert good == good.lower()
    assert len(good) == 64


async def test_what_asks_for_it_is_signed_over_its_bytes() -> None:
    customer = Customer()
    assert isinstance(await SigningHttp(customer, acme).send(REQUEST), HttpReply)
    (sent,) = customer.requests
    assert sent.headers == {"Token": "abc", "X-Veevo-Signature": signature("whsec-canary", b'{"a":1}')}
    assert sent.body == REQUEST.body
    assert "canary" not in repr(sent)


async def test_a_new_secret_signs_the_next_try_of_the_same_bytes() -> None:
    customer, secrets = Customer(), ["old", "new"]

    async def changing(account: str) -> str | None:
        return secrets.pop(0)

    http = SigningHttp(customer, changing)
    await http.send(REQUEST)
    await http.send(REQUEST)
    assert [sent.headers["X-Veevo-Signature"] for sent in customer.requests] == [
        signature("old", REQUEST.body),
        signature("new", REQUEST.body),
    ]


async def test_what_asks_for_none_and_an_account_without_a_secret_go_out_as_they_are() -> None:
    customer = Customer()
    http = SigningHttp(customer, acme)
    await http.send(replace(REQUEST, sign=None))
    await http.send(replace(REQUEST, sign=BodySignature("other", "X-Veevo-Signature")))
    assert [sent.headers for sent in customer.requests] == [{"Token": "abc"}] * 2


async def test_nothing_goes_out_unsigned_when_the_secret_cannot_be_read() -> None:
    async def away(account: str) -> str | None:
        raise StoreUnavailable

    customer = Customer()
    outcome = await SigningHttp(customer, away).send(REQUEST)
    assert isinstance(outcome, HttpFailure)
    assert outcome.reason == "unreachable"
    assert customer.requests == []
