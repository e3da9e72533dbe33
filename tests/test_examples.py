"""Every example in the help of every command is run, by a shell, as it stands there."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from hsd_cli.app import app
from tests.breadth import breadth
from tests.cli import PAIRS, checkpoint
from tests.hub import Hub, Repository
from tests.ready_hsd import ReadyHsd
from tests.terminal import Terminal

FOREIGN = ("HF_", "HSD_", "XDG_", "PYTEST")  # of the caller's variables
TARGET, DRAFTER = "Qwen/Qwen2.5-7B-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"
FILES, FILE = "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_k_m.gguf"
# Words that stand for something.
STAND_INS = {"TARGET": TARGET, "MODEL": TARGET, "ID": TARGET, "DRAFTER": DRAFTER}
# What would take minutes.
SHORTER = {
    r"--samples \d+": "",
    r" -n 32 --repeats 2": "",
    "hsd verify": "hsd verify --samples 1 -n 2",
    "hsd bench": "hsd bench --take 1 -n 8 --repeats 1",
    "hsd serve": "hsd serve --port 0",
}


def commands(command: object, name: str) -> Iterator[tuple[str, str]]:
    """The name and the help of ``command`` and of all below it."""
    assert isinstance(command, TyperCommand | TyperGroup)
    yield name, inspect.cleandoc(command.help or "")
    if isinstance(command, TyperGroup):
        for below, inner in command.commands.items():
            yield from commands(inner, f"{name} {below}")


COMMANDS = dict(commands(typer.main.get_command(app), "hsd"))
# In the last paragraphs of the help: a line, in marks, and maybe a word about it.
EXAMPLES = [re.findall(r"^`([^`]+)`", text.partition("**Examples**")[2], re.MULTILINE) for text in COMMANDS.values()]
FIRST = [lines[0] for lines in EXAMPLES if lines]


# What somebody types, for those that ask on a terminal.
TYPED = {"hsd rm HuggingFaceTB/SmolLM2-135M-Instruct": "y\r"}
PREPARATION = f"""
set -e
hsd pull {TARGET} {DRAFTER}
echo abc | hsd chat -t {TARGET} -d {DRAFTER} -n 4
hsd config set target embedded:target
hsd config set draft embedded:drafter
hsd config set max-new-tokens 8
hsd config set stats yes
for pair in code big; do
    hsd config set pairs.$pair.target embedded:target
    hsd config set pairs.$pair.draft embedded:drafter
done
mkdir -p src/inner .zfunc .config/fish/completions
printf 'abc\\nfgh\\n' > prompts.txt
echo abc | tee notes.txt src/first.py > src/inner/second.py
printf '{{"prompt": "abc"}}\\n{{"prompt": "fgh"}}\\n' > prompts.jsonl
git init -q . && git add notes.txt && echo def >> notes.txt
"""


class Place(NamedTuple):
    """Where examples run: a home with all that they speak of, in ``prepared``, and nothing of the caller's."""

    home: Path
    prepared: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("examples")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    letters = Repository.of_folder(checkpoint(folder / "target", context=1 << 16, chat_template=template))
    pairs = Repository.of_folder(checkpoint(folder / "drafter", PAIRS, context=1 << 16, chat_template=template))
    letters.revisions += ("v1.0",)
    home, prepared = folder / "home", folder / "prepared"
    home.mkdir()
    with Hub({TARGET: letters, DRAFTER: pairs, FILES: Repository({FILE: b"weights"})}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environment |= {"HOME": str(home), "HF_ENDPOINT": hub.address, "TOKENIZERS_PARALLELISM": "false"}
        with ReadyHsd(folder, environment) as ready:
            environment["PATH"] = f"{ready.bin}{os.pathsep}{environment['PATH']}"
            done = subprocess.run(["bash", "-c", PREPARATION], cwd=home, env=environment, capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
            home.rename(prepared)
            yield Place(home, prepared, environment)


@pytest.mark.parametrize("line", breadth(sorted(set(chain(*EXAMPLES))), quick=FIRST), ids=str)
def test_the_example_runs(line: str, place: Place) -> None:
    for program in ("jq", "git"):
        if re.search(rf"\b{program}\b", line) and shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    shutil.rmtree(place.home, ignore_errors=True)
    shutil.copytree(place.prepared, place.home, symlinks=True)
    script = re.sub(r"\b[A-Z]+\b", lambda word: STAND_INS.get(word[0], word[0]), line)
    for long, short in SHORTER.items():
        script = re.sub(long, short, script)
    shell = ["bash", "-o", "pipefail", "-c", script]
    if line in TYPED:
        with Terminal(*shell, environment=place.environment, folder=place.home) as terminal:
            terminal.wait_for("?")
            terminal.send(TYPED[line])
            assert terminal.wait() == 0, terminal.text
    elif "hsd serve" in line:  # until it is told to end
        with subprocess.Popen(shell, cwd=place.home, env=place.environment, stderr=subprocess.PIPE) as serving:
            assert serving.stderr is not None
            said = list(takewhile(lambda line: b"serving" not in line, serving.stderr))
            serving.terminate()
            assert serving.wait(60) == 0, said
    else:
        done = subprocess.run(
            shell, input=b"abc\n", cwd=place.home, env=place.environment, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr


def test_every_command_has_examples_of_itself() -> None:
    without = {name for name, text in COMMANDS.items() if f"`{name}" not in text.partition("**Examples**")[2]}
    assert without <= {"hsd"}
