"""Trains the embedded models: ``python -m hsd_cli.models.train_embedded [--out FOLDER] [--only NAME …] [--quick]``.

The text is the source of the running Python's standard library (PSF-2.0). Four models come out: a byte-level
*target*, a SentencePiece-style *drafter* that shares no tokenizer with it, a *speller* of the same style whose small
vocabulary spells most words in several tokens, and a *twin* drafter that shares the target's tokenizer. The target
learns from the text; the drafters learn from the text and from what the target writes (the twin also from the
target's logits). The same seed, Python, PyTorch and thread count give the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20502
SEQUENCE = 512  # tokens per training sequence
BATCH = 16  # sequences per step
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "encodings", "__pycache__"}


@dataclass(frozen=True)
class Shape:
    """Size of one model and its training: ``steps`` of ``BATCH * SEQUENCE`` tokens.

    A drafter's diet is the text once and what the target writes ``own_text`` times.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    steps: int
    own_text: int = 0


TARGET = Shape(vocabulary=4096, hidden=192, layers=12, heads=6, feed_forward=512, steps=700)
TWIN = Shape(vocabulary=4096, hidden=128, layers=2, heads=4, feed_forward=384, steps=600, own_text=2)
DRAFTER = Shape(vocabulary=3072, hidden=128, layers=2, heads=4, feed_forward=384, steps=3000, own_text=3)
SPELLER = Shape(vocabulary=512, hidden=128, layers=2, heads=4, feed_forward=384, steps=1000, own_text=3)
FOREIGN = {"drafter": DRAFTER, "speller": SPELLER}
NAMES = ("target", "twin", *FOREIGN)


# --- text ---------------------------------------------------------------------------------------------------------


def read_corpus() -> tuple[list[str], list[str]]:
    """The standard library's source files as (training, held-out) documents; the hash of a path decides the side."""
    root = Path(sysconfig.get_paths()["stdlib"])
    training: list[str] = []
    held_out: list[str] = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        digest = hashlib.sha256(relative.as_posix().encode()).digest()
        side = held_out if digest[0] % 25 == 0 else training
        side.append(path.read_text(encoding="utf-8", errors="replace"))
    return training, held_out


# --- tokenizers ---------------------------------------------------------------------------------------------------


