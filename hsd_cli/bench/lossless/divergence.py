"""Where two texts part: did the number format's rounding decide between two tokens, or is something wrong?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsd_cli.bench.lossless.pair import Pass
from hsd_cli.runtime.model import LanguageModel
from hsd_cli.ui.verify_report import Scores

# How far rounding alone moves a logit when the same text is read in passes of another width, in units of eps times the
# largest logit. Measured: in half precision up to 2 (4 trained layers) and 6 (32 layers of random weights), in float32,
# whose sums have no wider accumulator, up to 10 and 96. Errors grow like the square root of the number of roundings
# (Higham and Mary 2019). With a margin, for both of two logits:
HALF_ROUNDINGS = 16
FLOAT_ROUNDINGS = 256


def logits_at(
    target: LanguageModel, prompt: Sequence[int], text: Sequence[int], passes: Sequence[Pass], place: int
) -> torch.Tensor:
    """The logits (``[V]``) that ``text[place]`` was chosen from: a new ``target`` reads as it was read then."""
    ids = [*prompt, *text]
    if len(prompt) > 1:
        target.prefill(prompt[:-1])
    done = 0
    for each in passes:
        fed = ids[target.length : target.length + each.committed]
        # Which tokens were rejected is not known: the width matters to rounding, what comes later does not.
        fed += fed[-1:] * (each.width - len(fed))
        logits = target.run(torch.tensor(fed, device=target.device))
        if place < done + each.committed:
            return logits[place - done]
        done += each.committed
        target.rollback(len(prompt) + done - 1)
    raise IndexError(f"place {place} of a text of {done} tokens")


def compare_scores(
    one_by_one: torch.Tensor, together: torch.Tensor, noise: torch.Tensor, tokens: tuple[int, int], dtype: torch.dtype
) -> Scores:
    """``tokens`` after two ways of reading: warped logits ``[V]`` each, and the ``noise`` (``[V]``) added to both.

    The rounding is measured: as far as the two ways move any two logits apart. It is not believed beyond what
    ``dtype`` explains, for then the passes themselves are wrong.
    """
    shift = (one_by_one - together).abs()
    shift = shift[shift.isfinite()].max()
    largest = one_by_one[one_by_one.isfinite()].abs().max()
    explained = HALF_ROUNDINGS * torch.finfo(dtype).eps + FLOAT_ROUNDINGS * torch.finfo(torch.float32).eps
    first, second = (
        (float(logits[tokens[0]] + noise[tokens[0]]), float(logits[tokens[1]] + noise[tokens[1]]))
        for logits in (one_by_one.double(), together.double())
    )
    return Scores(
        one_by_one=first,
        together=second,
        gap=max(abs(first[0] - first[1]), abs(second[0] - second[1])),
        rounding=float(torch.minimum(2 * shift, explained * largest)),
    )


def is_tie(scores: Scores) -> bool:
    """Whether rounding explains that another token was chosen."""
    return scores.gap <= scores.rounding
