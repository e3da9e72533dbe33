"""How a checkpoint's authors want its texts to be drawn, as its generation_config.json has it."""

from __future__ import annotations

from transformers import GenerationConfig

from hsd_cli.decoding.settings import SAMPLING, SamplingSettings

# Further ways to change which token comes next that people's checkpoints make use of.
FOREIGN = (
    "num_beams", "typical_p", "min_length", "min_new_tokens", "no_repeat_ngram_size", "bad_words_ids",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale",
)  # fmt: skip


def recommended_sampling(config: GenerationConfig) -> dict[str, float]:
    """What ``generate`` would do that is not done unless it is asked for, by the names of ``SamplingSettings``."""
    named = {name: getattr(config, name, None) for name in SAMPLING if config.do_sample or name == "repetition_penalty"}
    if config.do_sample and named["temperature"] is None:
        named["temperature"] = 1.0
    plain = SamplingSettings()
    # The file may hold anything, and what comes of it is to be typed by people.
    return {
        name: value for name, value in named.items() if isinstance(value, int | float) and value != getattr(plain, name)
    }


def foreign_settings(config: GenerationConfig) -> list[str]:
    """The names of those that `hsd` has nothing for."""
    return [name for name in FOREIGN if getattr(config, name, None) not in (None, 0, 1, [], {})]
