"""`auto` against all that it may choose from: ``python -m benchmarks.auto [--tokens N] [--repeats N] [--cases …]``.

For pairs that suit drafting and pairs that do not, greedy and sampled: plain decoding, each fixed algorithm at each
lookahead, and `auto`, in one process and interleaved. Each repeat has a prompt of its own. `auto` should be close to
plain decoding where nothing pays, and to the best of the fixed ones, known only in hindsight, where something does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from hsd_cli.bench.contenders import Contender, Job, ours
from hsd_cli.bench.counted import CountedEngine
from hsd_cli.bench.report import speed
from hsd_cli.models.train_embedded import read_corpus
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.ui.bench_report import Sample

LOOKAHEADS = (2, 4, 8)
WARM_UP = 32  # tokens
PROMPT_CHARACTERS = 400


def unseen(text: str) -> str:
    return text[:PROMPT_CHARACTERS]


def repeated(text: str) -> str:
    """A text and its beginning again, as when a file is edited."""
    return text[: 2 * PROMPT_CHARACTERS] + text[: PROMPT_CHARACTERS // 2]


@dataclass(frozen=True)
class Case:
    """A drafter for the embedded target, the algorithms with a model that fit, and what is asked of them."""

    drafter: Callable[[], LoadedModel]
    greedy: tuple[str, ...] = ("slem", "tli")
    sampled: tuple[str, ...] = ("slrs", "tli")
    prompt: Callable[[str], str] = unseen


def embedded(name: str) -> Callable[[], LoadedModel]:
    return lambda: load_model(f"embedded:{name}").endless()


def random_drafter() -> LoadedModel:
    """The foreign drafter with random weights: nothing that it says is of any use."""
    drafter = load_model("embedded:drafter").endless()
    torch.manual_seed(0)
    for weights in drafter.model.parameters():
        torch.nn.init.normal_(weights, std=0.05)
    return drafter


CASES = {
    "foreign drafter": Case(embedded("drafter")),
    "foreign drafter, small vocabulary": Case(embedded("speller")),
    "twin with the target's tokenizer": Case(embedded("twin"), ("sd",), ("sd",)),
    "random drafter": Case(random_drafter),
    "drafter as large as the target": Case(embedded("target"), ("sd",), ("sd",)),
    "text to be repeated": Case(embedded("drafter"), prompt=repeated),
}


def contenders(case: Case, engine: CountedEngine, temperature: float) -> dict[str, Contender]:
    """`ar`, the fixed algorithms with their lookahead, and `auto`."""
    algorithms = ("lookup", *(case.sampled if temperature else case.greedy))
    fixed = [(algorithm, lookahead) for algorithm in algorithms for lookahead in LOOKAHEADS]
    named = {"ar": ours(engine, "ar", temperature, None)}
    named |= {
        f"{algorithm} {lookahead}": ours(engine, algorithm, temperature, lookahead) for algorithm, lookahead in fixed
    }
    return named | {"auto": ours(engine, "auto", temperature, None)}


def measure(
    case: Case, engine: CountedEngine, temperature: float, tokens: int, texts: Sequence[str]
) -> dict[str, list[Sample]]:
    """One sample per contender and text."""
    runs = contenders(case, engine, temperature)
    for run in runs.values():
        run(Job(case.prompt(texts[0]), WARM_UP))
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    for repeat, text in enumerate(texts):
        for name, run in runs.items():
            samples[name].append(run(Job(case.prompt(text), tokens, repeat=repeat)))
    return samples


def row(samples: dict[str, list[Sample]]) -> list[str]:
    """The cells of a case: plain decoding, the best fixed contender in hindsight, and `auto` beside both."""
    speeds = {name: [speed([sample]) for sample in repeats] for name, repeats in samples.items()}
    fixed = {name: values for name, values in speeds.items() if name != "auto"}
    best = max(fixed, key=lambda name: median(ratios(fixed[name], speeds["ar"])))
    return [
        f"{median(speeds['ar']):.0f}",
        f"{best} ({median(ratios(speeds[best], speeds['ar'])):.2f})",
        spread(ratios(speeds["auto"], speeds["ar"])),
        spread(ratios(speeds["auto"], speeds[best])),
    ]


def ratios(ours: Sequence[float], base: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, base, strict=True)]


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path, help="write the tokens per second of every run to this file")
    arguments = parser.parse_args()
    texts = [text for text in read_corpus()[1] if len(text) > 2000][: arguments.repeats]
    target = load_model("embedded:target").endless()
    table = Table("", "T", "plain, tokens/s", "best fixed (× plain)", "auto / plain", "auto / best fixed")
    everything = {}
    for name in arguments.cases:
        engine = CountedEngine(target, CASES[name].drafter())
        for temperature in arguments.temperature:
            samples = measure(CASES[name], engine, temperature, arguments.tokens, texts)
            table.add_row(name, f"{temperature:g}", *row(samples))
            everything[f"{name}, {temperature:g}"] = {
                contender: [speed([sample]) for sample in repeats] for contender, repeats in samples.items()
            }
            print(name, temperature, *row(samples), sep=" | ", flush=True)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything) + "\n")


if __name__ == "__main__":
    main()
