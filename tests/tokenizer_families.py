"""A small real tokenizer of every family, built with the tokenizers library."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hsd_cli.vocab.token_bytes import byte_alphabet
from hsd_cli.vocab.vocabulary import Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CORPUS = [
    "the cat sat on the mat and the dog ran after the cat",
    "def main():\n    if True:\n        return 'the end'\n",
    "numbers 123 123 456, naïve café, 日本語 日本, привет привет",
    LETTERS,
]
WORDS = ["the cat sat on the mat and the dog ran after the cat", " ".join(LETTERS), LETTERS]
SPACE_MARK = "▁"
PIECES = ["an", "at", "er", "he", "ing", "th"]


def byte_level_bpe(
    pattern: str | None = None,
    size: int = 400,
    prefix_space: bool = False,
    normalizer: normalizers.Normalizer | None = None,
    special: Sequence[str] = ("<|endoftext|>",),
) -> Tokenizer:
    """GPT-2's kind; with a ``pattern`` of its own, that of its successors."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=pattern is None)
    tokenizer.pre_tokenizer = byte_level
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
        ),
    )
    return tokenizer


def ignoring_merges() -> Tokenizer:
    """Llama 3's kind: whole words are tokens, though no merges lead to them."""
    tokenizer = byte_level_bpe()
    description = describe(tokenizer)["model"]
    merges = [tuple(merge) for merge in description["merges"]]
    words = [word for word in ("Ġunheard", "Ġrandom", "whole") if word not in description["vocab"]]
    ids = {word: len(description["vocab"]) + place for place, word in enumerate(words)}
    tokenizer.model = models.BPE(vocab=description["vocab"] | ids, merges=merges, ignore_merges=True)
    return tokenizer


