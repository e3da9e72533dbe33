"""What `hsd bench` measures on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from hsd_cli.bench.tasks import DATA_SETS, TASKS, fitted, from_data_set, from_file, shipped
from hsd_cli.errors import HsdError, UsageError


def test_there_are_prompts_of_each_kind() -> None:
    tasks = shipped("all")
    assert tuple(task.name for task in tasks) == TASKS
    for task in tasks:
        assert 4 <= len(task.prompts) <= 6
        assert len(set(task.prompts)) == len(task.prompts)
        assert task == shipped(task.name)[0]
    lengths = [len(prompt) for prompt in tasks[2].prompts]
    assert min(lengths) > 4000
    assert max(lengths) < 8000


def test_only_so_many_are_taken(tmp_path: Path) -> None:
    assert [len(task.prompts) for task in shipped("all", 2)] == [2, 2, 2]
    file = tmp_path / "mine.txt"
    file.write_text("one\ntwo\nthree\n")
    assert from_file(file).prompts == ("one", "two", "three")
    assert from_file(file, 1).prompts == ("one",)
    assert from_file(file).name == "mine.txt"


@pytest.mark.parametrize(
    ("name", "row", "prompt"),
    [
        (
            "cnn_dailymail",
            {"article": "A {boat}.", "highlights": "-"},
            "Summarize the following article:\nA {boat}.\nSummary:\n",
        ),
        (
            "openai_humaneval",
            {"prompt": "def f():\n", "test": "assert f({})", "entry_point": "f"},
            "Implement the function so that it passes the tests.\nTests:\nassert f({})\nFunction:\ndef f():\n\n\n"
            "Your code:\n",
        ),
        ("tau/scrolls", {"input": "Why?\n\nA paper."}, "Summarize the following text:\nWhy?\n\nA paper.\nSummary:\n"),
    ],
)
def test_rows_become_the_papers_prompts(name: str, row: dict[str, str], prompt: str) -> None:
    assert DATA_SETS[name].prompts([row]) == (prompt,)


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'hsd-cli\[bench\]'"):
        from_data_set("cnn_dailymail")


def test_a_data_set_that_cannot_be_read_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, as it is without a network."""

    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub:\n offline")

    library = ModuleType("datasets")
    library.__dict__["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    with pytest.raises(HsdError, match=r"^cannot read the data set 'tau/scrolls': Couldn't reach the Hub: offline; "):
        from_data_set("tau/scrolls")


def test_the_end_of_a_long_prompt_is_kept() -> None:
    words = "one two three four five six"
    assert fitted(words, lambda text: len(text.split()), 3) == "four five six"
    assert fitted("abc", len, 3) == "abc"
    assert fitted("abcdef", len, 2) == "ef"
    assert fitted("é", lambda text: len(text.encode()), 1) == ""
