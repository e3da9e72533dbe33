"""What writing several texts at a time brings: tokens per second by the size of the batch.

``python -m hsd_cli.bench.batches`` prints the figures as JSON: medians and ranges, and ratios to one text at a time of
the same repeat. Every seat is taken all the time: there are as many texts as seats, all of the same length. Sizes and
algorithms take turns, another one comes first each time.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter

from hsd_cli.batch_engine import BatchEngine
from hsd_cli.bench.machine import describe_machine
from hsd_cli.bench.report import spread
from hsd_cli.bench.runner import rotated
from hsd_cli.bench.tasks import shipped
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.loading import load_model

WARM_UP = 8  # tokens of each text


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
    options = parser.parse_args()
    target = load_model(options.target, options.device, options.dtype)
    pair = Engine(replace(target, eos_ids=()), replace(load_model(options.draft, options.device), eos_ids=()))
    sizes = [int(size) for size in options.sizes.split(",")]
    base = Request(
        "", chat=False, max_new_tokens=options.tokens, sampling=SamplingSettings(options.temperature), seed=0
    )
    [task] = shipped("code")
    rates: dict[tuple[str, int], list[float]] = {
        (algorithm, size): [] for algorithm in options.algorithms.split(",") for size in sizes
    }
    for repeat in range(options.repeats):
        for (algorithm, size), found in rotated(rates, repeat).items():
            texts = [replace(base, prompt=prompt, algorithm=algorithm) for prompt in islice(cycle(task.prompts), size)]
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


if __name__ == "__main__":
    main()
