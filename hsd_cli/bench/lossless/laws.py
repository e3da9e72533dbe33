"""The law of sampled texts: the first tokens under `rejection` against plain decoding's."""

from __future__ import annotations

from random import Random

import torch

from hsd_cli.bench.lossless.chi_square import (
    Evidence,
    Outcome,
    goodness_of_fit,
    group_tokens,
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
        self._per_prompt = -(-pair.plan.samples // len(pair.plan.prompts))
        self._groups = [group_tokens(self._first_token(prompt), self._per_prompt) for prompt in pair.plan.prompts]
        self._plain = self._outcomes(self._samples("ar"))

    def _first_token(self, prompt: str) -> torch.Tensor:
        """The target's exact distribution after ``prompt``, float32 ``[V]``."""
        logits = self._pair.target().prefill(self._pair.prompt_ids(prompt))[0]
        return self._pair.warped(logits, self._settings).softmax(-1).cpu()

    def _samples(self, algorithm: str) -> list[list[Text]]:
        """Texts by prompt."""
        prompts = self._pair.plan.prompts
        return [[self._sample(prompt, algorithm) for _ in range(self._per_prompt)] for prompt in prompts]

    def _sample(self, prompt: str, algorithm: str) -> Text:
        seed = self._seeds.getrandbits(32)
        return self._pair.write(prompt, algorithm, TESTED_TOKENS + 1, self._settings, "rejection", seed)

    def _outcomes(self, samples: list[list[Text]]) -> list[list[Outcome]]:
        """What is tested of every text: the bin of the first token, then the tokens, from coarse to fine."""
        return [
            [(bins[text.ids[0]], *text.ids[:TESTED_TOKENS]) for text in texts]
            for texts, (bins, _) in zip(samples, self._groups, strict=True)
        ]

    def test(self, algorithm: str) -> LawTest:
        """Over all prompts: their statistics and degrees of freedom add up."""
        samples = self._samples(algorithm)
        two_sample, first_token = Evidence(), Evidence()
        for outcomes, plain, (_, exact) in zip(self._outcomes(samples), self._plain, self._groups, strict=True):
            two_sample += homogeneity(plain, outcomes)
            first_token += goodness_of_fit([outcome[0] for outcome in outcomes], exact)
        texts = [text for of_prompt in samples for text in of_prompt]
        tests = (
            two_sample_test(two_sample, len(texts), self._significance),
            one_sample_test(first_token, len(texts), self._significance),
        )
        unlikely = any(test.p_value < self._significance for test in tests)
        drafted = sum(text.drafted for text in texts)
        tested = drafted > 0 and any(test.freedom for test in tests)
        return LawTest(
            algorithm,
            len(texts),
            drafted,
            sum(text.accepted for text in texts),
            *tests,
            "defect" if unlikely else "passed" if tested else "untested",
        )
