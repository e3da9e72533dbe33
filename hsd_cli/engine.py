"""A loaded pair of models, ready to generate: puts the layers below together, once per text."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from hsd_cli.decoding.dispensable import DispensableDrafter
from hsd_cli.decoding.loop import Commit, Limits, decode
from hsd_cli.decoding.parallel import ParallelDrafter, shares_of_cores
from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings, Verification
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.decoding.text import TextStream
from hsd_cli.decoding.verification import Coupled, Randomness, Rejection, VerificationRule
from hsd_cli.drafting.ar import NoDrafter
from hsd_cli.drafting.prompt import read_by_drafter
from hsd_cli.drafting.protocol import Drafter
from hsd_cli.drafting.registry import Pair, Side
from hsd_cli.errors import HsdError, UsageError, naming_panics
from hsd_cli.planner.controller import Controller
from hsd_cli.planner.costs import Costs
from hsd_cli.planner.experience import Experience
from hsd_cli.planner.memory import Placement, recall
from hsd_cli.planner.prior import Prior, measured_prior
from hsd_cli.planner.record import PairRecord
from hsd_cli.planner.rhythm import DraftingRhythm
from hsd_cli.planner.selection import make_drafter, make_parallel_drafter
from hsd_cli.runtime.clock import PhaseClock
from hsd_cli.runtime.context import why_no_longer
from hsd_cli.runtime.device import out_of_memory
from hsd_cli.runtime.joint import JointPasses
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.model import CachedModel, LanguageModel, context_size
from hsd_cli.runtime.replicas import Replicas, replicate
from hsd_cli.vocab.tokenizer import ModelTokenizer, Prompt, Rendered, continues_reply

LONGEST_DRAFT = 16  # target tokens, where the length is left to the controller
PLAIN_PASSES = 3  # for `time_plain`: enough for a median
DRAFTERS_SEED = 0x9E3779B9  # what its seed differs by from the target's, where it has one of its own
EASILY_ENCODED = 1 << 20  # characters: of shorter texts that are too long it is told how many tokens they have
FIRST_ROOM = 2048  # tokens past the prompt that the caches have room for at first: most texts end long before -n


class PromptTooLongError(HsdError):
    """The target's context cannot hold it."""


@dataclass(frozen=True)
class Request:
    """One text to write. ``chat=None`` uses the target's chat template if it has one.

    With ``lookahead=None`` drafts are as long as they pay. ``time_plain`` begins without drafts, so that it is known
    what a plain pass takes. With ``parallel`` a drafter model drafts on while the target checks, or ``targets`` copies
    of it do. ``written`` is what the target read and wrote before, if the prompt may go on from it. With ``logprobs``
    the pieces have the target's own log-probabilities, also of as many of the likeliest tokens in their place.
    ``template_kwargs`` are variables of both models' chat templates.
    """

    prompt: Prompt
    system: str | None = None
    chat: bool | None = None
    algorithm: str = "auto"
    lookahead: int | None = None
    max_new_tokens: int = 256
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    verification: Verification | None = None
    seed: int | None = None
    stops: tuple[str, ...] = ()
    time_plain: bool = False
    parallel: bool = False
    targets: int = 1
    written: Rendered | None = None
    logprobs: int | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """A text being written: iterate over ``commits``; the counts and times grow as it goes.

    ``prompt`` is as the target reads it.
    ``end_of_drafting``: after this many tokens of the drafter's nothing is drafted, if the text may get that far.
    """

    prompt: Rendered
    verification: Verification
    seed: int | None
    end_of_drafting: int | None
    commits: Generator[Commit]
    text: TextStream
    statistics: Statistics
    clock: PhaseClock
    drafting: DispensableDrafter

    @property
    def controller(self) -> Controller | None:
        """What chose the drafts, unless nothing was to be chosen or the drafter has failed."""
        return self.drafting.drafter if isinstance(self.drafting.drafter, Controller) else None


@dataclass(frozen=True)
class Company:
    """What a text shares with others of the same pair: by default nothing.

    ``joint``: the passes of each model. ``experience`` is asked with what is requested of drafting, and with a guess of
    a drafter step's share of a target pass.
    """

    joint: Mapping[str, JointPasses] = field(default_factory=dict)
    experience: Callable[[Request, float], Experience] = lambda _, step: Experience(Costs(step))


