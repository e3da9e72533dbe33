"""The notice that a checkpoint's authors recommend other sampling settings than those that run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from hsd_cli.commands.models import say
from hsd_cli.decoding.settings import SAMPLING

if TYPE_CHECKING:
    from hsd_cli.runtime.loading import LoadedModel


def say_recommended(ctx: typer.Context, target: LoadedModel) -> None:
    """One line with what to type, unless some such setting was chosen: on the command line, in the environment or in
    the configuration."""
    from hsd_cli.decoding.recommended import foreign_settings, recommended_sampling

    config = target.model.generation_config
    if config is None or any(_chosen(ctx, name) for name in SAMPLING):
        return
    recommended, foreign = recommended_sampling(config), foreign_settings(config)
    sentences = []
    if recommended:
        flags = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in recommended.items())
        sentences.append(f"{target.name} recommends {flags}: add these, or --temperature 0 to stay greedy")
    if foreign:
        sentences.append(f"{target.name} comes with {' and '.join(foreign)}, which hsd does not have")
    if sentences:
        say("; ".join(sentences))


def _chosen(ctx: typer.Context, option: str) -> bool:
    source = ctx.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"
