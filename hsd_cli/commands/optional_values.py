"""Options whose value may be left out, as their brackets say: ``--ray [ADDRESS]``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption


def may_lack_value(parameter: object) -> bool:
    return isinstance(parameter, TyperOption) and (parameter.metavar or "").startswith("[")


class OptionalValues(TyperCommand):
    """A command that has such options. What is left out is an empty string."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for parameter in self.params if may_lack_value(parameter) for name in parameter.opts}
        full: list[str] = []
        for word, following in zip(args, [*args[1:], "-"], strict=False):
            full.append(word)
            if word in names and following.startswith("-"):
                full.append("")
        return super().parse_args(ctx, full)
