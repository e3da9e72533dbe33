"""A chat at work with real models: what they read, what is remembered, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hsd_cli.chat.conversation import Conversation, Turn
from hsd_cli.chat.session import Answer, Session
from hsd_cli.chat.settings import Settings
from hsd_cli.chat.transcript import load, save
from hsd_cli.engine import Engine
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.runtime.model import CachedModel
from hsd_cli.vocab.tokenizer import ModelTokenizer, Prompt, Rendered
from tests.cli import LETTERS, PAIRS, checkpoint
from tests.test_caches_between_texts import TEMPLATE

CONTEXT = 64


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Says the alphabet from its beginning, and ends."""
    return _talker(tmp_path_factory.mktemp("talker"), context=2048)


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same in a small context."""
    return _talker(tmp_path_factory.mktemp("forgetful"), context=CONTEXT)


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(checkpoint(tmp_path_factory.mktemp("drafter"), PAIRS))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Without a chat template: answers `cd`, and goes on with the user's part."""
    tokens = ["Assistant:\n", "c", "d", "\nUser:", "\n", "a", "b"]
    return load_model(checkpoint(tmp_path_factory.mktemp("plain"), tokens))


def _talker(folder: Path, context: int, sharpness: float = 8) -> LoadedModel:
    tokens = [*LETTERS, "<turn>"]
    return load_model(
        checkpoint(folder, tokens, special=["<turn>"], chat_template=TEMPLATE, context=context, sharpness=sharpness)
    )


def session(target: LoadedModel, drafter: LoadedModel | None = None, **settings: object) -> Session:
    return Session(Engine(target, drafter), Settings(**{"algorithm": "ar", **settings}), Conversation(), load_model)


def said(answer: Answer) -> str:
    """The answer, written to its end."""
    return "".join(commit.text for commit in answer)


# The caches


