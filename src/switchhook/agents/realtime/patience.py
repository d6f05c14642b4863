"""How long the agent waits for what, and how much it keeps."""

from __future__ import annotations

ESTABLISH_S = 5.0
"""From opening the socket to `session.updated` (contract §1.10 E)."""
STEADY_S = 60.0
"""A session that held so long may be replaced once more."""
ANSWER_S = 10.0
"""A model that was asked, or heard the caller finish, begins to answer within this."""
PROGRESS_S = 30.0
"""A response that is active brings some event within this."""
SERVER_TURN_S = 1.0
"""How long the model's own turn detection gets to answer before we ask."""
DIGIT_PAUSE_S = 1.5
FAREWELL_S = 15.0
LONGEST_FAREWELL_S = 60.0
LAST_ROLL_OVER_S = 240.0
"""After the roll-over is due, a quiet moment is waited for so long at most."""
LINGER_S = 0.25
"""Between the goodbye's last sound and the hang-up: a phone plays it from its jitter buffer a little later."""
LAST_WORDS_S = 3.0
"""After the call, for the text of what the caller said last; CallEnd waits for it."""
