"""What a shell may suggest for a value. Nothing here may be slow, or complain: a person is typing."""

from __future__ import annotations

from contextlib import suppress

import typer

from hsd_cli.commands.configured import find_option, known_options
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
    return sorted({split_key(key)[1] for key in configured_keys() if key.startswith(f"{PAIRS}.")})


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """All that can be configured, for the pair whose name is there already or for none."""
    *tables, _ = split_key(incomplete)
    prefixes = [".".join([*tables, ""])] if tables else ["", *(f"{PAIRS}.{name}." for name in pairs())]
    return [prefix + key for prefix in prefixes for key in known_options(ctx)]


def configured_keys() -> list[str]:
    """What is in the file now."""
    if not config_path().exists():
        return []

    from hsd_cli.config.file import ConfigFile

    with suppress(HsdError):  # a damaged file is explained when it is used
        file = ConfigFile(config_path())
        return [*file.options, *(f"{PAIRS}.{name}.{key}" for name, values in file.pairs.items() for key in values)]
    return []


def values(ctx: typer.Context, incomplete: str) -> list[str]:
    """What the option that is being configured takes."""
    with suppress(HsdError):
        option = find_option(known_options(ctx), ctx.params["key"])
        if option.is_flag:
            return ["yes", "no"]
        return [item.value for item in option.shell_complete(ctx, incomplete)]
    return []
