"""All checks of a pair, in the order in which they tell most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hsd_cli.bench.lossless.laws import LawCheck
from hsd_cli.bench.lossless.pair import PairUnderTest, Plan
from hsd_cli.bench.lossless.prompt import check_prompts
from hsd_cli.bench.lossless.tokens import TokenCheck
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.engine import Engine
from hsd_cli.errors import UsageError
from hsd_cli.ui.verify_report import Comparison, Decoding, LawTest, VerifyReport

FALSE_ALARMS = 0.001  # the probability that a pair with nothing wrong fails any of the tests of its laws


def drafting_algorithms(names: Sequence[str]) -> tuple[str, ...]:
    """The algorithms called ``names``, or all that draft and `auto`. Raises ``UsageError`` for names of none."""
    known = (*(name for name in ALGORITHMS if name != "ar"), "auto")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no drafting algorithm {unknown[0]!r}; use one of: {', '.join(known)}")
    return tuple(dict.fromkeys(names)) or known


def verify(engine: Engine, plan: Plan, on_step: Callable[[str], None]) -> VerifyReport:
    """Every algorithm of ``plan`` that fits the pair; ``on_step`` hears what is checked next.

    Raises ``UsageError`` if none fits: nothing would have been checked.
    """
    pair = PairUnderTest(engine, plan)
    on_step("prompts")
    prompt = check_prompts(engine.target, plan.prompts)
    obstacles = {name: pair.obstacle(name) for name in plan.algorithms}
    unfit = {name: reason for name, reason in obstacles.items() if reason is not None}
    fitting = [name for name in plan.algorithms if name not in unfit]
    if not fitting:
        raise UsageError(f"there is nothing to verify: {'; '.join(unfit.values())}")
    sampled = [name for name in fitting if name != "auto"]  # two tokens are too few for it to choose anything
    significance = FALSE_ALARMS / (2 * max(1, len(sampled)))  # two tests of each; Bonferroni's correction
    comparisons = _comparisons(pair, fitting, on_step)
    laws = _laws(pair, sampled, significance, on_step) if sampled else ()
    differences = [difference for comparison in comparisons for difference in comparison.differences]
    return VerifyReport(
        target=engine.target.name,
        drafter=engine.drafter.name if engine.drafter else None,
        device=str(engine.target.model.device),
        dtype=str(pair.dtype).removeprefix("torch."),
        temperature=plan.temperature,
        lookahead=plan.lookahead,
        seed=plan.seed,
        parallel=plan.parallel,
        prompts=plan.prompts,
        prompt=prompt,
        unfit=unfit,
        comparisons=comparisons,
        laws=laws,
        significance=significance,
        ties=sum(difference.verdict == "tie" for difference in differences),
        defects=sum(difference.verdict == "defect" for difference in differences)
        + sum(law.verdict == "defect" for law in laws)
        + prompt.defects,
    )


def _comparisons(
    pair: PairUnderTest, algorithms: Sequence[str], on_step: Callable[[str], None]
) -> tuple[Comparison, ...]:
    decodings: tuple[Decoding, ...] = ("greedy", "coupled")
    found = []
    for decoding in decodings:
        on_step(f"{decoding}: plain decoding")
        check = TokenCheck(pair, decoding)
        for algorithm in algorithms:
            on_step(f"{decoding}: {algorithm}")
            found.append(check.compare(algorithm))
    return tuple(found)


def _laws(
    pair: PairUnderTest, algorithms: Sequence[str], significance: float, on_step: Callable[[str], None]
) -> tuple[LawTest, ...]:
    on_step("rejection: plain decoding")
    check = LawCheck(pair, significance)
    found = []
    for algorithm in algorithms:
        on_step(f"rejection: {algorithm}")
        found.append(check.test(algorithm))
    return tuple(found)
