"""``hsd serve``: what OpenAI's own client gets, what is refused and how, and how the server ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch
from openai import OpenAI
from pydantic import ValidationError

from hsd_cli.batch.records import derived_seed
from hsd_cli.decoding.loop import Commit, Piece
from hsd_cli.decoding.sampling import Logprobs
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Engine, Request
from hsd_cli.models.locate import own_name
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.serve.answers import ChatAnswer, CompletionAnswer
from hsd_cli.serve.schema import ChatRequest
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.cli import LETTERS, checkpoint, hsd
from tests.serving import LIMIT, Server, raw_request

PROMPT = "import os\n\n\ndef "
MODEL = "embedded:target"
ENDLESS = 60_000
KEY = "a key, not a good one"
TEMPLATE = "{% for message in messages %}{{ message['role'] }}{{ message['content'] }}{{ ending }}{% endfor %}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The embedded pair, four texts at a time, for this machine alone. It drafts whether that pays or not."""
    with Server("--batch-size", 4, "--max-new-tokens", 200, "-a", "slem", "--lookahead", 4) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.openai


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Goes on with the alphabet as long as it may; has a chat template."""
    return checkpoint(tmp_path_factory.mktemp("endless"), context=ENDLESS + 1000, chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def guarded(endless: str, pairs: str) -> Iterator[Server]:
    """One text at a time, one that waits, and only for those who have the key."""
    options = ["--batch-size", 1, "--queue", 1, "--max-new-tokens", ENDLESS, "--api-key", KEY]
    with Server("-t", endless, "-d", pairs, *options, key=KEY, fork=True) as running:
        yield running


# Texts


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 7}], ids=["greedy", "sampled"])
def test_a_completion_is_the_text_of_generate(client: OpenAI, sampling: dict[str, Any]) -> None:
    options = [word for name, value in sampling.items() for word in (f"--{name.replace('_', '-')}", value)]
    run = json.loads(hsd("generate", "--json", "-q", "-n", 40, *options, PROMPT).out)
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 40, "temperature": 0} | sampling
    whole = client.completions.create(**asked)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (run["text"], "length")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (run["prompt_tokens"], 40)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == run["text"]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (run["prompt_tokens"], 40)


def test_a_stream_tells_where_its_text_comes_from(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 60, "temperature": 0}
    *chunks, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    origins = [chunk.hsd for chunk in chunks]  # type: ignore[attr-defined]
    for chunk, origin in zip(chunks, origins, strict=True):
        assert "".join(text for text, _ in origin["pieces"]) == chunk.choices[0].text
        assert sum(drafted for _, drafted in origin["pieces"]) == origin["accepted"] <= origin["drafted"]
    assert last.usage is not None
    assert last.usage.hsd == {  # type: ignore[attr-defined]
        "drafted_tokens": sum(origin["drafted"] for origin in origins),
        "accepted_tokens": sum(origin["accepted"] for origin in origins),
        "target_passes": len(origins),
    }
    assert 0 < last.usage.hsd["accepted_tokens"] < 60  # type: ignore[attr-defined]


def test_texts_end_before_a_stop_string(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 60, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    stop = text[20:24]
    for given in (stop, ["never written", stop]):
        choice = client.completions.create(**asked, stop=given).choices[0]
        assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")


def test_logprobs_are_the_targets_own_whatever_the_sampling(client: OpenAI) -> None:
    target = load_model(MODEL, "cpu", "float32", None, "auto")
    settings: dict[str, Any] = {"seed": 3, "sampling": SamplingSettings(temperature=0.6, top_k=20)}
    plain = Engine(target, None).generate(Request(PROMPT, chat=False, max_new_tokens=20, **settings))
    tokens = [piece.token for commit in plain.commits for piece in commit.pieces]
    with torch.inference_mode():
        logits = target.model(torch.tensor([[*plain.prompt.ids, *tokens]])).logits[0, -1 - len(tokens) : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 20, "temperature": 0.6, "seed": 3}
    choice = client.completions.create(**asked, logprobs=0, extra_body={"top_k": 20}).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs == pytest.approx(expected, abs=1e-4)
    assert choice.logprobs.tokens is not None
    assert choice.logprobs.text_offset is not None
    assert "".join(choice.logprobs.tokens) == choice.text
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
        assert choice.text[offset:].startswith(token)
    stream = client.completions.create(**asked, logprobs=0, stream=True, extra_body={"top_k": 20})
    chunks = [chunk.choices[0].logprobs for chunk in stream]
    assert [token for chunk in chunks if chunk for token in chunk.tokens or []] == choice.logprobs.tokens
    assert [offset for chunk in chunks if chunk for offset in chunk.text_offset or []] == choice.logprobs.text_offset
    assert choice.logprobs.top_logprobs is None


def test_a_completion_tells_what_else_could_have_been_written(client: OpenAI) -> None:
    target = load_model(MODEL, "cpu", "float32", None, "auto")
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 20, "temperature": 1.5, "seed": 3}
    answer = client.completions.create(**asked, logprobs=5, n=2)
    read = ModelTokenizer.of(target).render(PROMPT).ids
    for number, choice in enumerate(answer.choices):
        assert choice.logprobs is not None
        assert choice.logprobs.tokens is not None
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs.top_logprobs is not None
        settings: dict[str, Any] = {"seed": derived_seed(3, 1) if number else 3, "sampling": SamplingSettings(1.5)}
        written = tokens_of(Engine(target, None), Request(PROMPT, chat=False, max_new_tokens=20, **settings))
        values, ids = likeliest(target, read, written, 5)
        names = ModelTokenizer.of(target).vocabulary.name
        for place, told in enumerate(choice.logprobs.top_logprobs):
            own = {choice.logprobs.tokens[place]: choice.logprobs.token_logprobs[place]}
            others = dict(zip(map(names, ids[place]), values[place], strict=True))
            assert told == pytest.approx(others | own, abs=1e-4)
        assert {len(told) for told in choice.logprobs.top_logprobs} == {5, 6}, "what was written is always there"


def tokens_of(engine: Engine, request: Request) -> list[int]:
    return [piece.token for commit in engine.generate(request).commits for piece in commit.pieces]


def likeliest(model: LoadedModel, read: list[int], written: list[int], count: int) -> tuple[Any, Any]:
    """Log-probabilities and ids, in lists for each place, by the model alone."""
    with torch.inference_mode():
        logits = model.model(torch.tensor([read + written])).logits[0, len(read) - 1 : -1]
    values, ids = logits.log_softmax(-1).topk(count)
    return values.tolist(), ids.tolist()


def test_drafts_are_checked_as_the_server_was_told() -> None:
    target, drafter = (load_model(f"embedded:{role}", "cpu", "float32", None, "auto") for role in ("target", "drafter"))
    settings: dict[str, Any] = {"algorithm": "slem", "lookahead": 4, "sampling": SamplingSettings(1.0), "seed": 7}
    texts = []
    for rule in ("rejection", "coupled"):
        request = Request(PROMPT, chat=False, max_new_tokens=30, verification=rule, **settings)  # type: ignore[arg-type]
        texts.append("".join(commit.text for commit in Engine(target, drafter).generate(request).commits))
    assert texts[0] != texts[1]
    with Server("-a", "slem", "--lookahead", 4, "--verification", "rejection", fork=True) as rejecting:
        asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 30, "seed": 7}
        assert rejecting.openai.completions.create(**asked).choices[0].text == texts[0]


def test_a_chat_is_answered_through_the_template(guarded: Server, endless: str) -> None:
    client = guarded.openai
    messages: list[Any] = [
        {"role": "developer", "content": "y"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
    ]
    asked: dict[str, Any] = {"model": endless, "messages": messages, "temperature": 0}
    answer = client.chat.completions.create(**asked, max_completion_tokens=5)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "defgh", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("systemy" + "userbc")
    chunks = list(client.chat.completions.create(**asked, stop="k", stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "defghij"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_variables_of_the_template_are_the_clients(guarded: Server, endless: str) -> None:
    asked = {"model": endless, "messages": [{"role": "user", "content": "b"}], "max_tokens": 3, "temperature": 0}
    for variables, text in ({"ending": "k", "unknown": [1]}, "lmn"), ({}, "cde"), (None, "cde"):
        answer = guarded.post("/v1/chat/completions", asked | {"chat_template_kwargs": variables})
        assert answer.json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "add_generation_prompt", "messages", "conversation"])
def test_what_renders_the_template_is_not_the_clients(guarded: Server, endless: str, name: str) -> None:
    asked = {"model": endless, "messages": [{"role": "user", "content": "b"}], "chat_template_kwargs": {name: "x"}}
    answer = guarded.post("/v1/chat/completions", asked)
    message = f"chat_template_kwargs cannot set {name!r}; leave it out"
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize(("ending", "accepted"), [("k", 4), (None, 0)])
def test_the_drafters_template_has_the_same_variables(tmp_path: Path, ending: str | None, accepted: int) -> None:
    """In its first draft, which nothing but the prompt tells it how to make: the target's always ends in `k`."""
    target = checkpoint(tmp_path / "target", chat_template=TEMPLATE.replace("{{ ending }}", "k"))
    drafter = checkpoint(tmp_path / "drafter", chat_template=TEMPLATE)
    engine = Engine(load_model(target, "cpu"), load_model(drafter, "cpu"))
    variables = {} if ending is None else {"ending": ending}
    asked = Request(
        [{"role": "user", "content": "b"}], algorithm="slem", lookahead=4, max_new_tokens=9, template_kwargs=variables
    )
    first = next(engine.generate(asked).commits)
    assert (first.text, first.accepted) == ("lmnop"[: accepted + 1], accepted)


