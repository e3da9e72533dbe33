"""From the options about models to a loaded pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.commands.options import Drafting, Models
from hsd_cli.errors import HsdError, UsageError, naming_panics
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.models.roles import remember_role
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.engine import Engine
    from hsd_cli.runtime.loading import LoadedModel
    from hsd_cli.vocab.tokenizer import ModelTokenizer


@dataclass(frozen=True)
class ChosenPair:
    """Raises ``UsageError`` for an algorithm that lacks its drafter, and for two ways of placing the target.

    Without a target the embedded pair is taken. ``ar`` and ``lookup`` need no drafter, so that none is loaded.
    Unless ``strict``, one that fails costs speed alone.
    """

    models: Models
    drafting: Drafting

    def __post_init__(self) -> None:
        models = self.models
        placing = "--tensor-parallel" if models.tensor_parallel else "--device-map" if models.device_map else None
        if placing is not None and models.device != "auto":
            raise UsageError(f"{placing} places the target by itself; leave --device out (--draft-device stays)")
        if models.tensor_parallel and (models.device_map is not None or models.quant is not None):
            raise UsageError("--tensor-parallel goes neither with --device-map nor with --quant; choose one of them")
        if self.drafter is None and self.drafting.algorithm not in ("auto", "ar", "lookup"):
            raise UsageError(f"--algorithm {self.drafting.algorithm} needs a drafter; add --draft MODEL")

    @property
    def names(self) -> Mapping[str, str]:
        """Of the target and, if there is one, the drafter, by role."""
        drafter = self.drafter
        return {"target": self.target} | ({} if drafter is None else {"drafter": drafter})

    @property
    def target(self) -> str:
        return EMBEDDED_TARGET if self.models.target is None else self.models.target

    @property
    def drafter(self) -> str | None:
        if self.drafting.algorithm in ("ar", "lookup"):
            return None
        return EMBEDDED_DRAFTER if self.models.draft is None and self.models.target is None else self.models.draft

    def tokenizer(self) -> ModelTokenizer:
        """The target's, without its weights. Raises ``HsdError``."""
        with leaving_at_once():
            from hsd_cli.vocab.tokenizer import ModelTokenizer

            return ModelTokenizer.load(self.target, trust_remote_code=self.models.trust_remote_code)

    def load(self, quiet: bool) -> Engine:
        """Loads what was chosen and says what is odd about its tokenizers; ``quiet`` says nothing.

        Raises ``HsdError``.
        """
        engine = self._load(quiet)
        if not quiet:
            for notice in engine.notices:
                say(notice)
        return engine

    def _load(self, quiet: bool) -> Engine:
        names = self.names
        ensure_downloaded(names.values(), self.models.pull, quiet, self.models.trust_remote_code)
        with leaving_at_once():
            ends = self._ends()
            if self.models.target is None and not quiet:
                say(f"no --target given: using {' with '.join(names.values())}")

            from hsd_cli.engine import Engine

            if self.models.device_map is not None:  # which fills the GPUs: what drafts has to be there before
                drafter, failure = self._drafter()
            target = self._target() if ends is None else replace(self._target(), eos_ids=ends)
            remember_role(self.target, "target")
            if self.models.device_map is None:
                drafter, failure = self._drafter()
            if drafter is not None:
                try:
                    with naming_panics():
                        engine = Engine(target, drafter, strict=self.drafting.strict)
                except Exception as error:  # of its tokenizer, of a library: there is no telling
                    failure = self._tolerated(error)
                else:
                    remember_role(drafter.name, "drafter")
                    return engine
            return Engine(target, None, strict=self.drafting.strict, drafter_failure=failure)

    def load_drafter(self, name: str) -> LoadedModel:
        """Where and how drafters compute. Raises ``HsdError``."""
        models = self.models
        device, dtype = models.draft_device or models.device, models.draft_dtype or models.dtype
        return self._loaded(name, device, dtype, models.draft_quant, drafts=True)

    def load_share(self) -> LoadedModel:
        """This process's share of the target, with `--tensor-parallel`. Raises ``HsdError``."""
        from hsd_cli.runtime.ranks import ranks

        return self._load_target(ranks=ranks())

    def _ends(self) -> tuple[int, ...] | None:
        """The tokens of `--eos`, known before the weights are loaded. Raises ``UsageError`` for what is no token."""
        return tuple(map(self.tokenizer().token_id, self.models.eos)) if self.models.eos else None

    def _target(self) -> LoadedModel:
        if not self.models.tensor_parallel:
            return self._load_target(device_map=self.models.device_map)

        from hsd_cli.runtime.following import load_together
        from hsd_cli.runtime.ranks import Step, ranks

        with ranks().step(Step.LOAD):
            return load_together(ranks(), self.load_share)

    def _drafter(self) -> tuple[LoadedModel | None, str | None]:
        """The drafter, if one is asked for, or why it cannot be had."""
        if self.drafter is None:
            return None, None
        try:
            with naming_panics():
                return self.load_drafter(self.drafter), None
        except Exception as error:  # of its files, of a library: there is no telling
            return None, self._tolerated(error)

    def _tolerated(self, error: Exception) -> str:
        """Why there is no drafter, if the text can do without."""
        if self.drafting.strict or isinstance(error, UsageError):
            raise error
        return str(error) if isinstance(error, HsdError) else f"{type(error).__name__}: {error}"

    def _load_target(self, **placement: Any) -> LoadedModel:
        return self._loaded(self.target, self.models.device, self.models.dtype, self.models.quant, **placement)

    def _loaded(self, name: str, device: str, dtype: str, quant: str | None, **others: Any) -> LoadedModel:
        from hsd_cli.runtime.loading import load_model

        return load_model(
            name,
            device,
            dtype,
            quant,
            self.models.attention,
            trust_remote_code=self.models.trust_remote_code,
            compile=self.models.compile,
            threads=self.models.threads,
            **others,
        )


def say(message: str) -> None:
    """A line of talk on standard error, which a terminal need not fear."""
    typer.echo(f"hsd: {visible(message)}", err=True)
