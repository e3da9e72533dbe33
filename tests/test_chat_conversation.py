"""Conversations: what the models read of them, and the files that they are kept in."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hsd_cli.chat.conversation import PLAIN_STOP, Conversation, Turn
from hsd_cli.chat.transcript import history_folder, last_chat, load, save
from hsd_cli.errors import HsdError

MODELS = {"target": "some/target", "drafter": "some/drafter"}


def conversation() -> Conversation:
    return Conversation("Be brief.", [Turn("one", "1"), Turn("two", "2"), Turn("three", "3")], left_out=1)


# What the models read


def test_messages_are_what_chat_templates_take() -> None:
    assert conversation().messages("four") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "four"},
    ]
    assert Conversation().messages("one") == [{"role": "user", "content": "one"}]


def test_plain_text_marks_the_turns() -> None:
    text = conversation().text("four")
    assert text == "Be brief.\n\nUser:\ntwo\nAssistant:\n2\nUser:\nthree\nAssistant:\n3\nUser:\nfour\nAssistant:\n"
    assert PLAIN_STOP in text


def test_plain_text_only_grows() -> None:
    first = Conversation().text("one")
    assert Conversation(turns=[Turn("one", "1")]).text("two").startswith(first + "1")


def test_turns_that_were_left_out_come_back_when_no_other_is_left() -> None:
    said = conversation()
    assert said.remove_last() == Turn("three", "3")
    assert [message["content"] for message in said.messages("?")] == ["Be brief.", "two", "2", "?"]
    said.remove_last()
    assert [message["content"] for message in said.messages("?")] == ["Be brief.", "one", "1", "?"]


def test_forgetting_keeps_the_system_prompt() -> None:
    said = conversation()
    said.clear()
    assert said == Conversation("Be brief.")


# Files


def test_a_file_brings_back_the_conversation_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "new" / "chat.json"
    for said in (conversation(), Conversation(), Conversation(turns=[Turn('"\n漢', "\x1b[2J")])):
        save(file, said, MODELS)
        assert load(file) == (said, MODELS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["chat.json"]


def content(**changes: object) -> dict[str, Any]:
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return {"hsd_chat": 1, "models": MODELS, "system": None, "left_out": 0, "messages": turn, **changes}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a chat"),
        ("[]", "is not a chat"),
        ("{}", "is not a chat"),
        ("[" * 100_000, "is not a chat"),
        (json.dumps(content(hsd_chat=2)), "is a chat of version 2, and this hsd reads 1; update hsd"),
        (json.dumps(content(models=[])), "is a damaged chat"),
        (json.dumps(content(system=1)), "is a damaged chat: a text is missing"),
        (json.dumps(content(system="\ud800")), "is a damaged chat"),
        (json.dumps(content(left_out=2)), "left_out is not a number of its turns"),
        (json.dumps(content(left_out="1")), "left_out is not a number of its turns"),
        (json.dumps(content(messages=content()["messages"][:1])), "not user and assistant in turn"),
        (json.dumps(content(messages=content()["messages"][::-1])), "not user and assistant in turn"),
        (json.dumps(content(messages=[{"role": "user"}, {"role": "assistant"}])), "is a damaged chat"),
        (json.dumps(content(messages=7)), "is a damaged chat"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(content()))
    assert load(file)[0].turns == [Turn("a", "b")]
    file.write_text(text)
    with pytest.raises(HsdError) as refused:
        load(file)
    assert reason in str(refused.value)
    assert str(file) in str(refused.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(HsdError, match=r"^cannot read '.*none': No such file or directory$"):
        load(tmp_path / "none")
    with pytest.raises(HsdError, match=r"^cannot write '.*': .*directory"):
        save(tmp_path, Conversation(), MODELS)


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HSD_HISTORY", str(tmp_path))
    assert (history_folder(), last_chat().parent) == (tmp_path, tmp_path)
    monkeypatch.delenv("HSD_HISTORY")
    assert history_folder().name == "hsd"
