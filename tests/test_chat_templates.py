"""Chat templates of models that see images, too: given text alone, none of it is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
