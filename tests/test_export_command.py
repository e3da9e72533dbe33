"""`hsd export`: what another engine is told about a pair, and what it cannot do."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import pytest

from tests.cli import LETTERS, PAIRS, checkpoint, hsd
from tests.own_code import echo_checkpoint

ENGINES = ["vllm", "sglang", "llama.cpp", "transformers"]


def model(folder: Path, tokens: list[str] = LETTERS, width: int | None = None) -> str:
    """Configuration and tokenizer of a checkpoint, without weights; ``width`` is of the padded head."""
    checkpoint(folder, tokens)
    (folder / "model.safetensors").unlink()
    if width is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": width}))
    return str(folder)


def exported(target: str, drafter: str, engine: str, *options: str) -> dict[str, Any]:
    done = hsd("export", "-t", target, "-d", drafter, "--engine", engine, "--json", *options)
    answer: dict[str, Any] = json.loads(done.out)
    assert (done.code, done.err) == (0 if answer["runs"] else 3, "")
    return answer


def words(text: str, folder: Path) -> list[list[str]]:
    """What each command of a shell script is given, its own name first."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("vllm", "python", "hf", "llama-server"):
        program = programs / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\"; printf '\\n\\0'\n")
        program.chmod(0o755)
    done = subprocess.run(["/bin/sh", "-c", text], env={"PATH": f"{programs}"}, capture_output=True, check=True)
    lines = done.stdout.decode().split("\n\0")[:-1]
    return [line.split("\0")[:-1] for line in lines]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pair_of_one_vocabulary_runs_everywhere(engine: str, tmp_path: Path) -> None:
    answer = exported(model(tmp_path / "t"), model(tmp_path / "d"), engine)
    assert (answer["runs"], answer["algorithm"]) == (True, "sd")


@pytest.mark.parametrize(
    ("engine", "algorithm"), [("vllm", "tli"), ("transformers", "slem"), ("sglang", None), ("llama.cpp", None)]
)
def test_a_pair_of_two_vocabularies_runs_where_the_engine_can_translate(
    engine: str, algorithm: str | None, tmp_path: Path
) -> None:
    answer = exported(model(tmp_path / "t"), model(tmp_path / "d", PAIRS), engine)
    assert answer.get("algorithm") == algorithm


@pytest.mark.parametrize(
    ("engine", "algorithm"), [("vllm", "tli"), ("transformers", "slem"), ("sglang", None), ("llama.cpp", "sd")]
)
def test_padding_makes_one_vocabulary_two_for_most(engine: str, algorithm: str | None, tmp_path: Path) -> None:
    answer = exported(model(tmp_path / "t", width=200), model(tmp_path / "d", width=72), engine)
    assert answer.get("algorithm") == algorithm
    if engine != "llama.cpp":
        assert "padded differently" in json.dumps(answer)


@pytest.mark.parametrize("engine", ENGINES)
def test_whatever_is_said_of_an_engine_has_a_source(engine: str, tmp_path: Path) -> None:
    target = model(tmp_path / "t")
    for drafter in (model(tmp_path / "same"), model(tmp_path / "other", PAIRS)):
        answer = exported(target, drafter, engine)
        facts = answer["limits"] if answer["runs"] else answer["because"]
        assert facts
        assert all(fact["says"] and fact["source"].startswith("https://") for fact in facts)


def test_vllm_is_told_to_draft_in_shared_tokens(tmp_path: Path) -> None:
    target, drafter = model(tmp_path / "it's a target"), model(tmp_path / 'a "drafter"', PAIRS)
    [command] = words(exported(target, drafter, "vllm")["text"], tmp_path)
    assert command[:4] == ["vllm", "serve", target, "--speculative-config"]
    assert json.loads(command[4]) == {
        "method": "draft_model",
        "model": drafter,
        "num_speculative_tokens": 5,
        "use_heterogeneous_vocab": True,
    }


def test_vllm_cannot_draft_where_no_token_is_shared(tmp_path: Path) -> None:
    answer = exported(model(tmp_path / "t", [*ascii_lowercase]), model(tmp_path / "d", [*ascii_uppercase]), "vllm")
    assert "share none" in answer["because"][0]["says"]


