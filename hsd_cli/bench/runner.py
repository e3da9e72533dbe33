"""Runs every contender on every prompt, interleaved, and keeps what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from hsd_cli.bench.borrowed import Borrowed
from hsd_cli.bench.contenders import Contender, Job, ours, share_tokens, theirs
from hsd_cli.bench.counted import CountedEngine
from hsd_cli.bench.machine import describe_machine, process_memory
from hsd_cli.bench.measure_pair import PassTimer
from hsd_cli.bench.report import Round, results
from hsd_cli.bench.tasks import Task, fitted
from hsd_cli.decoding.loop import PLAIN
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import LONGEST_DRAFT, Engine, Request
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.runtime.context import context_size_of
from hsd_cli.ui.bench_report import BenchReport, Comparison, Costs, Sample
from hsd_cli.vocab.tokenizer import ModelTokenizer

Name = TypeVar("Name")
T = TypeVar("T")
WARM_UP = 32  # tokens
AUTOMATIC = "auto"
THEIRS, ASSISTED = "hf", "hf assisted"
PEERS = "hf: the generate method of transformers, alone and assisted by the drafter"
OTHER_LAW = (
    "hf assisted, sampled, with a drafter of another vocabulary: the text of transformers does not follow the target's "
    "law, so its figures are those of another text"
)


@dataclass(frozen=True)
class Plan:
    """What to measure. Without ``algorithms`` all that fit; ``lookahead`` is everyone's but `auto`'s."""

    tasks: Sequence[Task]
    temperatures: Sequence[float]
    algorithms: Sequence[str]
    lookahead: int
    tokens: int
    repeats: int


class Bench:
    """Measures a pair. ``report`` tells at any time what was measured so far.

    With ``peers`` transformers' own generation is a contender, too.
    """

    def __init__(self, engine: Engine, plan: Plan, peers: bool) -> None:
        drafter = None if engine.drafter is None else engine.drafter.endless()
        self._engine = CountedEngine(engine.target.endless(), drafter)
        self._peers = peers
        self._notes: list[str] = []
        tasks = [replace(task, prompts=tuple(self._fitted(task, plan.tokens))) for task in plan.tasks]
        self._plan = replace(plan, tasks=tasks)
        self._algorithms, self._unfit = self._fitting(plan.algorithms)
        self._comparisons: list[Comparison] = []
        self._measured = 0
        self._complete = False

    @property
    def texts(self) -> int:
        """How many texts are measured in all: one of each contender, for each prompt, temperature and repeat."""
        contenders = len(self._algorithms) + (0 if not self._peers else 1 if self._engine.drafter is None else 2)
        prompts = sum(len(task.prompts) for task in self._plan.tasks)
        return contenders * prompts * len(self._plan.temperatures) * self._plan.repeats

    def run(self, on_step: Callable[[str, int], None]) -> None:
        """``on_step`` hears what is measured next, and how many texts were. What was measured before an exception
        stays."""
        for task in self._plan.tasks:
            for temperature in self._plan.temperatures:
                self._compare(task, temperature, on_step)
        self._complete = True

    def report(self) -> BenchReport:
        model = self._engine.target.model
        return BenchReport(
            target=self._engine.target.name,
            drafter=None if self._engine.drafter is None else self._engine.drafter.name,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            lookahead=self._plan.lookahead,
            tokens=self._plan.tokens,
            repeats=self._plan.repeats,
            machine=describe_machine(model.device),
            notes=tuple(self._notes),
            unfit=self._unfit,
            comparisons=tuple(self._comparisons),
            process_memory=process_memory() if model.device.type == "cpu" else None,
            complete=self._complete,
        )

    def _compare(self, task: Task, temperature: float, on_step: Callable[[str, int], None]) -> None:
        where = f"{task.name}, temperature {temperature:g}"
        plan, contenders = self._plan, self._contenders(temperature)
        for name, run in contenders.items():
            on_step(f"{where}: warming up {name}", self._measured)
            run(Job(task.prompts[0], min(WARM_UP, plan.tokens)))
        target, drafter = self._timers(task)
        weights = self._weights  # now: where an interrupt finds them lent, they count for nothing

        def time_passes() -> None:
            """Between the texts, so that both are timed while the machine is equally busy."""
            target.time()
            if drafter is not None:
                for _ in range(plan.lookahead):  # in a row, as a draft takes them: the weights may still be in a cache
                    drafter.time()

        rounds: list[Round] = []
        try:
            for repeat in range(plan.repeats):
                for number, prompt in enumerate(task.prompts):
                    samples: dict[str, Sample] = {}
                    for name, run in rotated(contenders, len(rounds)).items():
                        step = f"{where}: repeat {repeat + 1} of {plan.repeats}, prompt {number + 1}: {name}"
                        on_step(step, self._measured)
                        time_passes()
                        samples[name] = run(Job(prompt, plan.tokens, number, repeat))
                        self._measured += 1
                    rounds.append(samples)
        finally:  # an interrupted round is no comparison, the others are
            if rounds:
                costs = Costs(target.medians, None if drafter is None else drafter.medians[0])
                found = results(rounds, costs, weights)
                self._comparisons.append(Comparison(task.name, temperature, len(task.prompts), costs, found))

    @property
    def _weights(self) -> tuple[int, int]:
        """Bytes that a pass of the target and one of the drafter read."""
        drafter = self._engine.drafter
        return self._engine.target.bytes_per_token, 0 if drafter is None else drafter.bytes_per_token

    def _timers(self, task: Task) -> tuple[PassTimer, PassTimer | None]:
        """Of the target and, if there is one, the drafter, after a prompt of typical length."""
        prompt = sorted(task.prompts, key=len)[len(task.prompts) // 2]
        # transformers may need more target tokens than it is asked for to spell a draft.
        longest = LONGEST_DRAFT if AUTOMATIC in self._algorithms else self._plan.lookahead
        longest = max(longest, 2 * self._plan.lookahead if self._peers else self._plan.lookahead)
        drafter = self._engine.drafter
        return (
            PassTimer(self._engine.target, prompt, 1 + longest),
            None if drafter is None else PassTimer(drafter, prompt, 1),
        )

    def _contenders(self, temperature: float) -> dict[str, Contender]:
        engine, lookahead = self._engine, self._plan.lookahead
        contenders = {
            name: ours(engine, name, temperature, None if name == AUTOMATIC else lookahead) for name in self._algorithms
        }
        if not self._peers:
            return contenders
        self._note(PEERS)
        target = Borrowed(engine.target)
        contenders[THEIRS] = _with_weights([target], theirs(target.model, None, temperature, lookahead))
        if engine.drafter is not None:
            drafter = Borrowed(engine.drafter)  # each time: assisted sampling changes it for good
            assisted = theirs(target.model, drafter.model, temperature, lookahead)
            contenders[ASSISTED] = _with_weights([target, drafter], assisted)
            if temperature and not share_tokens(engine.target, engine.drafter):
                self._note(OTHER_LAW)
        return contenders

    def _note(self, words: str) -> None:
        if words not in self._notes:
            self._notes.append(words)

    def _fitting(self, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Plain decoding, the algorithms that fit, and of those that do not the reason. Raises ``UsageError``."""
        possible = [*ALGORITHMS, AUTOMATIC] if self._engine.drafter else [PLAIN, "lookup", AUTOMATIC]
        fitting, unfit = [PLAIN], {}
        for name in dict.fromkeys(wanted or possible):
            request = Request("x", chat=False, algorithm=name, lookahead=self._plan.lookahead, max_new_tokens=1)
            try:
                self._engine.generate(request)
            except UsageError as error:
                if wanted:
                    raise
                unfit[name] = str(error)
            else:
                fitting.append(name)
        return list(dict.fromkeys(fitting)), unfit

    def _fitted(self, task: Task, tokens: int) -> list[str]:
        """The prompts, as much of their ends as both models have room for. Raises ``HsdError``."""
        models = [model for model in (self._engine.target, self._engine.drafter) if model is not None]
        tokenizers = [ModelTokenizer.of(model) for model in models]
        size = min(context_size_of(model.model.config.get_text_config(decoder=True)) for model in models)
        room = size - tokens - LONGEST_DRAFT
        if room < 1:
            raise HsdError(f"-n {tokens} leaves no room for a prompt in a context of {size} tokens; write fewer")

        def length(prompt: str) -> int:
            return max(len(tokenizer.render(prompt).ids) for tokenizer in tokenizers)

        prompts = [fitted(prompt, length, room) for prompt in task.prompts]
        cut = sum(prompt != whole for prompt, whole in zip(prompts, task.prompts, strict=True))
        if cut:
            self._note(f"{task.name}: {cut} of {len(prompts)} prompts are cut from their beginning to {room} tokens")
        return prompts


def rotated(contenders: Mapping[Name, T], by: int) -> dict[Name, T]:
    """Another one comes first each time: what comes first may find the machine in another state."""
    items = list(contenders.items())
    by %= len(items)
    return dict(items[by:] + items[:by])


def _with_weights(models: Sequence[Borrowed], run: Contender) -> Contender:
    """``run``, which has the weights of ``models`` for as long as it writes."""

    def borrowing(job: Job) -> Sample:
        with ExitStack() as borrowed:
            for model in models:
                borrowed.enter_context(model.in_rows())
            return run(job)

    return borrowing
