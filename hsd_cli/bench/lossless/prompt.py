"""From a text to the target's ids: both sides of every other check begin with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hsd_cli.models.locate import model_source
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.ui.verify_report import PromptCheck
from hsd_cli.vocab.report import sample_text
from hsd_cli.vocab.tokenizer import ModelTokenizer


def check_prompts(target: LoadedModel, prompts: Iterable[str]) -> PromptCheck:
    """Of ``prompts`` and of every line of a text with code, numbers and scripts."""
    tokenizer, own = ModelTokenizer.of(target), _file_of(target)
    embedding: Any = target.model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    texts = [*prompts, *filter(None, sample_text().splitlines(keepends=True))]
    read = {text: tokenizer.render(text).ids for text in texts}
    return PromptCheck(
        texts=len(read),
        other_ids=None if own is None else sum(own.encode(text).ids != ids for text, ids in read.items()),
        not_spelled=sum(not _spells(tokenizer, ids, text) for text, ids in read.items()),
        without_row=sum(max(ids) >= rows for ids in read.values()),
        rows=rows,
    )


def _file_of(target: LoadedModel) -> Tokenizer | None:
    """``tokenizer.json`` as it is, but for what is for training. Code of the checkpoint may well want other ids."""
    file = Path(model_source(target.name, target.trust_remote_code)) / "tokenizer.json"
    if target.trust_remote_code or not file.is_file():
        return None
    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    if getattr(own.model, "dropout", None) is not None:
        own.model.dropout = None
    return own


def _spells(tokenizer: ModelTokenizer, ids: list[int], text: str) -> bool:
    spelled = tokenizer.vocabulary.text_bytes(ids)
    return spelled == text.encode() or spelled == b" " + text.encode()  # the dummy prefix of SentencePiece