def test_sglang_is_told_to_run_the_drafter_by_itself(tmp_path: Path) -> None:
    target, drafter = model(tmp_path / "t"), model(tmp_path / "d")
    [command] = words(exported(target, drafter, "sglang")["text"], tmp_path)
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert command[:3] == ["python", "-m", "sglang.launch_server"]
    assert options == {
        "--model-path": target,
        "--speculative-algorithm": "STANDALONE",
        "--speculative-draft-model-path": drafter,
        "--speculative-num-steps": "5",
        "--speculative-eagle-topk": "1",
        "--speculative-num-draft-tokens": "6",
    }


def test_llama_cpp_gets_files_of_its_own(tmp_path: Path) -> None:
    target, drafter = model(tmp_path / "t"), model(tmp_path / "d")
    first, second, server = words(exported(target, drafter, "llama.cpp")["text"], tmp_path)
    assert first == ["python", "convert_hf_to_gguf.py", target, "--outfile", "target.gguf"]
    assert second == ["python", "convert_hf_to_gguf.py", drafter, "--outfile", "drafter.gguf"]
    assert server[:5] == ["llama-server", "-m", "target.gguf", "-md", "drafter.gguf"]
    assert server[5:] == ["--spec-type", "draft-simple", "--spec-draft-n-max", "5"]


@pytest.mark.parametrize(
    ("tokens", "width", "reason"),
    [
        (["A", "B", "C", "D", *LETTERS[4:]], None, None),  # the first five ids are not compared
        ([*LETTERS[:4], "E", *LETTERS[5:]], None, "id 5 is 'e' and 'E'"),
        ([*LETTERS, *ascii_uppercase], None, None),  # more tokens at the end, while the target's head ends before them
        (LETTERS, 28 + 128, None),
        (LETTERS, 28 + 129, "there are 28 in the target and 157 in the drafter"),
    ],
)
def test_llama_cpp_compares_tokens_from_the_sixth_on(
    tokens: list[str], width: int | None, reason: str | None, tmp_path: Path
) -> None:
    answer = exported(model(tmp_path / "t"), model(tmp_path / "d", tokens, width), "llama.cpp")
    assert answer["runs"] == (reason is None)
    if reason is not None:
        assert reason in answer["because"][0]["says"]


def test_llama_cpp_compares_padding_with_tokens(tmp_path: Path) -> None:
    answer = exported(model(tmp_path / "t", width=40), model(tmp_path / "d", [*LETTERS, "A"], 40), "llama.cpp")
    assert "id 28 is '[PAD28]' and 'A'" in answer["because"][0]["says"]


def test_transformers_takes_vocabularies_of_one_size_for_the_same(tmp_path: Path) -> None:
    answer = exported(model(tmp_path / "t", width=60), model(tmp_path / "d", PAIRS, 60), "transformers")
    assert "(60 tokens)" in answer["because"][0]["says"]


