"""Breaks the verifier and every algorithm's ``ψ``, one small edit at a time, and shows that a test fails for each.

    python -m tests.mutations

Every edit is made in a copy of the package in a temporary folder. Takes three to five minutes on two cores. The exit
code is 1 if an edit survives its tests, or no longer applies to the source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hsd_cli"
AT_ONCE = 2
PYTEST_PASSED, PYTEST_FAILED = 0, 1


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in ``file``; one of ``tests`` has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applies(self) -> bool:
        """Whether there is exactly one place for the edit."""
        return (PACKAGE / self.file).read_text(encoding="utf-8").count(self.old) == 1


def law(algorithm: str, vocabularies: str = "heterogeneous", settings: str = "temperature 1") -> str:
    """The test that a draft, verified, has exactly the target's law."""
    name = "test_draft_and_verify_have_exactly_the_targets_law"
    return f"tests/test_losslessness.py::{name}[{algorithm}-{vocabularies}-{settings}]"


def seeded(algorithm: str) -> str:
    """The test that a coupled text is plain decoding's."""
    name = "test_a_coupled_text_depends_on_the_seed_alone"
    return f"tests/test_losslessness.py::{name}[{algorithm}-heterogeneous-temperature 1]"


PADDED = "tests/test_losslessness.py::test_padded_heads_are_the_same_vocabulary"
ALL_COINS = "tests/test_losslessness.py::test_coins_behind_a_rejection_change_nothing[tli]"
LONG_COUPLED = "tests/test_losslessness.py::test_seeded_samples_follow_the_targets_law"
SHORTENED = "tests/test_losslessness.py::test_a_draft_that_is_cut_for_want_of_memory_keeps_the_targets_law"
AHEAD = "tests/test_parallel.py::test_whole_texts_have_exactly_the_targets_law[sd-same-as it comes]"
CHECKS = "tests/test_verification.py"
WARPING = "tests/test_sampling.py"
SEGMENTS = "tests/test_slrs.py::test_later_psi_are_conditional_on_what_was_revealed"
COPIES = "tests/test_lookup.py"

VERIFIER, NOISE, SAMPLING = "decoding/verification.py", "decoding/noise.py", "decoding/sampling.py"
PROJECTION, SLRS, TOKENS = "drafting/projection.py", "drafting/slrs.py", "drafting/token_drafter.py"
PROTOCOL, DRAWING, REGISTRY = "drafting/protocol.py", "drafting/drawing.py", "drafting/registry.py"
LOOKUP, INDEX = "drafting/lookup.py", "drafting/suffix_index.py"
PARALLEL = "decoding/parallel.py"

RATIO = "(p_t / psi_t).clamp(max=1)"
COINS = "self._randomness.accept(_acceptance(p, psi, draft.tokens)).cumprod(0)"
MATCHES = "min(common_prefix(own, proposed), rows - 1)"
GUESSED = "torch.where(accepted < len(p), weights, guessed)"
SEED = " + _signed(seed * GOLDEN)) + _signed(seed)"
TOKEN = "(tokens + 1)"
DRAWN = "self._rule.propose(there, "
ONLY = "warp.probabilities(logits, drafted, self.drafter_ids)[0]"
AFTER = "self._index.after + place % period"

