"""The report of `hsd verify` for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsd_cli.ui.terminal import escape
from hsd_cli.ui.verify_report import ChiSquare, Comparison, Difference, LawTest, PromptCheck, VerifyReport

PROMPT_WIDTH = 30


def print_verification(report: VerifyReport) -> None:
    """A table per kind of check, the differences one by one, and the verdict."""
    console = Console(highlight=False)
    drafter = f" with {report.drafter}" if report.drafter else ""
    drafts = f"lookahead {report.lookahead}{', in parallel' if report.parallel else ''}"
    _line(console, f"{report.target} ({report.dtype}, {report.device}){drafter}, {drafts}")
    _line(console, _prompt(report.prompt), "bold red" if report.prompt.defects else "")
    for algorithm, reason in report.unfit.items():
        _line(console, f"{algorithm} does not fit: {reason}")
    _line(console, f"\nToken for token against plain decoding, {len(report.prompts)} prompts", "bold")
    console.print(_comparisons(report))
    for comparison in report.comparisons:
        for difference in comparison.differences:
            _print_difference(console, comparison, difference)
    if report.laws:
        _print_laws(console, report)
    _line(console, "\n" + _verdict(report), "bold red" if report.defects else "bold green")


def _prompt(found: PromptCheck) -> str:
    ids = {None: "no tokenizer.json to compare with", 0: "ids as tokenizer.json has them"}.get(
        found.other_ids, f"{found.other_ids} with other ids than tokenizer.json has"
    )
    text = f"{found.not_spelled} not given back by their ids" if found.not_spelled else "given back by their ids"
    rows = f"{found.without_row} with ids past the embedding's" if found.without_row else "no id past the embedding's"
    return f"prompt: {found.texts} texts, {ids}, {text}, {rows} {found.rows:,} rows"


def _line(console: Console, text: str, style: str = "") -> None:
    # Text takes no markup: what a model is called must not style anything.
    console.print(Text(text, style), soft_wrap=True)


def _comparisons(report: VerifyReport) -> Table:
    coupled = f"coupled (temperature {report.temperature:g}, seed {report.seed})"
    table = Table("algorithm", "decoding", "equal tokens", "accepted", "", box=None, padding=(0, 2, 0, 0))
    for found in report.comparisons:
        verdicts = [difference.verdict for difference in found.differences]
        table.add_row(
            found.algorithm,
            "greedy" if found.decoding == "greedy" else coupled,
            f"{found.tokens:,}",
            _accepted(found),
            " · ".join(_count(verdicts.count(kind), kind) for kind in ("defect", "tie") if kind in verdicts) or "equal",
        )
    return table


def _accepted(found: Comparison | LawTest) -> str:
    return f"{found.accepted:,} of {found.drafted:,}" if found.drafted else "nothing drafted"


def _print_difference(console: Console, comparison: Comparison, difference: Difference) -> None:
    expected, token = difference.tokens
    prompt = escape(difference.prompt[:PROMPT_WIDTH].encode())
    _line(
        console,
        f"\n{difference.verdict}: {comparison.algorithm}, {comparison.decoding}, token {difference.place + 1} "
        f"after “{prompt}” is “{token}”, plain decoding has “{expected}”",
    )
    scores = difference.scores
    if scores is None:
        return
    table = Table("", f"“{expected}”", f"“{token}”", "gap", box=None, padding=(0, 2, 0, 2))
    for name, pair in (("one token per pass", scores.one_by_one), ("as verified", scores.together)):
        table.add_row(name, *(f"{score:.6g}" for score in pair), f"{abs(pair[0] - pair[1]):.3g}")
    console.print(table)
    relation = "within" if difference.verdict == "tie" else "above"
    _line(console, f"  a gap of {scores.gap:.3g} is {relation} the rounding of {scores.rounding:.3g}")


def _print_laws(console: Console, report: VerifyReport) -> None:
    _line(console, "\nSampling with rejection: the first two tokens against as many samples of plain decoding,", "bold")
    _line(console, "and the first against the target's exact distribution", "bold")
    console.print(_laws(report))
    _line(console, _power(report), "dim")


def _laws(report: VerifyReport) -> Table:
    table = Table("algorithm", "texts", "accepted", box=None, padding=(0, 2, 0, 0))
    for tested in ("both", "first"):
        table.add_column(f"{tested}\nχ² (df)", no_wrap=True)
        table.add_column("\np-value", no_wrap=True)
    table.add_column()
    for law in report.laws:
        cells = [cell for test in (law.two_sample, law.first_token) for cell in _test(test)]
        table.add_row(law.algorithm, f"{law.samples:,}", _accepted(law), *cells, law.verdict)
    return table


def _test(test: ChiSquare) -> tuple[str, str]:
    return f"{test.statistic:.1f} ({test.freedom})", f"{test.p_value:.3g}"


def _power(report: VerifyReport) -> str:
    first = max(law.first_token.detectable for law in report.laws)
    both = max(law.two_sample.detectable for law in report.laws)
    return (
        f"A p-value below {report.significance:.1g} is a defect. Found every other time: a total variation distance\n"
        f"of {both:.2f} between two samples, of {first:.2f} from the exact law; --samples lowers them."
    )


def _verdict(report: VerifyReport) -> str:
    if report.defects:
        return f"{_count(report.defects, 'defect')}: the text is not the target's own."
    if report.ties:
        return (
            f"No defect found; {_count(report.ties, 'tie')}, where rounding chose between two tokens. "
            "What follows a tie is another text and was not compared."
        )
    if untested := [law.algorithm for law in report.laws if law.verdict == "untested"]:
        return f"No defect found, but the sampled law of {', '.join(untested)} was not tested; use more --samples."
    return "No defect found."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