@pytest.mark.parametrize(
    ("last", "flags", "text"),
    [
        ({"role": "assistant", "content": "cd"}, {}, "efg"),
        (
            {"role": "assistant", "content": "cd"},
            {"continue_final_message": True, "add_generation_prompt": False},
            "efg",
        ),
        ({"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]}, {}, "efg"),
        ({"role": "assistant", "content": ""}, {}, "lmn"),
        ({"role": "user", "content": "cd"}, {"continue_final_message": False, "add_generation_prompt": True}, "lmn"),
    ],
    ids=["reply", "as with vLLM", "in parts", "empty", "question"],
)  # fmt: skip
def test_a_reply_that_is_begun_is_gone_on_with(
    guarded: Server, endless: str, last: dict[str, Any], flags: dict[str, bool], text: str
) -> None:
    """`k` ends each message, and what follows on it is another reply."""
    said = [{"role": "user", "content": "b"}, last]
    asked = {"model": endless, "messages": said, "max_tokens": 3, "temperature": 0}
    answer = guarded.post("/v1/chat/completions", asked | flags | {"chat_template_kwargs": {"ending": "k"}})
    assert answer.json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize(
    ("role", "flag", "message"),
    [
        ("assistant", {"continue_final_message": False},
         "the last message is the assistant's, and is continued; leave continue_final_message out or give true"),
        ("assistant", {"add_generation_prompt": True},
         "the last message is the assistant's, and is continued; leave add_generation_prompt out or give false"),
        ("user", {"continue_final_message": True},
         "the last message is to be answered; leave continue_final_message out or give false"),
        ("user", {"add_generation_prompt": False},
         "the last message is to be answered; leave add_generation_prompt out or give true"),
    ],
    ids=str,
)  # fmt: skip
def test_the_last_message_alone_says_whether_it_is_gone_on_with(
    guarded: Server, endless: str, role: str, flag: dict[str, bool], message: str
) -> None:
    asked = {"model": endless, "messages": [{"role": role, "content": "b"}], "max_tokens": 3} | flag
    answer = guarded.post("/v1/chat/completions", asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["message"]) == (400, *flag, message)


def test_a_reply_that_is_gone_on_with_keeps_the_space_before_its_next_word(tmp_path: Path) -> None:
    """SentencePiece's decoder takes a space off the beginning of a text: here that is not where it begins."""
    folder = checkpoint(tmp_path, ["a", "b", "\u2581c", "d"], chat_template=TEMPLATE)
    file = tmp_path / "tokenizer.json"
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decoder": spaces}))
    engine = Engine(load_model(folder, "cpu"), None)
    for role, text in ("user", "cd"), ("assistant", " cd"):
        asked = Request([{"role": role, "content": "ab"}], algorithm="ar", max_new_tokens=2)
        assert "".join(commit.text for commit in engine.generate(asked).commits) == text


def test_chat_logprobs_have_the_bytes_of_each_token(guarded: Server, endless: str) -> None:
    choice = guarded.openai.chat.completions.create(
        model=endless, messages=[{"role": "user", "content": "a"}], max_tokens=3, logprobs=True, temperature=0
    ).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    found = [(score.token, bytes(score.bytes or [])) for score in choice.logprobs.content]
    assert found == [("b", b"b"), ("c", b"c"), ("d", b"d")]
    assert all(-0.1 < score.logprob < 0 for score in choice.logprobs.content)
    assert [score.top_logprobs for score in choice.logprobs.content] == [[]] * 3


def test_a_chat_tells_what_else_could_have_been_written(guarded: Server, endless: str) -> None:
    asked: dict[str, Any] = {
        "model": endless, "messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "temperature": 0,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    target = load_model(endless, "cpu", "float32", None, "auto")
    names = ["<unk>", *LETTERS]
    values, ids = likeliest(target, [names.index("a")], [names.index(letter) for letter in "bcd"], 20)
    content = [
        score
        for chunk in guarded.openai.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for score in chunk.choices[0].logprobs.content or []
    ]
    whole = guarded.openai.chat.completions.create(**asked).choices[0].logprobs
    assert whole is not None
    assert [score.model_dump() for score in whole.content or []] == [score.model_dump() for score in content]
    for score, expected, at in zip(content, values, ids, strict=True):
        assert [other.logprob for other in score.top_logprobs] == pytest.approx(expected, abs=1e-4)
        assert [other.token for other in score.top_logprobs[:1]] == [names[at[0]]] == [score.token]
        assert all(other.bytes == list(other.token.encode()) for other in score.top_logprobs)


def test_tokens_that_are_no_text_by_themselves_have_names_and_bytes_as_openai_has_them() -> None:
    vocabulary = ModelTokenizer.load(MODEL).vocabulary
    snow, end, padding = vocabulary.encode("☃".encode())[0], vocabulary.eos_ids[0], len(vocabulary)
    logprobs = Logprobs(-0.1, ((snow, -0.1), (end, -2.0), (padding, float("-inf"))))
    commit = Commit((Piece(snow, "", False, logprobs),), "ar", 0, 0, 0.0, finish_reason="length")
    told = {"\\xe2": -0.1, "<|endoftext|>": -2.0, "": -9999.0}
    chat, completion = (
        answer(MODEL, vocabulary, 3).whole([[commit]], {})["choices"][0]["logprobs"]
        for answer in (ChatAnswer, CompletionAnswer)
    )
    assert completion["top_logprobs"] == [told]
    expected = [
        {"token": name, "logprob": logprob, "bytes": spelled}
        for (name, logprob), spelled in zip(told.items(), ([0xE2], None, None), strict=True)
    ]
    assert chat["content"] == [expected[0] | {"top_logprobs": expected}]


# Several texts of a request


def test_each_choice_has_a_seed_of_its_own_and_the_first_is_the_only_ones(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 30, "seed": 7}
    alone = client.completions.create(**asked)
    answer = client.completions.create(**asked, n=3)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert texts[0] == alone.choices[0].text
    assert len(set(texts)) == 3
    assert texts == [choice.text for choice in client.completions.create(**asked, n=3).choices]
    second = client.completions.create(**asked | {"seed": derived_seed(7, 1)}).choices[0].text
    assert texts[1] == second
    assert alone.usage is not None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (alone.usage.prompt_tokens, 90)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 90


def test_without_a_seed_choices_differ_too(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=30, n=3)
    assert len({choice.text for choice in answer.choices}) == 3


def test_several_prompts_have_the_texts_that_each_has_alone(client: OpenAI) -> None:
    prompts = [PROMPT, "class Stack:\n", "for i in range("]
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 20, "seed": 3, "n": 2}
    alone = [client.completions.create(**asked, prompt=prompt) for prompt in prompts]
    answer = client.completions.create(**asked, prompt=prompts)
    expected = [choice.text for one in alone for choice in one.choices]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage is not None
    for name in ("prompt_tokens", "completion_tokens"):
        assert getattr(answer.usage, name) == sum(getattr(one.usage, name) for one in alone)


def test_choices_are_streamed_side_by_side(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 40, "seed": 7, "n": 3, "logprobs": 0}
    whole = client.completions.create(**asked)
    *chunks, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order)
    for choice in whole.choices:
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own] == [None] * (len(own) - 1) + ["length"]
        offsets = [offset for part in own if part.logprobs for offset in part.logprobs.text_offset or []]
        assert choice.logprobs is not None
        assert offsets == choice.logprobs.text_offset
    assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 120)