MUTATIONS = [
    Mutation("every proposal is accepted", VERIFIER, RATIO, "torch.ones_like(p_t)", (law("tli"),)),
    Mutation("acceptance ψ/p", VERIFIER, RATIO, "(psi_t / p_t).clamp(max=1)", (law("tli"),)),
    Mutation("acceptance p, not p/ψ", VERIFIER, RATIO, "p_t.clamp(max=1)", (law("tli"),)),
    Mutation("void is accepted", VERIFIER, "(tokens < size) & (psi_t > 0)", "psi_t > 0", (law("union"),)),
    Mutation("no chance is a chance", VERIFIER, "(tokens < size) & (psi_t > 0)", "tokens < size", (CHECKS,)),
    Mutation("no residual", VERIFIER, "(at_stop - proposed)", "at_stop", (law("tli"),)),
    Mutation("residual of both signs", VERIFIER, "proposed).clamp(min=0)", "proposed).abs()", (law("tli"),)),
    Mutation("residual after the last", VERIFIER, " * (accepted < len(draft))", "", (law("tli"),)),
    Mutation("residual of the first", VERIFIER, "accepted.clamp(max=len(draft) - 1)", "(accepted * 0)", (law("tli"),)),
    Mutation("a coin after a rejection", VERIFIER, COINS, COINS.removesuffix(".cumprod(0)"), (ALL_COINS,)),
    Mutation("nothing to draw from", VERIFIER, "residual.sum() > 0", "residual.sum() >= 0", (CHECKS,)),
    Mutation("coins upside down", VERIFIER, ") < probabilities", ") >= probabilities", (CHECKS,)),
    Mutation("a guess is drawn anew", VERIFIER, GUESSED, "weights", (AHEAD,)),
    Mutation("a guess is believed", VERIFIER, GUESSED, GUESSED.replace("len(p)", "len(p) - 1"), (AHEAD,)),
    Mutation("ahead by a place", PARALLEL, "following.after(len(beyond))", "following", (AHEAD,)),
    Mutation("draws of equal weights", VERIFIER, "weights.cumsum(", "torch.ones_like(weights).cumsum(", (CHECKS,)),
    Mutation("draws as if weights were 1", VERIFIER, "share * cumulated[-1:]", "share", (CHECKS,)),
    Mutation("draws the least with a chance", VERIFIER, "share = 1 - torch", "share = torch", (CHECKS,)),
    Mutation("draws past a tie", VERIFIER, "cumulated[-1:])[0]", "cumulated[-1:], right=True)[0]", (CHECKS,)),
    Mutation("void point mass", VERIFIER, "(tokens < size).float()", "(tokens <= size).float()", (CHECKS,)),
    Mutation("NaN unnoticed (rejection)", VERIFIER, "isfinite(mass)", "True", (CHECKS,)),
    Mutation("NaN unnoticed (coupled)", VERIFIER, "all(map(isfinite, numbers[:rows]))", "True", (CHECKS,)),
    Mutation("noise of the call", VERIFIER, "arange(position, position + rows", "arange(0, rows", (seeded("slem"),)),
    Mutation("noise of the wrong sign", VERIFIER, "logits = logits - exp", "logits = logits + exp", (LONG_COUPLED,)),
    Mutation(
        "a match after a miss",
        VERIFIER,
        MATCHES,
        "min(sum(map(int.__eq__, own, map(int, proposed))), rows - 1)",
        (seeded("tli"),),
    ),
    Mutation("own token of the end", VERIFIER, "own[: accepted + 1]", "[*own[:accepted], own[-1]]", (seeded("tli"),)),
    Mutation("proposals times noise", VERIFIER, "together / exp", "together * exp", (CHECKS,)),
    Mutation("greedy proposes the least", VERIFIER, "together.argmax(", "together.argmin(", (CHECKS,)),
    Mutation("noise without position", NOISE, "positions[:, None] *", "(positions[:, None] * 0) *", (CHECKS,)),
    Mutation("noise without seed", NOISE, SEED, ")", (CHECKS,)),
    Mutation("noise without token", NOISE, TOKEN, f"{TOKEN} * 0", (CHECKS,)),
    Mutation("noise is uniform", NOISE, "-torch.log1p(-uniform.clamp(max=1 - 2.0**-24))", "uniform", (CHECKS,)),
    Mutation("noise can be negative", NOISE, " & ((1 << 53) - 1) | 1", " | 1", (CHECKS,)),
    Mutation("no temperature below 1", SAMPLING, "temperature != 1", "temperature > 1", (WARPING,)),
    Mutation("no top-p", SAMPLING, "settings.top_p < 1", "settings.top_p < 0", (WARPING,)),
    Mutation("no top-k", SAMPLING, "settings.top_k > 0", "settings.top_k < 0", (WARPING,)),
    Mutation("penalty is a reward", SAMPLING, "where(scores < 0, ", "where(scores > 0, ", (WARPING,)),
    Mutation("penalty a place late", SAMPLING, ") <= torch.arange(", ") < torch.arange(", (WARPING,)),
    Mutation("penalty for what is gone", SAMPLING, "unchanged:], -1)", "unchanged:], 0)", (WARPING,)),
    Mutation("duplicates not summed", PROJECTION, "scatter_add_(", "scatter_(", (law("tli", "duplicates"),)),
    Mutation(
        "tli: nothing masked",
        PROJECTION,
        ONLY,
        ONLY.replace(", self.drafter_ids)[0]", ")[0, self.drafter_ids]"),
        (law("tli"),),
    ),
    Mutation(
        "union: no void mass",
        PROJECTION,
        "(1 - shared.sum(0, keepdim=True)).clamp(min=0)",
        "shared[:1] * 0",
        (law("union"),),
    ),
    Mutation("tokens: other ψ drawn from", DRAWING, DRAWN, DRAWN.replace("there", "there.sqrt()"), (law("tli"),)),
    Mutation("sd: other ψ told", TOKENS, "torch.stack(weights)", "torch.stack(weights).sqrt()", (law("sd", "same"),)),
    Mutation(
        "sd: padding is drawn",
        REGISTRY,
        "_same_tokens(len(pair.target.vocabulary)",
        "_same_tokens(99",
        (f"{PADDED}[sd-1-3]",),
    ),
    Mutation("slem: half a point mass", VERIFIER, "float()[:, None])", "float()[:, None] / 2)", (law("slem"),)),
    Mutation("slem: the next token's mass", VERIFIER, "scatter_(1, tokens", "scatter_(1, (tokens + 1)", (law("slem"),)),
    Mutation("shortened: the last ψ", PROTOCOL, "self.psi[:count]", "self.psi[-count:]", (f"{SHORTENED}[slrs]",)),
    Mutation(
        "slrs: one of several", SLRS, "return by_token.index_select(0, self.target_ids)", "return weights", (CHECKS,)
    ),
    Mutation(
        "slrs: drafted by any", SLRS, "return (weights * alike).argmax(0, keepdim=True)", "return column", (CHECKS,)
    ),
    Mutation("slrs: first of several", PROJECTION, "scatter_add_(", "scatter_(", (law("slrs"),)),
    Mutation("slrs: other ψ told", SLRS, "torch.stack(weights)", "torch.stack(weights).sqrt()", (law("slrs"),)),
    Mutation(
        "slrs: those that end, too", SLRS, "bisect_right(self.segments, ", "bisect_left(self.segments, ", (SEGMENTS,)
    ),
    Mutation("slrs: not renormalised", SLRS, " / going_on.sum()", "", (SEGMENTS,)),
    Mutation("slrs: agreeing in one only", SLRS, "segment[:place]", "segment[:1]", (SEGMENTS,)),
    Mutation(
        "slrs: ψ of other places",
        SLRS,
        "in zip(firsts, weights",
        "in zip(firsts.flip(0), weights",
        (law("slrs"),),
    ),
    Mutation("lookup: a place late", LOOKUP, AFTER, AFTER.replace("place", "(place + 1)"), (COPIES,)),
    Mutation("lookup: short matches", LOOKUP, "SHORTEST_MATCH = 2", "SHORTEST_MATCH = 1", (COPIES,)),
    Mutation("lookup: no clones", INDEX, "_longest[before] + 1:", "_longest[before] + 1 or True:", (COPIES,)),
]


