"""What a pair costs and how much of its drafts is accepted, measured on a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch

from hsd_cli.decoding.loop import Commit
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import UsageError
from hsd_cli.planner.memory import PairRecord, Trial
from hsd_cli.planner.speedup import LONGEST
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import ModelTokenizer

# Questions and beginnings, in prose and in code.
PROMPTS = (
    "Explain in a few sentences why the sky is blue.",
    "The old lighthouse keeper climbed the stairs one last time, and",
    "List three things to check before a long journey by car, with a reason for each.",
    'def fibonacci(n):\n    """Return the first n Fibonacci numbers."""\n',
    'class Stack:\n    """A last-in, first-out collection."""\n\n    def __init__(self',
    "for (int i = 0; i < rows; i++) {\n    for (int j = 0; j < columns; j++) {\n",
)
TOKENS = 64  # per prompt
LOOKAHEAD = 4
REPEATS = 15
SEED = 0


def measure_pair(engine: Engine, prompts: Sequence[str], on_step: Callable[[str], None]) -> PairRecord:
    """Every algorithm that fits, at temperature 0 and 1; ``on_step`` hears what is measured next."""
    assert engine.drafter is not None
    on_step("the target's passes")
    passes = _seconds_by_tokens(engine.target, prompts, LONGEST + 1)
    on_step("the drafter's steps")
    (step,) = _seconds_by_tokens(engine.drafter, prompts, 1)
    greedy, sampled = (_trials(engine, prompts, temperature, passes, on_step) for temperature in (0.0, 1.0))
    return PairRecord(passes, step, greedy, sampled)


def _seconds_by_tokens(loaded: LoadedModel, prompts: Sequence[str], longest: int) -> tuple[float, ...]:
    """Median seconds of a forward pass over 1, 2, ... ``longest`` tokens after a prompt.

    Rounds over all lengths, so that a change in the machine's speed meets all of them; the first is the warm-up.
    """
    tokenizer = ModelTokenizer.load(loaded.name, loaded.eos_ids)
    prompt = tokenizer.render(max(prompts, key=len), None, chat=False)
    model = CachedModel(loaded.model, len(prompt) + longest)
    model.prefill(prompt)
    tokens = torch.tensor((prompt * longest)[:longest], device=model.device)
    rounds = [
        [_seconds(model, tokens[:count], len(prompt)) for count in range(1, longest + 1)] for _ in range(REPEATS + 1)
    ]
    return tuple(map(median, zip(*rounds[1:], strict=True)))


def _seconds(model: CachedModel, tokens: torch.Tensor, start: int) -> float:
    begun = perf_counter()
    model.run(tokens)[-1, 0].item()  # waits for the device
    seconds = perf_counter() - begun
    model.rollback(start)
    return seconds


def _trials(
    engine: Engine,
    prompts: Sequence[str],
    temperature: float,
    passes: Sequence[float],
    on_step: Callable[[str], None],
) -> dict[str, Trial]:
    """By algorithm, without those that do not fit the pair or have nothing to propose."""
    trials: dict[str, Trial] = {}
    for algorithm in ALGORITHMS:
        if algorithm == "ar":
            continue
        on_step(f"{algorithm} at temperature {temperature:g}")
        with suppress(UsageError):  # does not fit
            commits = [_commits(engine, algorithm, prompt, temperature) for prompt in prompts]
            if any(commit.drafted for text in commits for commit in text):
                trials[algorithm] = _trial(commits, passes)
    return trials


def _commits(engine: Engine, algorithm: str, prompt: str, temperature: float) -> list[Commit]:
    request = Request(
        prompt,
        algorithm=algorithm,
        lookahead=LOOKAHEAD,
        max_new_tokens=TOKENS,
        sampling=SamplingSettings(temperature),
        verification="rejection",
        seed=SEED,
    )
    return list(engine.generate(request).commits)


def _trial(texts: Sequence[Sequence[Commit]], passes: Sequence[float]) -> Trial:
    """The counts of all texts together. The first iteration of each also reads the prompt: its time does not count."""
    commits = [commit for text in texts for commit in text]
    timed = [
        (commit.drafted, commit.seconds - before.seconds)
        for text in texts
        for before, commit in pairwise(text)
        if commit.drafted
    ]
    return Trial(
        iterations=len(commits),
        drafts=sum(commit.drafted > 0 for commit in commits),
        drafted=sum(commit.drafted for commit in commits),
        tested=sum(min(commit.accepted + 1, commit.drafted) for commit in commits),
        accepted=sum(commit.accepted for commit in commits),
        draft_seconds=median(max(0.0, (seconds - passes[drafted]) / drafted) for drafted, seconds in timed),
    )
