"""The `hsd` command as people run it, and checkpoints whose texts are known in advance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
import typer.main
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hsd_cli.app import main

# Making the commands from their functions takes longer than running most of them.
typer.main.get_command = cache(typer.main.get_command)

COMMAND = [sys.executable, "-m", "hsd_cli"]
LETTERS = [*ascii_lowercase, "\n"]
# The same alphabet in other tokens. Single letters come last, for texts that do not fit the pairs.
PAIRS = ["a", *(ascii_lowercase[at : at + 2] for at in range(1, 25, 2)), "z", *ascii_lowercase[1:-1], "\n"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def hsd(*args: object, stdin: bytes = b"") -> Result:
    """The command in this process: fast, and otherwise as from a shell."""
    out, err = StringIO(), StringIO()
    with (
        patch.object(sys, "argv", ["hsd", *map(str, args)]),
        patch.object(sys, "stdin", TextIOWrapper(BytesIO(stdin))),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as leaving,
    ):
        main()
    if "--pair" in args:  # which changes the command, as it may in a process of its own
        typer.main.get_command.cache_clear()
    assert isinstance(leaving.value.code, int)
    return Result(leaving.value.code, out.getvalue(), err.getvalue())


def shell_hsd(*args: str | bytes, stdin: bytes = b"", **environment: str) -> Result:
    """The command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, env=os.environ | environment, timeout=180
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def started_hsd(*args: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, still running."""
    return subprocess.Popen(
        [*COMMAND, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        # A test run in the background ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def checkpoint(
    folder: Path,
    tokens: Sequence[str] = LETTERS,
    *,
    sharpness: float = 8.0,
    context: int = 2048,
    special: Sequence[str] = (),
    chat_template: str | None = None,
) -> str:
    """A Llama that has learnt one thing: after each token comes the next of ``tokens``, after the last the first.

    A small ``sharpness`` makes it unsure. ``special`` tokens end the text. Returns the folder's name.
    """
    names = ["<unk>", *tokens]
    size = len(names) + len(names) % 2  # two attention heads
    ends = [names.index(token) for token in special]
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=size, intermediate_size=2, num_hidden_layers=1, num_attention_heads=2,
        head_dim=2, max_position_embeddings=context, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=ends or None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    following = torch.arange(len(names)).roll(-1)
    following[-1] = 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight.copy_(torch.eye(len(names), size))
        model.lm_head.weight[following, torch.arange(len(names))] = sharpness / size**0.5
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.Unigram([(name, -1.0) for name in names], unk_id=0, byte_fallback=False))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(special))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template).save_pretrained(folder)
    return str(folder)
