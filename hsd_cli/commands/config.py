"""``hsd config``: the defaults of the options, and named pairs of models."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from hsd_cli.commands import suggestions
from hsd_cli.commands.configured import PAIR, Configuration, converted, find_option, known_options
from hsd_cli.config.keys import split_key
from hsd_cli.config.location import config_path
from hsd_cli.decoding.settings import SAMPLING, SamplingSettings
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.ui.terminal import visible

config = typer.Typer(
    rich_markup_mode="markdown",
    help="""Keep the options you always give in a file, and name your pairs of models.

    A key is the long name of an option that has an environment variable: `target`, `draft`, `max-new-tokens`,
    `temperature`, … A pair is a table of such keys, `pairs.NAME.target`, `pairs.NAME.draft` and others, that
    `--pair NAME` chooses; `pair` is the one to take when none is named.

    What is given first in this list holds: the command line · the pair it names · environment variables · the pair
    they or the file name · the file · the option's own default. The file is TOML; `HSD_CONFIG` names another one.

    **Examples**

    `hsd config set target Qwen/Qwen2.5-7B-Instruct`

    `hsd config set pairs.code.target embedded:target`

    `hsd config set pairs.code.draft embedded:drafter`

    `hsd generate --pair code "def fibonacci(n):"`

    `hsd config list`
    """,
)

Key = Annotated[
    str, typer.Argument(help="The long name of an option, or pairs.NAME.OPTION.", autocompletion=suggestions.keys)
]
ConfiguredKey = Annotated[
    str, typer.Argument(help="A key, or pairs.NAME for a whole pair.", autocompletion=suggestions.configured_keys)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@config.command(name="path")
def show_path() -> None:
    """Print where the configuration file is, whether it exists or not.

    **Examples**

    `hsd config path`
    """
    typer.echo(config_path())


@config.command(name="get")
def get_value(ctx: typer.Context, key: Key, as_json: Json = False) -> None:
    """Print the value that commands would take now for KEY.

    Exit codes: 0 printed; 1 it is configured nowhere; 2 usage, or a mistake in the file.

    **Examples**

    `hsd config get target`

    `hsd config get pairs.code.draft --json`
    """
    settings = Configuration(ctx).settings()
    if parts := {name: setting for name, setting in settings.items() if name.startswith(f"{key}.")}:
        raise UsageError(f"{key!r} has several values; get one of {', '.join(parts)}")
    find_option(known_options(ctx), key)
    setting = settings.get(key)
    if setting is None:
        raise HsdError(f"{key!r} is not configured; give it a value with `hsd config set {key} VALUE`")
    typer.echo(json.dumps({"key": key} | setting._asdict()) if as_json else _shown(setting.value))


@config.command(name="set")
def set_value(
    ctx: typer.Context,
    key: Key,
    value: Annotated[
        str, typer.Argument(help="As on the command line; yes or no for a switch.", autocompletion=suggestions.values)
    ],
) -> None:
    """Give KEY a value in the file; its comments and all else stay.

    **Examples**

    `hsd config set max-new-tokens 512`

    `hsd config set stats no`

    `hsd config set pairs.code.draft embedded:drafter`
    """
    native = converted(ctx, known_options(ctx), key, value)
    _check_bounds(key, native)

    from hsd_cli.config.file import ConfigFile

    file = ConfigFile(config_path())
    if key == PAIR and value not in file.pairs:
        raise UsageError(f"no pair {value!r} in the file yet; begin with `hsd config set pairs.{value}.target MODEL`")
    file.set(key, native)


def _check_bounds(key: str, value: Any) -> None:
    """Raises ``UsageError``, as commands would: of sampling settings the options know the type alone."""
    name = split_key(key)[-1]
    if (field := name.replace("-", "_")) in SAMPLING:
        try:
            SamplingSettings(**{field: value})
        except UsageError as error:
            raise UsageError(str(error).replace(f"--{name}", key)) from None


@config.command(name="unset")
def unset_value(key: ConfiguredKey) -> None:
    """Take KEY, or a whole pair, out of the file.

    **Examples**

    `hsd config unset max-new-tokens`

    `hsd config unset pairs.code`
    """
    from hsd_cli.config.file import ConfigFile

    path = config_path()
    if not ConfigFile(path).unset(key):
        raise HsdError(f"{key!r} is not in {str(path)!r}; `hsd config list` shows what is")


@config.command(name="list")
def list_values(ctx: typer.Context, as_json: Json = False) -> None:
    """Print all that is configured: the key, its value, and whether the file, a pair or which variable gave it.

    **Examples**

    `hsd config list`

    `hsd config list --json | jq -r .settings.target.value`
    """
    settings = Configuration(ctx).settings()
    if as_json:
        named = {key: setting._asdict() for key, setting in settings.items()}
        typer.echo(json.dumps({"path": str(config_path()), "settings": named}))
        return
    rows = [(key, _shown(setting.value), setting.source) for key, setting in settings.items()]
    keys, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    for key, value, source in rows:
        typer.echo(f"{visible(key):{keys}}  {value:{values}}  ({visible(source)})")


def _shown(value: Any) -> str:
    """As it may be typed again."""
    if isinstance(value, list):
        return visible(" ".join(value))
    return str(value).lower() if isinstance(value, bool) else visible(str(value))
