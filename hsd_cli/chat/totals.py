"""What all answers of a chat took together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hsd_cli.ui.run_report import RunReport


def totals(reports: Sequence[RunReport]) -> list[tuple[str, str]]:
    """Names and figures; none without reports."""
    if not reports:
        return []
    tokens = sum(len(report.token_ids) for report in reports)
    seconds = sum(report.seconds["total"] for report in reports)
    decoding = seconds - sum(report.seconds["prefill"] for report in reports)
    prompt = sum(report.prompt_tokens for report in reports)
    cached = sum(report.cached_prompt_tokens for report in reports)
    drafted = sum(report.drafted for report in reports)
    accepted = sum(report.accepted for report in reports)
    passes = sum(report.iterations for report in reports)
    mixture: Counter[str] = Counter()
    for report in reports:
        mixture.update(report.iterations_by_algorithm)
    rows = [
        ("answers", f"{len(reports)}"),
        ("written", f"{tokens} tokens in {seconds:.2f} s, {tokens / decoding:.1f} tokens/s"),
        ("read", f"{prompt - cached} tokens, and {cached} kept from the turns before"),
        ("passes", ", ".join(f"{name} {count / passes:.0%}" for name, count in mixture.most_common())),
        ("per pass", f"{tokens / passes:.2f} tokens"),
    ]
    if drafted:
        rows.append(("accepted", f"{accepted} of {drafted} drafted ({accepted / drafted:.0%})"))
    return rows
