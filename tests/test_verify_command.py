"""`hsd verify`, from the command line to the verdict: sound pairs pass, and whatever is broken is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hsd_cli.decoding.verification import Coupled, Rejection, Verdict
from hsd_cli.drafting import registry
from hsd_cli.drafting.protocol import Draft, Drafter
from tests.breadth import thorough
from tests.cli import LETTERS, PAIRS, Result, checkpoint, hsd, shell_hsd

QUICK = ["-n", 12, "--samples", 150]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An unsure target, and a surer drafter with the same tokens: its distribution is far from the target's."""
    home = tmp_path_factory.mktemp("models")
    return checkpoint(home / "unsure", sharpness=3), checkpoint(home / "surer", sharpness=6)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A drafter with other tokens."""
    return checkpoint(tmp_path_factory.mktemp("pairs"), PAIRS, sharpness=3)


@pytest.fixture(scope="module")
def backwards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A drafter that knows the alphabet the other way round: its guesses are wrong."""
    return checkpoint(tmp_path_factory.mktemp("backwards"), LETTERS[::-1], sharpness=6)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("abc\n\nxyzabcxyz\n")
    return path


def report(*arguments: object, code: int = 0) -> dict[str, Any]:
    """What ``--json`` prints, which must be all that is printed."""
    result = hsd("verify", "--json", *arguments)
    assert (result.code, result.err) == (code, "")
    return dict(json.loads(result.out))


def verdicts(found: dict[str, Any], algorithm: str) -> dict[str, set[str]]:
    """Of one algorithm, what was said about each way of decoding."""
    said: dict[str, set[str]] = {
        "rejection": {law["verdict"] for law in found["laws"] if law["algorithm"] == algorithm}
    }
    for comparison in found["comparisons"]:
        if comparison["algorithm"] == algorithm:
            said[comparison["decoding"]] = {difference["verdict"] for difference in comparison["differences"]}
    return said


SOUND = {"greedy": set[str](), "coupled": set[str](), "rejection": {"passed"}}


# Sound pairs


def test_every_algorithm_that_fits_is_checked(models: tuple[str, str], prompts: Path) -> None:
    found = report(*models, "--prompts", prompts, *QUICK)
    drafting = [name for name in registry.ALGORITHMS if name != "ar"]
    assert (found["defects"], found["ties"], found["unfit"]) == (0, 0, {})
    assert found["prompts"] == ["abc", "xyzabcxyz"]
    for name in drafting:
        assert verdicts(found, name) == SOUND
    assert verdicts(found, "auto") == SOUND | {"rejection": set()}
    for comparison in found["comparisons"]:
        assert comparison["tokens"] == 2 * 12
    for law in found["laws"]:
        assert law["samples"] == 150
        assert law["algorithm"] == "lookup" or law["drafted"] >= law["samples"]
        assert law["two_sample"]["freedom"] > 5
        assert law["first_token"]["p_value"] >= found["significance"] == 0.001 / (2 * len(drafting))


def test_what_does_not_fit_is_named_with_its_reason(models: tuple[str, str], pairs: str) -> None:
    arguments = [models[0], pairs, "-n", 4, "--samples", 3, "-a", "sd", "-a", "slem", "-a", "sd"]
    found = report(*arguments)
    assert list(found["unfit"]) == ["sd"]
    assert found["unfit"]["sd"].startswith("sd needs one shared vocabulary, but id 2 is")
    assert [law["algorithm"] for law in found["laws"]] == ["slem"]
    assert f"sd does not fit: {found['unfit']['sd']}\n" in hsd("verify", *arguments).out


def test_what_too_few_samples_could_not_test_is_not_called_passed(models: tuple[str, str]) -> None:
    arguments = [*models, "-a", "tli", "-n", 8, "--samples", 1]
    assert report(*arguments)["laws"][0]["verdict"] == "untested"
    assert "the sampled law of tli was not tested; use more --samples" in hsd("verify", *arguments).out


def test_a_pair_that_nothing_fits_is_a_usage_error(models: tuple[str, str], pairs: str) -> None:
    result = hsd("verify", models[0], pairs, "-a", "sd")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("hsd: there is nothing to verify: sd needs one shared vocabulary")


def test_the_same_seed_gives_the_same_report(models: tuple[str, str]) -> None:
    arguments = [*models, "-a", "tli", "-n", 8, "--samples", 30]
    first = report(*arguments)
    assert report(*arguments) == first
    assert report(*arguments, "--seed", 1)["laws"] != first["laws"]


@thorough
def test_the_embedded_pair_passes_in_half_precision_from_the_shell() -> None:
    options = ["-a", "tli", "-n", "16", "--samples", "15", "--dtype", "bfloat16"]
    result = shell_hsd("verify", "embedded:target", "embedded:drafter", *options)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("embedded:target (bfloat16, cpu) with embedded:drafter, lookahead 4\n")
    assert result.out.splitlines()[-1].startswith("No defect found")


# Broken ones


