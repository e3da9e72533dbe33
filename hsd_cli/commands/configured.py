"""Options that can be configured: those with an environment variable, of every command that takes ``--pair``.

Precedence: the command line, the pair named there, the environment, the pair that the environment or the file names,
the rest of the file, the option's own default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup, TyperOption

from hsd_cli.config.keys import PAIRS, split_key
from hsd_cli.config.location import config_path
from hsd_cli.errors import UsageError

PAIR = "pair"


class Setting(NamedTuple):
    value: Any
    source: str  # "file", "pair NAME" or the name of an environment variable


def apply_configuration(ctx: typer.Context, chosen: str | None) -> str | None:
    """Gives the command in ``ctx`` the defaults of file and pair; ``chosen`` is the value of ``--pair``, read first.

    Raises ``UsageError`` for whatever is wrong in the file, and for an unknown pair.
    """
    configuration = Configuration(ctx)
    source = ctx.get_parameter_source(PAIR)
    on_command_line = source is not None and source.name == "COMMANDLINE"
    if chosen is not None:
        pair = configuration.pair(chosen, "--pair" if on_command_line else "HSD_PAIR")
    elif PAIR in configuration.options:
        pair = configuration.pair(configuration.options[PAIR], f"{str(config_path())!r}: {PAIR}")
    else:
        pair = {}
    names = {key: option.name for key, option in configuration.known.items()}
    ctx.default_map = {names[key]: value for key, value in (configuration.options | pair).items()}
    if on_command_line:
        named = {names[key] for key in pair}
        for option in ctx.command.params:
            if option.name in named:
                option.envvar = None  # or its variable would win
    return chosen


class Configuration:
    """What the file says, checked by the options themselves. Raises ``UsageError`` that names the file and the key."""

    def __init__(self, ctx: typer.Context) -> None:
        self.known = known_options(ctx)
        self.options: dict[str, Any] = {}
        self.pairs: dict[str, dict[str, Any]] = {}
        self._ctx = ctx
        path = config_path()
        if not path.exists():
            return

        from hsd_cli.config.file import ConfigFile

        file = ConfigFile(path)
        self.options = self._checked(file.options, "")
        self.pairs = {name: self._checked(values, f"{PAIRS}.{name}.") for name, values in file.pairs.items()}

    def pair(self, name: str, named_by: str) -> dict[str, Any]:
        """The values of the pair ``name``."""
        if name not in self.pairs:
            raise UsageError(f"{named_by}: no pair {name!r}; {self.known_pairs()}")
        return self.pairs[name]

    def known_pairs(self) -> str:
        """What to type instead of an unknown name."""
        if self.pairs:
            return f"there are {', '.join(map(repr, self.pairs))}"
        return "there are none yet; make one with `hsd config set pairs.NAME.target MODEL`"

    def settings(self) -> dict[str, Setting]:
        """By key, what a command would take that has no options on its command line; then what the pairs say."""
        environment: dict[str, Setting] = {}
        for key, option in self.known.items():
            value = option.value_from_envvar(self._ctx)
            if value is not None:
                variable = str(option.envvar)
                with _blaming(variable):
                    environment[key] = Setting(converted(self._ctx, self.known, key, value), variable)
        file = {key: Setting(value, "file") for key, value in self.options.items()}
        effective = file | environment
        if PAIR in effective:
            name, source = effective[PAIR]
            pair = self.pair(name, f"{str(config_path())!r}: {PAIR}" if source == "file" else source)
            effective = file | {key: Setting(value, f"pair {name}") for key, value in pair.items()} | environment
        return effective | {
            f"{PAIRS}.{name}.{key}": Setting(value, "file")
            for name, values in self.pairs.items()
            for key, value in values.items()
        }

    def _checked(self, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        for key, value in values.items():
            with _blaming(repr(str(config_path()))):
                wanted = converted(self._ctx, self.known, prefix + key, value)
                if type(value) is not type(wanted) and (type(value), type(wanted)) != (int, float):
                    raise UsageError(f"{prefix}{key}: {value!r} should be {wanted!r}")
        return dict(values)


def known_options(ctx: typer.Context) -> dict[str, TyperOption]:
    """By key: the long name of each, without its dashes."""
    group = ctx.find_root().command
    assert isinstance(group, TyperGroup)
    return {
        max(option.opts, key=len).removeprefix("--"): option
        for command in group.commands.values()
        if any(option.name == PAIR for option in command.params)
        for option in command.params
        if isinstance(option, TyperOption) and option.envvar
    }


def find_option(known: Mapping[str, TyperOption], key: str) -> TyperOption:
    """Of ``KEY`` and of ``pairs.NAME.KEY``. Raises ``UsageError`` that names the nearest key, or all."""
    *tables, name = split_key(key)
    possible = [key for key in known if not (tables and key == PAIR)]  # a pair chooses no other
    if name not in possible:
        near = get_close_matches(name, possible, 1)
        hint = f"did you mean {'.'.join([*tables, *near])!r}?" if near else f"there are {', '.join(possible)}"
        raise UsageError(f"unknown key {key!r}; {hint}")
    return known[name]


def converted(ctx: typer.Context, known: Mapping[str, TyperOption], key: str, value: object) -> Any:
    """``value`` as the option takes it. Raises ``UsageError`` for an unknown key and for what the option refuses."""
    option = find_option(known, key)
    if option.multiple and isinstance(value, str):
        value = [value]
    if option.name == PAIR:  # its own conversion is what calls for this one
        return str(value)
    try:
        return option.process_value(ctx, value)
    except typer.BadParameter as error:
        reason = error.message.removeprefix("Value error, ").rstrip(".")
        raise UsageError(f"{key}: {reason[:1].lower()}{reason[1:]}") from error


@contextmanager
def _blaming(source: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
