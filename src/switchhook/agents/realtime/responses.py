"""Whose word it is: the response that the model makes, the one that was asked for, and the one that is owed to the party."""

from __future__ import annotations


class Responses:
    """What is known of the model's responses; a session that is gone leaves what is still owed, and whether the model failed.

    `active`: id of the response that the model makes (empty: it did not say); None: none. `asked`: ours is to begin.
    `wanted`: one is owed, and asked for as soon as it may be. `turn_owed`: the server heard the party finish and answers by
    itself. `server_may_go_on`: whether it does is observed. `spoke`: some sound of the active one came.
    """

    __slots__ = (
        "_request_id",
        "_retried",
        "_silenced",
        "_unacknowledged",
        "_unwanted",
        "active",
        "asked",
        "server_may_go_on",
        "spoke",
        "turn_owed",
        "wanted",
    )

    def __init__(self) -> None:
        self.active: str | None = None
        self.asked = self.wanted = self.turn_owed = self.server_may_go_on = self.spoke = False
        self._request_id = ""
        self._retried = self._unwanted = False
        self._silenced: set[str] = set()
        self._unacknowledged: set[str] = set()

    @property
    def busy(self) -> bool:
        """One is active, or begins soon: no other may be asked for."""
        return self.active is not None or self.asked

    @property
    def audible(self) -> bool:
        """The party hears the active one."""
        return self.active is not None and self.active not in self._silenced

    @property
    def due(self) -> bool:
        """Something is to be said, or is being said."""
        return self.busy or self.wanted or self.turn_owed

    def is_silenced(self, response_id: str) -> bool:
        """Nothing more of it is heard."""
        return response_id in self._silenced

    def tell(self, item_id: str) -> None:
        """The model was given an item; a response that begins before it was acknowledged does not know of it."""
        self._unacknowledged.add(item_id)

    def acknowledge(self, item_id: str) -> None:
        """The model has the item."""
        self._unacknowledged.discard(item_id)

    def ask(self, request_id: str) -> None:
        """One is asked for; a refusal names `request_id`."""
        self.wanted, self.server_may_go_on, self.asked = False, False, True
        self._request_id = request_id

    def is_refusal(self, event_id: str, busy: bool) -> bool:
        """Whether an error is about what was asked for. `busy`: it says that another response is active."""
        return bool(self._request_id) and (event_id == self._request_id or (self.asked and busy))

    def refused(self, busy: bool) -> None:
        """Nothing comes of what was asked for; because another response is active, it is asked for again after that."""
        self.asked, self._request_id = False, ""
        self.wanted = self.wanted or busy

    def begin(self, response_id: str) -> None:
        """A response has begun; `begun` follows when it is known whether it is wanted."""
        self.active = response_id
        self.server_may_go_on = self.turn_owed = self.spoke = False

    def begun(self, over_party: bool) -> bool:
        """Whether the one that has begun goes on. `over_party`: somebody speaks or types, and it should not speak over them.

        One that was asked for and is not wanted any more is asked for again; one that the server makes by itself, knowing all
        that it was told, is what was wanted.
        """
        unwanted = self.asked and (over_party or self._unwanted)
        if unwanted:
            self.wanted = True
        elif not self.asked and not self._unacknowledged:
            self.wanted = False
        return not unwanted

    def settle(self) -> None:
        """The one that has begun is not the one that was waited for any more. Not every server names our items: what it was told,
        its next response knows."""
        self.asked = self._unwanted = False
        self._unacknowledged.clear()

    def silence(self) -> bool:
        """Nothing more of the active one is heard. False: none that could be named is active."""
        if self.active:
            self._silenced.add(self.active)
        return bool(self.active)

    def take_back(self) -> None:
        """The active one is not wanted, whether it has a name or not."""
        self._silenced.add(self.active or "")

    def unwant(self) -> None:
        """What was asked for and has not begun is not wanted any more."""
        self._unwanted = self._unwanted or self.asked

    def done(self, response_id: str) -> bool:
        """A response is over. True: it was the active one."""
        over = self.active in (response_id, "")
        if over:
            self.active = None
        return over

    def retry(self) -> bool:
        """The model failed to respond: ask once more. False: it was asked once more already."""
        if self._retried:
            return False
        self.wanted = self._retried = True
        return True

    def succeeded(self) -> None:
        """A response was completed: a later failure is the first again."""
        self._retried = False

    def session_gone(self, owed: bool) -> None:
        """The next session owes what this one did, and what `owed` says besides; it knows of nothing else."""
        self.wanted = owed or self.wanted or self.asked or self.audible or self.turn_owed
        self.active = None
        self.asked = self.turn_owed = self._unwanted = self.server_may_go_on = False
        self._unacknowledged.clear()
        self._silenced.clear()
