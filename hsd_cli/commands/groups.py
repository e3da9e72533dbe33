"""Options that come in groups: a command takes each group as one parameter."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any

Command = Callable[..., None]


def in_groups(*, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Shows a command's parameters that are dataclasses to typer as an option for each of their fields.

    Fields that the command is to be ``without`` have their defaults.
    """

    def grouped(command: Command) -> Command:
        own = signature(command, eval_str=True).parameters
        groups = {name: _fields(own[name].annotation, without) for name in own if is_dataclass(own[name].annotation)}

        @wraps(command)
        def spread(**values: Any) -> None:
            taken = {
                name: own[name].annotation(**{field: values.pop(field) for field in groups[name]}) for name in groups
            }
            command(**values, **taken)

        shown = [field for name in own for field in groups.get(name, {name: own[name]}).values()]
        spread.__signature__ = signature(command).replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in shown]
        )
        return spread

    return grouped


def _fields(group: type, without: Collection[str]) -> dict[str, Parameter]:
    fields = signature(group, eval_str=True).parameters
    return {name: fields[name] for name in fields if name not in without}
