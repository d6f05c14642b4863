from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from switchhook.domain.errors import SettingError
from switchhook.store.made_once import made_once
from switchhook.store.opened import node_name

WHO_COMES_FIRST = """
import sys
from pathlib import Path
from switchhook.store.opened import node_name
sys.stdin.readline()
print(node_name(Path(sys.argv[1])))
"""


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "name"
    assert made_once(path, b"first") == b"first"
    assert made_once(path, b"second") == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["name"], "no draft stays"


def test_servers_that_start_together_agree_on_the_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WHO_COMES_FIRST, str(tmp_path / "data")]
    starting = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    with ThreadPoolExecutor(4) as together:
        names = {told.strip() for told, _ in together.map(lambda process: process.communicate("go\n", 60), starting)}
    assert names == {node_name(tmp_path / "data")}
    assert len(names.pop()) == 32


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_start_that_dies_half_way_leaves_no_half_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, step, dies)
        # Nothing that tidies up runs when the power fails.
        broken.setattr(os, "unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            node_name(tmp_path)
    assert not (tmp_path / "node").exists()
    name = node_name(tmp_path)
    assert len(name) == 32
    assert node_name(tmp_path) == name


def test_an_empty_name_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "node").touch()
    with pytest.raises(SettingError, match="node is empty: remove it"):
        node_name(tmp_path)