def accept_everything(self: Any, logits: torch.Tensor, draft: Draft, position: int) -> Verdict:
    """A wrong verifier: it does not look at the drafted tokens."""
    return Verdict(len(draft), [*draft.tokens.tolist(), int(logits[-1].argmax())], sound=True)


class FlatPsi:
    """A drafter that lies: it says that its tokens were drawn from the uniform distribution."""

    def __init__(self, honest: Drafter) -> None:
        self._honest = honest

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        draft = self._honest.draft(text, lookahead)
        if draft.psi is None or not len(draft):
            return draft
        return Draft(draft.tokens, torch.full_like(draft.psi, 1 / draft.psi.shape[1]), draft.algorithm)


def use(monkeypatch: pytest.MonkeyPatch, name: str, wrap: Callable[[Drafter], Drafter]) -> None:
    make = registry.ALGORITHMS[name]
    monkeypatch.setitem(registry.ALGORITHMS, name, lambda pair: wrap(make(pair)))


def test_a_verifier_that_accepts_everything_is_found_token_for_token(
    models: tuple[str, str], backwards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Coupled.verify
    monkeypatch.setattr(
        Coupled,
        "verify",
        lambda *arguments: accept_everything(*arguments) if len(arguments[2]) else honest(*arguments),
    )
    found = report(models[0], backwards, "-a", "tli", *QUICK, code=1)
    assert verdicts(found, "tli") == SOUND | {"greedy": {"defect"}, "coupled": {"defect"}}
    differences = [difference for comparison in found["comparisons"] for difference in comparison["differences"]]
    assert found["defects"] == len(differences) == 2 * 3
    for difference in differences:
        assert difference["scores"]["gap"] > difference["scores"]["rounding"]


def test_a_verifier_that_accepts_everything_is_found_by_its_law(
    models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Rejection.verify
    monkeypatch.setattr(
        Rejection,
        "verify",
        lambda *arguments: accept_everything(*arguments) if len(arguments[2]) else honest(*arguments),
    )
    found = report(*models, "-a", "sd", *QUICK, code=1)
    assert verdicts(found, "sd") == SOUND | {"rejection": {"defect"}}
    assert max(found["laws"][0][test]["p_value"] for test in ("two_sample", "first_token")) < 1e-4


def test_a_drafter_with_a_dishonest_psi_is_found(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "tli", FlatPsi)
    found = report(*models, "-a", "tli", "-a", "slrs", *QUICK, code=1)
    assert verdicts(found, "tli") == SOUND | {"rejection": {"defect"}}  # `coupled` does not need an honest ψ
    assert verdicts(found, "slrs") == SOUND


def test_a_text_that_goes_on_past_its_end_is_found(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hsd_cli.bench.lossless.pair import PairUnderTest, Text

    write = PairUnderTest.write

    def truncated(self: PairUnderTest, prompt: str, algorithm: str, *rest: Any) -> Text:
        text = write(self, prompt, algorithm, *rest)
        return text if algorithm == "ar" else Text(text.ids[:-1] or text.ids, text.passes, text.drafted, text.accepted)

    monkeypatch.setattr(PairUnderTest, "write", truncated)
    arguments = [*models, "-a", "sd", *QUICK]
    found = report(*arguments, code=1)
    difference = found["comparisons"][0]["differences"][0]
    assert (difference["place"], difference["tokens"][1], difference["scores"]) == (11, "end of text", None)
    assert "“end of text”" in hsd("verify", *arguments).out


@thorough
def test_a_defect_is_shown_with_both_logits_and_is_exit_code_1(models: tuple[str, str]) -> None:
    script = (
        "import sys; from tests.test_verify_command import accept_everything as wrong\n"
        "from hsd_cli.app import main; from hsd_cli.decoding.verification import Coupled\n"
        "right = Coupled.verify\n"
        "Coupled.verify = lambda *all: (wrong if len(all[2]) else right)(*all)\n"
        "main()"
    )
    command = [sys.executable, "-c", script, "verify", *models, "-a", "sd", "-n", "12", "--samples", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\ndefect: sd, coupled, token " in done.stdout
    assert "as verified" in done.stdout
    assert "is above the rounding of" in done.stdout
    assert done.stdout.endswith("\n3 defects: the text is not the target's own.\n")


# Impossible requests


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--temperature", 0], "--temperature must be above 0; greedy text is compared anyway"),
        (["--temperature", -1], "--temperature must be 0 (greedy) or "),
        (["-a", "magic"], "no drafting algorithm 'magic'; use one of: "),
        (["-a", "ar"], "no drafting algorithm 'ar'; use one of: "),
        (["--prompts", "/dev/null"], "'/dev/null' is empty; write one prompt per line, or leave --prompts out"),
    ],
)
def test_impossible_requests_are_one_line(options: list[object], sentence: str) -> None:
    result: Result = hsd("verify", "embedded:target", "embedded:drafter", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"hsd: {sentence}")
    assert result.err.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line() -> None:
    result = hsd("verify", "embedded:none", "embedded:drafter")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("hsd: no embedded model 'embedded:none'")


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from hsd_cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "verify", "--help"], capture_output=True, text=True, check=True
    )
    assert "--samples" in done.stdout
