"""Batches of records, from the command line to the results."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hsd_cli import engine
from hsd_cli.batch.journal import Journal
from hsd_cli.runtime.model import CachedModel
from tests.breadth import thorough
from tests.cli import Result, checkpoint, hsd
from tests.forks import PipedFork
from tests.terminal import HsdTerminal

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet: `a` with `bcd...`. Its context holds 500 letters."""
    return checkpoint(tmp_path_factory.mktemp("letters"), context=500, chat_template=TEMPLATE)


GENERATE = ["generate", "-n", "8"]


def run(*arguments: object, stdin: bytes = b"") -> Result:
    return hsd(*GENERATE, *arguments, stdin=stdin)


def started(*arguments: object, stdout: int | None = None) -> PipedFork:
    """The same in a process of its own, still running."""
    return PipedFork(*GENERATE, *arguments, stdout=stdout)


def jsonl(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def results(text: str | Path) -> list[dict[str, Any]]:
    lines = (text.read_text() if isinstance(text, Path) else text).splitlines()
    return [dict(json.loads(line)) for line in lines]


def texts(text: str | Path) -> dict[Any, str]:
    return {result["id"]: result["text"] for result in results(text)}


# What comes out


def test_each_record_has_its_result_in_the_order_of_the_input(letters: str, pairs: str, tmp_path: Path) -> None:
    records = [
        {"id": "b", "prompt": "a", "max_new_tokens": 3},
        {"prompt": "k"},
        {"id": "a", "messages": [{"role": "user", "content": "x"}], "stop": "a"},
    ]
    done = run("-t", letters, "-d", pairs, "-a", "slem", "-i", jsonl(tmp_path / "in.jsonl", records))
    assert done.code == 0
    first, *others = results(done.out)
    assert [(other["id"], other["line"], other["text"]) for other in others] == [(2, 2, "lmnopqrs"), ("a", 3, "yz\n")]
    assert [other["finish_reason"] for other in others] == ["length", "stop"]
    for measured in ("seconds", "tokens_per_second"):
        assert first.pop(measured) > 0
    assert first.pop("run_seed") in range(1 << 32)
    assert first.pop("seed") in range(1 << 32)
    assert len(first.pop("fingerprint")) == 16
    assert first.pop("acceptance_rate") == first.pop("accepted") / first.pop("drafted")
    assert first == {
        "id": "b",
        "line": 1,
        "text": "bcd",
        "finish_reason": "length",
        "tokens": 3,
        "prompt_tokens": 1,
        "cached_prompt_tokens": 0,
        "algorithm": "slem",
        "verification": "coupled",
        "drafter_failure": None,
        "drafter_refusal": None,
    }


def test_one_line_sums_up_and_quiet_says_nothing(letters: str, pairs: str, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    arguments = ["-t", letters, "-d", pairs, "-a", "slem", "-i", source]
    done = run(*arguments)
    assert done.err.startswith("hsd: 2 texts · 16 tokens in ")
    assert " tokens/s · accepted " in done.err
    assert done.err.count("\n") == 1
    assert run(*arguments, "-q").err == ""


def test_a_pipe_is_answered_record_by_record(letters: str) -> None:
    with started("-q", "-t", letters, "-i", "-") as running:
        for prompt, text in [("a", "bcdefghi"), ("k", "lmnopqrs")]:
            running.stdin.write(json.dumps({"prompt": prompt}).encode() + b"\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["text"] == text
        running.stdin.close()
    assert running.returncode == 0


# Going on


RECORDS = [{"id": name, "prompt": "abc", "max_new_tokens": 20} for name in "abcdefgh"]
SAMPLED = ["--temperature", 1, "--seed", 7]


@pytest.fixture(scope="module")
def uninterrupted(unsure: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run("-t", unsure, *SAMPLED, "-i", jsonl(folder / "in.jsonl", RECORDS), "-o", folder / "out.jsonl").code == 0
    return texts(folder / "out.jsonl")


def test_records_with_equal_prompts_have_different_texts(uninterrupted: dict[str, str]) -> None:
    assert list(uninterrupted) == list("abcdefgh")
    assert len(set(uninterrupted.values())) == len(RECORDS)


@pytest.mark.parametrize("drafter", [[], ["-d", "pairs", "-a", "slem"], ["-d", "pairs", "-a", "slrs"]], ids=str)
def test_texts_depend_neither_on_the_order_nor_on_the_drafter(
    unsure: str, pairs: str, tmp_path: Path, uninterrupted: dict[str, str], drafter: list[str]
) -> None:
    shuffled = jsonl(tmp_path / "in.jsonl", random.Random(1).sample(RECORDS, len(RECORDS)))
    options = [pairs if option == "pairs" else option for option in drafter]
    assert texts(run("-t", unsure, *SAMPLED, *options, "-i", shuffled).out) == uninterrupted


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_the_same_command_goes_on_where_it_stopped(
    unsure: str, tmp_path: Path, uninterrupted: dict[str, str], way: str
) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", RECORDS), tmp_path / "out.jsonl"
    stdin = source.read_bytes() if way == "pipe" else b""
    arguments = ["-t", unsure, "--temperature", 1, "-i", "-" if way == "pipe" else source, "-o", output]
    assert run(*arguments, *SAMPLED[-2:], stdin=stdin).code == 0
    whole = output.read_bytes()
    for length in (0, 5, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1):
        output.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        seed = SAMPLED[-2:] if kept == 0 else []  # the results know it
        done = run(*arguments, *seed, stdin=stdin)
        assert done.code == 0
        assert f"hsd: {len(RECORDS) - kept} text" in done.err
        assert (f" · {kept} were done before · " in done.err) == (kept > 0)
        assert output.read_bytes().startswith(whole[: whole[:length].rfind(b"\n") + 1])
        assert list(texts(output).items()) == list(uninterrupted.items())


def test_a_run_without_a_seed_keeps_the_one_it_drew(unsure: str, tmp_path: Path) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", RECORDS), tmp_path / "out.jsonl"
    arguments = ["-t", unsure, "--temperature", 1, "-i", source, "-o", output]
    assert run(*arguments).code == 0
    whole = texts(output)
    output.write_text("".join(output.read_text().splitlines(keepends=True)[:1]))
    assert run(*arguments).code == 0
    assert texts(output) == whole
    output.unlink()
    assert run(*arguments).code == 0
    assert texts(output) != whole


def test_where_all_is_done_no_model_is_loaded(letters: str, tmp_path: Path) -> None:
    model = shutil.copytree(letters, tmp_path / "model")
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": 1}]), tmp_path / "out.jsonl"
    arguments = ["-t", model, "-i", source, "-o", output]
    first = run(*arguments)
    written = output.read_bytes()
    shutil.rmtree(model)
    again = run(*arguments)
    assert (again.code, output.read_bytes()) == (1, written)
    assert again.err.startswith("hsd: 0 texts · 1 were done before · ")
    assert again.err.splitlines()[1:] == first.err.splitlines()[1:]


def test_new_records_of_the_same_input_are_added(letters: str, tmp_path: Path) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}]), tmp_path / "out.jsonl"
    arguments = ["-t", letters, "-i", source, "-o", output, "-n", 3]
    assert run(*arguments).code == 0
    jsonl(source, [{"prompt": "a"}, {"prompt": "k"}])
    assert run(*arguments).code == 0
    assert texts(output) == {1: "bcd", 2: "lmn"}


def test_a_bad_record_that_was_put_right_is_done(letters: str, tmp_path: Path) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": ""}, {"prompt": "k"}]), tmp_path / "out.jsonl"
    arguments = ["-t", letters, "-i", source, "-o", output, "-n", 3]
    assert run(*arguments).code == 1
    jsonl(source, [{"prompt": "a"}, {"prompt": "k"}])
    assert run(*arguments).code == 0
    assert texts(output) == {2: "lmn", 1: "bcd"}


# Stopping


@thorough
def test_after_kills_each_record_is_there_once_with_the_text_of_an_uninterrupted_run(
    unsure: str, tmp_path: Path
) -> None:
    records = [{"id": number, "prompt": "abc", "max_new_tokens": 300} for number in range(12)]
    source, output = jsonl(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    arguments = ["-t", unsure, *SAMPLED, "-i", source, "-o", output]
    for count in (1, 5):
        with started(*arguments) as running:
            while running.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < count):
                sleep(0.005)
            running.send_signal(signal.SIGKILL)
        assert running.returncode == -signal.SIGKILL
        with output.open("ab") as file:  # where a kill rarely hits: in the middle of a line
            file.write(b'{"id": 11, "li')
    assert 5 <= output.read_bytes().count(b"\n") < len(records)
    assert run(*arguments).code == 0
    assert [result["id"] for result in results(output)] == list(range(12))
    assert texts(output) == texts(run("-t", unsure, *SAMPLED, "-i", source).out)


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    """A test run in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupts")
def test_ctrl_c_says_how_far_it_came_and_the_same_command_continues(
    unsure: str, tmp_path: Path, uninterrupted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", RECORDS), tmp_path / "out.jsonl"
    arguments = ["-t", unsure, *SAMPLED, "-i", source, "-o", output]
    decode, begun = engine.decode, []

    def interrupted(*given: Any, **options: Any) -> Iterator[Any]:
        begun.append(None)
        commits = decode(*given, **options)
        if len(begun) == 3:
            yield from islice(commits, 2)
            signal.raise_signal(signal.SIGINT)
        yield from commits

    with monkeypatch.context() as patch:
        patch.setattr(engine, "decode", interrupted)
        assert run(*arguments) == (130, "", "hsd: stopped after 2 of 8; the same command continues\n")
        assert len(texts(output)) == 2
        begun.clear()
        assert run(*arguments, "-q") == (130, "", "")
        begun.clear()
        printed = run("-t", unsure, *SAMPLED, "-i", source)
        assert (printed.code, len(texts(printed.out))) == (130, 2)
        assert printed.err == "hsd: stopped after 2 of 8\n"
    assert run(*arguments).code == 0
    assert list(texts(output).items()) == list(uninterrupted.items())


@pytest.mark.usefixtures("default_interrupts")
def test_an_interrupt_while_a_result_is_written_comes_after_it(
    letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "k"}]), tmp_path / "out.jsonl"
    append = Journal.append

    def interrupted(journal: Journal, line: str) -> None:
        signal.raise_signal(signal.SIGINT)
        append(journal, line)

    monkeypatch.setattr(Journal, "append", interrupted)
    stopped = run("-t", letters, "-i", source, "-o", output, "-n", 3)
    assert stopped == (130, "", "hsd: stopped after 1 of 2; the same command continues\n")
    assert texts(output) == {1: "bcd"}


def test_ctrl_c_ends_a_process_that_waits_for_records(letters: str) -> None:
    with started("-t", letters, "-i", "-") as running:
        running.stdin.write(b'{"prompt": "a"}\n')
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["text"] == "bcdefghi"
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"hsd: stopped after 1\n"
    assert running.returncode == 130


# What fails, and what is refused


def assert_refused(done: Result, sentence: str, code: int = 1) -> None:
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("hsd: ")
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_a_bad_record_becomes_an_error_and_the_others_go_on(letters: str, tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": "x" * 500, "id": "long"}, {"prompt": "b", "tpo_k": 1}, {"prompt": "c"}]
    source = jsonl(tmp_path / "in.jsonl", records)
    done = run("-t", letters, "-i", source, "-n", 2, "-q")
    first, long, unknown, last = results(done.out)
    assert (first["text"], last["text"]) == ("bc", "de")
    reason = "the prompt has 500 tokens and the target's context holds 500; shorten it"
    assert long == {"id": "long", "line": 2, "error": reason}
    assert unknown == {"id": 3, "line": 3, "error": 'unknown key "tpo_k"; did you mean top_k?'}
    assert (done.code, done.err) == (1, f"hsd: 2 of 4 records failed; the first, in line 2: {reason}\n")


def test_numbers_that_are_not_sound_are_an_error_of_each_record(letters: str, tmp_path: Path) -> None:
    broken = shutil.copytree(letters, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    done = run("-q", "-t", broken, "-i", jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}]))
    assert [result["error"] for result in results(done.out)] == [
        "the target's logits are not numbers; download it again"
    ] * 2


def test_a_lack_of_memory_costs_one_record(letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = engine.decode

    def greedy_for_memory(*given: Any, **options: Any) -> Iterator[Any]:
        if len(given[2]) > 1:
            raise torch.OutOfMemoryError
        yield from decode(*given, **options)

    monkeypatch.setattr(engine, "decode", greedy_for_memory)
    done = run("-q", "-t", letters, "-n", 2, "-i", jsonl(tmp_path / "in.jsonl", [{"prompt": "ab"}, {"prompt": "a"}]))
    failed, written = results(done.out)
    assert failed["error"].startswith("the device ran out of memory")
    assert written["text"] == "bc"


@pytest.mark.parametrize(
    ("records", "options", "sentence"),
    [
        ([{"prompt": "k"}], [], "out.jsonl' has record 1 with another prompt or other options; give another -o, or"),
        ([{"prompt": "a"}], ["--temperature", 1], "has record 1 with another prompt or other options"),
        ([{"prompt": "a"}], ["-n", 9], "has record 1 with another prompt or other options"),
        ([{"prompt": "a", "id": "x"}], [], "has record 1, which is not in the input; give another -o"),
        ([], [], "has record 1, which is not in the input; give another -o"),
        ([{"prompt": ""}], [], "has record 1 with another prompt or other options"),
        ([{"prompt": "a"}], ["--seed", 8], "was begun with --seed 7; give the same, or another -o"),
    ],
)
def test_results_of_something_else_are_refused_and_stay_as_they_are(
    letters: str, tmp_path: Path, records: list[object], options: list[object], sentence: str
) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}]), tmp_path / "out.jsonl"
    assert run("-t", letters, "-i", source, "-o", output, "--seed", 7).code == 0
    with output.open("a") as file:
        file.write('{"id": 2')
    before = output.read_bytes()
    jsonl(source, records)
    assert_refused(run("-t", letters, "-i", source, "-o", output, *options), sentence)
    assert output.read_bytes() == before


def test_an_output_that_is_the_input_is_refused(letters: str, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"id": 1, "prompt": "a"}])
    before = source.read_bytes()
    assert_refused(run("-t", letters, "-i", source, "-o", source), "in.jsonl' is no result of hsd; give another -o")
    assert source.read_bytes() == before


def test_a_second_process_is_refused(letters: str, tmp_path: Path) -> None:
    source, output = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}] * 10_000), tmp_path / "out.jsonl"
    arguments = ["-t", letters, "-i", source, "-o", output]
    with started(*arguments) as running:
        while running.poll() is None and not (output.exists() and output.read_bytes()):
            sleep(0.005)
        assert_refused(run(*arguments), "another process is writing")
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert results(output)[0]["text"] == "bcdefghi"


@pytest.mark.parametrize(
    ("source", "reason"), [("no/such/file", "No such file or directory"), ("", "Is a directory")], ids=str
)
def test_an_input_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, source: str, reason: str) -> None:
    output = tmp_path / "out.jsonl"
    assert_refused(run("-i", tmp_path / source, "-o", output), f"{source}': {reason}")
    assert not output.exists()


def test_a_full_disk_is_one_line(letters: str, tmp_path: Path) -> None:
    arguments = ["-t", letters, "-i", jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])]
    assert_refused(run(*arguments, "-o", "/dev/full"), "cannot write '/dev/full': No space left on device")
    with open("/dev/full", "wb") as full, started(*arguments, stdout=full.fileno()) as running:
        assert running.stderr.read() == b"hsd: cannot write standard output: No space left on device\n"
    assert running.returncode == 1


def test_an_output_that_is_no_file_takes_the_results_as_they_come(letters: str, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    for _ in range(2):
        done = run("-t", letters, "-i", source, "-o", os.devnull)
        assert done.code == 0
        assert done.err.startswith("hsd: 1 text · 8 tokens in ")


# Shared beginnings


SYSTEM = {"role": "system", "content": "z" * 200}


@pytest.mark.parametrize(
    "records",
    [
        [{"prompt": "z" * 200 + last} for last in "abc"],
        [{"messages": [SYSTEM, {"role": "user", "content": last}]} for last in "abc"],
        [{"prompt": last, "system": SYSTEM["content"]} for last in "abc"],
    ],
    ids=["prompts", "messages", "system"],
)
def test_what_records_begin_with_alike_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[object]
) -> None:
    model = checkpoint(tmp_path / "model", chat_template=TEMPLATE)
    forward, counts = CachedModel._forward, list[int]()

    def counted(model: CachedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
        counts.append(len(ids))
        return forward(model, ids, keep)

    monkeypatch.setattr(CachedModel, "_forward", counted)
    done = run("-t", model, "-a", "ar", "-n", 4, "-i", jsonl(tmp_path / "in.jsonl", records))
    assert list(texts(done.out).values()) == ["bcde", "cdef", "defg"]
    assert [result["cached_prompt_tokens"] for result in results(done.out)] == [0, 200, 200]
    rest = [1, 1, 1, 1]  # the last token of the prompt, and all that is written but the last
    assert counts == [200, *rest, *rest, *rest]


# On a terminal


def test_a_bar_shows_how_far_it_is_and_leaves_one_line(letters: str, pairs: str, tmp_path: Path) -> None:
    source, output = (
        jsonl(tmp_path / "in.jsonl", [{"prompt": "a", "id": n} for n in range(5000)]),
        tmp_path / "out.jsonl",
    )
    arguments = ["-t", letters, "-d", pairs, "-a", "slem", "-i", str(source), "-o", str(output)]
    with HsdTerminal(*GENERATE, *arguments) as terminal:
        terminal.wait_for(lambda: re.search(r"━ +[1-9]\d*/5000 \d+\.\d tokens/s · accepted \d+% [\d-]:", terminal.text))
        terminal.send("\x03")
        assert terminal.wait() == 130
    stopped = re.fullmatch(r"hsd: stopped after (\d+) of 5000; the same command continues", terminal.text.strip())
    assert stopped, terminal.text
    assert int(stopped[1]) == len(results(output))


def test_results_on_a_terminal_need_no_bar(letters: str, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    with HsdTerminal(*GENERATE, "-t", letters, "-i", str(source), columns=600) as terminal:
        assert terminal.wait() == 0
    line, summary = terminal.text.strip().splitlines()
    assert json.loads(line)["text"] == "bcdefghi"
    assert summary.startswith("hsd: 1 text · 8 tokens in ")


# Several at a time


@pytest.mark.parametrize("size", ["3", "auto"])
def test_texts_that_are_written_together_are_what_they_are_alone(
    unsure: str, letters: str, tmp_path: Path, size: str
) -> None:
    records = jsonl(
        tmp_path / "in.jsonl",
        [{"id": f"r{n}", "prompt": "abc"[: 1 + n % 3], "max_new_tokens": 3 + 4 * (n % 4)} for n in range(8)],
    )
    options = ["-t", unsure, "-d", letters, "-i", records, "--seed", 5, "--temperature", 1]
    one_by_one, together = run(*options), run(*options, "--batch-size", size)
    assert (one_by_one.code, together.code) == (0, 0)
    assert len(set(texts(together.out).values())) > 3
    assert texts(together.out) == texts(one_by_one.out)


def test_a_bad_record_among_those_written_together_is_an_error_of_its_own(letters: str, tmp_path: Path) -> None:
    records = jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b" * 600}, {"prompt": 3}, {"prompt": "c"}])
    result = run("-t", letters, "-i", records, "--batch-size", 4)
    assert result.code == 1
    by_line = {each["line"]: each for each in results(result.out)}
    assert [("text" in by_line[line], "error" in by_line[line]) for line in (1, 2, 3, 4)] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-i", "in.jsonl", "--batch-size", "0"], "neither auto nor a whole number"),
        (["-i", "in.jsonl", "--batch-size", "many"], "neither auto nor a whole number"),
        (["a", "--batch-size", "2"], "--batch-size is about many texts"),
        (["-i", "in.jsonl", "--batch-size", "2", "--parallel"], "leave --batch-size out"),
    ],
)
def test_a_batch_size_that_makes_no_sense_is_refused(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert sentence in result.err
