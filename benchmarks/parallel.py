"""Whether drafting on while the target checks pays on this machine: the same texts in turns and in parallel.

``python -m benchmarks.parallel`` prints the figures as JSON: tokens per second after the first ones, and ratios of
the same repeat, medians and ranges. Where two models on a CPU share the threads, the target in turns is also timed with
as few as it has in parallel: that tells what parallelism gains from what sharing loses. Contenders take turns, another
one comes first each time.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from hsd_cli.bench.machine import describe_machine
from hsd_cli.bench.report import spread
from hsd_cli.bench.runner import rotated
from hsd_cli.bench.tasks import shipped
from hsd_cli.decoding.parallel import CORES_PER_DRAFTERS
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.runtime.loading import load_model

WARM_UP = 16  # tokens
BASELINE = "in turns"


@dataclass(frozen=True)
class Figures:
    """Of one text: tokens per second after the first commit, and what was drafted and accepted."""

    rate: float
    drafted: int
    accepted: int


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("-t", "--target", default="embedded:target")
    parser.add_argument("-d", "--draft", default="embedded:drafter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draft-device")
    parser.add_argument("-a", "--algorithm", default="slem")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--lookahead", type=int, help="default: as long as it pays")
    parser.add_argument("-n", "--tokens", type=int, default=96)
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU, for both together")
    options = parser.parse_args()
    target = load_model(options.target, options.device)
    drafter = load_model(options.draft, options.draft_device or options.device)
    engine = Engine(target.endless(), drafter.endless())
    threads = options.threads
    fewer = max(1, threads - max(1, threads // CORES_PER_DRAFTERS))
    request = Request(
        "",
        chat=False,
        algorithm=options.algorithm,
        lookahead=options.lookahead,
        max_new_tokens=options.tokens,
        sampling=SamplingSettings(options.temperature),
    )
    plain, ahead = replace(request, algorithm="ar", lookahead=None), replace(request, parallel=True)
    two = replace(ahead, targets=2)
    contenders = {"plain": (plain, threads), BASELINE: (request, threads), "in parallel": (ahead, threads)}
    contenders["in parallel, two targets"] = (two, threads)
    if target.model.device.type == drafter.model.device.type == "cpu" and fewer < threads:
        contenders["in turns, with fewer threads"] = (request, fewer)
    prompts = shipped("code", options.prompts)[0].prompts
    for contender, count in contenders.values():
        _write(engine, replace(contender, prompt=prompts[0], max_new_tokens=WARM_UP), count)
    rounds = [
        {
            name: _write(engine, replace(contender, prompt=prompt), count)
            for name, (contender, count) in rotated(contenders, number).items()
        }
        for number, prompt in enumerate(prompts * options.repeats)
    ]
    result = {
        **{name: value for name, value in vars(options).items() if value is not None},
        "load average": os.getloadavg()[0],
        "figures": {
            name: {
                "tokens per second": vars(spread([each[name].rate for each in rounds])),
                "times as fast as in turns": vars(spread([each[name].rate / each[BASELINE].rate for each in rounds])),
                "drafted": sum(each[name].drafted for each in rounds),
                "accepted": sum(each[name].accepted for each in rounds),
            }
            for name in contenders
        },
        "machine": describe_machine(target.model.device),
    }
    print(json.dumps(result, indent=1))


def _write(engine: Engine, request: Request, threads: int) -> Figures:
    """Every text is read from its beginning."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine.forget()
        generation = engine.generate(request)
        first = len(next(generation.commits).pieces)
        begun = perf_counter()
        tokens = sum(len(commit.pieces) for commit in generation.commits)
        seconds = perf_counter() - begun
    finally:
        torch.set_num_threads(before)
    statistics = generation.statistics
    assert tokens + first == request.max_new_tokens
    return Figures(tokens / seconds, statistics.drafted, statistics.accepted)


if __name__ == "__main__":
    main()
