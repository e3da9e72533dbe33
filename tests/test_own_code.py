"""`--trust-remote-code`: checkpoints that bring the code of their model along."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hsd_cli.models.content import content_hash
from tests.cli import Result, checkpoint, hsd
from tests.hub import Hub, Repository, use
from tests.own_code import FILES, echo_checkpoint

TRUST = "--trust-remote-code"
TOKENS = 40


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The library runs copies of the code that it keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return echo_checkpoint(tmp_path_factory.mktemp("echo") / "target")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return echo_checkpoint(tmp_path_factory.mktemp("echo") / "drafter", noise=0.2)


def generated(folder: str) -> list[int]:
    """What transformers writes after "abc"."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    ids = torch.tensor([[1, 2, 3]])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
    return written[0, 3:].tolist()  # type: ignore[no-any-return]


def assert_one_line(result: Result, sentence: str) -> None:
    assert (result.code, result.out) == (1, "")
    assert sentence in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("algorithm", ["ar", "lookup", "sd", "slem", "slrs", "tli", "union", "auto"])
def test_greedy_text_equals_generate(echo: str, other: str, algorithm: str) -> None:
    expected = generated(echo)
    assert len(set(expected)) > 5
    result = hsd("generate", "--json", TRUST, "-t", echo, "-d", other, "-a", algorithm, "-n", TOKENS, "abc")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["token_ids"] == expected
    if algorithm not in ("ar", "auto"):
        assert 0 < found["accepted"] < found["drafted"]


def test_it_drafts_for_a_model_of_the_library(other: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    result = hsd("generate", "--json", TRUST, "-t", folder, "-d", other, "-a", "slem", "-n", TOKENS, "abc")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["token_ids"] == generated(folder)
    assert found["drafted"] > 0


def test_sampled_text_is_what_plain_decoding_writes_with_the_seed(echo: str, other: str) -> None:
    sampled = ["generate", "-q", TRUST, "-t", echo, "-d", other, "--temperature", 1, "--seed", 3, "-n", TOKENS, "abc"]
    assert hsd(*sampled, "-a", "slrs") == hsd(*sampled, "-a", "ar")


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "-t", "{echo}", "a"],
        ["generate", "-t", "{echo}", "--system", "b", "a"],
        ["generate", "-q", "--strict", "-d", "{echo}", "a"],
        ["chat", "-t", "{echo}"],
        ["verify", "{echo}", "embedded:drafter"],
        ["bench", "-t", "{echo}"],
        ["plan", "{echo}", "embedded:drafter"],
        ["vocab-diff", "{program}", "embedded:drafter"],
    ],
    ids=" ".join,
)
def test_without_the_flag_nothing_is_run_and_the_flag_is_named(command: list[str], tmp_path: Path) -> None:
    echo, trace = Path(echo_checkpoint(tmp_path / "echo")), tmp_path / "trace"
    for name in FILES:
        (echo / name).write_text(f"open({str(trace)!r}, 'w')")
    program = tmp_path / "program"  # the tokenizer is one: there is no tokenizer.json
    program.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (program / name).write_bytes((echo / name).read_bytes())
    (program / "vocab.json").write_text("{}")
    result = hsd(*(part.format(echo=echo, program=program) for part in command))
    assert_one_line(result, "needs Python code of its own")
    assert result.err.endswith(f"add {TRUST}\n")
    assert not trace.exists()


def test_every_command_that_loads_models_takes_the_flag(echo: str, other: str) -> None:
    commands = [
        ["verify", echo, other, "-a", "sd", "-n", 4, "--samples", 4, "-q"],
        ["plan", echo, other, "--measure"],
        ["vocab-diff", echo, other],
        ["bench", "-t", echo, "-d", other, "--task", "code", "--take", 1, "-n", 8, "--repeats", 1, "--peers", "-q"],
    ]
    for command in commands:
        assert hsd(*command, TRUST).code == 0
    assert hsd("chat", "-q", "-t", echo, "-d", other, TRUST, stdin=b"abc\n").code == 0


