"""llama.cpp: GGUF files, and a drafter whose tokens are the target's from the sixth on."""

from __future__ import annotations

from shlex import join

from hsd_cli.export.pair import ExportedModel, ExportedPair
from hsd_cli.export.recipe import DRAFTED, Fact, Recipe, Refusal
from hsd_cli.vocab.vocabulary import Vocabulary

LARGEST_DIFFERENCE = 128  # tokens: SPEC_VOCAB_MAX_SIZE_DIFFERENCE
FIRST_COMPARED = 5  # id: SPEC_VOCAB_CHECK_START_TOKEN_ID

REPOSITORY = "https://github.com/ggml-org/llama.cpp"
CHECK = f"{REPOSITORY}/blob/master/common/speculative.cpp"
SERVER = f"{REPOSITORY}/blob/master/tools/server/README.md"
CONVERTER = f"{REPOSITORY}/blob/master/convert_hf_to_gguf.py"
BASE = f"{REPOSITORY}/blob/master/conversion/base.py"
NO_TRANSLATION = Fact(
    "translating between vocabularies (--spec-replace) was removed in May 2026", f"{REPOSITORY}/pull/22838"
)
LIMITS = (
    Fact("it reads GGUF files alone; the first lines make them, for kinds of models that its converter has", CONVERTER),
    Fact("both models must begin and end texts with the same tokens, or with none", CHECK),
    Fact("the options have these names since 2026; builds before have --draft-max, and no draft-simple", SERVER),
)


def export(pair: ExportedPair) -> Recipe | Refusal:
    difference = abs(pair.target.width - pair.drafter.width)
    if difference > LARGEST_DIFFERENCE:
        sizes = f"vocabularies may differ by {LARGEST_DIFFERENCE} tokens in size, and there are {pair.widths}"
        return Refusal("llama.cpp", (Fact(sizes, CHECK), NO_TRANSLATION))
    if (index := _first_difference(pair)) is not None:
        names = " and ".join(repr(_name(side.vocabulary, index)) for side in (pair.target, pair.drafter))
        tokens = f"tokens must be the same from id {FIRST_COMPARED} on, and id {index} is {names}"
        return Refusal("llama.cpp", (Fact(tokens, CHECK), NO_TRANSLATION))
    lines = [
        *_converted(pair.target, "target"),
        *_converted(pair.drafter, "drafter"),
        [
            *("llama-server", "-m", "target.gguf", "-md", "drafter.gguf"),
            *("--spec-type", "draft-simple", "--spec-draft-n-max", str(DRAFTED)),
        ],
    ]
    limits: tuple[Fact, ...] = LIMITS
    if roles := pair.with_own_code:
        code = "it cannot run a checkpoint's own code, and has no flag for it; what its converter has not, it refuses"
        limits = (Fact(f"{code} (here the {' and the '.join(roles)})", BASE), *LIMITS)
    return Recipe("llama.cpp", "sh", "".join(f"{join(line)}\n" for line in lines), "sd", limits)


def _converted(model: ExportedModel, role: str) -> list[list[str]]:
    """Commands, in a checkout of llama.cpp, that leave the model in ``role.gguf``."""
    folder = model.name if model.is_folder else role
    download = [] if model.is_folder else [["hf", "download", model.name, "--local-dir", folder]]
    return [*download, ["python", "convert_hf_to_gguf.py", folder, "--outfile", f"{role}.gguf"]]


def _first_difference(pair: ExportedPair) -> int | None:
    """The first id that is compared and is not the same token in both files, which have names for padding, too."""
    for index in range(FIRST_COMPARED, min(pair.target.width, pair.drafter.width)):
        if _token(pair.target.vocabulary, index) != _token(pair.drafter.vocabulary, index):
            return index
    return None


def _token(vocabulary: Vocabulary, index: int) -> tuple[bytes | None, str]:
    return (vocabulary.token_bytes[index], vocabulary.name(index)) if index < len(vocabulary) else (None, "")


def _name(vocabulary: Vocabulary, index: int) -> str:
    return _token(vocabulary, index)[1] or f"[PAD{index}]"
