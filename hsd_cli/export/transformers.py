"""transformers: a script with its assisted generation."""

from __future__ import annotations

from hsd_cli.export.pair import ExportedPair
from hsd_cli.export.recipe import DRAFTED, Fact, Recipe, Refusal

DOCS = "https://huggingface.co/docs/transformers/en/generation_strategies#universal-assisted-decoding"
SOURCE = "https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation"
CHECK = f"{SOURCE}/utils.py"
TRANSLATION = f"{SOURCE}/candidate_generator.py"

SCRIPT = '''"""Writes text with one model and lets another guess ahead: python FILE "PROMPT"."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TARGET = {target!r}
DRAFTER = {drafter!r}

device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = "auto" if device == "cuda" else torch.float32
tokenizer = AutoTokenizer.from_pretrained(TARGET{trusting})
target = AutoModelForCausalLM.from_pretrained(TARGET, dtype=dtype{trusting}).to(device)
drafter = AutoModelForCausalLM.from_pretrained(DRAFTER, dtype=dtype{trusting}).to(device)
drafter.generation_config.num_assistant_tokens = {drafted}
drafter.generation_config.num_assistant_tokens_schedule = "constant"

inputs = tokenizer(sys.argv[1], return_tensors="pt").to(device)
ids = target.generate(
    input_ids=inputs.input_ids,
    attention_mask=inputs.attention_mask,
    do_sample=False,
    max_new_tokens=256,
    assistant_model=drafter,
{tokenizers})
print(tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
'''
TOKENIZERS = """    tokenizer=tokenizer,
    assistant_tokenizer=AutoTokenizer.from_pretrained(DRAFTER{trusting}),
"""

BOTH = (Fact("one prompt at a time, and no models that keep a state (recurrent ones)", CHECK),)
DIFFERENT = (
    Fact(
        "greedy text is drafted by exact match of text; sampled text by shared tokens; there is no choice", TRANSLATION
    ),
    Fact(
        "with do_sample=True version 5.23.0 does not keep the target's distribution: the rows of the drafter's pruned "
        "head and the ids they stand for are in different orders",
        TRANSLATION,
    ),
    Fact("special tokens, as chat templates set them, do not reach the drafter", TRANSLATION),
)


def export(pair: ExportedPair) -> Recipe | Refusal:
    same, equal_widths = pair.report.same, pair.target.width == pair.drafter.width
    if equal_widths and not same:
        sizes = f"it takes vocabularies of one size ({pair.target.width} tokens) for the same, and these two differ"
        return Refusal("transformers", (Fact(sizes, CHECK),))
    limits: tuple[Fact, ...] = BOTH
    if not equal_widths:
        limits += DIFFERENT
        if same:
            padding = f"equal vocabularies whose heads are padded differently ({pair.widths}) count as different"
            limits = (Fact(padding, CHECK), *limits)
    trusting = ", trust_remote_code=True" if pair.trust_remote_code else ""
    text = SCRIPT.format(
        target=pair.target.name,
        drafter=pair.drafter.name,
        drafted=DRAFTED,
        tokenizers="" if equal_widths else TOKENIZERS.format(trusting=trusting),
        trusting=trusting,
    )
    return Recipe("transformers", "python", text, "sd" if equal_widths else "slem", limits)
