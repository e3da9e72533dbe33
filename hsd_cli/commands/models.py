"""From the options about models to a loaded pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def __post_init__(self) -> None:
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

            return ModelTokenizer.load(self.names["target"])

    def load(self, quiet: bool) -> Engine:
        """Loads what was chosen; ``quiet`` shows no progress. Raises ``HsdError``."""
        names = self.names
        ensure_downloaded(names.values(), self.pull, quiet)
        with leaving_at_once():
            if self.target is None and not quiet:
                say(f"no --target given: using {' with '.join(names.values())}")

            from hsd_cli.engine import Engine
            from hsd_cli.runtime.loading import load_model

            target = load_model(names["target"], self.device, self.dtype, self.quant, self.attention)
            remember_role(names["target"], "target")
            if "drafter" not in names:
                return Engine(target, None, strict=self.strict)
            try:
                engine = Engine(target, self.load_drafter(names["drafter"]), strict=self.strict)
            except HsdError as error:
                if self.strict or isinstance(error, UsageError):
                    raise
                return Engine(target, None, strict=False, drafter_failure=str(error))
            remember_role(names["drafter"], "drafter")
            return engine

    def load_drafter(self, name: str) -> LoadedModel:
        """Where and how drafters compute. Raises ``HsdError``."""
        from hsd_cli.runtime.loading import load_model

        device, dtype = self.draft_device or self.device, self.draft_dtype or self.dtype
        return load_model(name, device, dtype, self.draft_quant, self.attention)


def say(message: str) -> None:
    """A line of talk on standard error, which a terminal need not fear."""
    typer.echo(f"hsd: {visible(message)}", err=True)
