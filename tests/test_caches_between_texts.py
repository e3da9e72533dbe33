"""The caches stay from one text to the next: only what is new is read, and nothing else changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import PreTrainedModel

from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine, Generation, Request
from hsd_cli.runtime.cache import RollbackLayer
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import Rendered
from tests.breadth import breadth
from tests.cli import LETTERS, PAIRS, checkpoint

EVERY_ALGORITHM = [*(name for name in ALGORITHMS if name != "sd"), "auto"]
BEGINNING = "def read(path):\n    with open(path) as file:\n        "
TEMPLATE = "{% for message in messages %}<turn>{{ message['content'] }}{% endfor %}<turn>"


@pytest.fixture(scope="module")
def pair() -> tuple[LoadedModel, LoadedModel]:
    return load_model("embedded:target", "cpu"), load_model("embedded:drafter", "cpu")


@contextmanager
def counted_tokens() -> Iterator[dict[PreTrainedModel, list[int]]]:
    """By model, the number of tokens of each forward pass."""
    counts: defaultdict[PreTrainedModel, list[int]] = defaultdict(list)
    forward = CachedModel._forward

    def note(model: CachedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
        counts[model._model].append(len(ids))
        return forward(model, ids, keep)

    with patch.object(CachedModel, "_forward", note):
        yield counts


def ids_of(generation: Generation) -> list[int]:
    return [piece.token for commit in generation.commits for piece in commit.pieces]


def requests(algorithm: str, settings: SamplingSettings) -> list[Request]:
    prompts = (BEGINNING + "return", BEGINNING + "for line", BEGINNING, "x", BEGINNING + "return")
    return [Request(each, algorithm=algorithm, max_new_tokens=24, sampling=settings, seed=1) for each in prompts]


GREEDY, SAMPLED = SamplingSettings(), SamplingSettings(1.0)


@pytest.fixture(scope="module", params=breadth([GREEDY, SAMPLED], quick=[SAMPLED]), ids=["greedy", "sampled"])
def settings(request: pytest.FixtureRequest) -> SamplingSettings:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def fresh(pair: tuple[LoadedModel, LoadedModel], settings: SamplingSettings) -> list[list[int]]:
    """Texts from fresh caches; whatever drafts, they are the seed's."""
    return [ids_of(Engine(*pair).generate(request)) for request in requests("ar", settings)]


@pytest.mark.parametrize("algorithm", breadth(EVERY_ALGORITHM, quick=["slem", "union"]))
def test_texts_are_the_same_as_from_fresh_caches(
    pair: tuple[LoadedModel, LoadedModel], algorithm: str, settings: SamplingSettings, fresh: list[list[int]]
) -> None:
    kept = Engine(*pair)
    assert [ids_of(kept.generate(request)) for request in requests(algorithm, settings)] == fresh


@pytest.mark.parametrize("algorithm", ["ar", "slem", "slrs"])
def test_only_what_is_new_is_read(pair: tuple[LoadedModel, LoadedModel], algorithm: str) -> None:
    engine = Engine(*pair)
    request = Request(BEGINNING, algorithm=algorithm, lookahead=2, max_new_tokens=12)
    first = engine.generate(request)
    length = len(first.prompt.ids)
    ids_of(first)
    assert (first.statistics.prompt_tokens, first.statistics.cached_prompt_tokens) == (length, 0)
    with counted_tokens() as counts:
        again = engine.generate(request)
        next(again.commits)
    assert again.statistics.cached_prompt_tokens == length - 1
    assert max(counts[pair[0].model]) <= 3  # the last token and the draft
    assert max(counts[pair[1].model], default=0) <= 2
    engine.forget()
    assert ids_of(engine.generate(request)) == ids_of(Engine(*pair).generate(request))
    fresh = engine.generate(Request("y", algorithm=algorithm))
    next(fresh.commits)
    assert fresh.statistics.cached_prompt_tokens == 0


