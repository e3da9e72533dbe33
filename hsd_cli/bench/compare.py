"""Side by side: ``python -m hsd_cli.bench.compare [--target ID] [--draft ID …] [--tokens N] [--repeats N] …``.

Plain decoding, every algorithm, and transformers' own ``generate`` (plain and assisted with the same drafter and draft
length), in one process and interleaved: each repeat runs every contender once on every prompt, so that a change in the
machine's speed meets all of them. Prompts are unseen text, lengths are fixed (end of text is ignored), loading and a
warm-up round are not counted. Speed-ups are against our plain decoding in the same repeat.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.models.locate import model_source
from hsd_cli.models.train_embedded import read_corpus
from hsd_cli.runtime.loading import LoadedModel, load_model

PROMPT_CHARACTERS = 400


@dataclass(frozen=True)
class Sample:
    """One contender on one prompt. ``passes`` are forward passes of the target that wrote tokens."""

    seconds: float
    tokens: int
    passes: int
    drafted: int = 0
    accepted: int = 0


Contender = Callable[[str, int], Sample]  # prompt, seed


def ours(engine: Engine, algorithm: str, temperature: float, tokens: int, lookahead: int | None) -> Contender:
    def run(prompt: str, seed: int) -> Sample:
        request = Request(
            prompt,
            algorithm=algorithm,
            lookahead=lookahead,
            max_new_tokens=tokens,
            sampling=SamplingSettings(temperature),
            seed=seed,
            verification="rejection",
        )
        engine.forget()  # every contender reads the prompt
        begun = perf_counter()
        generation = engine.generate(request)
        for _ in generation.commits:
            pass
        counts = generation.statistics
        return Sample(perf_counter() - begun, counts.tokens, counts.iterations, counts.drafted, counts.accepted)

    return run


def theirs(
    target: LoadedModel, drafter: LoadedModel | None, temperature: float, tokens: int, lookahead: int
) -> Contender:
    """transformers' ``generate``: exact match of text at temperature 0, token intersection when sampling."""
    tokenizer = _tokenizer(target)
    assistance: dict[str, object] = {}
    if drafter is not None:
        configuration = drafter.model.generation_config
        assert configuration is not None
        configuration.num_assistant_tokens = lookahead
        configuration.num_assistant_tokens_schedule = "constant"
        configuration.assistant_confidence_threshold = 0.0
        assistance["assistant_model"] = drafter.model
        if _tokenizer(drafter).get_vocab() != tokenizer.get_vocab():
            assistance |= {"tokenizer": tokenizer, "assistant_tokenizer": _tokenizer(drafter)}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}

    def run(prompt: str, seed: int) -> Sample:
        torch.manual_seed(seed)
        begun = perf_counter()
        inputs = tokenizer(prompt, return_tensors="pt")
        with _count_passes(target.model) as passes:
            ids = target.model.generate(  # type: ignore[operator]
                **inputs, max_new_tokens=tokens, eos_token_id=None, **sampling, **assistance
            )
        return Sample(perf_counter() - begun, ids.shape[1] - inputs["input_ids"].shape[1], len(passes))

    return run


def _tokenizer(model: LoadedModel) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_source(model.name))
    return tokenizer


@contextmanager
def _count_passes(model: PreTrainedModel) -> Iterator[list[None]]:
    passes: list[None] = []
    hook = model.register_forward_hook(lambda *_: passes.append(None))
    try:
        yield passes
    finally:
        hook.remove()


def contenders(
    target_name: str, drafter_names: list[str], temperature: float, tokens: int, lookahead: int
) -> dict[str, Contender]:
    target = replace(load_model(target_name), eos_ids=())
    options = (temperature, tokens, lookahead)
    named = {name: ours(Engine(target, None), name, *options) for name in ("ar", "lookup")}
    for name in drafter_names:
        engine = Engine(target, replace(load_model(name), eos_ids=()))
        short = name.removeprefix("embedded:")
        named |= {f"{algorithm}, {short}": ours(engine, algorithm, *options) for algorithm in _algorithms(engine)}
        named[f"auto, {short}"] = ours(engine, "auto", temperature, tokens, None)
    named["transformers"] = theirs(target, None, *options)
    for name in drafter_names:
        # Assisted generation may change the drafter it is given: it gets one of its own.
        named[f"transformers, {name.removeprefix('embedded:')}"] = theirs(target, load_model(name), *options)
    return named


def _algorithms(engine: Engine) -> tuple[str, ...]:
    assert engine.drafter is not None
    same = _tokenizer(engine.drafter).get_vocab() == _tokenizer(engine.target).get_vocab()
    return ("sd",) if same else ("slem", "slrs", "tli", "union")


def measure(runs: dict[str, Contender], prompts: list[str], repeats: int) -> dict[str, list[list[Sample]]]:
    """Samples by contender, repeat and prompt. The first round is the warm-up and is dropped."""
    samples: dict[str, list[list[Sample]]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            round_of_prompts = [run(prompt, 1000 * repeat + index) for index, prompt in enumerate(prompts)]
            if repeat > 0:
                samples[name].append(round_of_prompts)
    return samples


def speed(samples: list[Sample]) -> float:
    return sum(s.tokens for s in samples) / sum(s.seconds for s in samples)


def table(samples: dict[str, list[list[Sample]]], title: str) -> Table:
    result = Table("", "tokens/s", "speed-up", "spread", "acceptance", "tokens/pass", title=title)
    plain = [speed(repeat) for repeat in samples["ar"]]
    for name, repeats in samples.items():
        ratios = [speed(repeat) / base for repeat, base in zip(repeats, plain, strict=True)]
        flat = [sample for repeat in repeats for sample in repeat]
        drafted = sum(s.drafted for s in flat)
        result.add_row(
            name,
            f"{median(map(speed, repeats)):.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{sum(s.accepted for s in flat) / drafted:.2f}" if drafted else "",
            f"{sum(s.tokens for s in flat) / sum(s.passes for s in flat):.2f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="embedded:target")
    parser.add_argument("--draft", nargs="+", default=["embedded:drafter", "embedded:twin"])
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--lookahead", type=int, default=4)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    arguments = parser.parse_args()
    prompts = [text[:PROMPT_CHARACTERS] for text in read_corpus()[1] if len(text) > 2000][: arguments.prompts]
    everything = {}
    for temperature in arguments.temperature:
        runs = contenders(arguments.target, arguments.draft, temperature, arguments.tokens, arguments.lookahead)
        samples = measure(runs, prompts, arguments.repeats)
        title = f"temperature {temperature:g}, lookahead {arguments.lookahead}, {arguments.tokens} tokens"
        Console().print(table(samples, title))
        everything[f"{temperature:g}"] = {
            name: [[asdict(sample) for sample in repeat] for repeat in repeats] for name, repeats in samples.items()
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(everything) + "\n")


if __name__ == "__main__":
    main()
