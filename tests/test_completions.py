"""Completion: what is offered at each place of a command line, and that the shells offer it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from hsd_cli.app import app
from hsd_cli.commands.completion import SCRIPTS, candidates
from tests.cli import hsd
from tests.terminal import Terminal

FOLDER = Path(__file__).parent.parent / "completions"
FILES = {"bash": FOLDER / "hsd.bash", "zsh": FOLDER / "_hsd", "fish": FOLDER / "hsd.fish"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one downloaded model and one pair, where ``hsd`` is this one."""
    monkeypatch.setenv("HSD_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text('seed = 1\n[pairs.my-code]\ntarget = "embedded:target"\n')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--some--model-1B").mkdir(parents=True)
    (tmp_path / "hub" / "models--some--mo\x1b[2Jdel").mkdir()
    program = tmp_path / "bin" / "hsd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hsd_cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "notes.txt").touch()
    return tmp_path


def offered(line: str) -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return [candidate.word for candidate in candidates(group, line)]


MODELS = ["embedded:drafter", "embedded:speller", "embedded:target", "embedded:twin", "some/model-1B"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hsd gen", ["generate"]),
        ("hsd generate", ["generate"]),
        ("hsd nope ", []),
        ("hsd --vers", ["--version"]),
        ("hsd config ", ["path", "get", "set", "unset", "list"]),
        ("hsd generate --max", ["--max-new-tokens"]),
        ("hsd generate --no-s", ["--no-stats"]),
        ("hsd generate --seed 1 --see", []),
        ("hsd generate --seed=1 --see", []),
        ("hsd generate --stop x --stop", ["--stop"]),
        ("hsd generate -- --see", []),
        ("hsd generate -t embedded:t", ["embedded:target", "embedded:twin"]),
        ("hsd generate -t some", ["some/model-1B"]),
        ("hsd generate --draft=embedded:s", ["--draft=embedded:speller"]),
        ("hsd generate --nope=embedded:s", []),
        ("hsd generate 'a prompt' --pair ", ["my-code"]),
        ("hsd generate 'an open quote --seed", []),
        ("hsd generate -a sl", ["slem", "slrs"]),
        ("hsd generate --ray --max", ["--max-new-tokens"]),
        ("hsd generate --ray -i prompts.jsonl --max", ["--max-new-tokens"]),
        ("hsd generate --ray 10.0.0.1:6379 --max", ["--max-new-tokens"]),
        ("hsd generate --ray ", []),
        ("hsd config get see", ["seed"]),
        ("hsd config get pairs.my-code.te", ["pairs.my-code.temperature"]),
        ("hsd config set pairs.new.te", ["pairs.new.temperature"]),
        ("hsd config set pairs.new.pai", []),
        ("hsd config set target embedded:t", ["embedded:target", "embedded:twin"]),
        ("hsd config set pairs.new.dtype b", ["bfloat16"]),
        ("hsd config set stats ", ["yes", "no"]),
        ("hsd config set nope ", []),
        ("hsd config unset ", ["seed", "pairs.my-code", "pairs.my-code.target"]),
        ("hsd completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_what_is_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_every_command_is_offered_and_each_option_of_each() -> None:
    assert {"generate", "plan", "config", "completion"} <= set(offered("hsd "))
    assert offered("") == offered("hsd ")
    for command in offered("hsd "):
        assert "--help" in offered(f"hsd {command} -"), command


def test_keys_of_existing_pairs_are_offered() -> None:
    found = offered("hsd config set ")
    assert {"target", "pair", "pairs.my-code.draft"} <= set(found)
    assert "pairs.my-code.pair" not in found


def test_a_damaged_configuration_offers_nothing_and_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text("[[")
    monkeypatch.setenv("_HSD_LINE", "hsd generate --pair ")
    assert hsd() == (0, "", "")


def test_answers_are_words_with_meanings_that_a_terminal_need_not_fear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HSD_LINE", "hsd generate -t ")
    assert hsd() == (0, "".join(f"{model}\t\n" for model in MODELS), "")
    monkeypatch.setenv("_HSD_LINE", "hsd generate --tempe")
    assert hsd() == (0, "--temperature\t0 is greedy\n", "")


def test_an_answer_loads_nothing_heavy() -> None:
    watched = """
import sys
from hsd_cli.app import main
try:
    main()
except SystemExit:
    heavy = ("torch", "transformers", "tokenizers", "numpy", "huggingface_hub.file_download", "pydantic", "rich")
    print([name for name in heavy if name in sys.modules])
"""
    for line in ("hsd generate -t ", "hsd generate --pair ", "hsd generate -", "hsd "):
        environment = os.environ | {"_HSD_LINE": line}
        done = subprocess.run([sys.executable, "-c", watched], env=environment, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]", line


# The scripts


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_files_in_the_repository_are_what_the_command_prints(shell: str) -> None:
    assert hsd("completion", shell) == (0, FILES[shell].read_text(), ""), (
        f"run: hsd completion {shell} > completions/{FILES[shell].name}"
    )


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}")


TYPED = [
    ("hsd gen\tx", "hsd generate x"),
    ("hsd generate --max\t3", "hsd generate --max-new-tokens 3"),
    ("hsd generate -t embedded:ta\tx", "hsd generate -t embedded:target x"),
    ("hsd generate -t some\tx", "hsd generate -t some/model-1B x"),
    ("hsd generate --draft=embedded:s\tx", "hsd generate --draft=embedded:speller x"),
    ("hsd generate --pair m\tx", "hsd generate --pair my-code x"),
    ("hsd config set target embedded:ta\tx", "hsd config set target embedded:target x"),
    ("hsd generate -f no\tx", "hsd generate -f notes.txt x"),
]


@needs("bash")
def test_bash_completes(home: Path) -> None:
    with Terminal("bash", "--norc", "--noprofile", "-i", folder=home, environment={"PS1": "$ "}) as terminal:
        completed(terminal, f"source {FILES['bash']}")


@needs("zsh")
def test_zsh_completes(home: Path) -> None:
    with Terminal("zsh", "-f", "-i", folder=home, environment={"PS1": "$ "}) as terminal:
        completed(terminal, f"fpath=({FOLDER} $fpath); autoload -Uz compinit && compinit -D -u")


@needs("fish")
def test_fish_completes(home: Path) -> None:
    folder = home / ".config" / "fish" / "completions"
    folder.mkdir(parents=True)
    shutil.copy(FILES["fish"], folder)
    for typed, expected in TYPED:
        line, last = typed.partition("\t")[0], expected.removesuffix(" x").removesuffix(" 3").rpartition(" ")[2]
        environment = os.environ | {"XDG_CONFIG_HOME": str(home / ".config")}
        done = subprocess.run(
            ["fish", "-c", "complete -C $argv[1]", line],
            cwd=home, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [found.partition("\t")[0] for found in done.stdout.splitlines()] == [last]


def completed(terminal: Terminal, loading: str) -> None:
    """Types each line into the shell, and sees what the tabulator key makes of it."""
    terminal.wait_for("$")
    terminal.send(f"{loading}\r")
    for typed, expected in TYPED:
        terminal.send(f"{typed}")
        terminal.wait_for(f"$ {expected}")
        terminal.send("\x15")  # take the line away
        terminal.wait_for(lambda: not terminal.text.endswith(expected))  # noqa: B023 - it is done before the next
