"""From conversations to token ids: the chat template, what continues after a prefix, and where an answer ends.

Text that a user wrote is never read as a special token: a message that contains `<|im_end|>` reaches the model
as those characters. (A tokenizer's added tokens that it does not itself call special, such as `<think>`, are vocabulary like any other.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from foreword.errors import ModelError
from foreword.prefix.header import PromptFormat
from foreword.types import Message

_MARK = "0f0r3w0rd"
_STAND_IN = (Message(role="system", content=_MARK),)
_STAND_IN_NO_SYSTEM = (Message(role="user", content=_MARK), Message(role="assistant", content=_MARK))
_NEXT_TURN = (Message(role="user", content="x"),)


class ConversationEncoder:
    """Encodes conversations for one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special_ids = frozenset(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}
        self.end_of_answer = self._find_end_of_answer()

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer brings a chat template; plain text with blank lines is used where not."""
        return bool(self._tokenizer.chat_template)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, no special tokens added or recognised."""
        ids = self._ids(text)
        return self._plain_ids(text) if not self._special_ids.isdisjoint(ids) else ids

    def answer(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer, its end included."""
        return (*self.encode(text), self.end_of_answer)

    def context(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The start of a conversation, to be continued by `prompt(…, "continuation")`.

        A template that has no system turn of its own (it refuses one, or puts the text into the first user turn) gives a context of
        system messages only as a user turn.

        Raises:
            ModelError: the template cannot be continued after these messages.
        """
        return self._encoded(self._context_text, messages, start=True)

    def prompt(self, messages: Sequence[Message], prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        """A conversation up to where the answer starts.

        Raises:
            ModelError: the template refuses the conversation, or cannot be continued after a prefix (`continuation` only).
        """
        if prompt_format == "full":
            return self._encoded(lambda turns: self._text(turns, answer_next=True), messages, start=True)
        return self._encoded(self._continuation_text, messages, start=False)

    def _text(self, messages: Sequence[Message], *, answer_next: bool) -> str:
        if not self.has_template:
            return "".join(f"{message.content}\n{'' if message.role == 'user' else chr(10)}" for message in messages)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next)
        except Exception as error:  # jinja raises whatever the template's author chose
            roles = ", ".join(message.role for message in messages) or "none"
            raise ModelError(
                f"This model's chat template refuses the conversation (turns: {roles}): {error}. Give it turns that it knows; a template "
                "without a system turn wants the instruction in the user's message."
            ) from error

    def _context_text(self, messages: Sequence[Message]) -> str:
        """What stands before the next user turn; a template may write an answer that is not the last otherwise than the last."""
        if not self.has_template:
            return self._text(messages, answer_next=False)
        ending = self._continuation_text(_NEXT_TURN)
        refusal = ""
        try:
            whole = self._text((*messages, *_NEXT_TURN), answer_next=True)
            if whole.endswith(ending):
                return whole.removesuffix(ending)
        except ModelError as error:
            refusal = f" ({error})"
        if messages and all(message.role == "system" for message in messages):
            instruction = "\n\n".join(message.content for message in messages)
            return self._text((Message(role="user", content=instruction),), answer_next=False)
        raise ModelError(
            f"This model's chat template cannot be continued after turns of {', '.join(message.role for message in messages)}{refusal}; "
            "end them with an answer of the assistant."
        )

    def _continuation_text(self, messages: Sequence[Message]) -> str:
        """What `messages` add to a conversation that has begun."""
        if not self.has_template:
            return self._text(messages, answer_next=True)
        refusal: ModelError | None = None
        for stand_in in (_STAND_IN, _STAND_IN_NO_SYSTEM):
            try:
                before, whole = self._text(stand_in, answer_next=False), self._text((*stand_in, *messages), answer_next=True)
            except ModelError as error:
                refusal = error
                continue
            # A template that puts the system message into the first user turn writes the stand-in after `before`.
            if _MARK in before and whole.startswith(before) and _MARK not in whole[len(before) :]:
                return whole[len(before) :]
        raise ModelError(
            f"This model's chat template cannot be continued after a prefix{f' ({refusal})' if refusal else ''}; "
            "compile or tune with the prompt format `full` instead."
        )

    def _encoded(self, render: Callable[[Sequence[Message]], str], messages: Sequence[Message], *, start: bool) -> tuple[int, ...]:
        """Token ids of what `render` makes of the messages, in which only the template's own special tokens count as such.

        Content that would be read as a special token is rendered as a mark and encoded on its own in the mark's place: looked for in the
        rendered text, it might be found where the template wrote the same characters.
        """
        contents = [message.content for message in messages]
        mark = "\ue000"
        while any(mark in content for content in contents):
            mark += "\ue000"
        marked = [
            Message(role=message.role, content=_around(message.content, f"{mark}{index}{mark}"))
            if self.encode(message.content) != self._ids(message.content)
            else message
            for index, message in enumerate(messages)
        ]
        ids: list[int] = []
        for place, piece in enumerate(re.split(f"{mark}([0-9]+){mark}", render(marked))):
            ids += self._ids(piece) if place % 2 == 0 else self._plain_ids(contents[int(piece)].strip())
        return tuple(self._with_bos(ids)) if start else tuple(ids)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def _plain_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Puts BOS first where the tokenizer wants one and the template did not write it."""
        bos = self._tokenizer.bos_token_id
        if bos is None or ids[:1] == [bos] or self._tokenizer("x")["input_ids"][:1] != [bos]:
            return ids
        return [bos, *ids]

    def _find_end_of_answer(self) -> int:
        """The token that a model of this template writes after its answer."""
        if self.has_template:
            turns = (Message(role="user", content="x"), Message(role="assistant", content=_MARK))
            tail = self._text(turns, answer_next=False).rpartition(_MARK)[2]
            ids = self._ids(tail)
            if ids and ids[0] in self._special_ids:
                return ids[0]
        if self._tokenizer.eos_token_id is None:
            raise ModelError("The tokenizer has no end-of-sequence token, so the model could not end an answer; set `eos_token`.")
        return self._tokenizer.eos_token_id


def _around(content: str, mark: str) -> str:
    """The mark with the content's own leading and trailing blanks, so that a template strips them as it would the content's."""
    core = content.strip()
    start = content.index(core)
    return content[:start] + mark + content[start + len(core) :]