def test_a_new_text_ends_the_one_before(pair: tuple[LoadedModel, LoadedModel]) -> None:
    engine = Engine(*pair)
    first = engine.generate(Request(BEGINNING, max_new_tokens=50))
    assert len(list(islice(first.commits, 3))) == 3
    request = Request(BEGINNING + "return", max_new_tokens=20)
    second = engine.generate(request)
    assert list(first.commits) == []
    assert ids_of(second) == ids_of(Engine(*pair).generate(request))


def test_a_failure_in_a_pass_costs_the_caches_and_nothing_else(
    pair: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(*pair)
    update = RollbackLayer.update
    layers = iter(range(6))  # of twelve

    def fail(*arguments: Any) -> Any:
        if next(layers, None) is None:
            raise KeyboardInterrupt
        return update(*arguments)

    request = Request(BEGINNING, max_new_tokens=20)
    interrupted = engine.generate(request)
    next(interrupted.commits)
    with monkeypatch.context() as broken:
        broken.setattr(RollbackLayer, "update", fail)
        with pytest.raises(KeyboardInterrupt):
            list(interrupted.commits)
    again = engine.generate(request)
    assert ids_of(again) == ids_of(Engine(*pair).generate(request))
    assert again.statistics.cached_prompt_tokens == 0


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet. It writes single letters; its tokenizer prefers pairs of them."""
    folder = tmp_path_factory.mktemp("talker")
    model = checkpoint(folder, [*LETTERS, "<turn>"], special=["<turn>"], chat_template=TEMPLATE)
    return model


def test_a_conversation_reads_only_the_new_turn(talker: str, tmp_path: Path) -> None:
    engine = Engine(load_model(talker), load_model(checkpoint(tmp_path, PAIRS)))
    question = {"role": "user", "content": "abc"}
    first = engine.generate(Request([question], algorithm="slem", max_new_tokens=6))
    commits = list(first.commits)
    answer = "".join(commit.text for commit in commits)
    written = Rendered(
        first.prompt.text + answer,
        first.prompt.ids + [piece.token for commit in commits for piece in commit.pieces],
    )
    turns = [question, {"role": "assistant", "content": answer}, {"role": "user", "content": "klm"}]
    second = engine.generate(Request(turns, algorithm="slem", max_new_tokens=3, written=written))
    list(second.commits)
    # <turn>klm<turn> is new, and the answer's last token was written but never read.
    assert second.statistics.cached_prompt_tokens == len(written.ids) - 1
    assert second.statistics.prompt_tokens == len(written.ids) + len("klm") + 2


def test_tokens_that_were_written_stay_as_they_were_written(talker: str) -> None:
    engine = Engine(load_model(talker), None)
    canonical = engine.render(Request([{"role": "user", "content": "ab"}]))
    unusual = Rendered("<turn>ab<turn>cd", [*canonical.ids, 7, 8])  # what spells "cd", but in other tokens
    turns = [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "cd"},
        {"role": "user", "content": "e"},
    ]
    kept = engine.render(Request(turns, written=unusual))
    assert kept.ids[: len(unusual.ids)] == unusual.ids
    assert kept.text == "<turn>ab<turn>cd<turn>e<turn>"
    other = engine.render(Request([*turns[:1], {"role": "assistant", "content": "cx"}, turns[2]], written=unusual))
    assert other.ids == engine.render(Request([*turns[:1], {"role": "assistant", "content": "cx"}, turns[2]])).ids
    within = engine.render(Request([*turns[:1], {"role": "assistant", "content": "cde"}], written=unusual))
    assert 7 not in within.ids  # the text goes on in the middle of a turn, where tokens could span the seam


def test_interrupting_while_nothing_runs_keeps_the_caches(pair: tuple[LoadedModel, LoadedModel]) -> None:
    engine = Engine(*pair)
    request = Request(BEGINNING, max_new_tokens=20)
    first = engine.generate(request)
    next(first.commits)
    again = engine.generate(request)
    next(again.commits)
    assert again.statistics.cached_prompt_tokens == len(first.prompt.ids) - 1