def test_each_choice_of_a_chat_begins_with_its_role(guarded: Server, endless: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "a"}]
    asked: dict[str, Any] = {"model": endless, "messages": messages, "temperature": 0, "max_tokens": 4, "n": 2}
    client = guarded.openai
    answer = client.chat.completions.create(**asked)
    assert [choice.message.content for choice in answer.choices] == ["bcde", "bcde"]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    for index in range(2):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert [chunk.delta.role for chunk in own] == ["assistant"] + [None] * (len(own) - 1)
        assert "".join(chunk.delta.content or "" for chunk in own) == "bcde"


def test_no_request_may_ask_for_more_texts_than_there_is_room_for(guarded: Server, endless: str) -> None:
    with pytest.raises(openai.BadRequestError, match="these are 3 texts; a request may ask this server for 2"):
        guarded.openai.completions.create(model=endless, prompt=["a", "b", "c"])


# What is refused


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"top_logprobs": 21}, "top_logprobs", "top_logprobs: Input should be less than or equal to 20"),
        ({"logprobs": False, "top_logprobs": 1}, "top_logprobs", "top_logprobs needs logprobs: true"),
        (
            {"top_logprobs": 20, "max_tokens": 10_000, "n": 2}, "logprobs",
            "these are up to 420000 log-probabilities, and a request may ask for 262144: lower max_tokens, the number "
            "of texts or of alternatives",
        ),
    ],
    ids=["many", "alone", "long"],
)  # fmt: skip
def test_alternatives_have_a_limit(
    guarded: Server, endless: str, change: dict[str, Any], param: str, message: str
) -> None:
    asked = {"model": endless, "messages": [{"role": "user", "content": "a"}], "logprobs": True} | change
    with pytest.raises(openai.BadRequestError) as refused:
        guarded.openai.chat.completions.create(**asked)
    assert (refused.value.param, refused.value.body["message"]) == (param, message)  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "status", "param", "message"),
    [
        ({"n": 0}, 400, "n", "n: Input should be greater than or equal to 1"),
        ({"n": 129}, 400, "n", "n: Input should be less than or equal to 128"),
        (
            {"n": 3, "prompt": ["a"] * 100}, 400, "n",
            "these are 300 texts; a request may ask this server for 128",
        ),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias", "logit_bias is not supported; leave it out or give {}"),
        ({"suffix": "x"}, 400, "suffix", 'suffix is not supported; leave it out or give ""'),
        ({"temprature": 1}, 400, "temprature", "unknown parameter temprature; did you mean temperature?"),
        ({"\ud800": 1}, 400, "\\ud800", "unknown parameter \\ud800"),
        ({"prompt": ["a"] * 129}, 400, "prompt", None),
        ({"prompt": [1]}, 400, "prompt", "prompt: token ids are not supported; give text"),
        ({"prompt": [[1], [2]]}, 400, "prompt", "prompt: token ids are not supported; give text"),
        ({"prompt": "\ud800"}, 400, "prompt", None),
        ({"prompt": "a b c " * 2000}, 400, None, None),
        ({"temperature": -1}, 400, "temperature", "temperature: Input should be greater than or equal to 0"),
        ({"temperature": 1e-9}, 400, None, "temperature must be 0 (greedy) or at least 1e-5, not 1e-09"),
        ({"logprobs": 6}, 400, "logprobs", "logprobs: Input should be less than or equal to 5"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "unknown parameter top_logprobs; did you mean logprobs?"),
        ({"seed": 1 << 64}, 400, "seed", "seed: Input should be less than 18446744073709551616"),
        ({"stop": [""]}, 400, "stop.0", "stop.0: String should have at least 1 character"),
        ({"max_tokens": 201}, 400, "max_tokens", "max_tokens is 201, and this server writes 200 at most"),
        ({"model": "gpt-4"}, 404, "model", "there is no model 'gpt-4'; there is 'embedded:target'"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_served_is_said(
    server: Server, change: dict[str, Any], status: int, param: str | None, message: str | None
) -> None:
    answer = server.post("/v1/completions", {"model": MODEL, "prompt": "a"} | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert message is None or error["message"] == message


@pytest.mark.parametrize(
    "messages",
    [
        [{}] * 1000,
        [{"role": "user", "content": [{}] * 1000}],
        [{"role": "user", "content": "a"} | {f"key{i}": 1 for i in range(1000)}],
    ],
    ids=["messages", "parts", "unknown members"],
)
def test_a_body_full_of_mistakes_costs_no_more_than_one(messages: list[Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate({"model": MODEL, "messages": messages})
    assert refused.value.error_count() < 5


def test_what_asks_for_nothing_is_no_error(server: Server) -> None:
    harmless = {"best_of": 1, "echo": False, "logit_bias": {}, "user": "x", "stop": None, "seed": None, "max_tokens": 1}
    assert server.post("/v1/completions", {"model": MODEL, "prompt": ["a"]} | harmless).status_code == 200


@pytest.mark.parametrize("seed", [1 << 40, (1 << 64) - 1, -2, -1])
def test_seeds_have_64_bits_and_minus_one_is_none(client: OpenAI, seed: int) -> None:
    texts = {
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=40, temperature=1.5, seed=seed).choices[0].text
        for _ in range(2)
    }
    assert len(texts) == (2 if seed == -1 else 1)


SENT_BACK = {
    "role": "assistant", "content": "b", "reasoning_content": "well", "annotations": [], "refusal": None, "audio": None,
    "function_call": None, "tool_calls": [], "name": "x", "cache_control": {"type": "ephemeral"},
}  # fmt: skip
CACHED_PART = {"type": "text", "text": "b", "annotations": [], "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    "change", [SENT_BACK, *({key: value} for key, value in SENT_BACK.items()), {"tool_calls": None},
               {"content": [CACHED_PART]}],
    ids=lambda change: ", ".join(change),
)  # fmt: skip
def test_replies_are_taken_back_with_what_came_with_them(guarded: Server, endless: str, change: Any) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    said[1] |= change
    answer = guarded.post(
        "/v1/chat/completions", {"model": endless, "messages": said, "max_tokens": 2, "temperature": 0}
    )
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "de")


def test_flags_that_would_close_a_begun_reply_are_refused(guarded: Server, endless: str) -> None:
    said = [{"role": "user", "content": "xyz"}, {"role": "assistant", "content": "abc"}]
    asked = {"model": endless, "messages": said, "max_tokens": 3, "temperature": 0}
    for further in ({"continue_final_message": False}, {"add_generation_prompt": True}):
        answer = guarded.post("/v1/chat/completions", asked | further)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(further)))


