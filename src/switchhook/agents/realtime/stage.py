"""Where an agent stands with its model."""

from __future__ import annotations

from enum import Enum


class Stage(Enum):
    """From the start to the end of one conversation; a lost session goes back to OPENING."""

    NEW = "new"
    OPENING = "opening"
    ESTABLISHING = "establishing"
    READY = "ready"
    LEAVING = "leaving"
    """The model is gone during the farewell; what it said of it is still playing."""
    CLOSED = "closed"


NEW, OPENING, ESTABLISHING, READY, LEAVING, CLOSED = Stage
"""By their own names, because they are compared several times for each frame, and a member is slow to find in its class."""
