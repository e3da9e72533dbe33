"""What a shell may suggest for a value. Nothing here may be slow, or complain: a person is typing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import typer

from hsd_cli.commands.configured import PAIR, find_option, known_options
from hsd_cli.config.keys import PAIRS, split_key
from hsd_cli.config.location import config_path
from hsd_cli.errors import HsdError
from hsd_cli.models.downloaded import downloaded_models
from hsd_cli.models.locate import embedded_models


def models() -> list[str]:
    """Those on this machine."""
    return [*embedded_models(), *downloaded_models()]


def pairs() -> list[str]:
    """The names of those in the configuration file."""
    return list(_configured()[1])


def keys(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """All that can be configured, and what it is; of pairs, the one whose name is there already, or those there are."""
    known = [(key, option.help or "") for key, option in known_options(ctx).items()]
    names = split_key(incomplete)[1:2] or pairs()
    return [*known, *((f"{PAIRS}.{name}.{key}", text) for name in names for key, text in known if key != PAIR)]


def configured_keys() -> list[str]:
    """What is in the file now, and each pair as a whole."""
    options, pairs = _configured()
    return [
        *options,
        *(f"{PAIRS}.{name}" for name in pairs),
        *(f"{PAIRS}.{name}.{key}" for name, values in pairs.items() for key in values),
    ]


def values(ctx: typer.Context, incomplete: str) -> list[str]:
    """What the option takes whose key stands before."""
    with suppress(HsdError):  # no such key
        option = find_option(known_options(ctx), ctx.params["key"])
        return ["yes", "no"] if option.is_flag else [item.value for item in option.shell_complete(ctx, incomplete)]
    return []


def _configured() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options and pairs of the configuration file."""
    if config_path().exists():
        from hsd_cli.config.file import ConfigFile

        with suppress(HsdError):  # a damaged file is explained when it is used
            file = ConfigFile(config_path())
            return file.options, file.pairs
    return {}, {}
