from __future__ import annotations

from switchhook.domain.records import DirectoryUpdate
from switchhook.store.opened import Store
from switchhook.usecases.accounts import CACHE_S, TokenVerifier, token_digest
from tests.usecases.fakes import SteppedClock


async def test_a_token_names_its_account(store: Store, clock: SteppedClock) -> None:
    await store.directory.write(DirectoryUpdate(tokens=(("acme", "main", token_digest("secret-token")),)))
    verifier = TokenVerifier(store.directory, clock)
    assert await verifier.verify_token("secret-token") == "acme"
    for wrong in ("", "secret-toke", "secret-token ", "Secret-token", "\udcff", "x" * 100_000):
        assert await verifier.verify_token(wrong) is None


async def test_a_token_that_was_taken_away_soon_works_no_more(store: Store, clock: SteppedClock) -> None:
    verifier = TokenVerifier(store.directory, clock)
    await store.directory.write(DirectoryUpdate(tokens=(("acme", "main", token_digest("secret-token")),)))
    assert await verifier.verify_token("secret-token") == "acme"
    await store.directory.write(DirectoryUpdate(remove_tokens=(("acme", "main"),)))
    clock.passed_s += CACHE_S
    assert await verifier.verify_token("secret-token") is None


async def test_a_token_that_was_given_works_at_once_and_can_be_forgotten(store: Store, clock: SteppedClock) -> None:
    verifier = TokenVerifier(store.directory, clock)
    assert await verifier.verify_token("secret-token") is None
    await store.directory.write(DirectoryUpdate(tokens=(("acme", "main", token_digest("secret-token")),)))
    assert await verifier.verify_token("secret-token") == "acme"
    await store.directory.write(DirectoryUpdate(remove_tokens=(("acme", "main"),)))
    assert await verifier.verify_token("secret-token") == "acme"
    verifier.forget()
    assert await verifier.verify_token("secret-token") is None