def test_where_the_library_has_the_model_too_the_flag_chooses_the_checkpoints_own(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    classes = {"AutoModelForCausalLM": "backwards.BackwardsForCausalLM"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": classes}))
    (tmp_path / "model" / "backwards.py").write_text(
        "from transformers import LlamaForCausalLM\n\n\n"
        "class BackwardsForCausalLM(LlamaForCausalLM):\n"
        "    def forward(self, *args, **options):\n"
        "        output = super().forward(*args, **options)\n"
        "        output.logits = output.logits.roll(-2, -1)\n"
        "        return output\n"
    )
    assert hsd("generate", "-q", "-t", folder, "-n", 3, "d") == (0, "efg", "")
    assert hsd("generate", "-q", TRUST, "-t", folder, "-n", 3, "d") == (0, "cba", "")


def test_a_record_of_measurements_is_of_this_code(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    before = content_hash(folder, read=True)
    (tmp_path / "model" / "layer.py").write_text(FILES["layer.py"] + "\n# another version\n")
    assert before is not None
    assert content_hash(folder, read=True) != before


# What can go wrong


def test_code_for_another_version_of_the_library_is_one_line(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    older = FILES["layer.py"].replace("cache.update(keys", "cache.get_usable_length(keys")
    (tmp_path / "model" / "layer.py").write_text(older)
    result = hsd("generate", TRUST, "-t", folder, "a")
    assert_one_line(result, f"{folder!r} does not run on text alone with transformers 5.")


def test_code_that_does_not_use_the_cache_is_one_line(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    forgetful = FILES["layer.py"].replace("cache is not None", "False")
    (tmp_path / "model" / "layer.py").write_text(forgetful)
    assert_one_line(hsd("generate", TRUST, "-t", folder, "a"), "does not use the cache it is given")


def test_code_that_does_not_tell_its_head_is_one_line(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    unnamed = FILES["modeling_echo.py"].replace("def get_output_embeddings", "def get_head")
    (tmp_path / "model" / "modeling_echo.py").write_text(unnamed)
    assert_one_line(hsd("generate", TRUST, "-t", folder, "a"), "does not tell which weights its head has")


def test_a_library_that_the_code_needs_is_named(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    (tmp_path / "model" / "layer.py").write_text("import no_such_library\n" + FILES["layer.py"])
    (tmp_path / "model" / "modeling_echo.py").write_text("import no_such_library\n" + FILES["modeling_echo.py"])
    assert_one_line(hsd("generate", TRUST, "-t", folder, "a"), "run: pip install no_such_library")


def test_a_tokenizer_that_is_a_program_is_one_line(tmp_path: Path) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").rename(tmp_path / "model" / "vocab.json")
    (tmp_path / "model" / "tokenization_echo.py").write_text(
        "from transformers import PreTrainedTokenizer\n\n\n"
        "class EchoTokenizer(PreTrainedTokenizer):\n"
        "    vocab_size = 1\n\n"
        "    def get_vocab(self):\n"
        "        return {'a': 0}\n\n"
        "    def _tokenize(self, text):\n"
        "        return list(text)\n\n"
        "    def _convert_token_to_id(self, token):\n"
        "        return 0\n"
    )
    for command in (["generate", "-t", folder, "a"], ["vocab-diff", folder, "embedded:drafter"]):
        assert_one_line(hsd(*command, TRUST), "has no tokenizer.json and cannot be converted to one")


# Downloads


@pytest.fixture
def hub(echo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({"some/echo": Repository.of_folder(echo)}) as serving:
        use(serving, tmp_path, monkeypatch)
        yield serving


def test_code_is_downloaded_where_it_is_trusted(echo: str, hub: Hub) -> None:
    folder = Path(hsd("pull", "-q", "some/echo").out.strip())
    assert not [*folder.glob("*.py")]
    text = ["generate", "-q", "-t", "some/echo", "-n", 3, "abc"]
    assert_one_line(hsd(*text), f"add {TRUST}")
    assert_one_line(hsd(*text, TRUST), f"run: hsd pull some/echo {TRUST} (or add --pull)")
    assert hsd(*text, TRUST, "--pull") == hsd("generate", "-q", "-t", echo, "-n", 3, "abc", TRUST)
    assert sorted(path.name for path in folder.glob("*.py")) == sorted(FILES)
    assert hsd("pull", TRUST, "some/echo").err == "hsd: some/echo: nothing to download\n"


def test_a_plan_fetches_the_code_that_it_counts_with(hub: Hub) -> None:
    assert hsd("plan", "--json", TRUST, "some/echo", "embedded:drafter").code == 0
    assert {name for name, _ in hub.downloads} >= FILES.keys()
    assert "model.safetensors" not in {name for name, _ in hub.downloads}


def test_code_of_another_repository_comes_from_there(
    hub: Hub, echo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = echo_checkpoint(tmp_path / "model")
    for name in ("config.json", "tokenizer_config.json"):
        path = tmp_path / "model" / name
        for module in ("configuration", "modeling", "tokenization"):
            path.write_text(path.read_text().replace(f"{module}_echo.", f"some/echo--{module}_echo."))
    for name in FILES:
        (tmp_path / "model" / name).unlink()
    assert_one_line(hsd("generate", "-t", folder, "a"), f"add {TRUST}")
    text = ["generate", "-q", TRUST, "-n", 3, "abc", "-t"]
    assert hsd(*text, folder) == hsd(*text, echo)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_one_line(hsd(*text, folder), "refers to another repository, and there is no connection to the hub")
