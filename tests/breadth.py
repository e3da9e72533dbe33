"""What only ``python3 dev.py test --all`` runs: tests of the same kind over again, and those that take long."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

thorough = pytest.mark.thorough
Value = TypeVar("Value")


def breadth(values: Iterable[Value], quick: Collection[Value]) -> list[Value | ParameterSet]:
    """The values of parameters. Tests of the ``quick`` ones always run, those of the others are thorough."""
    values = list(values)
    assert all(each in values for each in quick)
    return [each if each in quick else _thorough(each) for each in values]


def _thorough(value: object) -> ParameterSet:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=thorough)
