"""The law of sampled texts: the first tokens under `rejection` against plain decoding's."""

from __future__ import annotations

from random import Random

import torch

from hsd_cli.bench.lossless.chi_square import (
    Evidence,
    Outcome,
    goodness_of_fit,
    homogeneity,
    one_sample_test,
    two_sample_test,
)
from hsd_cli.bench.lossless.pair import PairUnderTest, Text
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.ui.verify_report import LawTest

TESTED_TOKENS = 2  # of every sample. One more is written, since the last token is never drafted


class LawCheck:
    """Plain decoding is sampled once. Every text of either side has a seed of its own."""

    def __init__(self, pair: PairUnderTest, significance: float) -> None:
        self._pair = pair
        self._significance = significance
        self._seeds = Random(pair.plan.seed)
        self._settings = SamplingSettings(pair.plan.temperature)
        self._plain = [_beginnings(texts) for texts in self._samples("ar")]
        self._exact = [self._first_token(prompt) for prompt in pair.plan.prompts]

    def _samples(self, algorithm: str) -> list[list[Text]]:
        """Texts by prompt, equally many for each."""
        plan = self._pair.plan
        each = range(-(-plan.samples // len(plan.prompts)))
        return [[self._sample(prompt, algorithm) for _ in each] for prompt in plan.prompts]

    def _sample(self, prompt: str, algorithm: str) -> Text:
        seed = self._seeds.getrandbits(32)
        return self._pair.write(prompt, algorithm, TESTED_TOKENS + 1, self._settings, "rejection", seed)

    def _first_token(self, prompt: str) -> torch.Tensor:
        """The target's exact distribution after ``prompt``, float32 ``[V]``."""
        logits = self._pair.target().prefill(self._pair.prompt_ids(prompt))[0]
        return self._pair.warped(logits, self._settings).softmax(-1).cpu()

    def test(self, algorithm: str) -> LawTest:
        """Over all prompts: their statistics and degrees of freedom add up."""
        samples = self._samples(algorithm)
        two_sample, first_token = Evidence(), Evidence()
        for texts, plain, exact in zip(samples, self._plain, self._exact, strict=True):
            beginnings = _beginnings(texts)
            two_sample += homogeneity(plain, beginnings)
            first_token += goodness_of_fit([beginning[0] for beginning in beginnings], exact)
        texts = [text for of_prompt in samples for text in of_prompt]
        tests = (
            two_sample_test(two_sample, len(texts), self._significance),
            one_sample_test(first_token, len(texts), self._significance),
        )
        unlikely = any(test.p_value < self._significance for test in tests)
        return LawTest(
            algorithm,
            len(texts),
            sum(text.drafted for text in texts),
            sum(text.accepted for text in texts),
            *tests,
            "defect" if unlikely else "passed",
        )


def _beginnings(texts: list[Text]) -> list[Outcome]:
    return [text.ids[:TESTED_TOKENS] for text in texts]
