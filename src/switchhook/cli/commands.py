"""What the commands do that work on the store: one function each; `switchhook.cli` prints what they give."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchhook.api.veevo import webhook_test as veevo_test
from switchhook.api.vns import webhook_test as vns_test
from switchhook.bootstrap import SystemClock, apply_to, contracts, open_store, own_sip_hosts
from switchhook.domain.errors import RecordingError
from switchhook.domain.model import CallId
from switchhook.domain.phone import e164
from switchhook.egress import Egress
from switchhook.settings import Settings
from switchhook.usecases.dialling import explain
from switchhook.usecases.signing import SigningHttp
from switchhook.usecases.webhook_trial import WebhookName


async def apply_file(settings: Settings, file: Path, dry_run: bool) -> list[str]:
    """`switchhook apply`: the lines of the difference."""
    async with Opened(settings) as opened:
        return await apply_to(opened.store, contracts(), file, dry_run)


async def test_webhook(settings: Settings, number: str, end: bool) -> tuple[list[str], bool]:
    """`switchhook webhook test`: what came of it, and whether all is well."""
    clock = SystemClock()
    async with Opened(settings) as opened, Egress(settings.egress_allow, clock) as egress:
        wanted = e164(number)
        found = await opened.store.directory.find_number(wanted) if wanted else None
        if found is None:
            return [f"{number} is not configured: add it with switchhook apply"], False
        account = (await opened.store.directory.read()).accounts.get(found.account)

        async def secret(_: str) -> str | None:
            return account.veevo.webhook_secret if account is not None and account.veevo is not None else None

        which: WebhookName = "call_end" if end else "call_start"
        try_webhook = {"vns": vns_test.try_webhook, "veevo": veevo_test.try_webhook}[found.contract]
        with _unlogged("switchhook.api"):  # the result tells what the log of a call would
            trial = await try_webhook(SigningHttp(egress, secret), found, which, CallId(str(uuid.uuid4())), clock.utc())
        return trial.lines(), trial.passed


async def parked_webhooks(settings: Settings) -> list[str]:
    """`switchhook webhook parked`."""
    async with Opened(settings) as opened:
        events = await opened.store.outbox.parked()
        return [f"{event.call_id}  {event.number}  {event.attempts} tries  {event.last_error}" for event in events] or ["none"]


async def resend_webhook(settings: Settings, call_id: str) -> tuple[list[str], bool]:
    """`switchhook webhook resend`: a running server sends it within a minute."""
    async with Opened(settings) as opened:
        count = await opened.store.outbox.resend(CallId(call_id), SystemClock().utc())
    if not count:
        return [f"{call_id} has no parked webhook"], False
    return ["it will be sent by the running server within a minute, or when the server starts"], True


async def explain_policy(settings: Settings, number: str, account: str | None) -> tuple[list[str], bool]:
    """`switchhook policy explain`: what the dialling policy says of a number, and whether it would be dialled."""
    async with Opened(settings) as opened:
        directory = await opened.store.directory.read()
        return await explain(directory, account, number, opened.store.spend, SystemClock().utc(), own_sip_hosts(settings))


def decrypt_recording(file: Path, output: Path, password: str) -> None:
    """`switchhook recording decrypt`. Raises RecordingError."""
    from switchhook.media.recording.encryption import decrypt

    try:
        plain = decrypt(file.read_bytes(), password)
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            target.write(plain)
    except FileExistsError:
        raise RecordingError(f"{output} exists already: name another file with -o") from None
    except OSError as error:
        raise RecordingError(f"{error.filename}: {error.strerror}") from None


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class Opened:
    """The store for one command."""

    def __init__(self, settings: Settings) -> None:
        self.store, _ = open_store(settings)
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Opened:
        await self.store.open()
        # Owned here and awaited in __aexit__: a command has no task group around it.
        self._writing = asyncio.get_running_loop().create_task(self.store.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
        if self._writing is not None:
            await self._writing
