"""Token for token: an algorithm's texts against plain decoding's, where they must be the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch

from hsd_cli.bench.lossless.divergence import compare_scores, is_tie, logits_at
from hsd_cli.bench.lossless.pair import PairUnderTest, Text
from hsd_cli.decoding.noise import exponential_noise
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.ui.verify_report import Comparison, Decoding, Difference, Scores


class TokenCheck:
    """One way of decoding, greedy or `coupled` with the plan's seed. Plain decoding writes its texts once."""

    def __init__(self, pair: PairUnderTest, decoding: Decoding) -> None:
        self._pair = pair
        self._decoding = decoding
        self._settings = SamplingSettings(0.0 if decoding == "greedy" else pair.plan.temperature)
        self._plain = self._texts("ar")

    def _texts(self, algorithm: str) -> list[Text]:
        plan = self._pair.plan
        return [
            self._pair.write(prompt, algorithm, plan.max_new_tokens, self._settings, "coupled", plan.seed)
            for prompt in plan.prompts
        ]

    def compare(self, algorithm: str) -> Comparison:
        """What follows a difference cannot be compared: it counts the tokens before."""
        texts = self._texts(algorithm)
        equal, differences = 0, []
        for prompt, plain, text in zip(self._pair.plan.prompts, self._plain, texts, strict=True):
            place = _first_difference(plain.ids, text.ids)
            if place is None:
                equal += len(text.ids)
            else:
                equal += place
                differences.append(self._difference(prompt, plain, text, place))
        return Comparison(
            algorithm,
            self._decoding,
            equal,
            sum(text.drafted for text in texts),
            sum(text.accepted for text in texts),
            tuple(differences),
        )

    def _difference(self, prompt: str, plain: Text, text: Text, place: int) -> Difference:
        names = (self._token(plain, place), self._token(text, place))
        if place == min(len(plain.ids), len(text.ids)):
            return Difference(prompt, place, names, None, "defect")
        scores = self._scores(prompt, plain, text, place)
        return Difference(prompt, place, names, scores, "tie" if is_tie(scores) else "defect")

    def _token(self, text: Text, place: int) -> str:
        return self._pair.token_name(text.ids[place]) if place < len(text.ids) else "end of text"

    def _scores(self, prompt: str, plain: Text, text: Text, place: int) -> Scores:
        """The target reads both texts again, each as it was read when it was written, up to where they part."""
        ids = self._pair.prompt_ids(prompt)
        one_by_one, together = (
            self._pair.warped(logits_at(self._pair.target(), ids, each.ids, each.passes, place), self._settings)
            for each in (plain, text)
        )
        noise = one_by_one.new_zeros(len(one_by_one))
        if self._decoding == "coupled":
            position = torch.tensor([len(ids) + place], device=noise.device)
            tokens = torch.arange(len(noise), device=noise.device)
            noise = -exponential_noise(self._pair.plan.seed, position, tokens)[0].log()
        rivals = (plain.ids[place], text.ids[place])
        return compare_scores(one_by_one.cpu(), together.cpu(), noise.cpu(), rivals, self._pair.dtype)


def _first_difference(first: Sequence[int], second: Sequence[int]) -> int | None:
    return next((place for place, (a, b) in enumerate(zip_longest(first, second)) if a != b), None)
