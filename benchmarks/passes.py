"""Forward passes over 1 to 16 tokens, ours beside the library's own: ``python -m benchmarks.passes MODEL``.

A table for people on standard error, everything as JSON on standard output. Both read the same text behind the same
cache, in turns, in one process. Figures are medians of the ratios ``ours / the library's``.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from statistics import median
from time import perf_counter

import torch
from transformers import DynamicCache

from hsd_cli.bench.machine import describe_machine
from hsd_cli.runtime.loading import load_model

TOKENS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
CONTEXT = 64  # tokens read before


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {dtype: _table(options.model, dtype, options.repeats, options.threads) for dtype in options.dtype}
    print(json.dumps({"model": options.model, "passes": result, "machine": describe_machine(torch.device("cpu"))}))


@torch.inference_mode()
def _table(name: str, dtype: str, repeats: int, threads: int) -> dict[str, dict[str, float]]:
    ours = load_model(name, "cpu", dtype, threads=threads).cached(CONTEXT + max(TOKENS))
    theirs = load_model(name, "cpu", dtype, packed=False).model
    text = [7 + index % 50 for index in range(CONTEXT)]
    ours.begin(text)
    ours.prefill(text[:-1])
    cache = DynamicCache(config=theirs.config)
    theirs(input_ids=torch.tensor([text[:-1]]), past_key_values=cache)
    table: dict[str, dict[str, float]] = {}
    for count in TOKENS:
        ids = torch.tensor([*text[-1:], *range(9, 8 + count)])
        rounds = []
        for _ in range(repeats + 1):
            begun = perf_counter()
            ours.run(ids)
            between = perf_counter()
            theirs(input_ids=ids[None], past_key_values=cache)
            rounds.append((between - begun, perf_counter() - between))
            ours.rollback(CONTEXT - 1)
            cache.crop(-count)
        mine, library = ([each[place] for each in rounds[1:]] for place in (0, 1))
        table[str(count)] = {
            "ours_ms": 1e3 * median(mine),
            "library_ms": 1e3 * median(library),
            "ratio": median(one / other for one, other in zip(mine, library, strict=True)),
        }
        row = table[str(count)]
        print(
            f"{dtype} {count:2} tokens: {row['ours_ms']:.1f} ms against {row['library_ms']:.1f}: {row['ratio']:.2f}",
            file=sys.stderr,
        )
    return table


if __name__ == "__main__":
    main()
