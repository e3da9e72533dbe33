"""The settings of a chat, and how they are spelled in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hsd_cli.decoding.settings import SAMPLING, VERIFICATIONS, SamplingSettings, Verification
from hsd_cli.drafting.names import ALGORITHM_NAMES
from hsd_cli.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """How answers are written, shown and kept. ``None`` leaves the choice to the engine."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int | None = None
    algorithm: str = "auto"
    lookahead: int | None = None
    verification: Verification | None = None
    max_new_tokens: int = 1024
    stop: tuple[str, ...] = ()
    live: bool = True
    stats: bool = True
    history: bool = True

    def spelled(self, name: str) -> str:
        """A setting's value as ``changed`` takes it."""
        value = getattr(self.sampling if name in SAMPLING else self, name)
        if value is None or value == ():
            return SETTINGS[name].unset or ""
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, tuple):
            return ", ".join(map(json.dumps, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def changed(self, name: str, text: str) -> Settings:
        """Raises ``UsageError`` for unknown names and for values that cannot be."""
        if name not in SETTINGS:
            raise UsageError(f"no setting {name!r}; there are {', '.join(SETTINGS)}")
        setting = SETTINGS[name]
        try:
            value = None if text == setting.unset else setting.read(text)
        except ValueError:
            raise UsageError(f"{name} must be {setting.form}, not {text!r}") from None
        change: dict[str, Any] = {name: () if name == "stop" and value is None else value}
        if name not in SAMPLING:
            return replace(self, **change)
        try:
            return replace(self, sampling=replace(self.sampling, **change))
        except UsageError as error:
            option = f"--{name.replace('_', '-')}"  # what it is called on the command line
            raise UsageError(str(error).replace(option, name)) from None


@dataclass(frozen=True)
class Setting:
    """``read`` makes a value of a text or raises ``ValueError``; ``unset`` is the word for none."""

    describes: str
    read: Callable[[str], Any]
    values: tuple[str, ...] = ()
    unset: str | None = None

    @property
    def form(self) -> str:
        """What it takes, in words."""
        return self.describes if self.unset is None else f"{self.describes}, or {self.unset}"


def _words(*values: str, unset: str | None = None) -> Setting:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError
        return text

    return Setting(f"one of {', '.join(values)}", read, values, unset)


def _whole(least: int, most: int | None = None, unset: str | None = None) -> Setting:
    def read(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise ValueError
        return number

    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    return Setting(f"a whole number {limits}", read, unset=unset)


def _switch() -> Setting:
    def read(text: str) -> bool:
        return ("off", "on").index(text) == 1

    return Setting("on or off", read, ("on", "off"))


def _stops(text: str) -> tuple[str, ...]:
    """The text as it is, or several in quotes, as JSON has them, with a comma between."""
    stops = json.loads(f"[{text}]") if text.startswith('"') else [text]
    if not all(isinstance(stop, str) and stop.encode() for stop in stops):
        raise ValueError
    return tuple(stops)


_number = Setting("a number", float)
SETTINGS: Mapping[str, Setting] = {
    "temperature": _number,
    "top_k": Setting("a whole number", int),
    "top_p": _number,
    "min_p": _number,
    "repetition_penalty": _number,
    "seed": _whole(0, (1 << 32) - 1, unset="off"),
    "algorithm": _words(*ALGORITHM_NAMES),
    "lookahead": _whole(1, unset="auto"),
    "verification": _words(*VERIFICATIONS, unset="auto"),
    "max_new_tokens": _whole(1),
    "stop": Setting('a text to stop at, or several as "one", "two"', _stops, unset="off"),
    "live": _switch(),
    "stats": _switch(),
    "history": _switch(),
}
