"""What the model tells of the words that were said, while the call lasts; and of words and tokens just after it."""

from __future__ import annotations

from collections.abc import Callable

from switchhook.agents.realtime import dialect
from switchhook.agents.realtime.dialect import Event
from switchhook.agents.realtime.responses import Responses
from switchhook.agents.realtime.transcript import Transcript
from switchhook.agents.realtime.usage import Usage
from switchhook.domain.model import Speaker


class Words:
    """The events of the protocol that carry words, or tell where words will stand."""

    def __init__(self, transcript: Transcript, responses: Responses, usage: Usage, transcribes_caller: bool) -> None:
        self._transcript = transcript
        self._responses = responses
        self._usage = usage
        self._transcribes_caller = transcribes_caller
        self._spoken_item = ""
        """What the caller is saying will be this item."""
        self._speaking = False
        """That item is under way: its end was neither heard by the server nor declared by us.

        To the agent, which asks whether it may speak, a response that begins is the end of a turn, too; not here.
        """
        self._commit_id = ""
        """Of a commit of ours that the model has not answered."""

    def caller_speaks(self, event: Event, now: float) -> None:
        """`input_audio_buffer.speech_started`."""
        self._speaking, self._spoken_item = True, dialect.text_of(event, "item_id")
        self._place(self._spoken_item, None, now)

    def caller_stopped(self) -> None:
        """`input_audio_buffer.speech_stopped`."""
        self._speaking = False

    def caller_committed(self, event: Event, now: float) -> None:
        """`input_audio_buffer.committed`."""
        item_id = dialect.text_of(event, "item_id")
        if self._commit_id and item_id:  # a commit of ours may have made another item of the same sound
            self._transcript.rename(self._spoken_item, item_id)
        self._commit_id = self._spoken_item = ""
        self._speaking = False
        self._place(item_id, dialect.text_of(event, "previous_item_id"), now)

    def caller_cleared(self) -> None:
        """`input_audio_buffer.cleared`: what the caller was saying will be no item."""
        self._transcript.drop(self._spoken_item)
        self._nothing_is_said()

    def session_gone(self) -> None:
        """The next session hears afresh, and may give the same ids to other items."""
        self._transcript.session_gone()
        self._nothing_is_said()

    def _nothing_is_said(self) -> None:
        self._speaking, self._spoken_item = False, ""

    def _place(self, item_id: str, previous_item_id: str | None, now: float) -> None:
        if item_id and self._transcribes_caller:
            self._transcript.place(item_id, previous_item_id, Speaker.CALLER, now)

    def caller_text(self, event: Event, now: float) -> None:
        """`conversation.item.input_audio_transcription.completed`."""
        self._usage.add_transcription(event.get("usage"))
        item_id, text = event.get("item_id"), event.get("transcript")
        if isinstance(item_id, str):
            self._transcript.place(item_id, None, Speaker.CALLER, now)
            self._transcript.complete(item_id, text if isinstance(text, str) else "")
            self._was_transcribed(item_id)

    def caller_text_failed(self, event: Event, now: float) -> None:
        """`conversation.item.input_audio_transcription.failed`."""
        if isinstance(event.get("item_id"), str):
            self._transcript.void(event["item_id"])
            self._was_transcribed(event["item_id"])

    def _was_transcribed(self, item_id: str) -> None:
        """Not every server tells the end of a turn."""
        if item_id == self._spoken_item:
            self._nothing_is_said()

    def agent_words(self, words: dialect.Words, now: float) -> None:
        """`response.output_audio_transcript.delta`."""
        item_id = words.item_id
        if item_id and not self._unheard(words.response_id or "", item_id):
            self._transcript.place(item_id, None, Speaker.AGENT, now)
            self._transcript.add_words(item_id, words.delta)

    def agent_text(self, event: Event, now: float) -> None:
        """`response.output_audio_transcript.done`."""
        item_id, text = event.get("item_id"), event.get("transcript")
        if (
            isinstance(item_id, str)
            and isinstance(text, str)
            and not self._unheard(dialect.text_of(event, "response_id"), item_id)
        ):
            self._transcript.place(item_id, None, Speaker.AGENT, now)
            self._transcript.complete(item_id, text)

    def _unheard(self, response_id: str, item_id: str) -> bool:
        """Words of a response that was silenced before this item began."""
        return self._responses.is_silenced(response_id) and not self._transcript.knows(item_id)

    # -- after the call ----------------------------------------------------------------------------

    @property
    def awaited(self) -> bool:
        """Whether words of the caller may still come, or the tokens of a response are still to be counted."""
        texts = bool(self._commit_id) or self._transcript.awaits_caller or (self._speaking and self._transcribes_caller)
        return texts or self._responses.active is not None

    def part(self, ids: Callable[[], str]) -> list[bytes]:
        """The call is over; gives what to tell the model so that it writes down what the caller was just saying.

        No more sound comes, so the model's own turn detection would never find the end of that turn.
        """
        cancel = [dialect.RESPONSE_CANCEL] if self._responses.active is not None else []
        return [*cancel, *(self._commit(ids) if self._speaking else ())]

    def _commit(self, ids: Callable[[], str]) -> list[bytes]:
        self._speaking = False
        if not self._transcribes_caller:
            return []
        self._commit_id = ids()
        return [dialect.commit(self._commit_id)]

    def last(self, data: bytes, ids: Callable[[], str], now: float) -> list[bytes]:
        """One text frame after the call's end; gives what to answer. `ids` gives fresh ids."""
        try:
            event = dialect.read_event(data)
        except dialect.UNREADABLE:
            return []
        match dialect.text_of(event, "type"):
            case "input_audio_buffer.speech_started":
                self.caller_speaks(event, now)
                return self._commit(ids)
            case "input_audio_buffer.cleared":
                self.caller_cleared()
            case "input_audio_buffer.committed":
                self.caller_committed(event, now)
            case "conversation.item.input_audio_transcription.completed":
                self.caller_text(event, now)
            case "conversation.item.input_audio_transcription.failed":
                self.caller_text_failed(event, now)
            case "response.created":
                self._responses.begin(dialect.text_of(dialect.map_of(event, "response"), "id"))
                return [dialect.RESPONSE_CANCEL]  # nobody is there to hear it
            case "response.done":
                response = dialect.map_of(event, "response")
                self._usage.add_response(response.get("usage"))
                self._responses.done(dialect.text_of(response, "id"))
            case "error" if self._commit_id:
                self._refused(event)
        return []

    def _refused(self, event: Event) -> None:
        """Too short a sound to be a turn is no words; an error about something else changes nothing."""
        about = dialect.text_of(dialect.map_of(event, "error"), "event_id")
        if about == self._commit_id or (not about and dialect.error_code(event) == dialect.NOTHING_TO_COMMIT):
            self._commit_id = ""
            self.caller_cleared()