def copy_package(folder: Path) -> None:
    """What the tests of the mutations need, without the embedded models' weights."""
    for name in ("hsd_cli", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def pytest_status(folder: Path, tests: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode


def outcome(mutation: Mutation) -> str:
    """``killed``, ``survived``, or why neither can be said."""
    if not mutation.applies():
        return "does not apply"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_package(folder)
        source = folder / "hsd_cli" / mutation.file
        source.write_text(source.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        status = pytest_status(folder, mutation.tests)
    return {PYTEST_PASSED: "survived", PYTEST_FAILED: "killed"}.get(status, f"pytest ended with {status}")


def sound_package_passes() -> bool:
    """Whether the same tests pass where nothing is broken: a kill means nothing otherwise."""
    with tempfile.TemporaryDirectory() as name:
        copy_package(Path(name))
        tests = sorted({test for mutation in MUTATIONS for test in mutation.tests})
        return pytest_status(Path(name), tests) == PYTEST_PASSED


def main() -> int:
    if not sound_package_passes():
        print("the tests fail without any mutation", file=sys.stderr)
        return 1
    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutation, result in zip(MUTATIONS, pool.map(outcome, MUTATIONS), strict=True):
            outcomes.append(result)
            print(f"{mutation.file:26} {mutation.name:30} {result}", flush=True)
    print(f"{outcomes.count('killed')} of {len(outcomes)} killed")
    return int(set(outcomes) != {"killed"})


if __name__ == "__main__":
    sys.exit(main())
