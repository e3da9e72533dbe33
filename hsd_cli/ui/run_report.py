"""One generation's counts and times, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsd_cli.engine import Engine, Generation, Request
    from hsd_cli.runtime.loading import LoadedModel


@dataclass(frozen=True)
class RunReport:
    """Everything that is reported of one run. ``seconds``: exclusive per phase, and in ``total``.

    ``lookahead=None``: as long as it paid. ``verdict``: that drafting did not pay, if so.
    ``drafter_failure``: why nothing was drafted any more, if so. ``drafter_refusal``: why the drafter's template did
    not take the prompt, if so.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    algorithm: str
    verification: str
    lookahead: int | None
    sampling: Mapping[str, float]
    prompt_tokens: int
    cached_prompt_tokens: int
    drafted: int
    accepted: int
    iterations: int
    iterations_by_algorithm: Mapping[str, int]
    acceptance_rate: float | None
    tokens_per_iteration: float | None
    seconds: Mapping[str, float]
    tokens_per_second: float | None
    seed: int | None
    target: Mapping[str, str | int | None]
    draft: Mapping[str, str | int | None] | None
    verdict: str | None
    drafter_failure: str | None
    drafter_refusal: str | None

    @classmethod
    def of(
        cls,
        engine: Engine,
        request: Request,
        generation: Generation,
        text: str,
        token_ids: list[int],
        finish_reason: str,
        total_seconds: float,
    ) -> RunReport:
        """``text`` and ``token_ids`` are what was written, in ``total_seconds`` since the prompt was handed over."""
        statistics, seconds = generation.statistics, generation.clock.seconds
        decoding = total_seconds - seconds["prefill"]
        drafter = engine.drafter
        return cls(
            text=text,
            token_ids=token_ids,
            finish_reason=finish_reason,
            algorithm=request.algorithm,
            verification=generation.verification,
            lookahead=request.lookahead,
            sampling=asdict(request.sampling),
            prompt_tokens=statistics.prompt_tokens,
            cached_prompt_tokens=statistics.cached_prompt_tokens,
            drafted=statistics.drafted,
            accepted=statistics.accepted,
            iterations=statistics.iterations,
            iterations_by_algorithm=dict(statistics.iterations_by.most_common()),
            acceptance_rate=statistics.acceptance_rate,
            tokens_per_iteration=statistics.tokens_per_iteration,
            seconds={name: seconds[name] for name in ("prefill", "draft", "verify", "translate")}
            | {"total": total_seconds},
            tokens_per_second=len(token_ids) / decoding if decoding > 0 else None,
            seed=generation.seed,
            target=_described(engine.target),
            draft=None if drafter is None else _described(drafter),
            verdict=None if generation.controller is None else generation.controller.verdict(),
            drafter_failure=statistics.drafter_failure,
            drafter_refusal=statistics.drafter_refusal,
        )

    def json(self) -> str:
        """One object on one line, in ASCII alone, which no terminal obeys and every encoding has."""
        return json.dumps(asdict(self)) + "\n"

    def line(self) -> str:
        """The statistics line: what ran, how fast, and what the drafts were worth."""
        parts = [f"{len(self.token_ids)} tokens in {self.seconds['total']:.2f} s"]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:.1f} tokens/s")
        parts.append(self.algorithm if self.algorithm != "auto" else self._mixture())
        if self.acceptance_rate is not None:
            parts.append(f"accepted {self.accepted} of {self.drafted} drafted ({self.acceptance_rate:.0%})")
        if self.tokens_per_iteration is not None:
            parts.append(f"{self.tokens_per_iteration:.2f} tokens per target pass")
        parts.append(f"ended by {self.finish_reason}")
        if self.verdict is not None:
            parts.append(self.verdict)
        if self.drafter_failure is not None:
            parts.append("the drafter failed")
        return " · ".join(parts)

    def _mixture(self) -> str:
        """What `auto` ran, by its share of the iterations."""
        shares = self.iterations_by_algorithm.items()
        return "auto: " + ", ".join(f"{name} {count / self.iterations:.0%}" for name, count in shares)


def _described(model: LoadedModel) -> dict[str, str | int | None]:
    """``threads``: of the CPU, as the text ended."""
    return {
        "id": model.name,
        "revision": model.revision,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "threads": None if model.threads is None else model.threads.count,
    }
