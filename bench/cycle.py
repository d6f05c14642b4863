"""The talk cycle: 8 seconds of speaking, listening, speaking, listening and barging in, in frames of 20 ms.

The caller speaks 1.6 s (from the second cycle on this cuts off the reply that is playing: the barge-in), hears a reply of 2.4 s
out, speaks 1.2 s and hears 1.6 s of a reply of 4 s before the next cycle begins. The model takes 200 ms of silence to notice the
end of a turn and thinks for 200 ms more.
"""

from __future__ import annotations

FRAME_S = 0.020
CYCLE_S = 8.0
CYCLE_FRAMES = 400
FIRST_TURN = range(0, 80)
SECOND_TURN = range(240, 300)
SETTLE_S = 2.0
"""From the answer to the first cycle: the greeting plays."""

GREETING_PIECES = 6
FIRST_REPLY_PIECES = 12
SECOND_REPLY_PIECES = 20
REPLY_PIECES = (FIRST_REPLY_PIECES, SECOND_REPLY_PIECES)

ONSET_FRAMES = 2
"""Voiced frames after which the model says speech_started (40 ms)."""
END_FRAMES = 10
"""Silent frames after which it says speech_stopped (200 ms)."""
THINK_S = 0.2
DELTA_INTERVAL_S = 0.05
"""A delta of 200 ms each 50 ms: the model speaks four times faster than the caller hears."""

SPEAKS = tuple(frame in FIRST_TURN or frame in SECOND_TURN for frame in range(CYCLE_FRAMES))
