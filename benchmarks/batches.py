"""What writing several texts at a time brings: tokens per second by the size of the batch.

``python -m benchmarks.batches`` prints the figures as JSON: medians and ranges, and ratios to one text at a time of
the same repeat. Every seat is taken all the time: there are as many texts as seats, all of the same length. Sizes and
algorithms take turns, another one comes first each time. ``--peers`` has the library's own ``generate`` write the same
batches (without drafts: it drafts for one text alone).
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import torch
from transformers import AutoTokenizer, StoppingCriteriaList

from hsd_cli.batch_engine import BatchEngine
from hsd_cli.bench.machine import describe_machine
from hsd_cli.bench.report import spread
from hsd_cli.bench.runner import rotated
from hsd_cli.bench.tasks import shipped
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.models.locate import weights_source
from hsd_cli.runtime.loading import LoadedModel, load_model

WARM_UP = 8  # tokens of each text
PEER = "transformers"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("-t", "--target", default="embedded:target")
    parser.add_argument("-d", "--draft", default="embedded:drafter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("-a", "--algorithms", default="ar,slem,auto")
    parser.add_argument("--sizes", default="1,8")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("-n", "--tokens", type=int, default=64, help="of each text")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    target = load_model(options.target, options.device, options.dtype)
    pair = Engine(target.endless(), load_model(options.draft, options.device).endless())
    sizes = [int(size) for size in options.sizes.split(",")]
    base = Request(
        "", chat=False, max_new_tokens=options.tokens, sampling=SamplingSettings(options.temperature), seed=0
    )
    [task] = shipped("code")
    peer = load_model(options.target, options.device, options.dtype, packed=False) if options.peers else None
    writers = [*options.algorithms.split(","), *([PEER] if peer else [])]
    rates: dict[tuple[str, int], list[float]] = {(writer, size): [] for writer in writers for size in sizes}
    for repeat in range(options.repeats):
        for (writer, size), found in rotated(rates, repeat).items():
            prompts = list(islice(cycle(task.prompts), size))
            if peer is not None and writer == PEER:
                found.append(_library_rate(peer, prompts, options.tokens, options.temperature))
            else:
                texts = [replace(base, prompt=prompt, algorithm=writer) for prompt in prompts]
                found.append(_rate(BatchEngine(pair, size), texts))
    result = {
        "target": options.target,
        "drafter": options.draft,
        "temperature": options.temperature,
        "tokens per text": options.tokens,
        "tokens per second": {f"{name} x {size}": vars(spread(found)) for (name, size), found in rates.items()},
        "over one text at a time": {
            f"{name} x {size}": vars(spread([a / b for a, b in zip(found, rates[name, sizes[0]], strict=True)]))
            for (name, size), found in rates.items()
        },
        "over the library": {
            f"{name} x {size}": vars(spread([a / b for a, b in zip(found, rates[PEER, size], strict=True)]))
            for (name, size), found in rates.items()
            if options.peers and name != PEER
        },
        "machine": describe_machine(target.model.device),
    }
    print(json.dumps(result, indent=1))


def _rate(engine: BatchEngine, texts: list[Request]) -> float:
    """Tokens per second from when every text has its first few."""
    written = {engine.begin(text): 0 for text in texts}
    begun, before = perf_counter(), None
    while engine.texts:
        for text, happened in engine.step():
            if isinstance(happened, Exception):
                raise happened
            written[text] += len(happened.pieces)
        if before is None and min(written.values()) >= WARM_UP:
            begun, before = perf_counter(), sum(written.values())
    return (sum(written.values()) - (before or 0)) / (perf_counter() - begun)


def _library_rate(target: LoadedModel, prompts: list[str], tokens: int, temperature: float) -> float:
    """The same of transformers' ``generate``, for a batch that is padded on the left."""
    tokenizer = AutoTokenizer.from_pretrained(weights_source(target.name))
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(target.model.device)
    clock: list[float] = []

    def note(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ids[0, -1].item()  # once it is there
        clock.append(perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    target.model.generate(  # type: ignore[operator]
        **inputs,
        max_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        stopping_criteria=StoppingCriteriaList([note]),
        **sampling,
    )
    return len(prompts) * (tokens - WARM_UP) / (clock[-1] - clock[WARM_UP - 1])


if __name__ == "__main__":
    main()
