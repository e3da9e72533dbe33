"""The command line itself: what it loads, what it refuses, and how it fails."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

from hsd_cli import __version__
from hsd_cli.commands import generate
from tests.breadth import breadth
from tests.cli import COMMAND, hsd, shell_hsd

LIGHT = [
    ["--help"],
    ["--version"],
    ["generate", "--help"],
    ["chat", "--help"],
    ["chat", "--temperature", "-1"],
    ["chat", "--continue", "--load", "x"],
    ["vocab-diff", "--help"],
    ["export", "--help"],
    ["serve", "--help"],
    ["serve", "--port", "0", "--host", "0.0.0.0"],
    ["export", "-t", "some/model", "--engine", "vllm"],
    ["generate", ""],
    ["generate", "-n", "0", "x"],
    ["generate", "--dtype", "int3", "x"],
    ["generate", "--temperature", "-1", "x"],
    ["generate", "--stop", "", "x"],
    ["generate", "--raw", "--system", "x", "x"],
    ["generate", "-t", "some/model", "-a", "tli", "x"],
    ["generate", "-o", "/no/such/folder/file", "x"],
]
HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "numpy")
WATCHED = f"""
import os, sys
from hsd_cli.app import main
sys.stdout = sys.stderr = open(os.devnull, "w")
for arguments in {LIGHT!r}:
    sys.argv = ["hsd", *arguments]
    try:
        main()
    except SystemExit:
        pass
    print(arguments, [name for name in {HEAVY!r} if name in sys.modules], file=sys.__stdout__)
