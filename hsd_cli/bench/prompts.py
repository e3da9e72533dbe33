"""The texts to measure on."""

from __future__ import annotations

import json
from pathlib import Path

from hsd_cli.encoding import decoded
from hsd_cli.errors import UsageError

# Questions and beginnings, in prose and in code.
PROMPTS = (
    "Explain in a few sentences why the sky is blue.",
    "The old lighthouse keeper climbed the stairs one last time, and",
    "List three things to check before a long journey by car, with a reason for each.",
    'def fibonacci(n):\n    """Return the first n Fibonacci numbers."""\n',
    'class Stack:\n    """A last-in, first-out collection."""\n\n    def __init__(self',
    "for (int i = 0; i < rows; i++) {\n    for (int j = 0; j < columns; j++) {\n",
)


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not blank; of a ``.jsonl`` file their ``"prompt"``. Raises ``UsageError``."""
    lines = decoded(path.read_bytes(), "replace").splitlines()
    prompts = [_prompt(line, path) if path.suffix == ".jsonl" else line for line in filter(str.strip, lines)]
    if not any(map(str.strip, prompts)):
        raise UsageError(f"{str(path)!r} is empty; write one prompt per line, or leave --prompts out")
    return [prompt for prompt in prompts if prompt.strip()]


def _prompt(line: str, path: Path) -> str:
    try:
        prompt = json.loads(line)["prompt"]
        # JSON can spell halves of characters, which no tokenizer takes.
        return str(prompt.encode(errors="replace").decode())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UsageError(f'every line of {str(path)!r} must be an object with a "prompt", a string') from None