def with_holes() -> Tokenizer:
    """Byte-level; every other id stands for nothing."""
    original = byte_level_bpe()
    model = describe(original)["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: 2 * index for token, index in model["vocab"].items()}, merges=merges)
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = original.pre_tokenizer, original.decoder
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def with_added_tokens() -> Tokenizer:
    """Tokens that swallow spaces, that are matched after normalizing, that overlap each other and a special token."""
    tokenizer = byte_level_bpe()
    tokenizer.add_tokens(
        [
            AddedToken("<left>", lstrip=True),
            AddedToken("<right>", rstrip=True),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
            AddedToken("dog", single_word=True),
            AddedToken("<|endoftext|", normalized=False),
            AddedToken("|>cat", normalized=False),
            AddedToken("\n\n", normalized=False),
            AddedToken(" the", normalized=False),
        ]
    )
    return tokenizer


def chat_markers() -> Tokenizer:
    """ChatML: turns between markers, one of which ends the text."""
    return byte_level_bpe(special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def byte_model() -> Tokenizer:
    """One token per byte."""
    tokenizer = Tokenizer(models.BPE(vocab=dict(byte_alphabet()), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_fallback(pieces: list[str]) -> list[str]:
    bytes_first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return [*bytes_first, *(piece for piece in pieces if piece not in bytes_first)]


def _sentencepiece_decoder() -> decoders.Decoder:
    return decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def _sentencepiece_bpe_model() -> models.BPE:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    description = json.loads(trained.to_str())["model"]
    pieces = _with_fallback(sorted(description["vocab"], key=description["vocab"].__getitem__))
    return models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge) for merge in description["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )


def sentencepiece_bpe() -> Tokenizer:
    """Llama 2's kind: the dummy prefix comes from the normalizer."""
    tokenizer = Tokenizer(_sentencepiece_bpe_model())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), normalizers.Replace(" ", SPACE_MARK)])
    tokenizer.decoder = _sentencepiece_decoder()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def gemma_bpe() -> Tokenizer:
    """Gemma's kind: spaces are written, nothing is put in front."""
    tokenizer = Tokenizer(_sentencepiece_bpe_model())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def sentencepiece_with_added_tokens() -> Tokenizer:
    """Llama 2's kind with tokens of a later training: runs of spaces, and markers that swallow spaces."""
    tokenizer = sentencepiece_bpe()
    tokenizer.add_tokens(
        [
            AddedToken("    ", normalized=False),
            AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("the cat", normalized=True),
            AddedToken("</s", normalized=False),
        ]
    )
    return tokenizer


def metaspace_bpe() -> Tokenizer:
    """Mistral's kind: the dummy prefix comes from the pre-tokenizer."""
    tokenizer = Tokenizer(_sentencepiece_bpe_model())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = _sentencepiece_decoder()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def _unigram_scores(texts: list[str], letters: str) -> list[tuple[str, float]]:
    """Words with a space before them, pieces of words, characters.

    Not trained: of the library's trainers only BPE's, and that without a suffix, repeats itself in another process.
    """
    words = sorted({f"{SPACE_MARK}{word}" for text in texts for word in text.split() if len(word) < 8})
    return [
        *((word, -4.0) for word in words),
        *((piece, -3.0) for piece in PIECES),
        *((each, -8.0) for each in letters),
    ]


def unigram(dummy_prefix: bool = True, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """T5's and Gemma's relatives."""
    scores = dict(_unigram_scores(CORPUS, "".join(sorted({*SPACE_MARK, *"".join(CORPUS)} - {" "}))))
    pieces = [(piece, scores.get(piece, 0.0)) for piece in _with_fallback(list(scores))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if dummy_prefix else "never")
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = _sentencepiece_decoder()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace_unigram() -> Tokenizer:
    """Without byte tokens, and with the Metaspace decoder: only letters and spaces can be spelled."""
    scores = [("<unk>", 0.0), *_unigram_scores(WORDS[:1], SPACE_MARK + LETTERS)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_piece(normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """BERT's kind."""
    inner = [f"##{piece}" for piece in [*LETTERS, *PIECES]]
    tokens = ["[UNK]", "[SEP]", *LETTERS, *inner, *PIECES, *sorted(set(WORDS[0].split()))]
    ids = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    return tokenizer


def suffix_bpe() -> Tokenizer:
    """The first GPT's kind: the end of a word is marked, not its beginning."""
    ends = [f"{letter}</w>" for letter in LETTERS]
    merges = [
        ("t", "h"),
        ("th", "e</w>"),
        ("a", "t</w>"),
        ("c", "at</w>"),
        ("m", "at</w>"),
        ("s", "at</w>"),
        ("o", "n</w>"),
    ]
    tokens = ["<unk>", *LETTERS, *ends, *(left + right for left, right in merges)]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def characters() -> Tokenizer:
    """One token per character."""
    vocabulary = {character: index for index, character in enumerate(["<unk>", *LETTERS, " "])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def words() -> Tokenizer:
    """Whole words and no decoder, so that the library puts spaces between them."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", *LETTERS, *sorted(set(WORDS[0].split()) - {"a"})])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level BPE": byte_level_bpe,
    "byte-level BPE with its own pattern": lambda: byte_level_bpe(r"\p{N}{1,3}|\s+(?!\S)|\s+| ?[^\s\p{N}]+"),
    "bytes": byte_model,
    "SentencePiece BPE": sentencepiece_bpe,
    "metaspace BPE": metaspace_bpe,
    "Unigram with byte fallback": unigram,
    "Unigram": metaspace_unigram,
    "WordPiece": word_piece,
    "BPE with a suffix": suffix_bpe,
    "characters": characters,
    "words": words,
    "byte-level BPE with a prefix space": lambda: byte_level_bpe(prefix_space=True),
    "byte-level BPE without merges for its words": ignoring_merges,
    "byte-level BPE with single digits": lambda: byte_level_bpe(r"\p{N}|\s+(?!\S)|\s+| ?[^\s\p{N}]+"),
    "byte-level BPE with CJK apart": lambda: byte_level_bpe(
        r"[\u4e00-\u9fff\u3040-\u30ff]+|\s+(?!\S)|\s+| ?[^\s\u4e00-\u9fff\u3040-\u30ff]+"
    ),
    "byte-level BPE with chat markers": chat_markers,
    "byte-level BPE with added tokens": with_added_tokens,
    "SentencePiece BPE with added tokens": sentencepiece_with_added_tokens,
    "SentencePiece BPE without dummy prefix": gemma_bpe,
    "Unigram without dummy prefix": lambda: unigram(dummy_prefix=False),
}

# Families that do not give back every text that their tokens can spell, or have ids that are no tokens.
UNFAITHFUL: dict[str, Callable[[], Tokenizer]] = {
    "byte-level BPE with holes": with_holes,
    "byte-level BPE in NFC": lambda: byte_level_bpe(normalizer=normalizers.NFC()),
    "byte-level BPE in lower case": lambda: byte_level_bpe(normalizer=normalizers.Lowercase()),
    "byte-level BPE without accents": lambda: byte_level_bpe(
        normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    ),
    "Unigram in NFKC": lambda: unigram(normalizer=normalizers.NFKC()),
    "WordPiece in lower case": lambda: word_piece(normalizers.BertNormalizer(lowercase=True)),
}
EVERY_FAMILY = FAMILIES | UNFAITHFUL
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>", "[SEP]")


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as the content of a ``tokenizer.json``."""
    return json.loads(tokenizer.to_str())  # type: ignore[no-any-return]


def vocabulary(tokenizer: Tokenizer, eos: str | None = None) -> Vocabulary:
    """The tokenizer as a vocabulary, with the id of ``eos`` as its end of text."""
    return Vocabulary(describe(tokenizer), () if eos is None else (tokenizer.token_to_id(eos),))


@cache
def vocabulary_of(family: str) -> Vocabulary:
    """Built once; with its end of text, if it has one."""
    tokenizer = EVERY_FAMILY[family]()
    special = {token["content"] for token in describe(tokenizer)["added_tokens"] if token["special"]}
    return vocabulary(tokenizer, next((end for end in ENDS if end in special), None))


def write_rank_file(tokenizer: Tokenizer, path: Path) -> Path:
    """A byte-level tokenizer's ordinary tokens as a tiktoken file."""
    spelled = [token for token in vocabulary(tokenizer).token_bytes if token]
    path.write_bytes(b"".join(b64encode(token) + b" %d\n" % rank for rank, token in enumerate(spelled)))
    return path
