"""Conversations as JSON files that can be resumed, and the folder of those that are kept without being asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from hsd_cli.chat.conversation import Conversation, Turn
from hsd_cli.errors import HsdError
from hsd_cli.storage import write_atomically

VERSION = 1
ROLES = ("user", "assistant")


def history_folder() -> Path:
    """``HSD_HISTORY``, or the platform's place for a user's data."""
    chosen = os.environ.get("HSD_HISTORY")
    return Path(chosen).expanduser() if chosen else user_data_path("hsd", appauthor=False)


def last_chat() -> Path:
    """The file of the chat that ``--continue`` resumes."""
    return history_folder() / "last-chat.json"


def save(path: Path, conversation: Conversation, models: dict[str, str]) -> None:
    """Writes all of it or nothing, for the user's eyes alone. ``models``: names by role. Raises ``HsdError``."""
    content = {
        "hsd_chat": VERSION,
        "models": models,
        "system": conversation.system,
        "left_out": conversation.left_out,
        "messages": [
            {"role": role, "content": content}
            for turn in conversation.turns
            for role, content in zip(ROLES, (turn.question, turn.answer), strict=True)
        ],
    }
    try:
        write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise HsdError(f"cannot write {str(path)!r}: {error.strerror}") from error


def load(path: Path) -> tuple[Conversation, dict[str, str]]:
    """What ``save`` was given. Raises ``HsdError`` for files that cannot be read, or are something else."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HsdError(f"cannot read {str(path)!r}: {error.strerror}") from error
    try:
        content = json.loads(data)
        version = content["hsd_chat"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HsdError(f"{str(path)!r} is not a chat that `hsd chat` saved") from error
    if version != VERSION:
        raise HsdError(f"{str(path)!r} is a chat of version {version!r}, and this hsd reads {VERSION}; update hsd")
    try:
        return _conversation(content), {role: _text(name) for role, name in content["models"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HsdError(f"{str(path)!r} is a damaged chat: {error}") from error


def _conversation(content: dict[str, Any]) -> Conversation:
    messages = content["messages"]
    if [message["role"] for message in messages] != [*ROLES] * (len(messages) // 2):
        raise ValueError("its messages are not user and assistant in turn")
    texts = [_text(message["content"]) for message in messages]
    turns = [Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    left_out = content["left_out"]
    if not isinstance(left_out, int) or not 0 <= left_out <= len(turns):
        raise ValueError("left_out is not a number of its turns")
    system = content["system"]
    return Conversation(None if system is None else _text(system), turns, left_out)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    value.encode()  # half a surrogate pair, which JSON can spell and no tokenizer takes, is a ValueError
    return value