def test_a_folder_is_called_by_its_own_name_and_templates_are_told_what_clients_say(tmp_path: Path) -> None:
    checkpoint(tmp_path / "own", chat_template="{{ messages[0].content }}{{ mood }}")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    asked = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "temperature": 0}
    with Server("-t", f"{tmp_path}/link/", fork=True) as server:
        assert server.model == "own"
        for model in ("own", f"{tmp_path}/link/"):
            asked |= {"model": model, "chat_template_kwargs": {"mood": "mno"}}
            answer = server.post("/v1/chat/completions", asked).json()
            assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("own", "pqr")
        refused = server.post("/v1/chat/completions", asked | {"chat_template_kwargs": {"tokenize": True}})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "chat_template_kwargs cannot set 'tokenize'; leave it out"


@pytest.mark.parametrize(("name", "own"), [(".", "here"), ("../here", "here"), ("embedded:target", "embedded:target")])
def test_names_of_folders_are_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, own: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert own_name(name) == own


@pytest.mark.parametrize(
    ("name", "value"),
    [("tool_calls", [{}]), ("function_call", {"name": "f"}), ("refusal", "no"), ("audio", {"id": "x"})],
)
def test_what_a_message_has_in_the_place_of_text_is_refused(server: Server, name: str, value: Any) -> None:
    said = [{"role": "assistant", "content": "b", name: value}, {"role": "user", "content": "c"}]
    error = server.post("/v1/chat/completions", {"model": MODEL, "messages": said}).json()["error"]
    assert (error["param"], error["message"]) == ("messages.0", f"messages.0: {name} is not supported; leave it out")