def byte_level_tokenizer(documents: list[str], size: int) -> Tokenizer:
    """A byte-level BPE, as GPT-2's: every byte has a token, no prefix space, ``<|endoftext|>`` ends a text."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def sentencepiece_style_tokenizer(documents: list[str], size: int) -> Tokenizer:
    """A BPE as Llama 2's: ``▁`` for a space, a dummy prefix, bytes for unknown characters, ``<s>`` in front."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    special_tokens = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(tokenizer_models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Words and runs of spaces are learned apart. Line ends and tabs are left to the byte tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\n\t\r\f]"), "removed"),
            pre_tokenizers.Split(Regex(r"▁+(?=▁[^▁])|▁?\w+|▁?[^\w▁]+|▁+"), "isolated"),
        ]
    )
    # The trainer breaks ties between rare characters differently in every run: choose them here.
    counts = Counter(character for document in documents for character in document if not character.isspace())
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))[:127]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special_tokens + byte_tokens,
        initial_alphabet=["▁", *alphabet],
        limit_alphabet=128,
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    # The byte tokens are ordinary vocabulary in this family, and there is no pre-tokenizer when encoding.
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = description["added_tokens"][: len(special_tokens)]
    description["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


# --- training -----------------------------------------------------------------------------------------------------


def new_model(shape: Shape, bos: int, eos: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return LlamaForCausalLM(config)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    index: int = tokenizer.encode(token, add_special_tokens=False).ids[0]
    return index


def pack(tokenizer: Tokenizer, documents: list[str], eos: int) -> torch.Tensor:
    """All documents as one stream of ids, int64 ``[n]``, each followed by ``eos``."""
    encodings = tokenizer.encode_batch(documents)
    return torch.tensor([token for encoding in encodings for token in [*encoding.ids, eos]])


def batches(stream: torch.Tensor, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """``steps`` batches ``[BATCH, SEQUENCE]`` from random places of the stream."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(stream) - SEQUENCE, (BATCH,), generator=generator)
        yield torch.stack([stream[start : start + SEQUENCE] for start in starts])


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def next_token_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def distillation_loss(teacher: LlamaForCausalLM) -> Loss:
    """Divergence of the student's next-token distribution from the teacher's, at every position."""

    def loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        return F.kl_div(logits.float().log_softmax(-1), wanted, log_target=True, reduction="none").sum(-1).mean()

    return loss


def train(model: LlamaForCausalLM, stream: torch.Tensor, steps: int, loss_of: Loss = next_token_loss) -> None:
    """Muon for the hidden matrices, AdamW for the rest; linear warm-up, then linear decay to zero."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=6e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=6e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    warm_up = max(1, steps // 20)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda s: min((s + 1) / warm_up, (steps - s) / (steps - warm_up + 1)))
        for o in optimizers
    ]
    model.train()
    begun = time.perf_counter()
    for step, ids in enumerate(batches(stream, steps, SEED)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model(input_ids=ids, use_cache=False).logits, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"  step {step} loss {loss.item():.3f} after {time.perf_counter() - begun:.0f} s", flush=True)
    model.eval()


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: torch.Tensor) -> float:
    """Mean loss in nats per token over at most 64 sequences of unseen text."""
    sequences = stream[: len(stream) // SEQUENCE * SEQUENCE].view(-1, SEQUENCE)[:64]
    losses = [next_token_loss(model(input_ids=ids[None]).logits, ids[None]).item() for ids in sequences]
    return sum(losses) / len(losses)


@torch.no_grad()
def write_continuations(model: LlamaForCausalLM, stream: torch.Tensor, rounds: int, length: int = 192) -> torch.Tensor:
    """What the target writes after random places of the text, int64 ``[128 * rounds, 48 + length]``.

    One round of three is sampled at temperature 1, the others are greedy: a drafter has to follow both.
    """
    generator = torch.Generator().manual_seed(SEED + 1)
    torch.manual_seed(SEED + 2)
    written = []
    for index in range(rounds):
        starts = torch.randint(len(stream) - 48, (128,), generator=generator)
        prompts = torch.stack([stream[start : start + 48] for start in starts])
        sampling = {"do_sample": True, "top_k": 0} if index % 3 == 2 else {"do_sample": False}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            # An end of text would stop a row and leave padding behind it: not wanted in training text.
            ids = model.generate(  # type: ignore[misc]
                prompts,
                attention_mask=torch.ones_like(prompts),
                min_new_tokens=length,
                max_new_tokens=length,
                **sampling,
            )
        written.append(ids)
        print(f"  {len(written) * 128} continuations", flush=True)
    return torch.cat(written)  # type: ignore[arg-type]


# --- the models -------------------------------------------------------------------------------------------------------


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path, **special: str) -> None:
    model.generation_config.pad_token_id = model.config.eos_token_id
    model.to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    model.to(torch.float32)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "embedded")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="the others in FOLDER stay as they are")
    parser.add_argument("--quick", action="store_true", help="a few steps of each, to try the script")
    arguments = parser.parse_args()
    share = 0.01 if arguments.quick else 1.0
    out: Path = arguments.out

    torch.manual_seed(SEED)
    training, held_out = read_corpus()
    record_file = out / "training.json"
    record: dict[str, object] = json.loads(record_file.read_text()) if record_file.is_file() else {}
    record |= {
        "text": f"standard library of Python {platform.python_version()}, without its tests",
        "licence": "PSF-2.0",
        "sha256": hashlib.sha256("\0".join(training + held_out).encode()).hexdigest(),
        "training_characters": sum(map(len, training)),
        "held_out_characters": sum(map(len, held_out)),
        "seed": SEED,
        "torch": torch.__version__,
        "tokens_per_step": BATCH * SEQUENCE,
    }

    def finish(
        name: str, shape: Shape, model: LlamaForCausalLM, tokenizer: Tokenizer, unseen: torch.Tensor, **special: str
    ) -> None:
        save(model, tokenizer, out / name, **special)
        parameters = sum(p.numel() for p in model.parameters())
        loss = held_out_loss(model, unseen)
        per_byte = loss * len(unseen) / len("".join(held_out).encode())
        record[name] = asdict(shape) | {
            "parameters": parameters,
            "held_out_nats_per_token": round(loss, 4),
            "held_out_nats_per_byte": round(per_byte, 4),
        }
        record_file.write_text(json.dumps(record, indent=2) + "\n")
        print(f"{name}: {parameters:,} parameters, held-out {loss:.3f} nats per token", flush=True)

    if "target" in arguments.only:
        tokenizer = byte_level_tokenizer(training, TARGET.vocabulary)
    else:
        tokenizer = Tokenizer.from_file(str(out / "target" / "tokenizer.json"))
    special = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    eos = token_id(tokenizer, "<|endoftext|>")
    stream, unseen = pack(tokenizer, training, eos), pack(tokenizer, held_out, eos)
    if "target" in arguments.only:
        target = new_model(TARGET, eos, eos)
        train(target, stream, int(TARGET.steps * share))
        finish("target", TARGET, target, tokenizer, unseen, **special)
    target = LlamaForCausalLM.from_pretrained(out / "target", dtype=torch.float32)

    continuations = write_continuations(target, stream, rounds=max(1, int(36 * share)))
    written = [tokenizer.decode(ids, skip_special_tokens=True) for ids in continuations.tolist()]

    for name in [name for name in FOREIGN if name in arguments.only]:
        torch.manual_seed(SEED)  # each drafter starts from here, whichever else is trained
        shape = FOREIGN[name]
        foreign = sentencepiece_style_tokenizer(training, shape.vocabulary)
        end = token_id(foreign, "</s>")
        mixture = torch.cat([pack(foreign, training, end), *shape.own_text * [pack(foreign, written, end)]])
        drafter = new_model(shape, token_id(foreign, "<s>"), end)
        train(drafter, mixture, int(shape.steps * share))
        special_tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        finish(name, shape, drafter, foreign, pack(foreign, held_out, end), **special_tokens)

    if "twin" in arguments.only:
        torch.manual_seed(SEED)
        twin = new_model(TWIN, eos, eos)
        mixture = torch.cat([stream, *TWIN.own_text * [continuations.flatten()]])
        train(twin, mixture, int(TWIN.steps * share), distillation_loss(target))
        finish("twin", TWIN, twin, tokenizer, unseen, **special)


if __name__ == "__main__":
    main()