@pytest.mark.parametrize("length", [5, 1000], ids=["cut", "ended"])
def test_a_new_turn_reads_only_what_is_new(talker: LoadedModel, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    chat = session(talker, max_new_tokens=length)
    said(chat.ask("abc"))
    read: list[int] = []  # the number of tokens of each forward pass
    forward = CachedModel._forward

    def counting(model: CachedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
        read.append(len(ids))
        return forward(model, ids, keep)

    monkeypatch.setattr(CachedModel, "_forward", counting)
    answer = chat.ask("klmn")
    text = said(answer)
    passes = len(text) + (length == 1000)  # one token each, the last one of which is the end
    # What is new is <turn>klmn<turn>, and the last token of an answer that was cut: written, but never read.
    new = len("<klmn>") + (length == 5)
    assert sum(read) == new + passes - 1
    assert answer.report is not None
    assert answer.report.prompt_tokens - answer.report.cached_prompt_tokens == new


def test_answers_stay_in_the_tokens_that_they_were_written_in(tmp_path: Path) -> None:
    tokens = [*LETTERS, "<turn>", "ab"]  # it says ab-a-b-c, which its tokenizer would spell ab-ab-c
    chat = session(
        load_model(checkpoint(tmp_path, tokens, special=["<turn>"], chat_template=TEMPLATE)), max_new_tokens=4
    )
    assert [said(chat.ask(question)) for question in ("x", "y")] == ["ababc"] * 2
    assert chat.reports[1].cached_prompt_tokens == len("<x>") + len(["ab", "a", "b"])
    chat.settings = chat.settings.changed("stop", "abc")
    assert said(chat.ask("z")) == "ab"
    assert chat.conversation.turns[-1].written is None  # there is more in its tokens than in its text


def test_a_second_try_reads_nothing_anew(talker: LoadedModel) -> None:
    chat = session(talker, max_new_tokens=5)
    for question in ("abc", "klm"):
        said(chat.ask(question))
    again = chat.ask("klm", again=True)
    assert said(again) == "abcde"
    assert again.report is not None
    assert again.report.cached_prompt_tokens == again.report.prompt_tokens - 1
    assert chat.conversation.turns == [Turn("abc", "abcde"), Turn("klm", "abcde")]


def test_drafts_change_the_passes_and_not_the_answers(talker: LoadedModel, drafter: LoadedModel) -> None:
    chat = session(talker, drafter, algorithm="slem", max_new_tokens=20)
    answers = [said(chat.ask(question)) for question in ("abc", "klm")]
    assert answers == ["abcdefghijklmnopqrst"] * 2
    report = chat.reports[1]
    assert report.accepted > 0
    assert report.cached_prompt_tokens == report.prompt_tokens - len("<klm>") - 1


def test_another_drafter_can_be_taken(talker: LoadedModel, drafter: LoadedModel) -> None:
    chat = session(talker, drafter, max_new_tokens=3)
    with pytest.raises(HsdError):
        chat.draft_with("embedded:none")
    assert chat.models == {"target": talker.name, "drafter": drafter.name}
    chat.draft_with(None)
    assert chat.models == {"target": talker.name}
    chat.draft_with(drafter.name)
    assert chat.models["drafter"] == drafter.name
    assert said(chat.ask("a")) == "abc"


# The context


def test_the_oldest_turns_are_left_out_and_not_each_time(forgetful: LoadedModel) -> None:
    chat = session(forgetful, max_new_tokens=8)
    chat.conversation.system = "s"
    left_out, prompts = [], []
    for number in range(7):
        answer = chat.ask("klm" + LETTERS[number])
        assert said(answer) == "abcdefgh"
        left_out.append(answer.left_out)
        prompts.append(answer.generation.prompt)
    assert left_out == [0, 0, 0, 0, 2, 2, 4]
    assert all(len(prompt.ids) + 8 <= CONTEXT for prompt in prompts)
    assert all(prompt.text.startswith("<turn>s<turn>klm") for prompt in prompts)
    assert prompts[4].text.startswith("<turn>s<turn>klmc<turn>")
    assert len(chat.conversation.turns) == 7
    assert chat.reports[5].cached_prompt_tokens > chat.reports[4].cached_prompt_tokens


def test_a_long_answer_is_granted_a_quarter_of_the_context(forgetful: LoadedModel) -> None:
    chat = session(forgetful, max_new_tokens=2)
    for _ in range(2):
        said(chat.ask("k" * 10))
    chat.settings = chat.settings.changed("max_new_tokens", "1000")
    assert chat.ask("k" * (48 - 30)).left_out == 0  # 28 tokens were said, 20 are new, 16 are free
    assert chat.ask("k" * (48 - 29)).left_out == 2


def test_a_chat_of_megabytes_is_cut_without_being_read_again_and_again(
    forgetful: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after /load of one that was held with a larger model."""
    chat = session(forgetful, max_new_tokens=8)
    chat.conversation.turns = [Turn("k" * 900, "abc"), *[Turn("klm", "abc")] * 3000, Turn("k", "abc")]
    monkeypatch.setattr("hsd_cli.engine.EASILY_ENCODED", 1000)
    lengths: list[int] = []
    render = ModelTokenizer.render

    def note(tokenizer: ModelTokenizer, prompt: Prompt, *rest: Any) -> Rendered:
        lengths.append(sum(len(message["content"]) for message in prompt if not isinstance(message, str)))
        return render(tokenizer, prompt, *rest)

    monkeypatch.setattr(ModelTokenizer, "render", note)
    answer = chat.ask("klm")
    assert said(answer) == "abcdefgh"
    assert len(answer.generation.prompt.ids) + 8 <= CONTEXT
    assert answer.left_out == 2998
    assert max(lengths) <= 1000
    assert len(lengths) < 20


def test_a_message_that_does_not_fit_alone_is_refused(forgetful: LoadedModel) -> None:
    chat = session(forgetful, max_new_tokens=8)
    said(chat.ask("abc"))
    before = Conversation(turns=list(chat.conversation.turns))
    with pytest.raises(HsdError, match="does not fit: 64 tokens, and the context holds 64; shorten it"):
        chat.ask("a" * (CONTEXT - 2))
    assert chat.conversation == before
    assert said(chat.ask("a" * (CONTEXT - 3))) == "a"  # in what is left of the context
    assert chat.conversation.left_out == 1


# Plain text


def test_without_a_template_the_answer_ends_where_the_user_would_speak(plain: LoadedModel) -> None:
    chat = session(plain)
    assert not chat.has_template
    assert said(chat.ask("ab")) == "cd"
    assert said(chat.ask("b")) == "cd"
    assert chat.conversation.turns == [Turn("ab", "cd"), Turn("b", "cd")]
    assert chat.reports[1].finish_reason == "stop"
    assert chat.reports[1].cached_prompt_tokens >= chat.reports[0].prompt_tokens


# Files


def test_a_conversation_that_was_kept_goes_on_as_it_would_have(tmp_path: Path) -> None:
    unsure = _talker(tmp_path / "model", context=2048, sharpness=3)
    sampled = Settings().changed("temperature", "1").sampling
    first, second = (session(unsure, sampling=sampled, seed=4, max_new_tokens=12) for _ in range(2))
    said(first.ask("abc"))
    save(tmp_path / "chat.json", first.conversation, first.models)
    second.conversation, _ = load(tmp_path / "chat.json")
    answers = [said(chat.ask("klm")) for chat in (first, second)]
    assert answers[0] == answers[1]
    assert answers[0] != said(session(unsure, sampling=sampled, seed=4, max_new_tokens=12).ask("klm"))


# Ctrl-C


@pytest.fixture
def _as_from_a_shell() -> Iterator[None]:
    """Test runs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.usefixtures("_as_from_a_shell")
def test_ctrl_c_ends_the_answer_and_keeps_what_is_there(talker: LoadedModel) -> None:
    chat = session(talker)
    answer = chat.ask("abc")
    for commit in answer:
        if "c" in commit.text:
            os.kill(os.getpid(), signal.SIGINT)
    assert chat.conversation.turns == [Turn("abc", "abc")]
    assert chat.reports[0].finish_reason == "interrupt"
    said(chat.ask("klm"))
    assert chat.reports[1].cached_prompt_tokens == len("<abc>") + len("ab")


@pytest.mark.usefixtures("_as_from_a_shell")
def test_a_second_ctrl_c_does_not_wait(talker: LoadedModel) -> None:
    chat = session(talker)
    commits = iter(chat.ask("abc"))
    next(commits)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    commits.close()
    assert chat.conversation.turns == [Turn("abc", "a")]
    assert said(chat.ask("abc", again=True)) == "abcdefghijklmnopqrstuvwxyz\n"


@pytest.mark.usefixtures("_as_from_a_shell")
def test_an_interrupt_before_the_first_word_changes_nothing(
    talker: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = session(talker, max_new_tokens=3)
    said(chat.ask("abc"))
    with monkeypatch.context() as patch:
        patch.setattr(CachedModel, "_forward", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            said(chat.ask("klm", again=True))
    assert chat.conversation.turns == [Turn("abc", "abc")]
    assert said(chat.ask("klm")) == "abc"


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
