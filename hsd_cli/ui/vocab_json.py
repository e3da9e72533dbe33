"""The report of a pair of vocabularies for machines."""

from __future__ import annotations

import json
from typing import Any

from hsd_cli.ui.vocab_list import token_text
from hsd_cli.vocab.report import Report, Side
from hsd_cli.vocab.vocabulary import Vocabulary

EXAMPLES = 5  # per class


def to_json(report: Report, a: Vocabulary, b: Vocabulary) -> str:
    """One object; examples of tokens are escaped as in the lists of ``--only``."""
    return json.dumps(
        {
            "a": _side(report.a, a),
            "b": _side(report.b, b),
            "same_vocabulary": report.same,
            "same_cut": report.same_cut,
            "algorithms": report.verdict.algorithms,
            "verdict": report.verdict.reason,
        },
        indent=2,
    )


def _side(side: Side, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "family": side.family,
        "tokens": side.tokens,
        "shared": len(side.shared),
        "shared_fraction": side.shared_fraction,
        "share_of_text": side.share_of_text,
        "bytes_per_token": side.bytes_per_token,
        "shared_ends": side.shared_ends,
        "missing": {
            name: {"count": len(ids), "examples": [token_text(vocabulary, index) for index in ids[:EXAMPLES]]}
            for name, ids in side.missing.items()
        },
    }
