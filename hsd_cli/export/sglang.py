"""SGLang: a draft model in the target's own tokens."""

from __future__ import annotations

from shlex import join

from hsd_cli.export.pair import ExportedPair
from hsd_cli.export.recipe import DRAFTED, Fact, Recipe, Refusal

DOCS = "https://docs.sglang.io/docs/advanced_features/speculative_decoding"
CHECK = "https://github.com/sgl-project/sglang/pull/23838"
INTERSECTION = Fact("drafting in shared tokens is a proposal there", "https://github.com/sgl-project/sglang/pull/22883")

OWN_CODE = Fact(
    "a kind of model that SGLang has not runs by its own code, if that is written for its fallback to transformers",
    "https://docs.sglang.io/docs/supported-models/transformers_fallback",
)


def export(pair: ExportedPair) -> Recipe | Refusal:
    if not pair.report.same:
        same = Fact("its STANDALONE drafting needs one vocabulary, token by token, and these two differ", CHECK)
        return Refusal("sglang", (same, INTERSECTION))
    if pair.target.width != pair.drafter.width:
        sizes = f"it refuses equal vocabularies whose heads are padded differently, here {pair.widths}"
        return Refusal("sglang", (Fact(sizes, CHECK),))
    command = join(
        [
            *("python", "-m", "sglang.launch_server"),
            *("--model-path", pair.target.name),
            *pair.trusting,
            *("--speculative-algorithm", "STANDALONE"),
            *("--speculative-draft-model-path", pair.drafter.name),
            *("--speculative-num-steps", str(DRAFTED)),
            *("--speculative-eagle-topk", "1"),
            *("--speculative-num-draft-tokens", str(DRAFTED + 1)),
        ]
    )
    limits = (
        *((OWN_CODE,) if pair.with_own_code else ()),
        Fact("STANDALONE does not go with --enable-dp-attention", DOCS),
        Fact(
            "without its change 23838 vocabularies are not compared, and a drafter with another one garbles the text",
            CHECK,
        ),
        Fact(
            "both models must be of kinds that SGLang has",
            "https://docs.sglang.io/docs/supported-models",
        ),
    )
    return Recipe("sglang", "sh", command + "\n", "sd", limits)