class Engine:
    """A target, and a drafter unless decoding is plain. It writes one text at a time.

    Both models' caches stay from one text to the next, which reads only what it does not begin with alike.

    A drafter that fails is an error, unless ``strict`` is false: then ``drafter_failure`` says why, this text goes on
    without it and so do all after it. One that could not even be loaded is told of in ``drafter_failure``.
    """

    def __init__(
        self,
        target: LoadedModel,
        drafter: LoadedModel | None,
        *,
        strict: bool = True,
        drafter_failure: str | None = None,
    ) -> None:
        self.target = target
        self.drafter = drafter
        self.strict = strict
        self.drafter_failure = drafter_failure
        self._company = Company()
        self._target_tokenizer = ModelTokenizer.of(target)
        self._drafter_tokenizer = None if drafter is None else ModelTokenizer.of(drafter)
        self._models: dict[str, CachedModel] = {}
        self._copies = [target]
        self._commits: Generator[Commit] | None = None

    def beside(self, company: Company) -> Engine:
        """One for another text at the same time, with the same models and vocabularies."""
        other = copy(self)
        other._company = company
        other._models = {}
        other._commits = None
        return other

    @property
    def context_size(self) -> int:
        """Tokens that a prompt and its text have to fit into."""
        return context_size(self.target.model, sys.maxsize)

    def why_no_longer(self, prompt: int) -> str:
        """Why a text that begins with ``prompt`` tokens has to end where it does; nothing if that is its context."""
        size = context_size(self.target.model, prompt)
        return why_no_longer(self.target.model.config.get_text_config(decoder=True), size)

    @property
    def notices(self) -> list[str]:
        """What a user has to know of how the target's tokenizer and the drafter's read and write text."""
        found = list(self._target_tokenizer.notices)
        if self._drafter_tokenizer is not None:
            with suppress(Exception), naming_panics():  # which is told when it is asked for drafts
                found += self._drafter_tokenizer.notices
        return list(dict.fromkeys(found))

    def render(self, request: Request) -> Rendered:
        """The prompt as the target reads it.

        Raises ``UsageError`` for what its chat template does not take, and ``HsdError`` for a text so long that its
        tokens need not be counted.
        """
        chat = self._target_tokenizer.uses_chat(request.prompt, request.system, request.chat)
        if self.is_far_too_long(request):
            raise HsdError(
                f"the prompt has {_characters(request)} characters and the target's context holds {self.context_size} "
                "tokens; shorten it"
            )
        return self._target_tokenizer.render(
            request.prompt, request.system, chat, request.written, request.template_kwargs
        )

    def is_far_too_long(self, request: Request) -> bool:
        """Whether it has so many characters that they cannot fit: to encode megabytes takes long."""
        return _characters(request) > max(EASILY_ENCODED, self.context_size * self._target_tokenizer.vocabulary.longest)

    def forget(self) -> None:
        """Frees both caches: the next text is read from its beginning."""
        self._models.clear()

    def generate(self, request: Request) -> Generation:
        """Raises ``HsdError`` for requests that the pair cannot serve, before anything is generated.

        Ends the text before this one, if it was not read to its end.
        """
        if self._commits is not None:
            self._commits.close()
        try:
            with naming_lack_of_memory():
                return self._begin(request)
        except torch.OutOfMemoryError:
            self.forget()
            raise out_of_memory(self.target.model.device) from None

    def _begin(self, request: Request) -> Generation:
        chat = self._target_tokenizer.uses_chat(request.prompt, request.system, request.chat)
        rendered = self.render(request)
        prompt = rendered.ids
        size = context_size(self.target.model, len(prompt))
        if len(prompt) >= size:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens and the target's context holds {size}"
                f"{self.why_no_longer(len(prompt))}; shorten it"
            )
        capacity = len(prompt) + min(request.max_new_tokens + LONGEST_DRAFT, FIRST_ROOM)
        model = self._cached("target", self.target, capacity)
        model.expect(request.max_new_tokens)
        verification, seed = _verification(request)
        rule = _rule(verification, seed, request.sampling.greedy, model.device)
        clock, statistics = PhaseClock(), Statistics(prompt_tokens=len(prompt))
        target = Side(model, self._target_tokenizer.vocabulary, prompt)

        def lose_drafter(error: Exception) -> None:
            self._lose_drafter(error)
            statistics.drafter_failure = self.drafter_failure

        @naming_lack_of_memory()
        @naming_panics()
        def put_together() -> tuple[Drafter, Side | None, DraftingRhythm | None]:
            side = self._drafter_side(request, chat, capacity, rendered, statistics)
            if request.parallel and side is not None:  # two threads share neither random numbers nor a clock
                pair = _pair(request, target, side, _apart(rule, seed, side.model.device), PhaseClock())
                drafter, rhythm = self._make_parallel_drafter(request, pair)
                return drafter, side, rhythm
            together = None if side is None else _pair(request, target, side, rule, clock)
            return self._make_drafter(request, together, model.device, clock), side, None

        try:
            drafter, side, rhythm = put_together()
        except UsageError:
            raise
        except Exception as error:
            if self.drafter is None or self.drafter_failure is not None:
                raise
            lose_drafter(error)
            drafter, side, rhythm = put_together()
        statistics.drafter_failure = self.drafter_failure
        drafting = DispensableDrafter(drafter, NoDrafter(model.device), lose_drafter)
        stops = (*request.stops, *self.target.stop_strings)
        begins = chat and not continues_reply(request.prompt)
        text = TextStream(
            target.vocabulary, stops, drop_leading_space=begins and self._target_tokenizer.adds_dummy_space
        )
        ahead = None
        if rhythm is not None and side is not None:
            ahead = ParallelDrafter(drafting, rhythm, (model.device, side.model.device), model.vocabulary_size)
        target_at_work: LanguageModel = model
        if ahead is not None and request.targets > 1:
            target_at_work = self._replicas(request.targets, capacity)
        commits = decode(
            target_at_work,
            ahead or drafting,
            prompt,
            Limits(
                request.max_new_tokens,
                request.lookahead or LONGEST_DRAFT,
                frozenset(self.target.eos_ids),
                PLAIN_PASSES if request.time_plain else 0,
            ),
            rule=rule,
            warper=Warper(request.sampling, model.vocabulary_size, model.device, logprobs=request.logprobs),
            text=text,
            clock=clock,
            statistics=statistics,
            lose_drafter=drafting.lose,
        )
        self._commits = self._forgetting_on_failure(commits if ahead is None else ahead.during(commits, target_at_work))
        end = None if side is None else _end_of_drafting(request, target, side, size)
        return Generation(rendered, verification, seed, end, self._commits, text, statistics, clock, drafting)

    def _make_drafter(self, request: Request, pair: Pair | None, device: torch.device, clock: PhaseClock) -> Drafter:
        lost = self.drafter_failure is not None and request.algorithm not in ("auto", "lookup")
        prior = self._prior(request.sampling.greedy)
        return make_drafter(
            "ar" if lost else request.algorithm,
            pair,
            device,
            clock,
            greedy=request.sampling.greedy,
            fixed_length=request.lookahead is not None,
            prior=prior,
            experience=self._company.experience(request, prior.step),
        )

    def _make_parallel_drafter(self, request: Request, pair: Pair) -> tuple[Drafter, DraftingRhythm]:
        prior = self._prior(request.sampling.greedy)
        return make_parallel_drafter(
            request.algorithm,
            pair,
            Costs(prior.step),
            greedy=request.sampling.greedy,
            fixed_length=request.lookahead is not None,
            prior=prior,
            targets=request.targets,
        )

    def _replicas(self, count: int, capacity: int) -> Replicas:
        drafter = None if self.drafter is None else self.drafter.model.device
        if len(self._copies) == 1:
            self._copies = replicate(self.target, count, drafter)
        models = [
            self._cached("target" if number == 0 else f"target {number}", copy, capacity)
            for number, copy in enumerate(self._copies[:count])
        ]
        shared = models[0].device.type == "cpu"
        return Replicas(models, max(1, shares_of_cores()[0] // len(models)) if shared else None)

    def _lose_drafter(self, error: Exception) -> None:
        """Frees its cache. Raises ``HsdError`` if a drafter that fails is an error."""
        lacks_memory = isinstance(error, torch.OutOfMemoryError)
        reason = str(error) if isinstance(error, HsdError) else f"{type(error).__name__}: {error}"
        if self.strict:
            raise out_of_memory(self.target.model.device) if lacks_memory else HsdError(f"the drafter failed: {reason}")
        self.drafter_failure = "the device ran out of memory" if lacks_memory else reason
        self._models.pop("drafter", None)

    def _cached(self, role: str, loaded: LoadedModel, capacity: int) -> CachedModel:
        if role not in self._models:
            self._models[role] = loaded.cached(capacity, self._company.joint.get(role))
        return self._models[role]

    def _forgetting_on_failure(self, commits: Generator[Commit]) -> Generator[Commit]:
        """A failure in the middle of a pass (Ctrl-C, no memory) may leave a cache that belongs to no text."""
        try:
            with naming_lack_of_memory():
                yield from commits
        except GeneratorExit:
            raise
        except torch.OutOfMemoryError:
            self.forget()
            raise out_of_memory(self.target.model.device) from None
        except BaseException:
            self.forget()
            raise

    def _prior(self, greedy: bool) -> Prior:
        """What `hsd plan --measure` found out about this pair, else what the sizes tell."""
        if self._measured is not None:
            return measured_prior(self._measured, "greedy" if greedy else "sampled")
        return Prior(1.0 if self.drafter is None else self.drafter.bytes_per_token / self.target.bytes_per_token)

    @cached_property
    def _measured(self) -> PairRecord | None:
        return None if self.drafter is None else recall(_placement(self.target), _placement(self.drafter))

    def _drafter_side(
        self, request: Request, chat: bool, capacity: int, by_target: Rendered, statistics: Statistics
    ) -> Side | None:
        tokenizer = self._drafter_tokenizer
        lost = self.drafter_failure is not None
        if self.drafter is None or tokenizer is None or lost or request.algorithm in ("ar", "lookup"):
            return None
        prompt, refusal = read_by_drafter(
            tokenizer, request.prompt, request.system, chat, request.template_kwargs, by_target
        )
        if refusal is not None:
            if self.strict:
                raise refusal
            statistics.drafter_refusal = str(refusal)
        model = self._cached("drafter", self.drafter, capacity)
        model.expect(request.max_new_tokens)
        return Side(model, tokenizer.vocabulary, prompt.ids)


def _characters(request: Request) -> int:
    prompt = request.prompt
    said = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    return sum(map(len, [*said, request.system or ""]))


def _placement(loaded: LoadedModel) -> Placement:
    return Placement(loaded.name, loaded.model.device, loaded.model.dtype, loaded.quantization)


def _pair(request: Request, target: Side, drafter: Side, rule: VerificationRule, clock: PhaseClock) -> Pair:
    warp = Warper(request.sampling, drafter.model.vocabulary_size, drafter.model.device)
    return Pair(target, drafter, warp, rule, clock)


def _end_of_drafting(request: Request, target: Side, drafter: Side, context: int) -> int | None:
    """The size of the drafter's context if the text may outgrow it, going by one drafter token per target token.
    ``context`` is the target's."""
    longest = min(request.max_new_tokens, context - len(target.prompt))
    size = drafter.model.context_size
    return size if size < min(context, len(drafter.prompt) + longest) else None


def _verification(request: Request) -> tuple[Verification, int | None]:
    """A seed must fix the text, so it brings `coupled`; without one `rejection` accepts more."""
    if request.sampling.greedy:
        return request.verification or "coupled", request.seed
    verification = request.verification or ("rejection" if request.seed is None else "coupled")
    return verification, secrets.randbits(32) if request.seed is None else request.seed


def _rule(verification: Verification, seed: int | None, greedy: bool, device: torch.device) -> VerificationRule:
    if greedy:  # one-hot distributions: both rules say the same
        return Coupled(None)
    assert seed is not None
    if verification == "coupled":
        return Coupled(seed)
    return Rejection(Randomness(torch.Generator(device).manual_seed(seed)))


def _apart(rule: VerificationRule, seed: int | None, device: torch.device) -> VerificationRule:
    """For the drafter, on its ``device``, what ``rule`` is for the target. Random numbers are of two sources, whose
    draws have nothing to say of each other; the noise of a seed is the same."""
    if not isinstance(rule, Rejection) or seed is None:
        return rule
    return Rejection(Randomness(torch.Generator(device).manual_seed(seed ^ DRAFTERS_SEED)))
