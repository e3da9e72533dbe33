"""vLLM: a draft model in the target's own tokens, or in those that both vocabularies have."""

from __future__ import annotations

import json
from shlex import join

from hsd_cli.export.pair import ExportedPair
from hsd_cli.export.recipe import DRAFTED, Fact, Recipe, Refusal

DOCS = "https://docs.vllm.ai/en/latest/features/speculative_decoding/draft_model/"
MODELS = "https://docs.vllm.ai/en/latest/models/supported_models/"
SOURCE = "https://github.com/vllm-project/vllm/blob/v0.27.0/vllm"
CONFIG = f"{SOURCE}/config/speculative.py"
MAPPING = f"{SOURCE}/v1/spec_decode/vocab_mapping.py"

BOTH = (
    Fact("both models must be of kinds that vLLM has", MODELS),
    Fact(
        "the drafter is split over as many GPUs as the target",
        f"{SOURCE}/v1/spec_decode/draft_model.py",
    ),
)
ONE_VOCABULARY: tuple[Fact, ...] = (
    Fact("it compares the sizes of the vocabularies alone; that the tokens are the same is what hsd found", CONFIG),
    Fact(
        'the drafter is greedy by default; when sampling, "draft_sample_method": "probabilistic" accepts more', CONFIG
    ),
)
HETEROGENEOUS = (
    Fact(
        "drafts in shared tokens (use_heterogeneous_vocab) came with vLLM's change 38174; versions without it refuse "
        "the setting",
        "https://github.com/vllm-project/vllm/pull/38174",
    ),
    Fact(
        "the drafter is always greedy there: sampled text keeps the target's law, but fewer drafts are accepted than "
        "with the drafter's own probabilities",
        DOCS,
    ),
    Fact(
        "tokens are shared where their names are equal after one leading space mark is rewritten: of different kinds "
        "of tokenizers, newlines, indentation and non-ASCII text are not, so that fewer are than hsd finds",
        MAPPING,
    ),
    Fact(
        "the drafter reads the target's tokens one by one; what it lacks becomes its unknown token, or end of text",
        MAPPING,
    ),
)


OWN_CODE = (
    Fact(
        "a kind of model that vLLM has not runs by its own code, if that is written for its Transformers backend",
        MODELS,
    ),
    Fact("the flag is for the drafter's code, too", CONFIG),
)


def export(pair: ExportedPair) -> Recipe | Refusal:
    report = pair.report
    if not report.same and not report.a.shared:
        return Refusal("vllm", (Fact("it drafts in shared tokens, and the two vocabularies share none", MAPPING),))
    one_vocabulary = report.same and pair.target.width == pair.drafter.width
    settings = {"method": "draft_model", "model": pair.drafter.name, "num_speculative_tokens": DRAFTED}
    limits = ONE_VOCABULARY
    if not one_vocabulary:
        settings["use_heterogeneous_vocab"] = True
        limits = HETEROGENEOUS
        if report.same:
            padding = f"equal vocabularies whose heads are padded differently ({pair.widths}) count as different"
            limits = (Fact(padding, CONFIG), *limits)
    if pair.with_own_code:
        limits = (*OWN_CODE, *limits)
    command = ["vllm", "serve", pair.target.name, *pair.trusting, "--speculative-config", json.dumps(settings)]
    return Recipe("vllm", "sh", join(command) + "\n", "sd" if one_vocabulary else "tli", (*limits, *BOTH))
