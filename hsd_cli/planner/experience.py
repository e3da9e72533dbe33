"""What drafting has taught so far: of one text, or of many that are written side by side and one after another."""

from __future__ import annotations

from collections import defaultdict

from hsd_cli.planner.arms import CopyArm, ModelArm
from hsd_cli.planner.costs import Costs
from hsd_cli.planner.pace import Calibration

FIRST_PAUSE = 24  # iterations without the drafter until it is tried again
FIRST_PLAIN = 2  # passes: one alone may have warmed something up
# Matches of at least so many tokens are arms of their own, with a guess of how often a copied token is accepted.
MATCHES = {12: 0.9, 6: 0.8, 3: 0.6, 2: 0.4}


class Experience:
    """Costs, acceptance, and where the bandit stands, for one pair and one way of sampling.

    ``texts``: how many share it at a time. Its counts are of one text's iterations.
    """

    def __init__(self, costs: Costs, texts: int = 1) -> None:
        self.costs = costs
        self.texts = texts
        self.calibrations: defaultdict[str, Calibration] = defaultdict(Calibration)
        self.arms: dict[str, ModelArm] = {}
        self.copies = {match: CopyArm(guess) for match, guess in MATCHES.items()}
        self.plain_ahead = FIRST_PLAIN * texts
        self.unproved = 0.0
        self.undrafted = 0.0
        self.pause = FIRST_PAUSE
