"""What a cross-encoder's own prompt or chat template writes around a query and a passage.

Decoders are asked in words: the instruction, the query and the passage stand in a conversation that the model's chat
template renders, as sentence-transformers has it. The words around the two texts are the same for every pair, so they
are taken from the template once and stored with the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelFileError
from models.store.durable_files import canonical_json

if TYPE_CHECKING:
    from sentence_transformers.cross_encoder import CrossEncoder

FILE = "pair_template.json"
"""In a model's folder."""

_QUERY, _PASSAGE = "\ue000", "\ue001"
"""Characters of no text, to find the two in what a template renders."""


@dataclass(frozen=True)
class PairTemplate:
    """The words before the query, between query and passage, and behind the passage.

    With `chat` they are all that is read; without, the tokenizer adds its own special tokens, and only `before` has
    words. `strips` says that white space around the texts is taken away.
    """

    before: str = ""
    between: str = ""
    after: str = ""
    chat: bool = False
    strips: bool = False

    @classmethod
    def of(cls, model: CrossEncoder) -> PairTemplate:
        """The template of a model, with the prompt that it has by default.

        Raises `ModelFileError` where its chat template does not write query and passage once each, in this order.
        """
        prompt = model.prompts.get(model.default_prompt_name or "") or ""
        reader: Any = model[0]
        if "message" not in reader.modality_config:
            return cls(before=prompt)
        for around in (" ", ""):
            query, passage = (f"{around}{text}{around}" for text in (_QUERY, _PASSAGE))
            rendered = _render(reader, query, passage, prompt)
            before, found, rest = rendered.partition(query)
            between, also_found, after = rest.partition(passage)
            if found and also_found:
                break
        else:
            raise _not_a_template(model, "it does not write the query and then the passage")
        if any(text in part for text in (_QUERY, _PASSAGE) for part in (before, between, after)):
            raise _not_a_template(model, "it writes the query or the passage twice")
        return cls(before, between, after, chat=True, strips=not around)

    @classmethod
    def load(cls, folder: Path) -> PairTemplate | None:
        """What `save` wrote, None where there is nothing. Raises `ModelFileError` for what is no such file."""
        file = folder / FILE
        if not file.exists():
            return None
        try:
            return cls(**json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{file} does not say how pairs are written", "Train the model again.") from error

    def save(self, folder: Path) -> None:
        """Write it to a model's folder, unless it is empty."""
        if self != PairTemplate():
            (folder / FILE).write_bytes(canonical_json(asdict(self)))

    def write(self, query: str, passage: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
        """The whole text, and which characters of it are the query and the passage."""
        if self.strips:
            query, passage = query.strip(), passage.strip()
        start = len(self.before)
        second = start + len(query) + len(self.between)
        text = f"{self.before}{query}{self.between}{passage}{self.after}"
        return text, (start, start + len(query)), (second, second + len(passage))


def _render(reader: Any, query: str, passage: str, prompt: str) -> str:
    messages = [reader.input_formatter.pair_to_messages((query, passage))]
    if prompt:
        messages = reader.input_formatter.prepend_prompt_to_messages(messages, prompt)
    try:
        arguments = reader.processing_kwargs.get("chat_template", {})
        return str(reader.processor.apply_chat_template(messages[0], tokenize=False, **arguments))
    except Exception as error:  # a template raises what it likes
        raise ModelFileError(
            f"the chat template of {reader.config.name_or_path} writes no pair: {error}", _ADVICE
        ) from error


_ADVICE = "Give its tokenizer a chat template for the roles `query` and `document`, as sentence-transformers asks."


def _not_a_template(model: CrossEncoder, reason: str) -> ModelFileError:
    reader: Any = model[0]
    return ModelFileError(f"the chat template of {reader.config.name_or_path} does not fit: {reason}", _ADVICE)
