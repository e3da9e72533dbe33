"""What a pair costs and how much of its drafts is accepted, measured on a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch

from hsd_cli.decoding.loop import Commit
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.planner.record import KINDS, Kind, PairRecord, Trial
from hsd_cli.planner.speedup import LONGEST
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import ModelTokenizer

TOKENS = 64  # per prompt
LOOKAHEAD = 4
TEMPERATURES: Mapping[Kind, float] = {"greedy": 0.0, "sampled": 1.0}
# Rounds of timing, of which the first is the warm-up: a large model's passes are long, and vary less.
FEWEST_ROUNDS, MOST_ROUNDS, ENOUGH_SECONDS = 4, 16, 10.0


def measure_pair(
    engine: Engine,
    algorithms: Mapping[Kind, Sequence[str]],
    prompts: Sequence[str],
    on_step: Callable[[str], None],
) -> PairRecord:
    """Tries ``algorithms`` that suit the pair; ``on_step`` hears what is measured next."""
    assert engine.drafter is not None
    on_step("measuring the target's passes")
    passes = _seconds_by_tokens(engine.target, prompts, LONGEST + 1)
    on_step("measuring the drafter's steps")
    (step,) = _seconds_by_tokens(engine.drafter, prompts, 1)
    trials: dict[Kind, dict[str, Trial]] = {}
    for kind in KINDS:
        trials[kind] = {}
        for algorithm in algorithms[kind]:
            on_step(f"measuring {algorithm} on {kind} text")
            texts = [_commits(engine, algorithm, prompt, TEMPERATURES[kind]) for prompt in prompts]
            trial = _trial(texts, passes)
            if trial is not None:
                trials[kind][algorithm] = trial
    return PairRecord(passes, step, **trials)


def _seconds_by_tokens(loaded: LoadedModel, prompts: Sequence[str], longest: int) -> tuple[float, ...]:
    """Median seconds of a forward pass over 1, 2, ... ``longest`` tokens after a prompt.

    Rounds over all lengths, so that a change in the machine's speed meets all of them.
    """
    tokenizer = ModelTokenizer.load(loaded.name, loaded.eos_ids)
    model = CachedModel(loaded.model, longest)
    prompt = tokenizer.render(max(prompts, key=len), None, chat=False)[: model.context_size - longest]
    model.prefill(prompt)
    tokens = torch.tensor((prompt * longest)[:longest], device=model.device)
    rounds: list[list[float]] = []
    begun = perf_counter()
    while len(rounds) < FEWEST_ROUNDS or (len(rounds) < MOST_ROUNDS and perf_counter() - begun < ENOUGH_SECONDS):
        rounds.append([_seconds(model, tokens[:count], len(prompt)) for count in range(1, longest + 1)])
    return tuple(map(median, zip(*rounds[1:], strict=True)))


def _seconds(model: CachedModel, tokens: torch.Tensor, start: int) -> float:
    begun = perf_counter()
    model.run(tokens)[-1, 0].item()  # waits for the device
    seconds = perf_counter() - begun
    model.rollback(start)
    return seconds


def _commits(engine: Engine, algorithm: str, prompt: str, temperature: float) -> list[Commit]:
    request = Request(
        prompt,
        algorithm=algorithm,
        lookahead=LOOKAHEAD,
        max_new_tokens=TOKENS,
        sampling=SamplingSettings(temperature),
        verification="rejection",
        seed=0,
    )
    return list(engine.generate(request).commits)


def _trial(texts: Sequence[Sequence[Commit]], passes: Sequence[float]) -> Trial | None:
    """The counts of all texts together; ``None`` if too little was drafted to tell what it takes."""
    # The first iteration of a text also reads the prompt: its time is not typical.
    seconds = [
        (commit.seconds - before.seconds - passes[commit.drafted]) / commit.drafted
        for text in texts
        for before, commit in pairwise(text)
        if commit.drafted
    ]
    if not seconds:
        return None
    commits = [commit for text in texts for commit in text]
    return Trial(
        iterations=len(commits),
        drafts=sum(commit.drafted > 0 for commit in commits),
        drafted=sum(commit.drafted for commit in commits),
        tested=sum(min(commit.accepted + 1, commit.drafted) for commit in commits),
        accepted=sum(commit.accepted for commit in commits),
        draft_seconds=max(0.0, median(seconds)),
    )
