from __future__ import annotations

from typing import Any

import pytest

from switchhook.domain.errors import StoreUnavailable
from switchhook.usecases.directory_watch import DirectoryWatch
from tests.usecases.running import background, until


class Versions:
    """A configuration that changes with every look."""

    def __init__(self) -> None:
        self.looks = 0

    async def version(self) -> int:
        self.looks += 1
        return self.looks


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), RuntimeError("on purpose")])
async def test_what_cannot_be_taken_up_is_tried_again(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchhook.usecases.directory_watch.LOOK_EVERY_S", 0.001)
    directory: Any = Versions()
    refreshed: list[int] = []

    async def refresh() -> None:
        if directory.looks <= 2:
            raise fault
        refreshed.append(directory.looks)

    async with background(DirectoryWatch(directory, refresh).run()):
        await until(lambda: bool(refreshed))
    assert refreshed[0] == 3