HARMLESS: dict[str, Any] = {
    "max_completion_tokens": 1, "stream_options": {"include_usage": True}, "store": True, "metadata": {"a": "b"},
    "user": "x", "parallel_tool_calls": True, "response_format": {"type": "text"}, "logit_bias": {}, "tools": [],
    "tool_choice": "none", "service_tier": "auto", "verbosity": "medium", "top_k": -1, "ignore_eos": False,
    "stop_token_ids": [], "add_generation_prompt": True, "continue_final_message": False, "modalities": ["text"],
    "prediction": None, "reasoning_effort": None, "audio": None, "functions": [], "frequency_penalty": 0.0, "stop": [],
    "seed": -1, "n": 1, "logprobs": False, "top_logprobs": 0, "safety_identifier": "x", "prompt_cache_key": "x",
}  # fmt: skip
CHANGING: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required", "logit_bias": {"5": 1},
    "response_format": {"type": "json_object"}, "modalities": ["text", "audio"], "reasoning_effort": "high",
    "verbosity": "low", "audio": {"voice": "alloy", "format": "wav"}, "web_search_options": {}, "stop_token_ids": [5],
    "ignore_eos": True, "min_tokens": 5, "frequency_penalty": 0.5, "presence_penalty": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_asks_a_chat_for_nothing_is_no_error(guarded: Server, endless: str, name: str) -> None:
    asked = {"model": endless, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "temperature": 0}
    answer = guarded.post("/v1/chat/completions", asked | {name: HARMLESS[name]})
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "b")


