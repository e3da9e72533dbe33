"""The kinds of text to measure on: prompt sets of our own, a file of prompts, and the paper's data sets.

The prompts of ``long-context`` are made by one rule: a question about a log, a manual or an inventory of many entries,
each entry one of a few sentence patterns with other names and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hsd_cli.bench.prompts import read_prompts
from hsd_cli.errors import HsdError, UsageError

FOLDER = Path(__file__).parent / "texts"
TASKS = ("summarization", "code", "long-context")
ROWS = 30  # of a data set


@dataclass(frozen=True)
class Task:
    name: str
    prompts: tuple[str, ...]


def shipped(name: str, most: int | None = None) -> list[Task]:
    """The prompts of our own: of one kind, or of ``all``."""
    names = TASKS if name == "all" else (name,)
    return [Task(each, tuple(read_prompts(FOLDER / f"{each}.jsonl")[:most])) for each in names]


def from_file(path: Path, most: int | None = None) -> Task:
    """A line or a JSON object for each prompt. Raises ``UsageError``."""
    return Task(path.name, tuple(read_prompts(path)[:most]))


# The paper's data sets


@dataclass(frozen=True)
class DataSet:
    """Where the rows are, and how each becomes a prompt."""

    repository: str
    configuration: str | None
    split: str
    template: str

    def prompts(self, rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        return tuple(self.template.format_map(row) for row in rows)


DATA_SETS = {
    "cnn_dailymail": DataSet(
        "abisee/cnn_dailymail",
        "3.0.0",
        "validation",
        "Summarize the following article:\n{article}\nSummary:\n",
    ),
    "openai_humaneval": DataSet(
        "openai/openai_humaneval",
        None,
        "test",
        "Implement the function so that it passes the tests.\nTests:\n{test}\nFunction:\n{prompt}\n\nYour code:\n",
    ),
    "tau/scrolls": DataSet(
        "tau/scrolls",
        "qasper",
        "test",
        "Summarize the following text:\n{input}\nSummary:\n",
    ),
}


def from_data_set(name: str, most: int | None = None) -> Task:
    """The first rows in their order, as the paper takes them. Raises ``HsdError``, without the library as well."""
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]  # an extra
    except ImportError:
        raise UsageError("--dataset needs the datasets library: pip install 'hsd-cli[bench]'") from None
    source = DATA_SETS[name]
    try:
        rows = datasets.load_dataset(source.repository, source.configuration, split=source.split, streaming=True)
        return Task(name, source.prompts(islice(rows, most or ROWS)))
    except Exception as error:  # the library reports networks, scripts and files in many ways
        reason = " ".join(str(error).split())
        raise HsdError(f"cannot read the data set {name!r}: {reason}; --prompts FILE takes your own") from error


def fitted(prompt: str, tokens: Callable[[str], int], room: int) -> str:
    """The end of ``prompt`` that has no more than ``room`` tokens."""
    while prompt and (length := tokens(prompt)) > room:
        prompt = prompt[len(prompt) - len(prompt) * room // length :]
    return prompt
