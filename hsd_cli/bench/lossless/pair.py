"""The pair under test, and the texts that it writes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hsd_cli.decoding.sampling import Warper
from hsd_cli.decoding.settings import SamplingSettings, Verification
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import UsageError
from hsd_cli.runtime.model import CachedModel
from hsd_cli.ui.vocab_list import token_text
from hsd_cli.vocab.tokenizer import ModelTokenizer


@dataclass(frozen=True)
class Plan:
    """What to check: texts of ``max_new_tokens`` token for token, and ``samples`` beginnings per algorithm.

    Prompts are continued as they are, without a chat template: open beginnings have many continuations.
    """

    prompts: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_new_tokens: int
    lookahead: int
    samples: int
    temperature: float
    seed: int
    parallel: bool = False
    targets: int = 1


@dataclass(frozen=True)
class Pass:
    """One forward pass of the target: the tokens it read, and how many tokens of the text came out of it."""

    width: int
    committed: int


@dataclass(frozen=True)
class Text:
    """One generation: its tokens, and the passes of the target that wrote them."""

    ids: tuple[int, ...]
    passes: tuple[Pass, ...]
    drafted: int
    accepted: int


class PairUnderTest:
    """A loaded pair and what is asked of it."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self.plan = plan
        self.dtype = engine.target.model.dtype
        self._engine = engine
        self._tokenizer = ModelTokenizer.of(engine.target)

    def write(
        self,
        prompt: str,
        algorithm: str,
        max_new_tokens: int,
        settings: SamplingSettings,
        verification: Verification,
        seed: int,
    ) -> Text:
        """Raises ``UsageError`` if the algorithm does not fit the pair."""
        generation = self._engine.generate(
            Request(
                prompt,
                chat=False,
                algorithm=algorithm,
                lookahead=None if algorithm == "auto" else self.plan.lookahead,
                max_new_tokens=max_new_tokens,
                sampling=settings,
                verification=verification,
                seed=seed,
                parallel=self.plan.parallel,
                targets=self.plan.targets,
            )
        )
        ids: list[int] = []
        passes: list[Pass] = []
        for commit in generation.commits:
            ids += [piece.token for piece in commit.pieces]
            passes.append(Pass(1 + commit.drafted, len(commit.pieces)))
        return Text(tuple(ids), tuple(passes), generation.statistics.drafted, generation.statistics.accepted)

    def obstacle(self, algorithm: str) -> str | None:
        """Why ``algorithm`` cannot serve the pair; ``None`` if it can."""
        try:
            self.write(self.plan.prompts[0], algorithm, 1, SamplingSettings(), "coupled", self.plan.seed)
        except UsageError as error:
            return str(error)
        return None

    def prompt_ids(self, prompt: str) -> list[int]:
        return self._tokenizer.render(prompt).ids

    def target(self) -> CachedModel:
        """The target with nothing read."""
        return CachedModel(self._engine.target.model, self.plan.max_new_tokens)

    def warped(self, logits: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
        """Logits (``[V]``) after settings that do not depend on the text, float32 ``[V]``."""
        nothing = torch.empty(0, dtype=torch.int64, device=logits.device)
        return Warper(settings, len(logits), logits.device).logits(logits[None], nothing)[0]

    def token_name(self, token: int) -> str:
        """One printable line; ids past the vocabulary are padding of the model's head."""
        vocabulary = self._tokenizer.vocabulary
        return token_text(vocabulary, token) if token < len(vocabulary) else f"id {token}"