@pytest.mark.parametrize("name", CHANGING)
def test_what_would_make_another_text_of_a_chat_is_refused(server: Server, name: str) -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], name: CHANGING[name]}
    answer = server.post("/v1/chat/completions", asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name} is not supported; leave it out")


def test_a_prompt_that_does_not_fit_has_openais_code(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="a b c " * 2000)
    assert refused.value.code == "context_length_exceeded"
    assert "the target's context holds 2048; shorten it" in refused.value.message


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "Input should be 'text'"),
        ([{"role": "tool", "content": "x"}], "messages.0.role: Input should be 'system', 'developer', 'user' or"),
        ([{"role": "user"}], "messages.0.content: Field required"),
        ([], "messages: List should have at least 1 item"),
    ],
    ids=["image", "tool", "nothing", "none"],
)
def test_messages_are_text(server: Server, messages: Any, sentence: str) -> None:
    answer = server.post("/v1/chat/completions", {"model": MODEL, "messages": messages})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]


def test_a_chat_without_a_template_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"", None),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b'{"model": "' + b"\xff" + b'"}', None),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", None),
    ],
    ids=["cut", "empty", "list", "deep", "bytes", "number"],
)
def test_bad_json_is_400(server: Server, body: bytes, message: str | None) -> None:
    answer = server.post("/v1/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert message is None or error["message"] == message


def test_forms_that_other_pages_can_send_are_refused(server: Server) -> None:
    body = json.dumps({"model": MODEL, "prompt": "a"}).encode()
    assert server.post("/v1/completions", body, **{"Content-Type": "text/plain"}).status_code == 400


def test_a_folder_is_called_by_its_own_name(guarded: Server, endless: str) -> None:
    name = Path(endless).name
    assert [card["id"] for card in guarded.get("/v1/models").json()["data"]] == [name]
    for asked in (name, endless):  # what the server was told is understood, too
        answer = guarded.post(
            "/v1/completions", {"model": asked, "prompt": "a", "max_tokens": 1, "temperature": 0}
        ).json()
        assert (answer["model"], answer["choices"][0]["text"]) == (name, "b")


def test_the_own_name_is_not_how_it_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model"
    (folder / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    (folder / "small.gguf").write_bytes(b"")
    (tmp_path / "other.gguf").symlink_to(folder / "small.gguf")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (".", "inside/..", "../my-model/", "../link", tmp_path / "link", folder, "~/my-model"):
        assert own_name(str(given)) == "my-model"
    assert own_name("small.gguf") == own_name(f"{folder}/small.gguf") == "small.gguf"
    assert own_name("../other.gguf") == "other.gguf"
    assert own_name("/") == "/"
    for elsewhere in ("owner/model", "owner/model:small.gguf", "embedded:target"):
        assert own_name(elsewhere) == elsewhere


def test_what_is_not_there_is_an_error_of_the_same_form(server: Server) -> None:
    assert server.get("/v1/models/none").json()["error"]["code"] == "model_not_found"
    assert server.get("/v1/models/embedded:target").json()["id"] == MODEL
    for answer, status in ((server.get("/none"), 404), (server.get("/v1/completions"), 405)):
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


def test_large_requests_are_refused_whether_they_say_so_or_not(server: Server) -> None:
    body = json.dumps({"model": MODEL, "prompt": "a" * (5 << 20)}).encode()
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as wire:
        wire.sendall(raw_request("/v1/completions", b"", length=len(body)))
        assert wire.recv(1000).startswith(b"HTTP/1.1 413")
    headers = {"Content-Type": "application/json"}
    chunked = httpx2.post(f"{server.url}/v1/completions", content=iter([body]), headers=headers, timeout=LIMIT)
    assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "request_too_large")


def test_only_this_machines_names_are_answered(server: Server) -> None:
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "127.3.2.1", "[::1]:8000"):
        assert server.get("/v1/models", Host=host).status_code == 200
    for host in ("evil.example", "localhost.evil.example:80", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.evil.example"):
        assert server.get("/v1/models", Host=host).status_code == 403


def test_only_its_own_page_is_answered(server: Server) -> None:
    asked = {"model": MODEL, "prompt": "a", "max_tokens": 1}
    assert server.post("/v1/completions", asked, Origin=server.url).status_code == 200
    for origin in ("http://evil.example", "null", "", "http://localhost:1", f"{server.url}.evil.example"):
        answer = server.post("/v1/completions", asked, Origin=origin)
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "invalid_request_error")
        assert "access-control-allow-origin" not in answer.headers


