"""The mutations of ``tests.mutations`` still apply, and a few of them are made: tests that cannot fail would show."""

from __future__ import annotations

import pytest

from tests.breadth import thorough
from tests.mutations import MUTATIONS, Mutation, outcome

QUICK = [m for m in MUTATIONS if m.name in {"every proposal is accepted", "slrs: not renormalised"}]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_has_exactly_one_place(mutation: Mutation) -> None:
    assert mutation.applies()
    assert mutation.old != mutation.new


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@thorough
@pytest.mark.parametrize("mutation", QUICK, ids=lambda mutation: mutation.name)
def test_a_broken_verifier_or_psi_is_noticed(mutation: Mutation) -> None:
    assert outcome(mutation) == "killed"
