"""Chat templates of models that see images, too: given text alone, none of it is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hsd_cli.errors import UsageError
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.cli import checkpoint, hsd

IN_PARTS = (
    "{% for message in messages %}{{ message.role }}:"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% endif %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}"
)
EITHER = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
    "{% else %}{{ message.content[0].text }} in parts{% endif %}{% endfor %}"
)


def rendered(folder: Path, template: str, prompt: str = "abc", system: str | None = None) -> str:
    return ModelTokenizer.load(checkpoint(folder, chat_template=template)).render(prompt, system, chat=True).text


def test_a_template_that_reads_messages_in_parts_gets_them_so(tmp_path: Path) -> None:
    assert rendered(tmp_path, IN_PARTS, system="be brief") == "system:be brief;user:abc;"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (EITHER, "abc"),
        ("{{ messages[0].content | trim }}", "abc"),
        ("{{ messages[0].content.upper() }}", "ABC"),  # which a list does not have
        ("{{ messages | length }} messages", "1 messages"),
        ("{{ messages[0].content | replace('a', 'z') }}", "zbc"),  # which takes a list for a text
    ],
)
def test_all_others_get_texts(template: str, text: str, tmp_path: Path) -> None:
    assert rendered(tmp_path, template, " abc " if "trim" in template else "abc") == text


def test_a_template_in_a_file_of_its_own_is_found(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "xyz{{ messages[0].content }}"}))
    assert ModelTokenizer.load(folder).render("abc", chat=True).text == "xyzabc"
    assert hsd("generate", "-q", "-t", folder, "-n", 3, "abc") == (0, "def", "")


def test_a_file_that_holds_no_template_is_one_line(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (tmp_path / "chat_template.json").write_text("[]")
    result = hsd("generate", "-t", folder, "abc")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"hsd: cannot load the tokenizer of {folder!r}: ")
    assert result.err.count("\n") == 1


# A last message of the assistant's

TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<go>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "last", "text"),
    [
        (TURNS, "bc", "<user>a</><assistant>bc"),
        (TURNS, "b ", "<user>a</><assistant>b "),
        (TURNS, "", "<user>a</><go>"),
        (IN_PARTS, "bc", "user:a;assistant:bc"),
        (None, "bc", "a\n\nbc"),
    ],
    ids=["words", "a space", "nothing", "in parts", "no template"],
)
def test_a_reply_that_is_begun_stays_open(tmp_path: Path, template: str | None, last: str, text: str) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": last}]
    assert ModelTokenizer.load(checkpoint(tmp_path, chat_template=template)).render(said, None, True).text == text


def test_a_template_that_loses_a_reply_refuses_to_go_on_with_it(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, chat_template="{{ messages[0].content }}")
    (tmp_path / "in.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]}\n'
    )
    done = hsd("generate", "-q", "-t", folder, "-n", 3, "-i", tmp_path / "in.jsonl")
    assert "refuses this conversation" in json.loads(done.out)["error"]


def test_a_batch_goes_on_with_a_reply(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, chat_template="{% for m in messages %}{{ m.content }}\n{% endfor %}")
    (tmp_path / "in.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "bc"}]}\n'
    )
    done = hsd("generate", "-q", "-t", folder, "-n", 3, "-i", tmp_path / "in.jsonl")
    assert json.loads(done.out)["text"] == "def"


def test_variables_of_a_template_are_for_both_models_and_arguments_are_not_variables(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(checkpoint(tmp_path, chat_template="{{ messages[0].content }}{{ mood }}"))
    assert tokenizer.render("a", None, True, None, {"mood": "bc"}).text == "abc"
    for name in ("tokenize", "chat_template", "messages", "add_generation_prompt"):
        with pytest.raises(UsageError, match=f"chat_template_kwargs cannot set '{name}'"):
            tokenizer.render("a", None, True, None, {name: True})


@pytest.mark.parametrize(("last", "text"), [("user", "b c d"), ("assistant", " b c d")])
def test_a_reply_that_is_gone_on_with_keeps_the_space_before_its_next_word(
    tmp_path: Path, last: str, text: str
) -> None:
    folder = checkpoint(tmp_path, ["a", "▁b", "▁c", "▁d"], chat_template="{{ messages[-1].content }}")
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": [{"role": last, "content": "a"}]}))
    done = hsd("generate", "-q", "-t", folder, "-n", 3, "-i", tmp_path / "in.jsonl")
    assert json.loads(done.out)["text"] == text
