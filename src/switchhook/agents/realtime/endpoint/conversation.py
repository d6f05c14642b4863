"""The conversation: items in order, as clients see them, and what of them an answer would cost."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from switchhook.agents.realtime.endpoint.wire import ClientError, Json, a_list, a_mapping, a_text

_MOST_ITEMS = 2_000
"""Older items are forgotten, as a model's context would forget them."""
_CHARACTERS_A_TOKEN = 4
_INPUT_TOKENS_A_SECOND = 10
_OUTPUT_TOKENS_A_SECOND = 20
"""Estimates after OpenAI's: a text token is some four letters, caller's sound 10 tokens a second, the agent's 20."""
_PARTS = {"user": ("input_text", "input_audio"), "assistant": ("output_text", "text"), "system": ("input_text", "text")}
_STATUSES = ("completed", "incomplete", "in_progress")


@dataclass(slots=True)
class Item:
    """One item: `shown` is what clients see."""

    shown: Json
    audio_ms: int = 0
    """Sound of the agent that was given out, or of the caller."""
    sound: bytes | None = None
    """Sound that the client put into a user item, in the session's input format, until it is understood."""

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.shown["id"])

    @property
    def role(self) -> str:
        """`user`, `assistant`, `system`, or empty for what is no message."""
        return str(self.shown.get("role", ""))

    def texts(self) -> Iterator[str]:
        """All words of the item."""
        for part in self.shown.get("content", ()):
            yield part.get("text") or part.get("transcript") or ""
        yield self.shown.get("arguments", "")
        yield self.shown.get("output", "")


class Conversation:
    """Items by id, in order."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item behind the last, or behind `after` (`root`: first); gives the id of the one before it.

        Raises ClientError when the id is taken or there is no such place.
        """
        if item.id in self._items:
            raise ClientError(f"Item '{item.id}' exists already.", "item.id", "item_exists")
        ids = list(self._items)
        if after is None:
            self._items[item.id] = item
        else:
            place = 0 if after == "root" else self._place(ids, after) + 1
            ordered = list(self._items.items())
            ordered.insert(place, (item.id, item))
            self._items = dict(ordered)
            ids = ids[:place]
        while len(self._items) > _MOST_ITEMS:
            del self._items[next(iter(self._items))]
        return ids[-1] if ids else None

    def get(self, item_id: str, param: str = "item_id") -> Item:
        """Return an item. Raises ClientError."""
        item = self._items.get(item_id)
        if item is None:
            raise ClientError(f"Item '{item_id[:100]}' does not exist.", param, "item_not_found")
        return item

    def remove(self, item_id: str) -> None:
        """Delete an item. Raises ClientError."""
        self.get(item_id)
        del self._items[item_id]

    def tool_name(self, call_id: str) -> str:
        """Return the name of the function call that an output answers. Raises ClientError."""
        for item in self._items.values():
            if item.shown["type"] == "function_call" and item.shown["call_id"] == call_id:
                return str(item.shown["name"])
        raise ClientError(f"Tool call ID '{call_id[:100]}' not found in conversation.", "item.call_id", "invalid_tool_call_id")

    def usage(self, instructions: str, said: str, said_ms: int) -> Json:
        """Return the estimated tokens of a response: all of the conversation in, what was said out."""
        text_in = _text_tokens(instructions) + sum(_text_tokens(text) for item in self._items.values() for text in item.texts())
        audio_in = sum(_audio_tokens(i.audio_ms, _INPUT_TOKENS_A_SECOND) for i in self._items.values() if i.role == "user")
        text_out, audio_out = _text_tokens(said), _audio_tokens(said_ms, _OUTPUT_TOKENS_A_SECOND)
        return {
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {"text_tokens": text_in, "audio_tokens": audio_in, "image_tokens": 0, "cached_tokens": 0},
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }

    @staticmethod
    def _place(ids: list[str], item_id: str) -> int:
        try:
            return ids.index(item_id)
        except ValueError:
            raise ClientError(f"Item '{item_id[:100]}' does not exist.", "previous_item_id", "item_not_found") from None


def read_item(given: Json, fresh_id: str) -> Item:
    """Read an item of `conversation.item.create`. Raises ClientError."""
    kind = given.get("type")
    item_id = a_text(given.get("id") or fresh_id, "item.id")
    if not 1 <= len(item_id) <= 100:
        raise ClientError("Invalid value for 'item.id': expected 1 to 100 characters.", "item.id")
    shown: Json = {"id": item_id, "object": "realtime.item", "type": kind, "status": "completed"}
    if kind == "message":
        return _read_message(given, shown)
    if kind == "function_call_output":
        call_id = a_text(given.get("call_id"), "item.call_id")
        return Item({**shown, "call_id": call_id, "output": a_text(given.get("output"), "item.output")})
    if kind == "function_call":
        fields = {name: a_text(given.get(name), f"item.{name}") for name in ("name", "arguments")}
        return Item({**shown, **fields, "call_id": a_text(given.get("call_id") or f"call_{item_id}", "item.call_id")})
    raise ClientError("Invalid value for 'item.type': expected message, function_call or function_call_output.", "item.type")


def _read_message(given: Json, shown: Json) -> Item:
    role = given.get("role")
    if not isinstance(role, str) or role not in _PARTS:
        raise ClientError("Invalid value for 'item.role': expected user, assistant or system.", "item.role")
    item = Item({**shown, "role": role, "content": []})
    if given.get("status") in _STATUSES:
        item.shown["status"] = given["status"]
    for place, part in enumerate(a_list(given.get("content"), "item.content")):
        param = f"item.content[{place}]"
        kind = a_mapping(part, param).get("type")
        if kind not in _PARTS[role]:
            raise ClientError(f"Invalid value for '{param}.type': expected {_PARTS[role][0]}.", f"{param}.type")
        if kind == "input_audio":
            item.sound = (item.sound or b"") + read_audio(part.get("audio"), f"{param}.audio")
            transcript = part.get("transcript")
            item.shown["content"].append({"type": kind, "transcript": transcript if isinstance(transcript, str) else None})
        else:
            shown_kind = "output_text" if role == "assistant" else "input_text"
            item.shown["content"].append({"type": shown_kind, "text": a_text(part.get("text"), f"{param}.text")})
    return item


def read_audio(given: object, param: str) -> bytes:
    """Read base64 sound. Raises ClientError."""
    try:
        return base64.b64decode(a_text(given, param), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClientError(f"Invalid value for '{param}': expected base64.", param) from error


def _text_tokens(text: str) -> int:
    return ceil(len(text) / _CHARACTERS_A_TOKEN)


def _audio_tokens(duration_ms: int, tokens_a_second: int) -> int:
    return ceil(duration_ms * tokens_a_second / 1000)
