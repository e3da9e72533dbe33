"""How the time of a pass grows with the text, beside attention's own growth: seconds per token at 512 and 8192.

``python -m benchmarks.growth``: attention's own is the bare product over keys and values of the model's shape, in
memory of its own for each layer, as in a cache. Measurements take turns.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch.nn.functional import scaled_dot_product_attention

from hsd_cli.bench.machine import describe_machine
from hsd_cli.bench.report import spread
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.model import CachedModel

LENGTHS = (512, 8192)
PASSES = 20  # of each kind in a repeat; their median counts


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("-t", "--target", default="embedded:target")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=1, help="per pass")
    options = parser.parse_args()
    model = load_model(options.target, "cpu").model
    model.config.max_position_embeddings = max(LENGTHS) + options.tokens  # what the text says is of no interest
    passes = {length: _passes(model, length, options.tokens) for length in LENGTHS}
    attentions = {length: _attention(model.config, length, options.tokens) for length in LENGTHS}
    rounds = [
        [_seconds(work) for work in (*passes.values(), *attentions.values())] for _ in range(options.repeats + 1)
    ][1:]
    grown = [(long - short) / (own_long - own_short) for short, long, own_short, own_long in rounds]
    short, long, own_short, own_long = (median(column) for column in zip(*rounds, strict=True))
    result = {
        "target": options.target,
        "tokens per pass": options.tokens,
        "seconds at": {"512": short, "8192": long},
        "attention alone": {"512": own_short, "8192": own_long},
        "growth over attention's own": vars(spread(grown)),
        "machine": describe_machine(torch.device("cpu")),
    }
    print(json.dumps(result, indent=1))


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(PASSES):
        begun = perf_counter()
        work()
        taken.append(perf_counter() - begun)
    return median(taken)


def _passes(loaded: object, length: int, count: int) -> Callable[[], object]:
    model = CachedModel(loaded, length + count)  # type: ignore[arg-type]
    model.prefill([index % 1000 for index in range(length)])
    tokens = torch.arange(count)

    def work() -> None:
        model.run(tokens)
        model.rollback(length)

    return work


@torch.inference_mode()
def _attention(config: object, length: int, count: int) -> Callable[[], object]:
    heads, kv_heads, size, layers = (
        getattr(config, name)
        for name in ("num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers")
    )
    memory = [[torch.randn(1, kv_heads, length + count, size) for _ in range(2)] for _ in range(layers)]
    rows = torch.randn(1, kv_heads, count * heads // kv_heads, size)

    def work() -> None:
        for keys, values in memory:
            scaled_dot_product_attention(rows, keys, values)

    return work


if __name__ == "__main__":
    main()