def test_a_key_is_wanted_for_all_but_the_page_and_the_health(guarded: Server) -> None:
    for path in ("/", "/page.js", "/page.css", "/health"):
        assert guarded.get(path, Authorization="").status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/none"):
        for given in ("", "Bearer", "Bearer no", f"Basic {KEY}", "Bearer é"):
            answer = guarded.get(path, Authorization=given.encode())  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert guarded.get("/v1/models", Host="by.any.name").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{guarded.url}/v1", api_key="no", max_retries=0).models.list()
    assert KEY not in guarded.said


# Clients that leave, and too many of them


def test_a_client_that_goes_away_frees_its_seat(guarded: Server, endless: str) -> None:
    asked: dict[str, Any] = {"model": endless, "prompt": "a", "temperature": 0}
    before = guarded.metric("hsd_texts_total", reason="gone")
    with guarded.openai.completions.create(**asked, max_tokens=ENDLESS, stream=True) as stream:
        next(iter(stream))
    guarded.until("hsd_texts_running", 0)
    body = json.dumps(asked | {"max_tokens": ENDLESS, "n": 2}).encode()
    with socket.create_connection(("127.0.0.1", guarded.port), LIMIT) as wire:  # not a stream: nothing is sent to it
        wire.sendall(raw_request("/v1/completions", body, f"Authorization: Bearer {KEY}"))
        guarded.until("hsd_texts_waiting", 1)
        guarded.until("hsd_texts_running", 1)
    assert guarded.openai.completions.create(**asked, max_tokens=4).choices[0].text == "bcde"
    guarded.until("hsd_texts_total", guarded.metric("hsd_texts_total"))
    assert guarded.metric("hsd_texts_total", reason="gone") == before + 3


def test_beyond_the_queue_it_is_429_at_once(guarded: Server, endless: str) -> None:
    asked: dict[str, Any] = {"model": endless, "prompt": "a", "temperature": 0, "max_tokens": ENDLESS}
    body = json.dumps(asked).encode()
    with guarded.openai.completions.create(**asked, stream=True):
        with socket.create_connection(("127.0.0.1", guarded.port), LIMIT) as wire:
            wire.sendall(raw_request("/v1/completions", body, f"Authorization: Bearer {KEY}"))
            guarded.until("hsd_texts_waiting", 1)
            with pytest.raises(openai.RateLimitError) as refused:
                guarded.openai.completions.create(**asked)
            assert refused.value.code == "queue_full"
            assert refused.value.response.headers["retry-after"] == "1"
        guarded.until("hsd_texts_waiting", 0)  # it went away while it waited
    guarded.until("hsd_texts_running", 0)


