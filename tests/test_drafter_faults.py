"""A drafter that fails costs speed, never the text; so does a memory that is too small for all that was wanted."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.prompt import read_by_drafter
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import ModelTokenizer, Rendered
from tests.cli import PAIRS, checkpoint, hsd
from tests.serving import Server

NOTICE = "hsd: the drafter failed, so that it goes on without: "
TEXT = "bcdefghijklmnopqrstuvwxyz\nabcd"


Fault = Callable[[int, int], None]  # by the number of tokens that were read, and of the places whose logits are wanted


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Fault], None]:
    """Passes of the model of that name end in the middle as the fault says, the cache half written."""

    def install(name: str, fault: Fault) -> None:
        forward = CachedModel._forward

        def fragile(model: CachedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
            if model._model.name_or_path != name:
                return forward(model, ids, keep)
            read = model.length
            logits = forward(model, ids, keep)
            model._read = read
            fault(read, keep)
            model._read = read + len(ids)
            return logits

        monkeypatch.setattr(CachedModel, "_forward", fragile)

    return install


def library_error(read: int, new: int) -> None:
    if read > 6:
        raise RuntimeError("kernel launch failed")


def no_memory_after(most: int) -> Fault:
    def fault(read: int, new: int) -> None:
        if read + new > most:
            raise torch.OutOfMemoryError

    return fault


def no_memory_for_passes_over(most: int) -> Fault:
    def fault(read: int, new: int) -> None:
        if new > most:
            raise torch.OutOfMemoryError

    return fault


def written(engine: Engine, prompt: str = "a", **settings: Any) -> tuple[list[int], Any]:
    generation = engine.generate(Request(prompt, max_new_tokens=30, **settings))
    return [piece.token for commit in generation.commits for piece in commit.pieces], generation


# A drafter that dies


@pytest.mark.parametrize("algorithm", ["sd", "slem", "slrs", "tli", "union"])
@pytest.mark.parametrize("options", [[], ["--lookahead", 4]], ids=["paced", "fixed length"])
def test_a_drafter_that_dies_costs_no_text_and_is_told_once(
    letters: str, tmp_path: Path, failing: Callable[[str, Fault], None], algorithm: str, options: list[object]
) -> None:
    drafter = checkpoint(tmp_path)
    failing(drafter, library_error)
    asked = ["generate", "-t", letters, "-d", drafter, "-a", algorithm, "-n", 30, "a", *options, "--no-stats"]
    assert hsd(*asked) == (0, TEXT, f"{NOTICE}RuntimeError: kernel launch failed\n")
    strict = hsd(*asked, "--strict", "--json")
    assert (strict.code, strict.out) == (1, "")
    assert strict.err == "hsd: the drafter failed: RuntimeError: kernel launch failed\n"
    report = json.loads(hsd(*asked, "--json", "-q").out)
    assert report["drafter_failure"] == "RuntimeError: kernel launch failed"
    assert report["drafted"] > 0


@pytest.mark.parametrize("most", [0, 1, 7, 12])
def test_a_sampled_text_is_the_seed_s_wherever_the_drafter_dies(
    unsure: str, pairs: str, failing: Callable[[str, Fault], None], most: int
) -> None:
    settings = {"sampling": SamplingSettings(1.0), "seed": 5}
    plain, _ = written(Engine(load_model(unsure), None), **settings)
    failing(pairs, no_memory_after(most))
    engine = Engine(load_model(unsure), load_model(pairs), strict=False)
    ids, generation = written(engine, algorithm="slrs", lookahead=4, **settings)
    assert ids == plain
    assert generation.statistics.drafter_failure == "the device ran out of memory"
    assert "drafter" not in engine._models  # its cache is free
    assert written(engine, algorithm="slrs", **settings)[0] == plain  # the texts after it, too


def test_many_texts_go_on_and_are_told_once(
    letters: str, pairs: str, tmp_path: Path, failing: Callable[[str, Fault], None]
) -> None:
    failing(pairs, no_memory_after(2))
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 3)
    done = hsd(
        "generate", "-t", letters, "-d", pairs, "-a", "slem", "-n", 30, "-i", tmp_path / "in.jsonl", "--no-stats"
    )
    assert (done.code, done.err) == (0, f"{NOTICE}the device ran out of memory\n")
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [(each["text"], each["drafter_failure"]) for each in results] == [(TEXT, "the device ran out of memory")] * 3


def test_a_chat_goes_on_and_is_told_once(letters: str, pairs: str, failing: Callable[[str, Fault], None]) -> None:
    failing(pairs, no_memory_after(2))
    done = hsd("chat", "-t", letters, "-d", pairs, "-a", "slem", "-n", 5, "--no-history", stdin=b"a\nb\n")
    assert done.code == 0
    assert done.err.count("the drafter failed, so that it goes on without: the device ran out of memory") == 1


@pytest.mark.parametrize("algorithm", ["auto", "slem"])
def test_a_drafter_that_cannot_be_loaded_is_gone_without(letters: str, tmp_path: Path, algorithm: str) -> None:
    drafter = checkpoint(tmp_path, PAIRS)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    asked = ["generate", "-t", letters, "-d", drafter, "-a", algorithm, "-n", 30, "a", "--no-stats"]
    done = hsd(*asked)
    assert (done.code, done.out) == (0, TEXT)
    assert done.err.startswith(NOTICE)
    assert done.err.count("\n") == 1
    strict = hsd(*asked, "--strict")
    assert (strict.code, strict.out, strict.err.count("\n")) == (1, "", 1)


# A target without the memory for all that is wanted


@pytest.mark.parametrize("most", [1, 2, 4])
def test_drafts_get_as_short_as_the_memory_wants_them(
    letters: str, pairs: str, failing: Callable[[str, Fault], None], most: int
) -> None:
    engine = Engine(load_model(letters), load_model(pairs), strict=False)
    failing(letters, no_memory_for_passes_over(most))
    ids, generation = written(engine, algorithm="slem", lookahead=9)
    assert ids == written(Engine(load_model(letters), None))[0]
    assert len(generation.statistics.drafted_at) <= most - 1
    assert generation.statistics.drafter_failure is None


def test_then_the_drafter_makes_room(letters: str, pairs: str, failing: Callable[[str, Fault], None]) -> None:
    engine = Engine(load_model(letters), load_model(pairs), strict=False)

    def shared(read: int, new: int) -> None:
        if read + new > 9 and "drafter" in engine._models:
            raise torch.OutOfMemoryError

    failing(letters, shared)
    ids, generation = written(engine, algorithm="slem", lookahead=4)
    assert ids == written(Engine(load_model(letters), None))[0]
    assert generation.statistics.drafter_failure == "the device ran out of memory"


def test_it_makes_room_for_a_prompt_too(letters: str, pairs: str, failing: Callable[[str, Fault], None]) -> None:
    engine = Engine(load_model(letters), load_model(pairs), strict=False)

    def shared(read: int, new: int) -> None:
        if "drafter" in engine._models:
            raise torch.OutOfMemoryError

    failing(letters, shared)
    ids, generation = written(engine, "abcd", algorithm="slem")
    assert ids == written(Engine(load_model(letters), None), "abcd")[0]
    assert generation.statistics.drafter_failure == "the device ran out of memory"
    assert generation.statistics.drafted == 0


@pytest.mark.parametrize(("prompt", "text"), [("a", "bcdefghij"), ("abcdefghijkl", "")])
def test_then_it_is_one_line(
    letters: str, pairs: str, failing: Callable[[str, Fault], None], prompt: str, text: str
) -> None:
    failing(letters, no_memory_after(9))
    done = hsd("generate", "-t", letters, "-d", pairs, "-a", "slem", "-n", 30, prompt)
    assert (done.code, done.out) == (1, text)
    assert done.err.startswith("hsd: the device ran out of memory; try a shorter text, ")
    assert done.err.count("\n") == 1


def test_without_more_patience_a_failure_is_an_error(
    letters: str, pairs: str, failing: Callable[[str, Fault], None]
) -> None:
    failing(pairs, library_error)
    with pytest.raises(HsdError, match="the drafter failed: RuntimeError: kernel launch failed"):
        written(Engine(load_model(letters), load_model(pairs)), algorithm="slem")


# Wherever it fails

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
NO_CHAT = "{{ raise_exception('no chat') }}"


def edited(folder: str, name: str, edit: Callable[[Any], None]) -> None:
    path = Path(folder, name)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def without_weights(folder: str) -> None:
    Path(folder, "model.safetensors").write_bytes(b"x" * 100)


def without_tokenizer(folder: str) -> None:
    Path(folder, "tokenizer.json").write_text("{}")


def that_cannot_encode(folder: str) -> None:
    def lacks_a(tokenizer: Any) -> None:
        tokenizer["model"]["unk_id"] = None
        tokenizer["model"]["vocab"][1][0] = "?"

    edited(folder, "tokenizer.json", lacks_a)


def whose_tokenizer_panics(charsmap: bytes) -> Callable[[str], None]:
    """In the library, which is written in Rust: to Python that is no ``Exception``."""
    normalizer = {"type": "Precompiled", "precompiled_charsmap": b64encode(charsmap).decode()}
    return lambda folder: edited(folder, "tokenizer.json", lambda tokenizer: tokenizer.update(normalizer=normalizer))


def with_more_tokens_than_rows(folder: str) -> None:
    def has_another(tokenizer: Any) -> None:
        own = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        tokenizer["added_tokens"].append({"id": len(PAIRS) + 1, "content": "abc", **own})

    edited(folder, "tokenizer.json", has_another)


def with_template(template: str) -> Callable[[str], None]:
    return lambda folder: Path(folder, "chat_template.jinja").write_text(template) and None


def fails_from(token: int) -> Fault:
    def fault(read: int, new: int) -> None:
        if read + new > token:
            raise RuntimeError("kernel launch failed")

    return fault


PLACES: dict[str, tuple[Callable[[str], None] | None, Fault | None, str]] = {
    "weights": (without_weights, None, NOTICE),
    "tokenizer": (without_tokenizer, None, NOTICE),
    "template without system": (with_template(NO_SYSTEM), None, "no system; the drafter reads it in another form"),
    "template": (with_template(NO_CHAT), None, "no chat; the drafter reads it in another form"),
    "panic in the tokenizer": (whose_tokenizer_panics(b"\0\0\0"), None, NOTICE),
    "panic in encoding": (whose_tokenizer_panics(b"\x08\0\0\0" + b"\xff" * 8 + b"abc"), None, NOTICE),
    "encoding": (that_cannot_encode, None, NOTICE),
    "rows": (
        with_more_tokens_than_rows,
        None,
        f"{NOTICE}the token 'abc' has the id 40, but the model's embeddings have 40 rows",
    ),
    "first pass": (None, fails_from(0), f"{NOTICE}RuntimeError: kernel launch failed"),
    "later": (None, fails_from(12), f"{NOTICE}RuntimeError: kernel launch failed"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("writes", ["generate", "batch", "batch of two", "chat", "serve"])
def test_wherever_a_drafter_fails_the_text_is_the_target_s_and_it_is_told_once(
    tmp_path: Path, failing: Callable[[str, Fault], None], place: str, writes: str
) -> None:
    target = checkpoint(tmp_path / "target", chat_template=CHAT)
    drafter = checkpoint(tmp_path / "drafter", PAIRS, chat_template=CHAT)
    damage, fault, notice = PLACES[place]
    if damage is not None:
        damage(drafter)
    if fault is not None:
        failing(drafter, fault)
    pair = ["-t", target, "-d", drafter, "-a", "slem"]
    if writes == "generate":
        done = hsd("generate", *pair, "-n", 30, "--no-stats", "-s", "zab", "abc")
        code, texts, said = done.code, [done.out], done.err
    elif writes == "chat":
        done = hsd("chat", *pair, "-n", 30, "--no-history", "--no-stats", "-s", "zab", stdin=b"abc\n")
        code, texts, said = done.code, [done.out.rstrip("\n")], done.err
    elif writes == "serve":
        with Server(*pair, fork=True) as server:
            asked = [{"role": "system", "content": "zab"}, {"role": "user", "content": "abc"}]
            body = {"model": target, "messages": asked, "max_tokens": 30, "temperature": 0}
            answers = [server.post("/v1/chat/completions", body) for _ in range(2)]
        code, said = 0, server.said
        texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    else:
        (tmp_path / "in.jsonl").write_text('{"prompt": "abc"}\n' * 3)
        size = ["--batch-size", 2] if writes == "batch of two" else []
        done = hsd("generate", *pair, "-n", 30, "--no-stats", "-s", "zab", "-i", tmp_path / "in.jsonl", *size)
        code, said = done.code, done.err
        texts = [json.loads(line)["text"] for line in done.out.splitlines()]
    assert code == 0, said
    assert set(texts) == {"defghijklmnopqrstuvwxyz\nabcdef"}, said
    assert said.count(notice.removeprefix("hsd: ")) == 1, said
    assert said.count("the drafter") == 1 + said.count("the drafter's"), said


def test_with_strict_a_template_that_refuses_is_an_error(tmp_path: Path) -> None:
    target = checkpoint(tmp_path / "target", chat_template=CHAT)
    drafter = checkpoint(tmp_path / "drafter", PAIRS, chat_template=NO_SYSTEM)
    done = hsd("generate", "-t", target, "-d", drafter, "-a", "slem", "--strict", "-s", "zab", "abc")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"hsd: the chat template of {drafter!r} refuses this conversation: no system\n"


@pytest.mark.parametrize(("template", "reads"), [(NO_SYSTEM, "zab\n\nabc"), (NO_CHAT, "zababc")])
def test_a_drafter_whose_template_refuses_drafts_all_the_same(tmp_path: Path, template: str, reads: str) -> None:
    target = load_model(checkpoint(tmp_path / "target", chat_template=CHAT))
    tokenizer = ModelTokenizer.load(checkpoint(tmp_path / "drafter", PAIRS, chat_template=template))
    rendered = ModelTokenizer.of(target).render("abc", "zab", True)
    read, refusal = read_by_drafter(tokenizer, "abc", "zab", True, {}, rendered)
    assert read.text == reads
    assert refusal is not None
    engine = Engine(target, load_model(str(tmp_path / "drafter")), strict=False)
    _, generation = written(engine, "abc", system="zab", algorithm="slem", lookahead=4)
    assert generation.statistics.accepted > 0


SAID = {"system": "z", "user": "a", "assistant": "b"}


@pytest.mark.parametrize(
    ("roles", "reads"),
    [
        ("system user", "z\n\na"),
        ("system assistant user", "bz\n\na"),
        ("user assistant user", "aba"),
        ("system", "target"),
        ("system assistant", "target"),
    ],
)
def test_what_the_system_says_goes_into_the_user_s_first_message_if_there_is_one(
    tmp_path: Path, roles: str, reads: str
) -> None:
    tokenizer = ModelTokenizer.load(checkpoint(tmp_path, PAIRS, chat_template=NO_SYSTEM))
    said = [{"role": role, "content": SAID[role]} for role in roles.split()]
    assert read_by_drafter(tokenizer, said, None, True, {}, Rendered("target", []))[0].text == reads
