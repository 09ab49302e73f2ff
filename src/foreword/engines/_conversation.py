"""From conversations to token ids: the chat template, what continues after a prefix, and where an answer ends.

Text that a user wrote is never read as a special token: a message that contains `<|im_end|>` reaches the model
as those characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreword.errors import ModelError
from foreword.prefix.header import PromptFormat
from foreword.types import Message

_STAND_IN = (Message(role="system", content="x"),)
_STAND_IN_NO_SYSTEM = (Message(role="user", content="x"), Message(role="assistant", content="y"))


class ConversationEncoder:
    """Encodes conversations for one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = tuple(sorted({str(token) for token in tokenizer.all_special_tokens} | set(tokenizer.get_added_vocab())))
        self.end_of_answer = self._find_end_of_answer()

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer brings a chat template; plain text with blank lines is used where not."""
        return bool(self._tokenizer.chat_template)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, no special tokens added or recognised."""
        plain = any(token in text for token in self._special)
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"])

    def answer(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer, its end included."""
        return (*self.encode(text), self.end_of_answer)

    def context(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The start of a conversation, to be continued by `prompt(…, "continuation")`."""
        return self._tokens(self._text(messages, answer_next=False), messages, start=True)

    def prompt(self, messages: Sequence[Message], prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        """A conversation up to where the answer starts.

        Raises:
            ModelError: the template cannot be continued after a prefix (`continuation` only).
        """
        if prompt_format == "full":
            return self._tokens(self._text(messages, answer_next=True), messages, start=True)
        if not self.has_template:
            return self._tokens(self._text(messages, answer_next=True), messages, start=False)
        for stand_in in (_STAND_IN, _STAND_IN_NO_SYSTEM):
            try:
                before, whole = self._text(stand_in, answer_next=False), self._text((*stand_in, *messages), answer_next=True)
            except Exception as error:  # jinja raises whatever the template's author chose
                refusal: Exception | None = error
                continue
            if whole.startswith(before):
                return self._tokens(whole[len(before) :], messages, start=False)
            refusal = None
        raise ModelError(
            f"This model's chat template cannot be continued after a prefix{f' ({refusal})' if refusal else ''}; "
            "compile or tune with the prompt format `full` instead."
        )

    def _text(self, messages: Sequence[Message], *, answer_next: bool) -> str:
        if not self.has_template:
            return "".join(f"{message.content}\n{'' if message.role == 'user' else chr(10)}" for message in messages)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next)

    def _tokens(self, text: str, messages: Sequence[Message], *, start: bool) -> tuple[int, ...]:
        """Token ids of a rendered text in which only the template's own special tokens count as such."""
        suspicious = [message.content for message in messages if any(token in message.content for token in self._special)]
        ids: list[int] = []
        for content in suspicious:
            before, found, after = text.partition(content)
            # Templates may strip the content; what is left of it then still holds the special token.
            if not found:
                before, found, after = text.partition(content.strip())
            ids += self._tokenizer(before, add_special_tokens=False)["input_ids"]
            ids += self._tokenizer(found, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            text = after
        ids += self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(self._with_bos(ids)) if start else tuple(ids)

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Puts BOS first where the tokenizer wants one and the template did not write it."""
        bos = self._tokenizer.bos_token_id
        wanted = bos is not None and self._tokenizer("x")["input_ids"][:1] == [bos]
        return [bos, *ids] if wanted and ids[:1] != [bos] else ids

    def _find_end_of_answer(self) -> int:
        """The token that a model of this template writes after its answer."""
        if self.has_template:
            mark = "0f0r3w0rd"
            turns = (Message(role="user", content="x"), Message(role="assistant", content=mark))
            tail = self._text(turns, answer_next=False).rpartition(mark)[2]
            ids = self._tokenizer(tail, add_special_tokens=False)["input_ids"]
            if ids and ids[0] in self._tokenizer.all_special_ids:
                return ids[0]
        if self._tokenizer.eos_token_id is None:
            raise ModelError("The tokenizer has no end-of-sequence token, so the model could not end an answer; set `eos_token`.")
        return self._tokenizer.eos_token_id