"""


def test_help_and_wrong_usage_load_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], input="", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{arguments} []" for arguments in LIGHT]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--temperature", "-1"], "--temperature must be 0 (greedy) or at least 1e-5, not -1.0"),
        (["--temperature", "1e-40"], "--temperature must be 0 (greedy) or at least 1e-5, not 1e-40"),
        (["--temperature", "inf"], "--temperature must be 0 (greedy) or at least 1e-5, not inf"),
        (["--temperature", "nan"], "--temperature must be 0 (greedy) or at least 1e-5, not nan"),
        (["--top-k", "-1"], "--top-k must be 0 (off) or more, not -1"),
        (["--top-p", "0"], "--top-p must be above 0 and at most 1 (off), not 0.0"),
        (["--min-p", "1.5"], "--min-p must be from 0 (off) to 1, not 1.5"),
        (["--repetition-penalty", "0"], "--repetition-penalty must be from 1e-5 to 1e5, and 1 is off, not 0.0"),
        (["--repetition-penalty", "1e39"], "--repetition-penalty must be from 1e-5 to 1e5, and 1 is off, not 1e+39"),
        (["--raw", "-s", "x"], "--system is part of a chat, and --raw asks for none; leave one of them out"),
        (["--stop", "."], None),
        (["--temperature", "1e-5", "--repetition-penalty", "1e-5"], None),
        (["--stop", ""], "--stop must not be empty"),
        (["-t", "some/model", "-a", "slem"], "--algorithm slem needs a drafter; add --draft MODEL"),
    ],
)
def test_impossible_settings_are_one_line_and_exit_code_2(arguments: list[str], sentence: str | None) -> None:
    if sentence is None:  # the same command line with nothing wrong gets as far as the model
        assert hsd("generate", "-t", "embedded:none", "x", *arguments).code == 1
    else:
        assert hsd("generate", "x", *arguments) == (2, "", f"hsd: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence", "command"),
    [
        ("generate x --none", "no such option: --none", "hsd generate"),
        ("generate x -n", "option '-n' requires an argument", "hsd"),
        ("generate x y", "got unexpected extra argument(s) (y)", "hsd generate"),
        ("generate x -n 0", "invalid value for '-n' / '--max-new-tokens'", "hsd generate"),
        ("generate x -n many", "invalid value for '-n' / '--max-new-tokens'", "hsd generate"),
        ("generate x --lookahead 0", "invalid value for '--lookahead'", "hsd generate"),
        ("generate x -a magic", "'magic' is not one of 'auto', 'ar', 'lookup', 'sd'", "hsd generate"),
        ("generate x --dtype int3", "'int3' is not one of 'auto', 'float32'", "hsd generate"),
        ("generate x --seed -1", "invalid value for '--seed'", "hsd generate"),
        (f"generate x --seed {1 << 32}", "invalid value for '--seed'", "hsd generate"),
        ("serve --tensor-parallel", "no such option: --tensor-parallel", "hsd serve"),
        ("vocab-diff A", "missing argument 'B'", "hsd vocab-diff"),
        ("conjure", "no such command 'conjure'", "hsd"),
        ("--none", "no such option: --none", "hsd"),
    ],
)
def test_what_the_options_do_not_take_is_one_line_that_names_the_help(
    arguments: str, sentence: str, command: str
) -> None:
    result = hsd(*arguments.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: ")
    assert sentence in result.err
    assert result.err.endswith(f"; see `{command} --help`\n")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("stdin", [b"", b"\xef\xbb\xbf"], ids=["nothing", "byte order mark"])
def test_an_empty_prompt_is_refused(stdin: bytes) -> None:
    sentence = "hsd: the prompt is empty; give it as an argument, with --file, or on standard input\n"
    for arguments in ([], [""], ["-"]):
        assert hsd("generate", *arguments, stdin=stdin) == (2, "", sentence)


def test_version_and_help_go_to_stdout() -> None:
    assert hsd("--version") == (0, f"hsd {__version__}\n", "")
    help_text = hsd("generate", "--help")
    assert (help_text.code, help_text.err) == (0, "")
    assert hsd() == hsd("-h") == hsd("--help")
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text.out))
    assert {
        "-t",
        "-d",
        "-a",
        "-n",
        "-f",
        "-o",
        "-q",
        "--raw",
        "--no-stats",
        "--draft-dtype",
        "--verification",
    } <= options


def test_a_closed_standard_output_is_one_line() -> None:
    done = subprocess.run([*COMMAND, "--version"], preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE, check=False)
    sentence = b"hsd: standard output is closed; send it to a file or to /dev/null\n"
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("buffering", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "arguments",
    breadth(
        [
            "--version",
            "--help",
            "vocab-diff embedded:target embedded:drafter",
            "generate -n 3 -q x",
            "generate -n 3 -q --json x",
        ],
        quick=["--version", "--help"],
    ),
)
def test_a_full_disk_is_one_line(arguments: str, buffering: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": buffering}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments.split()],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, env=environment, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"hsd: cannot write standard output: No space left on device\n")


def test_quiet_silences_the_log_of_the_layers_below() -> None:
    log = logging.getLogger("hsd_cli.runtime.graphs")
    for options, heard in (["-q"], False), ([], True):
        hsd("generate", "-t", "embedded:none", "x", *options)
        assert log.isEnabledFor(logging.WARNING) == heard


def test_a_traceback_is_shown_only_on_demand() -> None:
    """Also the one test of ``python -m hsd_cli`` with a failure."""
    quiet = shell_hsd("generate", "-t", "embedded:none", "x")
    loud = shell_hsd("generate", "-t", "embedded:none", "--debug", "x")
    assert (quiet.code, quiet.out) == (1, "")
    assert quiet.err.startswith("hsd: no embedded model 'embedded:none'; there are embedded:")
    assert quiet.err.count("\n") == 1
    assert loud.code == 1
    assert "Traceback" in loud.err


def test_an_unforeseen_error_is_one_harmless_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> str:
        raise LookupError("first line\nsecond line \x1b[2J")

    monkeypatch.setattr(generate, "read_prompt", explode)
    sentence = r"hsd: LookupError: first line second line \x1b[2J (HSD_DEBUG=1 shows where)"
    assert hsd("generate", "x") == (1, "", sentence + "\n")
    monkeypatch.setenv("HSD_DEBUG", "1")
    with pytest.raises(LookupError):
        hsd("generate", "x")
