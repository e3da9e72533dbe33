"""`hsd generate`, from the command line to the text."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import RwkvConfig, RwkvForCausalLM, T5Config

from hsd_cli import engine
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import load_model
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.cli import LETTERS, Result, checkpoint, hsd, shell_hsd, started_hsd
from tests.forks import PipedFork, forked_hsd
from tests.terminal import HsdTerminal

DRAFTING = [name for name in ALGORITHMS if name != "ar"]
ENDLESS = 50_000
# After each letter its successor; control characters of a terminal, and letters that not every encoding has.
UNRULY = ["a", "\x1b[2J", "\x07", "\x9b", "é", "b"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def letters(home: Path) -> str:
    """Continues the alphabet, whatever the settings: `a` with `bcd...`."""
    return checkpoint(home / "letters", context=ENDLESS + 100)


@pytest.fixture(scope="module")
def unruly(home: Path) -> str:
    return checkpoint(home / "unruly", UNRULY)


def report(*arguments: object, stdin: bytes = b"") -> dict[str, Any]:
    """What ``--json`` prints, which must be all that is printed."""
    result = hsd("generate", "--json", *arguments, stdin=stdin)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("}\n")
    return dict(json.loads(result.out))


# The prompt


def test_stdin_comes_first_then_the_file_then_the_argument(letters: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("de\n")
    options = ["-t", letters, "-n", 1]
    everything = report(*options, "-f", file, "f", stdin=b"abc\n")
    assert (everything["prompt_tokens"], everything["text"]) == (len("abc\n\nde\n\nf"), "g")
    two = report(*options, "-f", file, stdin=b"abc\n")  # the last part keeps its line end
    assert (two["prompt_tokens"], two["text"]) == (len("abc\n\nde\n"), "a")
    assert report(*options, "-", stdin=b"\xef\xbb\xbfabc")["text"] == "d"


@pytest.mark.parametrize("arguments", [["\udcffb"], ["-"]], ids=["argument", "stdin"])
def test_a_prompt_that_is_not_utf_8_is_repaired_and_that_is_said(letters: str, arguments: list[str]) -> None:
    stdin = b"\xffb" if arguments == ["-"] else b""
    result = hsd("generate", "-t", letters, "-n", 2, "--no-stats", *arguments, stdin=stdin)
    assert (result.code, result.out) == (0, "cd")
    assert result.err == "hsd: the prompt is not valid UTF-8; what cannot be read is replaced by \ufffd\n"
    assert hsd("generate", "-q", "-t", letters, "-n", 2, *arguments, stdin=stdin) == (0, "cd", "")


def test_a_chat_template_is_used_unless_told_otherwise(tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}k"
    chatty = checkpoint(tmp_path, chat_template=template)
    options = ["-t", chatty, "-n", 2, "a"]
    assert (report(*options)["text"], report(*options)["prompt_tokens"]) == ("lm", 2)
    assert report(*options, "--chat")["text"] == "lm"
    assert report(*options, "--system", "xyz")["prompt_tokens"] == 5
    assert report(*options, "--raw")["text"] == "bc"


# The end of the text


@pytest.mark.parametrize("draft", [[], ["-d", "pairs"]], ids=["plain", "drafted"])
@pytest.mark.parametrize(
    ("stops", "text", "reason"),
    [
        (["h"], "bcdefg", "stop"),
        (["fgh"], "bcde", "stop"),
        (["zz", "\nab", "xyz\nb"], "bcdefghijklmnopqrstuvwxyz", "stop"),
        (["ij\udcff"], "bcdefghijklmnopqrstuvwxyz\nabcd", "length"),
    ],
)
def test_stop_strings_cut_exactly(
    letters: str, pairs: str, draft: list[str], stops: list[str], text: str, reason: str
) -> None:
    options = [option for stop in stops for option in ("--stop", stop)] + [pairs if o == "pairs" else o for o in draft]
    result = report("-t", letters, "-n", 30, *options, "a")
    assert (result["text"], result["finish_reason"]) == (text, reason)


def test_a_drafter_whose_context_is_shorter_is_told_of(letters: str, tmp_path: Path) -> None:
    small = checkpoint(tmp_path, context=8)
    notice = "hsd: the drafter's context holds 8 tokens: no drafting beyond it\n"
    options = ["generate", "--no-stats", "-t", letters, "-d", small, "a"]
    assert hsd(*options, "-n", 10) == (0, "bcdefghijk", notice)
    assert hsd(*options, "-n", 10, "--quiet") == (0, "bcdefghijk", "")
    assert hsd(*options, "-n", 7) == (0, "bcdefgh", "")
    assert hsd(*options, "-n", 10, "-t", small) == (0, "bcdefgh", "")  # the target goes no further itself


def test_each_of_several_end_tokens_ends_the_text(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, ["a", "b", "</s>", "x", "y", "<end>"], special=["</s>", "<end>"])
    for prompt, text, ids in [("a", "b", [2, 3]), ("x", "y", [5, 6])]:
        result = report("-t", model, prompt)
        assert (result["text"], result["token_ids"], result["finish_reason"]) == (text, ids, "eos")


def test_the_context_ends_the_text_and_a_prompt_has_to_fit(tmp_path: Path) -> None:
    small = checkpoint(tmp_path, context=8)
    for options in ([], ["-d", small, "-a", "sd"]):
        result = report("-t", small, "abcd", *options)
        assert (result["text"], result["finish_reason"]) == ("efgh", "context")
    assert report("-t", small, "-n", 4, "abcd")["finish_reason"] == "length"
    assert hsd("generate", "-t", small, "abcdefgh") == (
        1, "", "hsd: the prompt has 8 tokens and the target's context holds 8; shorten it\n"
    )  # fmt: skip
    with pytest.raises(HsdError, match="shorten it"):  # before anything is asked of the generation
        engine.Engine(load_model(small), None).generate(engine.Request("abcdefgh"))


def test_asking_for_more_tokens_than_the_memory_holds_costs_nothing_until_they_come(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, context=1 << 40)
    for draft in ([], ["-d", model]):
        assert report("-t", model, *draft, "-n", 1 << 39, "--stop", "d", "a")["text"] == "bc"


# What is printed, and where


def test_the_text_goes_to_stdout_and_one_line_of_statistics_to_stderr(letters: str, pairs: str) -> None:
    result = hsd("generate", "-t", letters, "-d", pairs, "-n", 5, "a")
    assert (result.code, result.out) == (0, "bcdef")
    assert result.err.startswith("hsd: 5 tokens in ")
    assert " · auto: ar 100% · 1.00 tokens per target pass · ended by length · " in result.err
    assert "the drafter was not used: a step of it costs 1." in result.err  # it is larger than the target
    assert " · accepted " in hsd("generate", "-t", letters, "-d", pairs, "-a", "slem", "-n", 5, "a").err
    for silent in ("--no-stats", "--quiet", "-q"):
        assert hsd("generate", silent, "-t", letters, "-n", 5, "a") == (0, "bcdef", "")


def test_json_reports_the_run(letters: str, pairs: str) -> None:
    result = report("-t", letters, "-d", pairs, "-a", "slem", "--lookahead", 6, "-n", 24, "a")
    seconds = result.pop("seconds")
    assert seconds.keys() == {"prefill", "draft", "verify", "translate", "total"}
    assert 0 < sum(seconds.values()) - seconds["total"] <= seconds["total"]  # the phases, which leave out some work
    assert result.pop("tokens_per_second") == pytest.approx(24 / (seconds["total"] - seconds["prefill"]))
    drafted, accepted, iterations = (result.pop(name) for name in ("drafted", "accepted", "iterations"))
    assert 0 < accepted <= drafted
    assert accepted + iterations == 24  # each pass of the target adds one token of its own
    assert result == {
        "text": "bcdefghijklmnopqrstuvwxy",
        "token_ids": list(range(2, 26)),
        "finish_reason": "length",
        "algorithm": "slem",
        "verification": "coupled",
        "lookahead": 6,
        "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
        "prompt_tokens": 1,
        "cached_prompt_tokens": 0,
        "iterations_by_algorithm": {"slem": iterations},
        "acceptance_rate": accepted / drafted,
        "tokens_per_iteration": 24 / iterations,
        "seed": None,
        "target": {"id": letters, "revision": None, "dtype": "float32", "threads": torch.get_num_threads()},
        "draft": {"id": pairs, "revision": None, "dtype": "float32", "threads": torch.get_num_threads()},
        "verdict": None,
        "drafter_failure": None,
        "drafter_refusal": None,
    }


def test_json_is_ascii_and_says_what_the_text_is(unruly: str) -> None:
    result = hsd("generate", "--json", "-t", unruly, "-n", 5, "a")
    assert result.out.isascii()
    assert json.loads(result.out)["text"] == "".join(UNRULY[1:])


def test_output_goes_to_a_file(letters: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("something that was written before")
    assert hsd("generate", "-q", "-t", letters, "-n", 3, "-o", file, "a") == (0, "", "")
    assert file.read_text() == "bcd"
    assert hsd("generate", "-q", "-t", letters, "-n", 3, "-o", file, "--json", "a") == (0, "", "")
    assert json.loads(file.read_text())["text"] == "bcd"
    assert hsd("generate", "-q", "-t", letters, "-n", 3, "-o", os.devnull, "a").code == 0


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("failing", ["-t embedded:none", "-a sd", "--chat", "-f long"])
def test_a_failure_leaves_the_output_file_as_it_was(
    letters: str, pairs: str, tmp_path: Path, failing: str, form: list[str]
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("something that was written before")
    (tmp_path / "long").write_text("a" * (ENDLESS + 100))
    options = [str(tmp_path / "long") if option == "long" else option for option in failing.split()]
    assert hsd("generate", "-t", letters, "-d", pairs, "-o", file, "a", *options, *form).code > 0
    assert file.read_text() == "something that was written before"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_full_disk_is_one_line(letters: str, form: list[str]) -> None:
    result = hsd("generate", "-t", letters, "-n", 3, "-o", "/dev/full", "a", *form)
    assert result == (1, "", "hsd: cannot write '/dev/full': No space left on device\n")


# Algorithms, seeds and settings


@pytest.mark.parametrize(
    ("options", "algorithms"),
    [
        ([], {"ar", "lookup"}),
        (["-d", "letters"], {"ar", "lookup"}),  # a drafter that costs as much as the target cannot pay
        (["-d", "letters", "-a", "slrs"], {"ar", "slrs"}),
        (["-d", "pairs", "--temperature", 1, "-a", "union"], {"ar", "union"}),
        (["-d", "letters", "-a", "ar"], {"ar"}),
        (["-t", "embedded:target", "-d", "embedded:twin"], {"ar", "lookup", "sd"}),
        (["-t", "embedded:target", "-d", "embedded:drafter"], {"ar", "lookup", "slem", "tli"}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_runs_is_what_was_asked_for_or_suits_the_pair(
    letters: str, pairs: str, options: list[object], algorithms: set[str]
) -> None:
    named = {"letters": letters, "pairs": pairs}
    result = report("-t", letters, "-n", 24, "a", *(named.get(str(option), option) for option in options))
    ran = result["iterations_by_algorithm"]
    assert set(ran) <= algorithms
    assert set(ran) - {"ar", "lookup"} or algorithms <= {"ar", "lookup"}
    assert sum(ran.values()) == result["iterations"]
    assert result["algorithm"] == (options[-1] if "-a" in options else "auto")


@pytest.mark.parametrize("smallest", [["--temperature", 1e-5], ["--repetition-penalty", 1e-5]], ids=lambda o: o[0])
def test_the_bounds_of_the_settings_still_give_sound_numbers(letters: str, smallest: list[object]) -> None:
    assert report("-t", letters, "-n", 12, "--temperature", 1e-5, "a", *smallest)["finish_reason"] == "length"


def test_a_seed_fixes_the_text_for_every_algorithm_drafter_and_lookahead(unsure: str, letters: str, pairs: str) -> None:
    settings = ["-t", unsure, "-n", 24, "--temperature", 0.9, "--top-p", 0.95, "a"]

    def text(*options: object) -> object:
        return report(*settings, *options)["text"]

    plain = text("--seed", 7)
    assert plain != text("--seed", 8)
    assert plain != report("-t", unsure, "-n", 24, "a")["text"]
    for algorithm in DRAFTING:
        drafter = letters if algorithm == "sd" else pairs
        for lookahead in (1, 5):
            options = ["-a", algorithm, "-d", drafter, "--lookahead", lookahead]
            assert text("--seed", 7, *options) == plain, options


def test_a_seed_is_reported_and_repeats_the_run(unsure: str) -> None:
    options = ["-t", unsure, "-d", unsure, "-n", 12, "--temperature", 1, "a"]
    first = report(*options)
    assert first["verification"] == "rejection"
    again = report(*options, "--seed", first["seed"], "--verification", "rejection")
    assert again["token_ids"] == first["token_ids"]
    assert report(*options, "--seed", 3)["verification"] == "coupled"


def test_sampling_settings_reach_the_text(unsure: str) -> None:
    greedy = report("-t", unsure, "-n", 12, "a")["text"]
    for narrow in (["--top-k", 1], ["--top-p", 1e-6], ["--min-p", 1]):
        assert report("-t", unsure, "-n", 12, "a", "--temperature", 2, *narrow)["text"] == greedy
    sampled = ["-t", unsure, "-n", 60, "a", "--temperature", 1, "--seed", 7]
    assert report(*sampled, "--repetition-penalty", 9)["text"] != report(*sampled)["text"]


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_models_run_in_any_number_format(letters: str, pairs: str, dtype: str) -> None:
    result = report("-t", letters, "-d", pairs, "-n", 6, "a", "--dtype", dtype, "--draft-dtype", dtype)
    assert result["text"] == "bcdefg"


# What cannot be done


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def empty_vocabulary(folder: Path) -> None:
    Tokenizer(models.BPE()).save(str(folder / "tokenizer.json"))


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model":')


def damaged_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def missing_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damaged_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def foreign_code(folder: Path) -> None:
    description = {"model_type": "homemade", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(description))


def encoder_decoder(folder: Path) -> None:
    T5Config(d_model=4, num_layers=1).save_pretrained(folder)


def state_of_its_own(folder: Path) -> None:
    config = RwkvConfig(vocab_size=28, hidden_size=8, num_hidden_layers=2)
    RwkvForCausalLM(config).save_pretrained(folder)


DAMAGE: dict[Callable[[Path], None], str] = {
    no_tokenizer: "; give a model's folder with its tokenizer.json",
    empty_vocabulary: "has an empty vocabulary",
    damaged_tokenizer: "cannot load the tokenizer of",
    damaged_weights: "cannot load the model of",
    missing_weights: "has no lm_head.weight; if its head is its embeddings, its config.json has to say",
    no_weights: "cannot load the model of",
    damaged_configuration: "cannot load the model of",
    foreign_code: "needs Python code of its own",
    encoder_decoder: "is an encoder-decoder (t5); hsd needs a causal language model",
    state_of_its_own: "cannot be rolled back",
}


def assert_one_line(result: Result, code: int, sentence: str) -> None:
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("hsd: ")
    assert sentence in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE.items(), ids=[damage.__name__ for damage in DAMAGE])
def test_a_model_that_cannot_be_used_is_refused_in_one_line(
    letters: str, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    broken = checkpoint(tmp_path)
    damage(tmp_path)
    assert_one_line(hsd("generate", "-t", broken, "a"), 1, sentence)
    assert_one_line(hsd("generate", "-t", letters, "-d", broken, "a", "--strict"), 1, sentence)


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("embedded:none", 1, "no embedded model 'embedded:none'; there are embedded:drafter, embedded:speller, "),
        ("./nowhere", 1, "no folder './nowhere'"),
        ("a/b/c", 1, "no folder 'a/b/c'"),
        ("{folder}", 1, "is a folder without a config.json"),
        ("{folder}/file", 1, "is a file; give the folder of a Hugging Face model"),
        ("nobody/nothing", 1, "'nobody/nothing' is not downloaded"),
        ("two words", 1, "no folder 'two words'; give the folder of a Hugging Face model, or an id on the hub"),
        ("", 2, "the name of a model is empty"),
    ],
)
def test_a_name_that_stands_for_no_model_is_refused_in_one_line(
    tmp_path: Path, name: str, code: int, sentence: str
) -> None:
    (tmp_path / "file").touch()
    assert_one_line(hsd("generate", "-t", name.format(folder=tmp_path), "a"), code, sentence)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--device", "cuda:99"], 2, "no device 'cuda:99' on this machine; use one of: "),
        (["--device", "meta"], 2, "no device 'meta' on this machine"),
        (["--draft-device", "toaster"], 2, "no device 'toaster' on this machine"),
        (["-a", "sd"], 2, "sd needs one shared vocabulary, but id 2 is 'b' in the target and 'bc' in the drafter"),
        (["--chat"], 2, "has no chat template; leave --chat out"),
        (["--system", "s"], 2, "--system needs a chat template"),
        (["-f", "/no/such/file"], 1, "cannot read '/no/such/file': No such file or directory"),
        (["-f", "/"], 1, "cannot read '/': Is a directory"),
        (["-o", "/no/such/file"], 1, "cannot write '/no/such/file': No such file or directory"),
        (["-o", "/"], 1, "cannot write '/': Is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_request_that_cannot_be_served_is_refused_in_one_line(
    letters: str, pairs: str, options: list[str], code: int, sentence: str
) -> None:
    assert_one_line(hsd("generate", "-t", letters, "-d", pairs, "a", *options), code, sentence)


@pytest.mark.parametrize("algorithm", ["auto", "sd", "slem", "slrs", "tli", "union"])
def test_a_drafter_whose_numbers_are_not_sound_costs_only_time(letters: str, tmp_path: Path, algorithm: str) -> None:
    checkpoint(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    for options in ([], ["--lookahead", 4], ["--temperature", 0.1, "--seed", 1], ["--temperature", 0.1]):
        assert (
            hsd("generate", "-q", "-t", letters, "-d", tmp_path, "-a", algorithm, "-n", 8, "a", *options).out
            == "bcdefghi"
        )


def test_vocabularies_without_a_common_token_need_slem(letters: str, tmp_path: Path) -> None:
    digits = checkpoint(tmp_path, list("0123456789"))
    request = ["generate", "-t", letters, "-d", digits, "a", "-n", 4]
    assert_one_line(hsd(*request, "-a", "tli"), 2, "these two share none; use slem")
    assert hsd(*request, "-q").out == "bcde"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--chat"], "has no chat template; leave --chat out"), (["--system", "s"], "--system needs a chat template")],
)
def test_a_chat_without_a_template_is_refused_before_the_weights_are_read(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    model = checkpoint(tmp_path)
    no_weights(tmp_path)
    assert_one_line(hsd("generate", "-t", model, "a", *options), 2, sentence)


def test_a_template_that_refuses_the_conversation_is_one_line(tmp_path: Path) -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('no system\nmessage') }}{% endif %}b"
    model = checkpoint(tmp_path, chat_template=template)
    assert_one_line(hsd("generate", "-t", model, "--system", "s", "a"), 2, "conversation: no system message")


# Interrupts, pipes and terminals


@pytest.mark.parametrize(
    ("ending", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupt_keeps_the_text_so_far_in_json_too(
    letters: str, monkeypatch: pytest.MonkeyPatch, ending: BaseException, code: int
) -> None:
    decode = engine.decode

    def interrupted(*args: Any, **options: Any) -> Iterator[Any]:
        yield from islice(decode(*args, **options), 3)
        raise ending

    monkeypatch.setattr(engine, "decode", interrupted)
    result = hsd("generate", "--json", "-t", letters, "a")
    assert (result.code, result.err) == (code, "")
    described = json.loads(result.out)
    assert (described["text"], described["finish_reason"], described["iterations"]) == ("bcd", "interrupt", 3)


def test_an_interrupt_before_the_first_token_gives_json_and_costs_no_old_text(
    letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("something that was written before")
    render = ModelTokenizer.render

    def interrupted(*args: Any) -> list[int]:
        signal.raise_signal(signal.SIGINT)
        return render(*args)

    monkeypatch.setattr(ModelTokenizer, "render", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        result = hsd("generate", "--json", "-t", letters, "abc")
        assert hsd("generate", "-q", "-t", letters, "-o", file, "abc") == (130, "", "")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.code, result.err) == (130, "")
    described = json.loads(result.out)
    assert (described["text"], described["token_ids"], described["finish_reason"]) == ("", [], "interrupt")
    assert (described["prompt_tokens"], described["tokens_per_second"]) == (3, 0)
    assert file.read_text() == "something that was written before"


def test_ctrl_c_while_generating_keeps_what_was_written(letters: str) -> None:
    with PipedFork("generate", "-t", letters, "-n", ENDLESS, "a") as running:
        running.stdin.close()
        first = running.stdout.read(1)
        running.send_signal(signal.SIGINT)
        text, err = (first + running.stdout.read()).decode(), running.stderr.read().decode()
    assert running.returncode == 130
    assert 1 <= len(text) < ENDLESS
    assert ("".join(LETTERS) * (1 + len(text) // len(LETTERS)))[1:].startswith(text)
    assert err.endswith("ended by interrupt\n")
    assert err.count("\n") == 1


def test_ctrl_c_while_loading_is_quiet() -> None:
    running = started_hsd("generate", "--no-stats", "x")
    assert running.stderr is not None
    notice = b"hsd: no --target given: using embedded:target with embedded:drafter\n"
    assert running.stderr.read(len(notice)) == notice
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b"")


def test_a_closed_pipe_ends_quietly(letters: str) -> None:
    with PipedFork("generate", "-t", letters, "-n", ENDLESS, "a") as running:
        running.stdin.close()
        assert running.stdout.read(1) == b"b"
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_control_characters_reach_pipes_as_they_are_and_terminals_only_escaped(unruly: str) -> None:
    arguments = ["generate", "-q", "-t", unruly, "-n", "6", "a"]
    with PipedFork(*arguments) as running:
        running.stdin.close()
        assert running.stdout.read().decode() == "".join([*UNRULY[1:], "a"])
    with HsdTerminal(*arguments) as terminal:
        assert terminal.wait() == 0
    assert terminal.sent.decode() == "\\x1b[2J\\x07\\u009béba\r\n"


def test_an_encoding_without_the_letters_costs_these_letters_only(unruly: str) -> None:
    def narrow() -> None:
        sys.stdout.reconfigure(encoding="ascii")

    result = forked_hsd("generate", "-q", "-t", unruly, "-n", 2, "\x9b", prepare=narrow)
    assert result == (0, "?b", "")


# The hub, and the embedded models


def test_a_downloaded_model_runs_without_the_hub(letters: str, tmp_path: Path) -> None:
    """Nobody listens at the endpoint: a stand-in for a machine without a network, where each retry would cost time."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--letters"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / revision).symlink_to(letters)
    alone = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path)}
    result = shell_hsd("generate", "--json", "-t", "someone/letters", "-n", "3", "a", **alone)
    assert (result.code, result.err) == (0, "")
    described = json.loads(result.out)
    assert described["text"] == "bcd"
    assert (described["target"]["id"], described["target"]["revision"]) == ("someone/letters", revision)
    unknown = shell_hsd("generate", "-t", "someone/else", "a", **alone)
    assert_one_line(unknown, 1, "'someone/else' is not downloaded; run: hsd pull someone/else (or add --pull)")


def test_without_a_target_the_embedded_pair_runs_and_that_is_said() -> None:
    result = hsd("generate", "-n", 8, stdin=b"def f(x):")
    assert result.code == 0
    notice, statistics = result.err.splitlines()
    assert notice == "hsd: no --target given: using embedded:target with embedded:drafter"
    assert statistics.startswith("hsd: ")


def test_the_embedded_models_write_one_text_by_every_way() -> None:
    options = ["-t", "embedded:target", "-n", 16, "--temperature", 0.8, "--seed", 7, "import os\n"]
    plain = report(*options)
    for algorithm in DRAFTING:
        drafter = "embedded:twin" if algorithm == "sd" else "embedded:drafter"
        result = report(*options, "-a", algorithm, "-d", drafter)
        assert (result["algorithm"], result["token_ids"]) == (algorithm, plain["token_ids"])
        assert result["text"] == plain["text"]
