"""What starting takes, in processes of their own that take turns.

``python -m benchmarks.startup [TOKENIZER_A TOKENIZER_B]``: `hsd --help`; the first token of `hsd generate` with the
embedded pair, beside importing torch and transformers and loading the two models; with two tokenizers `hsd vocab-diff`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from hsd_cli.bench.machine import describe_machine
from hsd_cli.bench.report import spread
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET, model_source

LOADING = """
import sys, torch
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
"""
FIRST, NEEDED = "first token", "imports and loading"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("tokenizers", nargs="*")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    hsd = [sys.executable, "-m", "hsd_cli"]
    commands = {
        "--help": [*hsd, "--help"],
        FIRST: [*hsd, "generate", "-q", "-n", "1", "import os"],
        NEEDED: [sys.executable, "-c", LOADING, *(str(model_source(m)) for m in (EMBEDDED_TARGET, EMBEDDED_DRAFTER))],
    }
    if options.tokenizers:
        commands["vocab-diff"] = [*hsd, "vocab-diff", *options.tokenizers]
    rounds = [{name: _seconds(command) for name, command in commands.items()} for _ in range(options.repeats + 1)][1:]
    result = {
        "seconds": {name: vars(spread([each[name] for each in rounds])) for name in commands},
        "first token over imports and loading": vars(spread([each[FIRST] / each[NEEDED] for each in rounds])),
        "machine": describe_machine(torch.device("cpu")),
    }
    print(json.dumps(result, indent=1))
    print(f"median of the ratios: {median(each[FIRST] / each[NEEDED] for each in rounds):.2f}", file=sys.stderr)


def _seconds(command: list[str]) -> float:
    """Nothing that earlier runs kept is used."""
    with TemporaryDirectory() as folder:
        surroundings = os.environ | {"HSD_CACHE": folder, "HSD_CONFIG": f"{folder}/none", "HF_HUB_OFFLINE": "1"}
        begun = perf_counter()
        subprocess.run(command, env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - begun


if __name__ == "__main__":
    main()
