"""`hsd bench` from the outside: what it measures, what it writes, and what it refuses."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.ui.bench_progress import BenchProgress
from tests.cli import PAIRS, checkpoint, hsd
from tests.terminal import HsdTerminal
from tests.test_run_page import Page

TOKENS, REPEATS = 16, 2
SHORT = ("-n", TOKENS, "--repeats", REPEATS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The alphabet in letters, and the same alphabet in pairs of letters."""
    folder = tmp_path_factory.mktemp("models")
    return checkpoint(folder / "target", special=["z"]), checkpoint(folder / "drafter", PAIRS)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("abc\nlmn\n")
    return path


def measured(models: tuple[str, str], prompts: Path, *arguments: object) -> dict[str, Any]:
    """The JSON report."""
    file = prompts.with_suffix(".json")
    target, drafter = models
    result = hsd("bench", "-q", "-t", target, "-d", drafter, "--prompts", prompts, *SHORT, "--json", file, *arguments)
    assert (result.code, result.err) == (0, "")
    return json.loads(file.read_text("ascii"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def report(models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    prompts = tmp_path_factory.mktemp("report") / "mine.txt"
    prompts.write_text("abc\nlmn\n")
    return measured(models, prompts, "--temperature", "0,1", "--lookahead", 3)


def test_all_that_fit_are_measured_at_each_temperature(report: dict[str, Any]) -> None:
    assert [(found["task"], found["temperature"]) for found in report["comparisons"]] == [
        ("mine.txt", 0),
        ("mine.txt", 1),
    ]
    for found in report["comparisons"]:
        names = [result["contender"] for result in found["results"]]
        assert names == [*(name for name in ALGORITHMS if name != "sd"), "auto"]
    assert list(report["unfit"]) == ["sd"]
    assert report["complete"] is True
    assert report["notes"] == []


def test_every_sample_is_kept_and_of_the_length_that_was_asked_for(report: dict[str, Any]) -> None:
    """Past the end of the alphabet, though it ends a text otherwise."""
    for found in report["comparisons"]:
        for result in found["results"]:
            runs = [(sample["repeat"], sample["prompt"]) for sample in result["samples"]]
            assert runs == [(0, 0), (0, 1), (1, 0), (1, 1)]
            for sample in result["samples"]:
                assert sample["tokens"] == TOKENS
                assert sample["seconds"] >= sample["first_seconds"] + sample["decode_seconds"] > sample["first_seconds"]
                assert sum(1 + accepted for _, accepted in sample["iterations"]) in (TOKENS, TOKENS + 1)
                assert sample["peak_memory"] is None  # the CPU's is the whole process's
    assert report["process_memory"] > 0


def test_the_figures_follow_from_the_samples(report: dict[str, Any]) -> None:
    found = report["comparisons"][0]
    costs = found["costs"]
    assert len(costs["target_passes"]) == 17  # as long a draft as auto may make
    plain = found["results"][0]["samples"]
    for result in found["results"]:
        figures, samples = result["figures"], result["samples"]
        ratios = []
        efficiencies = []
        for repeat in range(REPEATS):
            ours = [sample for sample in samples if sample["repeat"] == repeat]
            base = [sample for sample in plain if sample["repeat"] == repeat]
            ratios.append(rate(ours) / rate(base))
            bare = sum(costs["target_passes"][drafted] for each in ours for drafted, _ in each["iterations"][1:])
            bare += sum(sample["steps"] for sample in ours) * costs["drafter_step"]
            efficiencies.append(bare / sum(sample["decode_seconds"] for sample in ours))
        assert figures["speed_up"]["median"] == pytest.approx(sum(ratios) / 2)
        assert figures["efficiency"]["median"] == pytest.approx(sum(efficiencies) / 2)
        assert sum(figures["split"].values()) == pytest.approx(1)
        assert min(figures["split"].values()) >= -1e-9
        iterations = sum(len(sample["iterations"]) - 1 for sample in samples)
        whole = sum(sample["decode_seconds"] for sample in samples) / iterations
        assert sum(figures["profile"].values()) == pytest.approx(whole)
        assert figures["profile"]["target"] > 0
        assert (figures["profile"]["drafter"] > 0) == any(sample["steps"] for sample in samples)


def rate(samples: list[dict[str, Any]]) -> float:
    tokens = sum(sample["tokens"] - sample["first_tokens"] for sample in samples)
    return float(tokens / sum(sample["decode_seconds"] for sample in samples))


def test_drafts_have_the_length_that_was_asked_for_and_their_steps_are_counted(report: dict[str, Any]) -> None:
    results = {result["contender"]: result["samples"] for result in report["comparisons"][0]["results"]}
    for name in ("slem", "tli"):
        for sample in results[name]:
            assert max(drafted for drafted, _ in sample["iterations"]) == 3
    for sample in results["tli"]:  # a step for each token, and the first iteration is not counted
        assert sample["steps"] == sum(drafted for drafted, _ in sample["iterations"][1:])
    for name in ("ar", "lookup"):
        assert {sample["steps"] for sample in results[name]} == {0}


def test_the_machine_is_described(report: dict[str, Any]) -> None:
    machine = report["machine"]
    assert {"cpu", "cores", "threads", "system", "python", "torch", "transformers", "hsd", "date"} <= set(machine)
    assert "gpu" not in machine or report["device"].startswith("cuda")


def test_greedy_texts_are_equally_long_for_peers(models: tuple[str, str], prompts: Path) -> None:
    found = measured(models, prompts, "--algorithms", "slem", "--peers", "--temperature", "0,1")
    assert [note.partition(":")[0] for note in found["notes"]] == [
        "hf",
        "hf assisted, sampled, with a drafter of another vocabulary",
    ]
    assert "does not follow the target's law" in found["notes"][1]
    for comparison in found["comparisons"]:
        results = {result["contender"]: result for result in comparison["results"]}
        assert list(results) == ["ar", "slem", "hf", "hf assisted"]
        for result in results.values():
            assert {sample["tokens"] for sample in result["samples"]} == {TOKENS}
        assert results["hf"]["figures"]["tokens_per_iteration"] == 1
        assert results["hf"]["figures"]["split"] is None
        assert all(sample["steps"] > 0 for sample in results["hf assisted"]["samples"])


def test_without_sampling_nothing_is_said_about_laws(models: tuple[str, str], prompts: Path) -> None:
    (note,) = measured(models, prompts, "--algorithms", "ar", "--peers")["notes"]
    assert note.startswith("hf: ")


def test_without_a_drafter_what_needs_none_is_measured(models: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert hsd("bench", "-q", "-t", models[0], "--prompts", prompts, *SHORT, "--json", file).code == 0
    found = json.loads(file.read_text())
    (comparison,) = found["comparisons"]
    assert [result["contender"] for result in comparison["results"]] == ["ar", "lookup", "auto"]
    assert (found["drafter"], comparison["costs"]["drafter_step"], found["unfit"]) == (None, None, {})


def test_the_embedded_pair_is_measured_on_prompts_of_our_own(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    result = hsd(
        "bench", "--take", 1, "--task", "long-context", "-n", 8, "--repeats", 1, "--algorithms", "slem", "--json", file
    )
    assert result.code == 0
    said, *progress = result.err.splitlines()  # a slow machine also says how far it is
    assert said == "hsd: no --target given: using embedded:target with embedded:drafter"
    assert all(" texts measured" in line for line in progress)
    lines = result.out.splitlines()
    assert lines[0] == "embedded:target (float32, cpu) with embedded:drafter"
    assert [line.split()[0] for line in lines if line.startswith(("ar ", "slem "))] == ["ar", "slem"] * 3
    assert any(line.startswith("long-context: 1 of 1 prompts are cut from their beginning to ") for line in lines)
    assert lines[-1].startswith("The process held at most ")


def test_tables_fit_into_a_terminal(models: tuple[str, str], prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = hsd("bench", "-q", "-t", models[0], "-d", models[1], "--prompts", prompts, *SHORT)
    assert result.code == 0
    tables = [line for line in result.out.splitlines() if line.startswith(("ar ", "slem ", "auto "))]
    assert len(tables) == 9
    assert all(len(line) <= 80 and line.count("-") <= 2 for line in tables)


# The page


def test_the_page_needs_nothing_else_and_obeys_nothing(models: tuple[str, str], tmp_path: Path) -> None:
    prompts = tmp_path / "<script>&amp;{{ 7*7 }}\x1b[2J"
    prompts.write_text("abc\n")
    page = tmp_path / "out.html"
    result = hsd("bench", "-q", "-t", models[0], "-d", models[1], "--prompts", prompts, *SHORT, "--html", page)
    assert result.code == 0
    assert "\x1b" not in result.out
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "\x1b" not in text
    assert r"<script>&amp;{{ 7*7 }}\x1b[2J, temperature 0" in parsed.texts
    assert parsed.tags.isdisjoint({"script", "img", "link", "iframe"})
    assert [name for name, _ in parsed.attributes if name in ("src", "href") or name.startswith("on")] == []
    assert {"svg", "polyline", "rect"} <= parsed.tags
    assert {"Where the time goes while decoding", "Acceptance by place in the draft"} <= set(parsed.texts)
    assert "http" not in text.replace("http-equiv", "")


# Interruptions and failures


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_keeps_what_was_measured(
    number: int, code: int, models: tuple[str, str], prompts: Path, tmp_path: Path
) -> None:
    file, page = tmp_path / "out.json", tmp_path / "out.html"
    with HsdTerminal(
        "bench", "-t", models[0], "-d", models[1], "--prompts", str(prompts), "-n", "12",
        "--repeats", "100000", "--algorithms", "slem", "--json", str(file), "--html", str(page),
    ) as terminal:  # fmt: skip
        terminal.wait_for("of 100000, prompt 2")  # the first one was measured
        terminal.process.send_signal(number)
        assert terminal.wait() == code, terminal.text
        assert "Interrupted" in terminal.text
        assert "Traceback" not in terminal.text
    found = json.loads(file.read_text())
    assert found["complete"] is False
    (comparison,) = found["comparisons"]
    counts = {len(result["samples"]) for result in comparison["results"]}
    assert len(counts) == 1
    assert counts.pop() > 0
    Page(page.read_text())


def test_ctrl_c_before_anything_was_measured(models: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("what was there\n")
    with HsdTerminal(
        "bench", "-t", models[0], "--prompts", str(prompts), "-n", "1900", "--json", str(file)
    ) as terminal:
        terminal.wait_for("mine.txt, temperature 0: ")  # a round takes long
        terminal.send("\x03")
        assert terminal.wait() == 130, terminal.text
        assert "Traceback" not in terminal.text
    assert file.read_text() == "what was there\n"


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 4.0, 11.0, 15.0, 300.0])
    with BenchProgress(40, quiet=False, clock=lambda: next(now)) as progress:
        for step, done in [("first", 0), ("second\x1b", 2), ("third", 3), ("fourth", 30)]:
            progress.show(step, done)
    assert capfd.readouterr() == (
        "",
        "hsd: 2 of 40 texts measured, some 3 min left; second\\x1b\n"
        "hsd: 30 of 40 texts measured, some 2 min left; fourth\n",
    )


def test_a_quiet_one_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 100.0])
    with BenchProgress(40, quiet=True, clock=lambda: next(now)) as progress:
        progress.show("first", 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "code", "--prompts", "/dev/null"], "--task, --prompts and --dataset each say what to measure on"),
        (["--algorithms", "slem,"], "--algorithms: unknown algorithm ''; use auto, ar, "),
        (["--algorithms", "fast"], "--algorithms: unknown algorithm 'fast'; use auto, ar, "),
        (["--temperature", "0,warm"], "--temperature: 'warm' is not a number; give one or more, such as 0,1"),
        (["--temperature", "-1"], "--temperature must be 0 (greedy) or at least 1e-5, not -1.0"),
        (["--task", "poetry"], "invalid value for '--task'"),
        (["-n", "7"], "invalid value for '-n' / '--tokens'"),
        (["--algorithms", "sd"], "sd needs one shared vocabulary, but "),
        (["-t", "embedded:target", "--algorithms", "slem"], "--algorithm slem needs a drafter; add --draft MODEL"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(arguments: list[str], sentence: str) -> None:
    result = hsd("bench", "-q", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"hsd: {sentence}")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--json", "/none/out.json", "-t", "embedded:none"], "cannot write '/none/out.json': "),
        (["--html", "/none/out.html", "-t", "embedded:none"], "cannot write '/none/out.html': "),
        (["-n", "2040"], "-n 2040 leaves no room for a prompt in a context of 2048 tokens; write fewer"),
    ],
)
def test_failures_are_one_sentence(arguments: list[str], sentence: str) -> None:
    result = hsd("bench", "-q", *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"hsd: {sentence}")


def test_what_is_configured_for_texts_changes_no_measurement(
    models: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text("temperature = 0.7\nmax-new-tokens = 500\nlookahead = 9\n")
    monkeypatch.setenv("HSD_CONFIG", str(configuration))
    found = measured(models, prompts, "--algorithms", "ar")
    assert (found["tokens"], found["lookahead"]) == (TOKENS, 4)
    assert [comparison["temperature"] for comparison in found["comparisons"]] == [0]
