"""What is measured side by side: algorithms of ours, and transformers' own ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from hsd_cli.bench.counted import CountedEngine
from hsd_cli.decoding.loop import Commit
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Request
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.ui.bench_report import Sample
from hsd_cli.vocab.tokenizer import pretrained_tokenizer

PHASES = ("draft", "verify", "translate")


@dataclass(frozen=True)
class Job:
    """What a contender has to do: the prompt and its number, how many tokens to write, and with which seed."""

    prompt: str
    tokens: int
    number: int = 0
    repeat: int = 0

    @property
    def seed(self) -> int:
        return 1000 * self.repeat + self.number


Contender = Callable[[Job], Sample]


def ours(engine: CountedEngine, algorithm: str, temperature: float, lookahead: int | None) -> Contender:
    """Lengths are fixed if the engine's models have no end-of-text tokens."""
    device = engine.target.model.device

    def run(job: Job) -> Sample:
        request = Request(
            job.prompt,
            chat=False,
            algorithm=algorithm,
            lookahead=lookahead,
            max_new_tokens=job.tokens,
            sampling=SamplingSettings(temperature),
            seed=job.seed,
            verification="rejection",
        )
        engine.forget()  # every contender reads the prompt
        commits: list[Commit] = []
        with _peak_memory(device) as memory:
            begun = perf_counter()
            generation = engine.generate(request)
            for commit in generation.commits:
                if not commits:
                    first_seconds = perf_counter() - begun
                    before, read = dict(generation.clock.seconds), engine.drafter_passes
                    passes_before = engine.pass_seconds
                commits.append(commit)
            seconds = perf_counter() - begun
        phases = {name: generation.clock.seconds[name] - before.get(name, 0.0) for name in (*PHASES, "prefill")}
        late_reading = phases.pop("prefill")
        passes = {role: taken - passes_before.get(role, 0.0) for role, taken in engine.pass_seconds.items()}
        passes["drafter"] = max(0.0, passes.get("drafter", 0.0) - late_reading)
        return Sample(
            prompt=job.number,
            repeat=job.repeat,
            seconds=seconds,
            first_seconds=first_seconds,
            decode_seconds=seconds - first_seconds - late_reading,
            tokens=generation.statistics.tokens,
            first_tokens=len(commits[0].pieces),
            iterations=tuple((commit.drafted, commit.accepted) for commit in commits),
            steps=max(0, engine.drafter_passes - max(read, 1)),
            phases=phases,
            passes=passes if device.type == "cpu" else None,
            peak_memory=memory.bytes,
        )

    return run


def theirs(target: LoadedModel, drafter: LoadedModel | None, temperature: float, lookahead: int) -> Contender:
    """transformers' ``generate``: exact match of text at temperature 0, token intersection when sampling.

    Assisted generation changes the drafter it is given: let it have one of its own.
    """
    tokenizer = _tokenizer(target)
    assistance: dict[str, Any] = {}
    if drafter is not None:
        configuration = drafter.model.generation_config
        assert configuration is not None
        configuration.num_assistant_tokens = lookahead
        configuration.num_assistant_tokens_schedule = "constant"
        configuration.assistant_confidence_threshold = 0.0
        assistance["assistant_model"] = drafter.model
        if not share_tokens(target, drafter):
            assistance |= {"tokenizer": tokenizer, "assistant_tokenizer": _tokenizer(drafter)}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}

    def run(job: Job) -> Sample:
        torch.manual_seed(job.seed)
        watch = _Watch()
        with (
            _peak_memory(target.model.device) as memory,
            _calling(target.model, watch.see_target),
            _calling(None if drafter is None else drafter.model, watch.see_drafter),
        ):
            begun = perf_counter()
            inputs = tokenizer(job.prompt, return_tensors="pt").to(target.model.device)
            target.model.generate(  # type: ignore[operator]
                **inputs, max_new_tokens=job.tokens, eos_token_id=None, streamer=watch, **sampling, **assistance
            )
            ended = perf_counter()
        watch.widths[0] -= inputs["input_ids"].shape[1] - 1  # the first pass also read the prompt
        return Sample(
            prompt=job.number,
            repeat=job.repeat,
            seconds=ended - begun,
            first_seconds=watch.first_at - begun,
            decode_seconds=ended - watch.first_at,
            tokens=sum(watch.tokens),
            first_tokens=watch.tokens[0],
            iterations=tuple((width - 1, tokens - 1) for width, tokens in zip(watch.widths, watch.tokens, strict=True)),
            steps=watch.steps,
            peak_memory=memory.bytes,
        )

    return run


class _Watch(BaseStreamer):
    """What is written when, and how many tokens each pass of the target reads. ``steps`` are the drafter's since the
    first tokens.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.widths: list[int] = []
        self.steps = 0
        self.first_at = 0.0
        self._has_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if not self._has_prompt:  # which comes first
            self._has_prompt = True
            return
        if not self.tokens:
            self.first_at = perf_counter()
            self.steps = 0
        self.tokens.append(value.numel())

    def end(self) -> None:
        pass

    def see_target(self, inputs: Mapping[str, Any]) -> None:
        self.widths.append(inputs["input_ids"].shape[1])

    def see_drafter(self, _: Mapping[str, Any]) -> None:
        self.steps += 1


def share_tokens(target: LoadedModel, drafter: LoadedModel) -> bool:
    """Whether transformers takes both for models of one vocabulary."""
    return _tokenizer(drafter).get_vocab() == _tokenizer(target).get_vocab()


def _tokenizer(model: LoadedModel) -> PreTrainedTokenizerBase:
    return pretrained_tokenizer(model.name, model.trust_remote_code)


@contextmanager
def _calling(model: PreTrainedModel | None, see: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """``see`` hears what every pass of ``model`` is given."""
    if model is None:
        yield
        return
    hook = model.register_forward_pre_hook(lambda _, __, inputs: see(inputs), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@dataclass
class _Memory:
    bytes: int | None = None


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[_Memory]:
    """The most that is allocated on a CUDA device meanwhile; for others nobody counts."""
    memory = _Memory()
    if device.type != "cuda":
        yield memory
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield memory
    memory.bytes = torch.cuda.max_memory_allocated(device)
