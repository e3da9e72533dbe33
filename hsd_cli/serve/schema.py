"""What clients may ask for: OpenAI's parameters, as far as they have a meaning here, and those of ``hsd generate``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from json import dumps
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hsd_cli.batch.records import derived_seed
from hsd_cli.decoding.settings import SAMPLING, SamplingSettings
from hsd_cli.errors import UsageError
from hsd_cli.vocab.tokenizer import Prompt, continues_reply

DEFAULT_MAX_TOKENS = 16  # of a completion, as with OpenAI
MOST_TEXTS = 128  # of a request: OpenAI's limit of `n`
MOST_LOGPROBS = 1 << 18  # of a request; an answer with as many takes 100 MB while it is made
# What would make another text of it, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "stop_token_ids": ([],),
}
# What is about accounts, caches and bills, or allows for more than is asked.
IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prediction", "parallel_tool_calls", "request_id", "cache_prompt",
}  # fmt: skip
# What comes with a reply, and so back with it, and is no part of the conversation.
BESIDE_THE_TEXT = {"annotations", "cache_control", "name", "reasoning", "reasoning_content", "reasoning_details"}
# What a message may have in the place of text; there is no harm in one that is empty.
NO_TEXT = {"audio", "function_call", "refusal", "tool_calls"}

# Lists fail fast: a body has room for a million bad members, and each would be an error to write down.
PromptText = Annotated[str, Field(min_length=1)]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]


class Strict(BaseModel):
    """An object without unknown members, of which the first is one error and not each. One that is ``null`` says
    nothing, and neither do those that are ``ignored``, whatever they are."""

    ignored: ClassVar[frozenset[str]] = frozenset()
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        said = {key: value for key, value in given.items() if value is not None and key not in cls.ignored}
        for further in [key for key in said if key not in cls.model_fields][1:]:
            del said[further]
        return said


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = False  # there is none to include


class Asked(Strict):
    """What both endpoints take."""

    model: Annotated[str, Field(max_length=4096)]
    n: Annotated[int, Field(ge=1, le=MOST_TEXTS)] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] = 0  # -1, as others spell it, is off as well
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=1e-5, le=1e5)] = 1.0
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None  # -1: as if there were none
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @model_validator(mode="before")
    @classmethod
    def _understood(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            if name in cls.model_fields or name in IGNORED or value is None:
                continue
            if name not in UNSUPPORTED:
                near = get_close_matches(name, cls.model_fields, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise PydanticCustomError(
                    "unknown", "unknown parameter {name}{hint}", {"name": ascii(name[:100])[1:-1], "hint": hint}
                )
            neutral = UNSUPPORTED[name]
            if value not in neutral:
                other = f" or give {dumps(neutral[0])}" if neutral else ""
                raise PydanticCustomError(
                    "unsupported", "{name} is not supported; leave it out{other}", {"name": name, "other": other}
                )
        return {name: value for name, value in given.items() if name in cls.model_fields}

    @property
    @abstractmethod
    def prompts(self) -> Sequence[Prompt]:
        """Each of them gets ``n`` texts."""

    @property
    @abstractmethod
    def likeliest(self) -> int | None:
        """Of how many tokens log-probabilities are told, beside those of the one that is written; ``None``: of none."""

    @abstractmethod
    def most_tokens(self, limit: int) -> int:
        """How many may be written; ``limit`` is the server's."""

    def seed_of(self, choice: int) -> int | None:
        """The first text of a prompt is the one that there is with ``n`` = 1."""
        if self.seed is None or self.seed == -1:
            return None
        return self.seed if choice == 0 else derived_seed(self.seed, choice)

    @property
    def template_kwargs(self) -> dict[str, Any]:
        """What the chat template is told."""
        return {}

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def sampling(self) -> SamplingSettings:
        """Raises ``UsageError``."""
        try:
            return SamplingSettings(**{name: getattr(self, name) for name in SAMPLING} | {"top_k": max(0, self.top_k)})
        except UsageError as error:
            raise UsageError(str(error).removeprefix("--")) from None


class CompletionRequest(Asked):
    """``POST /v1/completions``."""

    prompt: PromptText | Annotated[list[PromptText], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(part, int | list) for part in value):
            raise PydanticCustomError("unsupported", "token ids are not supported; give text")
        return value

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def likeliest(self) -> int | None:
        return self.logprobs

    def most_tokens(self, limit: int) -> int:
        """Where nothing is said, OpenAI's default."""
        return min(DEFAULT_MAX_TOKENS, limit) if self.max_tokens is None else self.max_tokens


class TextPart(Strict):
    ignored = frozenset({"annotations", "cache_control"})

    type: Literal["text"]
    text: str


class Message(Strict):
    """Replies may be sent back with all that came with them; templates see the role and the content."""

    ignored = frozenset(BESIDE_THE_TEXT | NO_TEXT)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        for name in sorted(NO_TEXT) if isinstance(given, dict) else ():
            if given.get(name):
                raise PydanticCustomError("unsupported", "{name} is not supported; leave it out", {"name": name})
        return given

    @property
    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Asked):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    # What a last message decides by itself: a reply that is begun is continued, and any other is answered.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @model_validator(mode="after")
    def _with_those_of_what_is_written(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("incomplete", "{name} needs logprobs: true", {"name": "top_logprobs"})
        return self

    @model_validator(mode="after")
    def _going_on_as_the_last_message_says(self) -> ChatRequest:
        continues = continues_reply(self.prompts[0])
        for name, right in (("continue_final_message", continues), ("add_generation_prompt", not continues)):
            if getattr(self, name) not in (None, right):
                last = "the assistant's, and is continued" if continues else "to be answered"
                raise PydanticCustomError(
                    "unsupported",
                    "the last message is {last}; leave {name} out or give {right}",
                    {"last": last, "name": name, "right": dumps(right)},
                )
        return self

    @property
    def template_kwargs(self) -> dict[str, Any]:
        return self.chat_template_kwargs

    @property
    def prompts(self) -> list[list[dict[str, str]]]:
        return [[message.plain for message in self.messages]]

    @property
    def likeliest(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def most_tokens(self, limit: int) -> int:
        """Where nothing is said, all that is allowed."""
        return self.max_completion_tokens or self.max_tokens or limit
