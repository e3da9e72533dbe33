"""Which algorithm `auto` stands for, from the two vocabularies and the way of sampling."""

from __future__ import annotations

from hsd_cli.vocab.report import MOSTLY_SHARED, sample_text, share_of_text
from hsd_cli.vocab.vocabulary import Vocabulary


def choose_algorithm(target: Vocabulary, drafter: Vocabulary, greedy: bool) -> str:
    """``sd`` for one vocabulary; else ``tli`` when sampling with most text shared; else ``slem``."""
    if target.same_tokens(drafter):
        return "sd"
    if not greedy and share_of_text(target, drafter, sample_text()) >= MOSTLY_SHARED:
        return "tli"
    return "slem"
