"""What a pair costs and how much of its drafts is accepted, measured on a few prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch

from hsd_cli.decoding.loop import Commit
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError
from hsd_cli.planner.record import KINDS, Kind, PairRecord, Trial
from hsd_cli.planner.speedup import LONGEST
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import ModelTokenizer

TOKENS = 64  # per prompt
LOOKAHEAD = 4
TEMPERATURES: Mapping[Kind, float] = {"greedy": 0.0, "sampled": 1.0}


def measure_pair(
    engine: Engine,
    algorithms: Mapping[Kind, Sequence[str]],
    prompts: Sequence[str],
    on_step: Callable[[str], None],
) -> PairRecord:
    """Tries ``algorithms`` that suit the pair; ``on_step`` hears what is measured next."""
    assert engine.drafter is not None
    on_step("measuring forward passes")
    prompt = max(prompts, key=len)
    target, drafter = PassTimer(engine.target, prompt, LONGEST + 1), PassTimer(engine.drafter, prompt, 1)
    texts: dict[tuple[Kind, str], list[list[Commit]]] = defaultdict(list)
    for kind in KINDS:
        for algorithm in ("ar", *algorithms[kind]):
            for number, prompt in enumerate(prompts, 1):
                on_step(f"measuring {algorithm} on {kind} text, {number} of {len(prompts)}")
                # Passes between the texts, so that both are timed while the machine is equally busy with other work.
                target.time()
                drafter.time()
                texts[kind, algorithm].append(_commits(engine, algorithm, prompt, TEMPERATURES[kind]))
    plain = texts.pop(("greedy", "ar")) + texts.pop(("sampled", "ar"))
    # One token per pass is timed as it decodes, since that is what all speed-ups are relative to.
    passes = (_plain_seconds(plain), *target.medians[1:])
    trials: dict[Kind, dict[str, Trial]] = {kind: {} for kind in KINDS}
    for (kind, algorithm), found in texts.items():
        trial = _trial(found, passes)
        if trial is not None:
            trials[kind][algorithm] = trial
    return PairRecord(passes, drafter.medians[0], **trials)


class PassTimer:
    """Seconds of a model's forward passes over 1, 2, ... ``longest`` tokens after a prompt."""

    def __init__(self, loaded: LoadedModel, prompt: str, longest: int) -> None:
        self._model = CachedModel(loaded.model, longest)
        ids = ModelTokenizer.of(loaded).render(prompt).ids[: self._model.context_size - longest]
        self._model.prefill(ids)
        self._start = len(ids)
        self._tokens = torch.tensor((ids * longest)[:longest], device=self._model.device)
        self._rounds: list[list[float]] = []
        self.time()  # the warm-up
        self._rounds.clear()

    def time(self) -> None:
        """Another observation of each."""
        self._rounds.append([self._seconds(count) for count in range(1, len(self._tokens) + 1)])

    @property
    def medians(self) -> tuple[float, ...]:
        return tuple(map(median, zip(*self._rounds, strict=True)))

    def _seconds(self, count: int) -> float:
        begun = perf_counter()
        self._model.run(self._tokens[:count])[-1, 0].item()  # waits for the device
        seconds = perf_counter() - begun
        self._model.rollback(self._start)
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


def _timed(texts: Sequence[Sequence[Commit]]) -> Iterator[tuple[Commit, float]]:
    """Iterations and their seconds, without the first of each text, which also reads the prompt."""
    for text in texts:
        for before, commit in pairwise(text):
            yield commit, commit.seconds - before.seconds


def _plain_seconds(texts: Sequence[Sequence[Commit]]) -> float:
    seconds = [seconds for _, seconds in _timed(texts)]
    if not seconds:
        raise HsdError("the target ends every text at once, so that there is nothing to measure; give other --prompts")
    return median(seconds)


def _trial(texts: Sequence[Sequence[Commit]], passes: Sequence[float]) -> Trial | None:
    """The counts of all texts together; ``None`` if too little was drafted to tell what it takes."""
    draft_seconds = [
        (seconds - passes[commit.drafted]) / commit.drafted for commit, seconds in _timed(texts) if commit.drafted
    ]
    if not draft_seconds:
        return None
    commits = [commit for text in texts for commit in text]
    return Trial(
        iterations=len(commits),
        drafts=sum(commit.drafted > 0 for commit in commits),
        drafted=sum(commit.drafted for commit in commits),
        tested=sum(min(commit.accepted + 1, commit.drafted) for commit in commits),
        accepted=sum(commit.accepted for commit in commits),
        draft_seconds=max(0.0, median(draft_seconds)),
    )
