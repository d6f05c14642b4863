from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchhook.domain.errors import SecretUnreadable, SettingError
from switchhook.store.secrets import SecretBox, server_key

KEY = bytes(range(32))


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_what_was_sealed_opens_in_its_place_only(plain: bytes, context: bytes) -> None:
    box = SecretBox(KEY)
    sealed = box.seal(plain, context)
    assert box.open(sealed, context) == plain
    with pytest.raises(SecretUnreadable):
        box.open(sealed, context + b"x")


@given(st.binary(max_size=80))
def test_garbage_is_refused(sealed: bytes) -> None:
    with pytest.raises(SecretUnreadable):
        SecretBox(KEY).open(sealed)


@given(st.integers(0, 100))
def test_a_changed_byte_is_noticed(position: int) -> None:
    box = SecretBox(KEY)
    sealed = bytearray(box.seal(b"hidden"))
    sealed[position % len(sealed)] ^= 1
    with pytest.raises(SecretUnreadable):
        box.open(bytes(sealed))


def test_equal_secrets_look_different() -> None:
    box = SecretBox(KEY)
    assert box.seal(b"same") != box.seal(b"same")


def test_another_server_key_says_what_to_do() -> None:
    with pytest.raises(SecretUnreadable, match=r"old SWITCHHOOK_SECRET_KEY or `server\.key`"):
        SecretBox(b"k" * 32).open(SecretBox(KEY).seal(b"hidden"))


def test_data_keys_are_wrapped() -> None:
    box = SecretBox(KEY)
    assert box.unwrap(box.wrap(b"d" * 32)) == b"d" * 32
    with pytest.raises(SecretUnreadable):
        box.unwrap(box.seal(b"d" * 32))


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    key = server_key(folder, None)
    assert len(key) == 32
    assert server_key(folder, None) == key
    assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["server.key"]


def test_the_setting_goes_before_the_file(tmp_path: Path) -> None:
    assert server_key(tmp_path, base64.b64encode(KEY).decode()) == KEY
    assert not (tmp_path / "server.key").exists()


@pytest.mark.parametrize("value", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_bad_key_names_the_setting_and_the_cure(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingError, match=r"SWITCHHOOK_SECRET_KEY.*openssl rand -base64 32"):
        server_key(tmp_path, value)


def test_a_bad_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("garbage")
    with pytest.raises(SettingError, match=r"server\.key"):
        server_key(tmp_path, None)
