"""A model's tokenizer as transformers loads it: prompts in the model's own form, and its vocabulary."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.gguf_tokenizer import UNKNOWN_WAY
from hsd_cli.models.locate import model_source
from hsd_cli.models.snapshots import has_tokenizer
from hsd_cli.vocab.loading import description_of, load_tokenizer
from hsd_cli.vocab.marks import Marks
from hsd_cli.vocab.token_bytes import flatten
from hsd_cli.vocab.vocabulary import NoRowError, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hsd_cli.runtime.loading import LoadedModel


A_WORD = "a"
Message = Mapping[str, str]  # "role" (system, user, assistant) and "content", as chat templates take them
Prompt = str | Sequence[Message]  # a text, or a whole conversation that waits for a reply


class TemplateRefusalError(UsageError):
    """A chat template does not take a conversation."""


def continues_reply(prompt: Prompt) -> bool:
    """Whether the model goes on with a reply that is begun: the last message is the assistant's, and not empty."""
    return not isinstance(prompt, str) and prompt[-1]["role"] == "assistant" and bool(prompt[-1]["content"].strip())


class Rendered(NamedTuple):
    """A text, and its ids in one model's vocabulary."""

    text: str
    ids: list[int]


class ModelTokenizer:
    """Renders prompts for one model. ``eos_ids`` are the ids at which this model's texts end, ``rows`` is how many ids
    it has embeddings for, if that is known."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, name: str, eos_ids: Sequence[int] = (), rows: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._rows = rows
        own = tokenizer.eos_token_id
        # Of several, the tokenizer's own comes first: it is the one that ends a reply.
        self._eos_ids = tuple(sorted(eos_ids, key=lambda eos: eos != own)) or (() if own is None else (own,))
        # Texts of the same prompt mostly begin one after another, and a long one takes a while.
        self._ids = lru_cache(maxsize=1)(self._read)

    @classmethod
    def load(
        cls, name: str, eos_ids: Sequence[int] = (), trust_remote_code: bool = False, rows: int | None = None
    ) -> ModelTokenizer:
        """Raises ``HsdError`` where there is no tokenizer, or none whose vocabulary can be read."""
        return cls(pretrained_tokenizer(name, trust_remote_code), name, eos_ids, rows)

    @classmethod
    def of(cls, model: LoadedModel) -> ModelTokenizer:
        """The one that belongs to ``model``. Raises ``HsdError`` as ``load`` does."""
        return cls.load(model.name, model.eos_ids, model.trust_remote_code, model.rows)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Raises ``HsdError`` for tokenizers that have no vocabulary of their own (pure Python ones)."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise HsdError(f"the tokenizer of {self._name!r} has no tokenizer.json and cannot be converted to one")
        vocabulary = Vocabulary(description_of(self._tokenizer), self._eos_ids, self._rows)
        if not any(vocabulary.token_bytes):
            raise HsdError(f"the tokenizer of {self._name!r} has an empty vocabulary; download the model again")
        return vocabulary

    @cached_property
    def notices(self) -> list[str]:
        """What a user has to know of how it reads and writes text, a sentence each. Raises as ``vocabulary``."""
        sentences = []
        for second, first in islice(self.vocabulary.second_names.items(), 1):
            sentences.append(f"gives one id the names {first!r} and {second!r}: hsd writes the first")
        if tail := self._put_behind:
            sentences.append(f"puts {tail!r} behind raw prompts, as its tokenizer.json says: a text may be over there")
        if way := self._tokenizer.init_kwargs.get(UNKNOWN_WAY):
            sentences.append(
                f"cuts words in a way that hsd does not know (tokenizer.ggml.pre is {way!r}): its prompts may be cut "
                "otherwise than in training"
            )
        return [f"the tokenizer of {self._name!r} {sentence}" for sentence in sentences]

    @property
    def _put_behind(self) -> str:
        """The special tokens that the post-processor puts behind a raw text."""
        encoding = self._tokenizer.backend_tokenizer.encode(A_WORD)
        written = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        return "".join(encoding.tokens[written[-1] + 1 :]) if written else ""

    @property
    def has_chat_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def uses_chat(self, prompt: Prompt, system: str | None, chat: bool | None) -> bool:
        """Whether a request is rendered as a chat; ``None`` leaves it to the template. Raises ``UsageError``."""
        if not isinstance(prompt, str) and not self.has_chat_template:
            raise UsageError(f"{self._name!r} has no chat template for messages; give the text itself as a prompt")
        if chat and not self.has_chat_template:
            raise UsageError(f"{self._name!r} has no chat template; leave --chat out")
        uses = self.has_chat_template if chat is None else chat
        if system is not None and not uses:
            raise UsageError("--system needs a chat template; put the instructions into the prompt instead")
        return uses

    def token_id(self, given: str) -> int:
        """Of a token that is given by its id or by its name. Raises ``UsageError`` that names the nearest."""
        ids = self._tokenizer.get_vocab()
        if given.isascii() and given.isdecimal():
            if int(given) in ids.values():
                return int(given)
            raise UsageError(f"{self._name!r} has no token {given}; the last one is {max(ids.values())}")
        if given in ids:
            return ids[given]
        near = get_close_matches(given, self._added_tokens, 3, 0.3) or get_close_matches(given, ids, 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "look for it in its tokenizer.json"
        raise UsageError(f"{self._name!r} has no token {given!r}; {hint}")

    @cached_property
    def adds_dummy_space(self) -> bool:
        """Whether decoding drops one leading space, as SentencePiece tokenizers have it."""
        decoder = json.loads(self._tokenizer.backend_tokenizer.to_str())["decoder"]
        return any(step["type"] in ("Strip", "Metaspace") for step in flatten(decoder, "decoders"))

    def render(
        self,
        prompt: Prompt,
        system: str | None = None,
        chat: bool = False,
        written: Rendered | None = None,
        template_kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Rendered:
        """The prompt with its ids, at least one: raw text with the tokenizer's BOS, or a chat ready for the reply.

        A reply that is begun stays open, see ``continues_reply``. ``template_kwargs`` are variables of the template.

        A model without a chat template gets the conversation as plain paragraphs. In messages the names of special
        tokens are plain text; in raw text they are the tokens. Where the text goes on from ``written`` with an added
        token (the usual mark between turns), the ids of ``written`` stay as they are: a model may have written them in
        other tokens than the tokenizer would.

        Raises ``TemplateRefusalError`` for what the template does not take, and ``NoRowError``.
        """
        if not chat and isinstance(prompt, str):
            return self._rendered(prompt, Marks((), ()), add_special_tokens=True)
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        marks = Marks(self._special_tokens, [message["content"] for message in messages])
        if messages[-1]["role"] == "assistant" and not continues_reply(messages):
            del messages[-1]  # a reply without a word: it has yet to begin
        if not messages:
            raise UsageError("the conversation has no message with text; add one")
        messages = [{**message, "content": marks.put_into(message["content"])} for message in messages]
        if not self.has_chat_template:
            paragraphs = "".join(f"{message['content']}\n\n" for message in messages)
            if continues_reply(messages):
                paragraphs = paragraphs.removesuffix("\n\n")
            return self._rendered(paragraphs, marks, add_special_tokens=True)
        marked = self._chat_text(messages, template_kwargs)
        text = marks.restored(marked)
        if written is not None and text.startswith(written.text):
            rest = marks.after(marked, len(written.text))
            if rest is not None and rest.startswith(self._added_tokens):
                return Rendered(text, [*written.ids, *self._encode(rest, marks, add_special_tokens=False)])
        return self._rendered(marked, marks, add_special_tokens=False)

    def _rendered(self, marked: str, marks: Marks, add_special_tokens: bool) -> Rendered:
        ids = self._encode(marked, marks, add_special_tokens)
        # A model has to read something before it can write.
        start = [i for i in (self._tokenizer.bos_token_id, *self._eos_ids) if i is not None and self._has_row(i)][:1]
        return Rendered(marks.restored(marked), ids or start or [0])

    def _encode(self, marked: str, marks: Marks, add_special_tokens: bool) -> list[int]:
        beginning, *others = marks.split(marked)
        ids = list(self._ids(beginning, add_special_tokens))
        for plain, rest in zip(others[::2], others[1::2], strict=True):
            ids += self.vocabulary.encode(plain.encode())
            ids += self._tokenizer(rest, add_special_tokens=False)["input_ids"]
        # On a GPU such an id would end the process.
        if ids and self._rows is not None and not self._has_row(greatest := max(ids)):
            raise NoRowError(str(self._tokenizer.convert_ids_to_tokens(greatest)), greatest, self._rows)
        return ids

    def _has_row(self, index: int) -> bool:
        return self._rows is None or index < self._rows

    def _read(self, text: str, add_special_tokens: bool) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        return tuple(token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special)

    @cached_property
    def _added_tokens(self) -> tuple[str, ...]:
        return tuple(self._tokenizer.get_added_vocab())

    def _chat_text(self, messages: Sequence[Message], template_kwargs: Mapping[str, Any]) -> str:
        question = messages[-1]["content"].strip()
        text, refusal = "", None
        try:
            text = self._from_template([*map(dict, messages)], template_kwargs)
            if question in text:
                return text
        except TemplateRefusalError as error:
            refusal = error
        # Templates for images, too, may read a message in parts only, and make nothing of one that is a text.
        parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
        with suppress(TemplateRefusalError):
            in_parts = self._from_template(parts, template_kwargs)
            if question in in_parts:
                return in_parts
        if refusal is not None:
            raise refusal
        return text

    def _from_template(self, messages: list[dict[str, Any]], template_kwargs: Mapping[str, Any]) -> str:
        apply = self._tokenizer.apply_chat_template
        taken = template_kwargs.keys() & {*inspect.signature(apply).parameters, "messages"}
        if taken:
            raise UsageError(f"chat_template_kwargs cannot set {min(taken)!r}; leave it out")
        continues = messages[-1]["role"] == "assistant"
        try:
            text = apply(
                messages,
                add_generation_prompt=not continues,
                continue_final_message=continues,
                tokenize=False,
                **template_kwargs,
            )
        except Exception as error:  # templates are programs of the model's author, with errors of their own
            reason = str(error).partition("Final message to continue")[0]  # the library goes on with all of the chat
            raise TemplateRefusalError(
                f"the chat template of {self._name!r} refuses this conversation: {reason}"
            ) from error
        assert isinstance(text, str)
        return text


@lru_cache(maxsize=2)
def pretrained_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """For prompts as the checkpoint's files ask for them; see ``load_tokenizer``.

    Read once, though a target's is asked for before its weights and after. Raises ``HsdError``.
    """
    source = Path(model_source(name, trust_remote_code))
    try:
        return load_tokenizer(source, trust_remote_code)
    except Exception as error:  # the library raises whatever its converters stumble over
        if source.is_dir() and not has_tokenizer(source):
            raise HsdError(f"no tokenizer files in {name!r}; give a model's folder with its tokenizer.json") from error
        raise explain_failure(name, "tokenizer", error) from error
