"""`hsd plan` from the outside: pairs, rankings, what is downloaded, measurements, and what cannot be planned."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import MambaConfig

from hsd_cli.bench.prompts import read_prompts
from hsd_cli.errors import UsageError
from hsd_cli.models.locate import embedded_models
from hsd_cli.planner.candidates import local_drafters
from hsd_cli.planner.speedup import RelativeCosts, speed_up
from tests.breadth import thorough
from tests.cli import PAIRS, checkpoint, hsd, shell_hsd

EMBEDDED = ("embedded:target", "embedded:drafter")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test measures is no other test's prior."""
    monkeypatch.setenv("HSD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """The alphabet in letters, and the same alphabet in pairs of letters."""
    return checkpoint(tmp_path / "target"), checkpoint(tmp_path / "drafter", PAIRS)


def answer(*arguments: object) -> dict[str, Any]:
    result = hsd("plan", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)  # type: ignore[no-any-return]


# Without weights


def test_tokenizers_and_configurations_are_enough(pair: tuple[str, str]) -> None:
    for folder in pair:
        (Path(folder) / "model.safetensors").write_bytes(b"no weights")
    found = answer(*pair, "--context", 100)
    (drafter,) = found["drafters"]
    assert found["target"]["name"] == pair[0]
    assert drafter["name"] == pair[1]
    assert drafter["algorithms"][0] == "tli"
    assert drafter["measured"] is None
    memory = drafter["memory"][-1]
    assert memory["device"] == "cpu"
    assert memory["target_weights"] == 4 * found["target"]["parameters"]
    assert memory["target_cache"] == 4 * 100 * found["target"]["cache_per_token"]


@pytest.mark.parametrize("role", ["target", "drafter"])
def test_a_recurrent_model_takes_the_same_memory_for_every_text(tmp_path: Path, role: str) -> None:
    folder = checkpoint(tmp_path)
    MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2).save_pretrained(folder)
    names = [folder, "embedded:drafter"] if role == "target" else ["embedded:target", folder]
    short, long = (answer(*names, "--context", length)["drafters"][0]["memory"][-1] for length in (100, 1000))
    assert short[f"{role}_cache"] == long[f"{role}_cache"] > 0


def test_the_prediction_follows_from_the_sizes() -> None:
    found = answer(*EMBEDDED)
    (drafter,) = found["drafters"]
    sides = drafter["vocabularies"]
    steps = sides["target"]["bytes_per_token"] / sides["drafter"]["bytes_per_token"]
    cost = drafter["read_per_token"] / found["target"]["read_per_token"] * steps
    assert drafter["cost_ratio"] == pytest.approx([cost, cost])
    for predicted, acceptance, several in zip(drafter["speed_up"], (0.4, 0.8), (2.0, 1.0), strict=True):
        costs = RelativeCosts(cost, [1.0] + [several] * 8)
        assert predicted["acceptance"] == acceptance
        assert predicted["speed_up"] == pytest.approx(speed_up(acceptance, predicted["lookahead"], costs))


def test_the_table_answers_the_question() -> None:
    result = hsd("plan", *EMBEDDED)
    assert (result.code, result.err) == (0, "")
    for words in ("5.66 M", "787 k", "share of text", "22.6 MB", "both fit", "break even", "slrs", "(1 - a^(g+1))"):
        assert words in result.out
    assert result.out.splitlines()[-1].startswith("maybe: one drafted token costs 0.15 of a target pass")


def test_it_says_don_t_and_how_to_do_without() -> None:
    last = hsd("plan", *reversed(EMBEDDED)).out.splitlines()[-1]
    assert last.startswith("don't: one drafted token costs 6.90 of a target pass")
    assert last.endswith("`--algorithm lookup` needs no drafter")


def test_several_drafters_are_ranked_and_the_unfit_are_explained(pair: tuple[str, str], tmp_path: Path) -> None:
    arguments = ("embedded:drafter", "embedded:target", "embedded:twin", tmp_path / "nothing", pair[1])
    found = answer(*arguments)
    assert [drafter["name"] for drafter in found["drafters"]] == [pair[1], "embedded:twin", "embedded:target"]
    assert [drafter["answer"] for drafter in found["drafters"]] == ["maybe", "don't", "don't"]
    (unfit,) = found["unfit"]
    assert unfit["name"] == str(tmp_path / "nothing")
    lines = hsd("plan", *arguments).out.splitlines()
    assert sum("don't: no folder" in line for line in lines) == 1
    assert lines[-1].startswith(f"{pair[1]}: maybe")


# What is downloaded


def in_hub_cache(cache: Path, repository: str, files: Path) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    return Path(shutil.copytree(files, folder / "snapshots" / "c0ffee"))


@thorough
def test_local_drafters_are_the_causal_models_that_are_downloaded(pair: tuple[str, str], tmp_path: Path) -> None:
    cache, model = tmp_path / "hub", Path(pair[1])
    in_hub_cache(cache, "someone/small", model)
    (in_hub_cache(cache, "someone/without-weights", model) / "model.safetensors").unlink()
    (in_hub_cache(cache, "someone/damaged", model) / "config.json").write_text("{")
    bert = json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    (in_hub_cache(cache, "someone/bert", model) / "config.json").write_text(bert)
    shutil.rmtree(in_hub_cache(cache, "someone/interrupted", model))
    (cache / "models--a--b--c").touch()
    (cache / "datasets--someone--text").mkdir()
    result = shell_hsd("plan", "embedded:target", "--local", "--json", HF_HUB_CACHE=str(cache))
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    names = [drafter["name"] for drafter in found["drafters"]]
    assert sorted(names) == sorted({*embedded_models(), "someone/small"} - {"embedded:target"})
    assert found["unfit"] == []


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_without_a_hub_cache_the_embedded_models_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / name))
    assert sorted(["embedded:twin", *local_drafters("embedded:twin")]) == embedded_models()


# Measurements


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("abc\n\nlmn\n")
    return path


def test_what_is_measured_is_kept_until_the_models_change(pair: tuple[str, str], prompts: Path) -> None:
    (first,) = answer(*pair, "--measure", "--prompts", prompts)["drafters"]
    (again,) = answer(*pair)["drafters"]
    assert again == first
    assert first["measured"] is not None
    checkpoint(Path(pair[1]), PAIRS, sharpness=7.0)
    (changed,) = answer(*pair)["drafters"]
    assert changed["measured"] is None


def test_measurements_are_of_these_models(pair: tuple[str, str], prompts: Path) -> None:
    (drafter,) = answer(*pair, "--measure", "--prompts", prompts)["drafters"]
    measured = drafter["measured"]
    assert len(measured["pass_seconds"]) == 9
    assert set(measured["greedy"]) == {"lookup", "slem", "tli"}
    assert set(measured["sampled"]) == {"lookup", "slrs", "tli"}
    for kind in ("greedy", "sampled"):
        for trial in measured[kind].values():
            # Two texts of 64 tokens: one of each iteration's tokens is the target's own.
            assert trial["accepted"] + trial["iterations"] in range(2 * 64, 2 * 64 + 5)
            assert trial["accepted"] <= trial["tested"] <= trial["drafted"] <= 4 * trial["drafts"]
    # The drafter knows the alphabet up to its end, where the target starts again and the drafter does not.
    assert 0.5 < predictions(drafter, "greedy")["slem"]["acceptance"] < 1


def test_predictions_from_measurements_use_their_costs(pair: tuple[str, str], prompts: Path) -> None:
    (drafter,) = answer(*pair, "--measure", "--prompts", prompts)["drafters"]
    measured = drafter["measured"]
    passes = [seconds / measured["pass_seconds"][0] for seconds in measured["pass_seconds"]]
    for name, predicted in predictions(drafter, "greedy").items():
        trial = measured["greedy"][name]
        costs = RelativeCosts(trial["draft_seconds"] / measured["pass_seconds"][0], passes)
        share = trial["drafts"] / trial["iterations"]
        expected = speed_up(trial["accepted"] / trial["tested"], predicted["lookahead"], costs, share)
        assert predicted["speed_up"] == pytest.approx(expected)


def predictions(drafter: dict[str, Any], kind: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = drafter["measured"]["predicted"]
    return {each["algorithm"]: each for each in found if each["text"] == kind}


def test_one_shared_vocabulary_is_measured_with_sd(pair: tuple[str, str], tmp_path: Path, prompts: Path) -> None:
    twin = checkpoint(tmp_path / "twin", sharpness=12.0)
    (drafter,) = answer(pair[0], twin, "--measure", "--prompts", prompts)["drafters"]
    assert predictions(drafter, "greedy")["sd"]["acceptance"] == 1
    assert "sd" in drafter["measured"]["sampled"]


@thorough
def test_the_embedded_pair_is_measured_from_the_shell(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "class Stack:\n    def __init__(self"}) + "\n")
    result = shell_hsd("plan", *EMBEDDED, "--measure", "--prompts", str(prompts))
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert any(line.split()[:2] == ["slrs", "sampled"] for line in lines)
    assert any(line.startswith("target pass ") for line in lines)
    assert "by what was measured" in lines[-1]


def test_a_disk_that_cannot_be_written_costs_only_the_memory(
    pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSD_CACHE", str(prompts))  # a file
    assert answer(*pair, "--measure", "--prompts", prompts)["drafters"][0]["measured"] is not None
    assert answer(*pair)["drafters"][0]["measured"] is None


def test_what_does_not_fit_is_not_loaded(pair: tuple[str, str], prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.planner.pair_plan.memory_by_device", lambda: {"cpu": 1000})
    monkeypatch.delattr("hsd_cli.bench.measure_plan.load_model")
    (drafter,) = answer(*pair, "--measure", "--prompts", prompts)["drafters"]
    assert (drafter["answer"], drafter["measured"]) == ("don't", None)


# Prompts


def test_prompts_are_lines_or_objects(tmp_path: Path) -> None:
    plain, objects = tmp_path / "prompts", tmp_path / "prompts.jsonl"
    plain.write_bytes(b"one\r\n\n  two\n\xff\n")
    assert read_prompts(plain) == ["one", "  two", "\ufffd"]
    objects.write_text('{"prompt": "one\\ntwo", "id": 1}\n\n{"prompt": "\\ud800"}\n{"prompt": " "}\n')
    assert read_prompts(objects) == ["one\ntwo", "?"]


@pytest.mark.parametrize("content", ["{", "[]", "1", '{"text": "x"}', '{"prompt": 1}', '{"prompt": "x"}\nx'])
def test_other_objects_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(content)
    with pytest.raises(UsageError, match="must be an object with a"):
        read_prompts(tmp_path / "prompts.jsonl")


# What cannot be planned


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "which drafter? name one or more, or add --local for all that are on this machine"),
        (["embedded:drafter", "--prompts", "/dev/null"], "--prompts are measured on; add --measure"),
        (["embedded:drafter", "--measure", "--prompts", "/dev/null"], "'/dev/null' is empty; write one prompt per "),
        (["embedded:drafter", "--context", "4096"], "the context of 'embedded:target' holds 2048 tokens; give "),
        (["embedded:drafter", "--device", "tpu"], "no device 'tpu' on this machine; use one of: "),
        ([""], "the name of a model is empty; "),
        (["embedded:drafter", "--context", "0"], "invalid value for '--context': "),
    ],
)
def test_impossible_requests_are_one_line_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    result = hsd("plan", "embedded:target", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"hsd: {sentence}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "without a config.json"),
        ("{", "cannot load the configuration of"),
        ("[]", "cannot load the configuration of"),
        ('{"model_type": "unheard-of"}', "model type `unheard-of`"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "cannot load the configuration of"),
        ('{"model_type": "llama", "hidden_act": "\\u001b[31m"}', "describes no model that can run"),
        ('{"model_type": "t5"}', "is an encoder-decoder"),
        ('{"model_type": "clip"}', "needs a causal language model"),
        ('{"model_type": "rwkv", "hidden_size": 8, "num_hidden_layers": 1}', "does not use the cache"),
    ],
)
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_folders_that_are_no_model_are_one_line(tmp_path: Path, config: str | None, says: str, role: str) -> None:
    folder = tmp_path / "model"
    checkpoint(folder)
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    names = [str(folder), "embedded:drafter"] if role == "target" else ["embedded:target", str(folder)]
    result = hsd("plan", *names)
    assert (result.code, result.out) == (1, "")
    assert says in result.err
    assert result.err.count("\n") == 1
    assert result.err.rstrip("\n").isprintable()


def test_a_folder_without_a_tokenizer_is_one_line(pair: tuple[str, str]) -> None:
    for path in Path(pair[1]).glob("tokenizer*"):
        path.unlink()
    result = hsd("plan", *pair)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"hsd: no tokenizer files in '{pair[1]}'")


@thorough
def test_a_model_that_is_neither_here_nor_on_the_hub_is_one_line() -> None:
    result = shell_hsd("plan", "nobody/nothing", "embedded:drafter")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("hsd: 'nobody/nothing' has to come from the hub, and HF_HUB_OFFLINE forbids it; ")


def test_names_cannot_write_to_the_terminal(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "\x1b]0;title\x07[red]\u202e"
    Path(pair[1]).rename(evil)
    for arguments in (
        ("target", evil),
        ("target", evil, "embedded:target"),
        ("target", "embedded:target", evil + "no"),
    ):
        output = hsd("plan", *arguments).out
        assert "x1b]0;title\\x07[red]\\u202e" in output
        assert output.replace("\n", "").isprintable()


def test_help_is_the_manual_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from hsd_cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "plan", "--help"], capture_output=True, text=True, check=True)
    for words in ("--local", "--measure", "Exit codes: 0 answered", "Examples"):
        assert words in done.stdout