def test_texts_of_a_request_of_which_another_fails_are_counted_as_such(guarded: Server, endless: str) -> None:
    def counts() -> list[float]:
        return [guarded.metric("hsd_texts_total", reason=reason) for reason in ("error", "sibling_error", "gone")]

    before = counts()
    asked: dict[str, Any] = {"model": endless, "max_tokens": ENDLESS, "temperature": 0}
    with pytest.raises(openai.BadRequestError, match="the target's context holds"):
        guarded.openai.completions.create(**asked, prompt=["a" * (ENDLESS + 2000), "a"])
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 0]


def test_metrics_count_what_usage_says(server: Server) -> None:
    def counts() -> list[float]:
        names = ("prompt_tokens", "tokens", "drafted_tokens", "accepted_tokens", "target_passes", "texts")
        return [server.metric(f"hsd_{name}_total") for name in names]

    before = counts()
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 30, "temperature": 0}
    usage = server.post("/v1/completions", asked).json()["usage"]
    grown = [now - then for now, then in zip(counts(), before, strict=True)]
    own = usage["hsd"]
    passes = own["target_passes"]
    assert grown == [usage["prompt_tokens"], 30, own["drafted_tokens"], own["accepted_tokens"], passes, 1]
    assert server.metric("hsd_requests_total", path="/v1/completions", status="200") >= 1
    assert server.metric("hsd_first_token_seconds_count") == server.metric("hsd_text_seconds_count")
    server.get("/a/path/that/is/not/there")
    assert server.metric("hsd_requests_total", path="other", status="404") >= 1


# The end


def test_what_runs_is_finished_before_the_end(letters: str) -> None:
    with Server("-t", letters, fork=True) as server:
        stream = server.openai.completions.create(
            model=letters, prompt="a", max_tokens=1500, temperature=0, stream=True
        )
        text = next(chunks := iter(stream)).choices[0].text
        server.process.send_signal(signal.SIGTERM)
        last = None
        for last in chunks:
            text += last.choices[0].text
        assert last is not None
        assert last.choices[0].finish_reason == "length"
        assert text == ("".join(LETTERS) * 60)[1:1501]
        assert server.wait() == 0
        with pytest.raises(httpx2.ConnectError):
            server.get("/health")
    assert server.said.count("\n") == 1


@pytest.mark.parametrize(
    ("grace", "numbers"),
    [(0.2, [signal.SIGTERM]), (LIMIT, [signal.SIGINT, signal.SIGINT])],
    ids=["after its time", "at the second Ctrl-C"],
)
def test_what_takes_too_long_is_cut_off(endless: str, grace: float, numbers: list[signal.Signals]) -> None:
    with Server("-t", endless, "--max-new-tokens", ENDLESS, "--grace", grace, "-a", "ar", fork=True) as server:
        stream = server.openai.completions.create(model=endless, prompt="a", max_tokens=ENDLESS, stream=True)
        chunks = iter(stream)
        next(chunks)
        for number in numbers:
            server.process.send_signal(number)
            server.until_refused()
        assert server.wait() == 1
    assert server.said.splitlines()[1:] == ["hsd: 1 request was cut off"]


# The command line


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--host", "0.0.0.0"], 2, "at 0.0.0.0 others can reach the server; set HSD_API_KEY, or leave --host out"),
        (["--host", "::"], 2, "at :: others can reach the server; set HSD_API_KEY, or leave --host out"),
        (["--api-key", ""], 2, None),
        (["--api-key", "a\nb"], 2, None),
        (["--host", "no.such.name.invalid"], 1, None),
        (["-a", "slem", "-t", "some/model"], 2, "--algorithm slem needs a drafter; add --draft MODEL"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(arguments: list[str], code: int, sentence: str | None) -> None:
    result = hsd("serve", "--port", 0, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1)
    assert sentence is None or result.err == f"hsd: {sentence}\n"


def test_an_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reason = f"cannot listen at '127.0.0.1', port {port}: {os.strerror(98)}; choose another --host or --port"
        assert hsd("serve", "--port", port) == (1, "", f"hsd: {reason}\n")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert hsd("serve", "--port", 0) == (1, "", "hsd: fastapi is missing; run: pip install 'hsd-cli[serve]'\n")


def test_an_engine_that_cannot_write_does_not_serve() -> None:
    result = hsd("serve", "--port", 0, "-q", "-a", "sd")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: sd needs one shared vocabulary")