@pytest.mark.parametrize("drafter", ["drafter", "twin"])
def test_the_script_for_transformers_writes_the_targets_text(
    drafter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "class Stack:\n    def __init__(self"
    done = hsd("export", "-t", "embedded:target", "-d", f"embedded:{drafter}", "--engine", "transformers", "-q")
    assert (done.code, done.err) == (0, "")
    plain = hsd("generate", "-t", "embedded:target", "-a", "ar", "--raw", "-n", 40, "-q", prompt)
    script = tmp_path / "pair.py"
    script.write_text(done.out.replace("max_new_tokens=256", "max_new_tokens=40"))
    monkeypatch.setattr("sys.argv", [str(script), prompt])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == plain.out + "\n"


def test_limits_are_talk_and_a_refusal_is_an_error(tmp_path: Path) -> None:
    target, drafter = model(tmp_path / "t"), model(tmp_path / "d", PAIRS)
    serves = hsd("export", "-t", target, "-d", drafter, "--engine", "vllm")
    assert serves.out.startswith("vllm serve ")
    assert all(line.startswith("hsd: ") and line.endswith(")") for line in serves.err.splitlines())
    refuses = hsd("export", "-t", target, "-d", drafter, "--engine", "llama.cpp", "-q")
    assert (refuses.code, refuses.out, refuses.err.count("\n")) == (3, "", 1)
    assert refuses.err.startswith("hsd: llama.cpp cannot run this pair, because ")
    assert refuses.err.endswith(f"; hsd can: hsd generate -t {target} -d {drafter}\n")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{}", "does not say how many tokens"),
        ('{"text_config": {}}', "does not say how many tokens"),
        ('{"vocab_size": "many"}', "has 'many' tokens"),
    ],
)
def test_a_configuration_that_does_not_tell_is_one_line(config: str, says: str, tmp_path: Path) -> None:
    target = model(tmp_path / "t")
    (tmp_path / "t" / "config.json").write_text(config)
    done = hsd("export", "-t", target, "-d", model(tmp_path / "d"), "--engine", "vllm")
    assert done.code == 1
    assert says in done.err


def test_a_target_needs_a_drafter() -> None:
    assert hsd("export", "-t", "embedded:target", "--engine", "vllm").code == 2


# Checkpoints that bring code along


@pytest.mark.parametrize(
    ("engine", "flag"),
    [
        ("vllm", "vllm serve {target} --trust-remote-code --speculative-config"),
        ("sglang", "--model-path {target} --trust-remote-code --speculative-algorithm"),
        ("llama.cpp", None),
    ],
)
def test_engines_are_told_to_run_the_models_own_code(engine: str, flag: str | None, tmp_path: Path) -> None:
    target, drafter = echo_checkpoint(tmp_path / "t"), echo_checkpoint(tmp_path / "d", noise=0.2)
    answer = exported(target, drafter, engine, "--trust-remote-code")
    said = json.dumps(answer["limits"])
    if flag is None:
        assert "trust" not in answer["text"]
        assert "it cannot run a checkpoint's own code" in said
        assert "(here the target and the drafter)" in said
    else:
        assert flag.format(target=target) in answer["text"]
        assert "by its own code" in said


@pytest.mark.parametrize("engine", ENGINES)
def test_without_the_flag_no_engine_is_told_to(engine: str, tmp_path: Path) -> None:
    done = hsd("export", "-t", model(tmp_path / "t"), "-d", echo_checkpoint(tmp_path / "d"), "--engine", engine)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "needs Python code of its own" in done.err
    assert done.err.endswith("add --trust-remote-code\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_a_model_can_do_without_needs_no_flag(engine: str, tmp_path: Path) -> None:
    target, drafter = model(tmp_path / "t"), model(tmp_path / "d")
    path = Path(target) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    assert "trust" not in exported(target, drafter, engine)["text"]
    assert "own code" not in json.dumps(exported(target, drafter, engine, "--trust-remote-code"))


def test_the_script_for_transformers_runs_the_models_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    target, drafter = echo_checkpoint(tmp_path / "t"), echo_checkpoint(tmp_path / "d", noise=0.2)
    done = hsd("export", "-t", target, "-d", drafter, "--engine", "transformers", "-q", "--trust-remote-code")
    plain = hsd("generate", "-t", target, "-a", "ar", "-n", 20, "-q", "--trust-remote-code", "abc")
    script = tmp_path / "pair.py"
    script.write_text(done.out.replace("max_new_tokens=256", "max_new_tokens=20"))
    monkeypatch.setattr("sys.argv", [str(script), "abc"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == plain.out + "\n"


def test_a_refusal_says_what_hsd_needs_to_run_the_code(tmp_path: Path) -> None:
    target, drafter = echo_checkpoint(tmp_path / "t"), model(tmp_path / "d", PAIRS)
    refuses = hsd("export", "-t", target, "-d", drafter, "--engine", "sglang", "--trust-remote-code")
    assert refuses.code == 3
    assert refuses.err.endswith(f"; hsd can: hsd generate --trust-remote-code -t {target} -d {drafter}\n")
