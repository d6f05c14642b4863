"""The command line: `switchhook serve | demo | apply | webhook | policy | check | recording`."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from switchhook import __version__
from switchhook.domain.errors import SwitchhookError
from switchhook.settings import Settings, load_settings


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs/cli.md is made from it."""
    parser = argparse.ArgumentParser(prog="switchhook", description="Connects phone calls to AI voice agents.")
    parser.add_argument("--version", action="version", version=f"switchhook {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file; default: switchhook.toml where it exists")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the server in the foreground; prints one line when ready")
    serve.add_argument("--apply", type=Path, metavar="FILE", help="apply this file before serving")

    demo = commands.add_parser("demo", help="a whole call on this machine: no key, no network")
    demo.add_argument("--keep", action="store_true", help="stay up after the call, for a softphone")
    demo.add_argument("--data-dir", type=Path, metavar="DIR", help="where the recording goes; default: a fresh folder")

    apply = commands.add_parser("apply", help="make accounts, tokens, trunks and numbers as a YAML file says")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument("--dry-run", action="store_true", help="print the difference and change nothing")

    webhook = commands.add_parser("webhook", help="test and re-send webhooks").add_subparsers(dest="action", required=True)
    test = webhook.add_parser("test", help="post a synthetic CallStart (or CallEnd) and show what was understood of the reply")
    test.add_argument("number", metavar="NUMBER")
    test.add_argument("--end", action="store_true", help="test CallEnd instead")
    webhook.add_parser("parked", help="list end webhooks that were given up on")
    resend = webhook.add_parser("resend", help="send a call's end webhook again")
    resend.add_argument("call_id", metavar="CALL_ID")

    policy = commands.add_parser("policy", help="look into the dialling policy").add_subparsers(dest="action", required=True)
    explain = policy.add_parser("explain", help="show whether a number would be dialled now, and what each rule says of it")
    explain.add_argument("number", metavar="NUMBER")
    explain.add_argument("--account", metavar="NAME", help="whose rules; default: the only account")

    commands.add_parser("check", help="check settings, ports and reachability, and show which optional parts are present")

    recording = commands.add_parser("recording", help="work on recording files").add_subparsers(dest="action", required=True)
    decrypt = recording.add_parser("decrypt", help="decrypt an .enc recording")
    decrypt.add_argument("file", type=Path, metavar="FILE")
    decrypt.add_argument("--password-file", type=Path, metavar="FILE", help="read the password from this file's first line")
    decrypt.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the name without .enc")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0 done, 1 failed, 2 wrong use."""
    options = build_parser().parse_args(arguments)
    try:
        return _run(options)
    except SwitchhookError as error:
        print(f"switchhook: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"switchhook: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        from switchhook_demo.run import run

        return run(keep=options.keep, data_dir=options.data_dir)
    if options.command == "recording":
        return _decrypt(options)
    settings = load_settings(os.environ, options.config)
    if options.command == "serve":
        return _serve(settings, options.apply)
    if options.command == "apply":
        return _apply(settings, options.file, options.dry_run)
    if options.command == "webhook":
        return _webhook(settings, options)
    if options.command == "policy":
        return _explain(settings, options.number, options.account)
    return _check(settings)


def _serve(settings: Settings, apply_file: Path | None) -> int:
    from switchhook.bootstrap import serve

    def announce(line: str) -> None:
        print(line, flush=True)

    return run_loop(settings, serve(settings, apply_file, announce))


def _apply(settings: Settings, file: Path, dry_run: bool) -> int:
    from switchhook.cli.commands import apply_file

    for line in asyncio.run(apply_file(settings, file, dry_run)):
        print(line)
    return 0


def _webhook(settings: Settings, options: argparse.Namespace) -> int:
    from switchhook.cli import commands

    if options.action == "test":
        lines, good = asyncio.run(commands.test_webhook(settings, options.number, end=options.end))
    elif options.action == "parked":
        lines, good = asyncio.run(commands.parked_webhooks(settings)), True
    else:
        lines, good = asyncio.run(commands.resend_webhook(settings, options.call_id))
    for line in lines:
        print(line)
    return 0 if good else 1


def _explain(settings: Settings, number: str, account: str | None) -> int:
    from switchhook.cli.commands import explain_policy

    lines, good = asyncio.run(explain_policy(settings, number, account))
    for line in lines:
        print(line)
    return 0 if good else 1


def _check(settings: Settings) -> int:
    from switchhook.cli.check import check

    lines, good = asyncio.run(check(settings))
    for line in lines:
        print(line)
    return 0 if good else 1


def _decrypt(options: argparse.Namespace) -> int:
    from switchhook.cli.commands import decrypt_recording

    file: Path = options.file
    output: Path = options.output or file.with_suffix("")
    if options.output is None and file.suffix != ".enc":
        print("switchhook: name the output with -o, because the file does not end in .enc", file=sys.stderr)
        return 2
    if options.password_file is not None:
        password = options.password_file.read_text().partition("\n")[0]
    else:
        password = getpass.getpass("Password: ")
    decrypt_recording(file, output, password)
    print(output)
    return 0


def run_loop(settings: Settings, work: object) -> int:
    """Run a coroutine on the event loop that the settings name."""
    assert asyncio.iscoroutine(work)
    if settings.event_loop == "uvloop":
        import uvloop

        return int(uvloop.run(work))
    return int(asyncio.run(work))
