"""From the options about models to a loaded pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.locate import EMBEDDED_DRAFTER, EMBEDDED_TARGET
from hsd_cli.models.roles import remember_role
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.engine import Engine
    from hsd_cli.runtime.loading import LoadedModel
    from hsd_cli.vocab.tokenizer import ModelTokenizer


@dataclass(frozen=True)
class ModelOptions:
    """Which models, and where and how they compute. Raises ``UsageError`` for an algorithm that lacks its drafter.

    Without a target the embedded pair is taken. ``ar`` and ``lookup`` need no drafter, so that none is loaded.
    Without ``strict`` one that fails costs speed alone.
    """

    target: str | None
    draft: str | None
    device: str
    dtype: str
    draft_device: str | None
    draft_dtype: str | None
    quant: str | None
    draft_quant: str | None
    attention: str
    pull: bool
    algorithm: str
    strict: bool = False
    trust_remote_code: bool = False
    device_map: str | None = None
    tensor_parallel: bool = False

    def __post_init__(self) -> None:
        placing = "--tensor-parallel" if self.tensor_parallel else "--device-map" if self.device_map else None
        if placing is not None and self.device != "auto":
            raise UsageError(f"{placing} places the target by itself; leave --device out (--draft-device stays)")
        if self.tensor_parallel and (self.device_map is not None or self.quant is not None):
            raise UsageError("--tensor-parallel goes neither with --device-map nor with --quant; choose one of them")
        if self.drafter is None and self.algorithm not in ("auto", "ar", "lookup"):
            raise UsageError(f"--algorithm {self.algorithm} needs a drafter; add --draft MODEL")

    @property
    def names(self) -> Mapping[str, str]:
        """Of the target and, if there is one, the drafter, by role."""
        drafter = self.drafter
        target = EMBEDDED_TARGET if self.target is None else self.target
        return {"target": target} | ({} if drafter is None else {"drafter": drafter})

    @property
    def drafter(self) -> str | None:
        if self.algorithm in ("ar", "lookup"):
            return None
        return EMBEDDED_DRAFTER if self.draft is None and self.target is None else self.draft

    def tokenizer(self) -> ModelTokenizer:
        """The target's, without its weights. Raises ``HsdError``."""
        with leaving_at_once():
            from hsd_cli.vocab.tokenizer import ModelTokenizer

            return ModelTokenizer.load(self.names["target"], trust_remote_code=self.trust_remote_code)

    def load(self, quiet: bool) -> Engine:
        """Loads what was chosen; ``quiet`` shows no progress. Raises ``HsdError``."""
        names = self.names
        ensure_downloaded(names.values(), self.pull, quiet, self.trust_remote_code)
        with leaving_at_once():
            if self.target is None and not quiet:
                say(f"no --target given: using {' with '.join(names.values())}")

            from hsd_cli.engine import Engine

            if self.device_map is not None:  # which fills the GPUs: what drafts has to be there before
                drafter, failure = self._drafter()
            target = self._target()
            remember_role(names["target"], "target")
            if self.device_map is None:
                drafter, failure = self._drafter()
            if drafter is not None:
                try:
                    engine = Engine(target, drafter, strict=self.strict)
                    remember_role(drafter.name, "drafter")
                    return engine
                except HsdError as error:
                    failure = self._tolerated(error)
            return Engine(target, None, strict=self.strict, drafter_failure=failure)

    def load_drafter(self, name: str) -> LoadedModel:
        """Where and how drafters compute. Raises ``HsdError``."""
        return self._loaded(name, self.draft_device or self.device, self.draft_dtype or self.dtype, self.draft_quant)

    def load_share(self) -> LoadedModel:
        """This process's share of the target, with `--tensor-parallel`. Raises ``HsdError``."""
        from hsd_cli.runtime.ranks import ranks

        return self._loaded(self.names["target"], self.device, self.dtype, self.quant, ranks=ranks())

    def _target(self) -> LoadedModel:
        if not self.tensor_parallel:
            name = self.names["target"]
            return self._loaded(name, self.device, self.dtype, self.quant, device_map=self.device_map)

        from hsd_cli.runtime.following import load_together
        from hsd_cli.runtime.ranks import Step, ranks

        with ranks().step(Step.LOAD):
            return load_together(ranks(), self.load_share)

    def _drafter(self) -> tuple[LoadedModel | None, str | None]:
        """The drafter, if one is asked for, or why it cannot be had."""
        if self.drafter is None:
            return None, None
        try:
            return self.load_drafter(self.drafter), None
        except HsdError as error:
            return None, self._tolerated(error)

    def _tolerated(self, error: HsdError) -> str:
        """Why there is no drafter, if the text can do without."""
        if self.strict or isinstance(error, UsageError):
            raise error
        return str(error)

    def _loaded(self, name: str, device: str, dtype: str, quant: str | None, **placement: Any) -> LoadedModel:
        from hsd_cli.runtime.loading import load_model

        return load_model(
            name, device, dtype, quant, self.attention, trust_remote_code=self.trust_remote_code, **placement
        )


def say(message: str) -> None:
    """A line of talk on standard error, which a terminal need not fear."""
    typer.echo(f"hsd: {visible(message)}", err=True)
