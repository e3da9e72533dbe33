"""Every tokenizer class and every kind of model that transformers knows, over files of three families: prompts have the
ids of ``tokenizer.json``. The suite tries some of them; ``python -m tests.tokenizer_classes`` tries all, and counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
)

from hsd_cli.vocab.loading import load_tokenizer
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.tokenizer_families import byte_level_bpe, sentencepiece_bpe, unigram

GPT_4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = (
    "def main():\n    print(2023)\n    return", "the cat sat", " the cat", "   the mat",
    "\tif True:\n\t\treturn 'the end'", "123456 7 89", "naïve café ☃", "日本語 日本", "привет", "🙂👍🏽 the dog",
    "<|im_start|>user\nthe cat<|im_end|>", "</s><s>", "x = [1, 2, 3]  # the end\r\n", "it's don't WE'LL", "\n\n\n",
    "a\u00a0b\u200bc", "<unk> <0x41>", "▁the▁cat",
)  # fmt: skip
TEXTS = [left + right for left, right in product(PIECES, ["", *PIECES[:11]])]


def with_mark_in_front(tokenizer: Tokenizer, mark: str) -> Tokenizer:
    """As a post-processor puts it there."""
    ids = [(mark, tokenizer.token_to_id(mark))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{mark} $A", special_tokens=ids)
    return tokenizer


FILES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: byte_level_bpe(GPT_4, special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
    "SentencePiece": sentencepiece_bpe,
    "Unigram": lambda: with_mark_in_front(unigram(), "</s>"),
}

CLASSES = sorted(
    {name for name in TOKENIZER_MAPPING_NAMES.values() if name} | {"PreTrainedTokenizerFast", "NoSuchTokenizer"}
)
KINDS = sorted({*CONFIG_MAPPING_NAMES, *TOKENIZER_MAPPING_NAMES, *MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS})


def configurations() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each with its name, what ``tokenizer_config.json`` says, and what ``config.json`` says."""
    for name in CLASSES:
        yield name, {"tokenizer_class": name}, {}
        yield f"{name}Fast", {"tokenizer_class": f"{name.removesuffix('Fast')}Fast", "legacy": True}, {}
    for kind in KINDS:
        yield kind, {}, {"model_type": kind}
        yield f"{kind} with a class", {"tokenizer_class": "LlamaTokenizer"}, {"model_type": kind}


def file_ids(folder: Path) -> dict[str, list[int]]:
    """What the file itself makes of the texts."""
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return {text: file.encode(text).ids for text in TEXTS}


def differences(
    folder: Path, expected: dict[str, list[int]], tokenizer_config: dict[str, Any], config: dict[str, Any]
) -> list[str]:
    """The texts that are cut otherwise than ``expected``."""
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "config.json").write_text(json.dumps(config))
    read = ModelTokenizer(load_tokenizer(folder, trust_remote_code=False), str(folder))
    return [text for text, ids in expected.items() if read.render(text).ids != ids]


def main() -> int:
    """The number of configurations that cut some text otherwise."""
    wrong = tried = 0
    for family, make in FILES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make().save(str(folder / "tokenizer.json"))
            expected = file_ids(folder)
            for name, tokenizer_config, config in configurations():
                tried += 1
                if found := differences(folder, expected, tokenizer_config, config):
                    wrong += 1
                    print(f"{family}, {name}: {len(found)} of {len(TEXTS)} texts, the first {found[0]!r}")
        print(f"{family}: done", file=sys.stderr)
    print(f"{tried} configurations ({len(CLASSES)} classes, {len(KINDS)} kinds of models, {len(FILES)} files)")
    print(f"{len(TEXTS)} texts each; {wrong} configurations cut some of them otherwise than their file")
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
