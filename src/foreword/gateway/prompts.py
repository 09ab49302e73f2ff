"""Stored prompts in requests: which version a reference means for a tenant, and the messages that it makes of the request's values."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

from foreword.errors import ConfigError, StoreError
from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.file_state import State, state_of
from foreword.gateway.references import References
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import PromptCall
from foreword.prompting.store import PromptStore
from foreword.prompting.template import Shot, Template
from foreword.store.versions import Reference
from foreword.types import Message

HEADER = "foreword-prompt"
MOST_KEPT = 256
"""Prompts kept in memory as they were read."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What a stored prompt came to.

    Attributes:
        shots: its examples, whether or not they are among the messages.
    """

    reference: Reference
    messages: tuple[Message, ...]
    shots: tuple[Shot, ...]

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says about it."""
        return {HEADER: str(self.reference)}


@dataclass(eq=False)
class _Kept:
    """A prompt as it was read. Attributes: fixed: what it comes to where it has no variables, with and without examples."""

    state: State | None
    template: Template
    fixed: dict[bool, Rendered] = field(default_factory=dict)

    @cached_property
    def used(self) -> tuple[str, ...]:
        """The names of its variables."""
        return self.template.used


class Prompts:
    """Prompts of one store. For one event loop; rendering is done in a thread."""

    def __init__(self, store: PromptStore, *, most_characters: int) -> None:
        """Args: most_characters: of all messages that one prompt may make; a template can make much of few values."""
        self._store, self._most_characters = store, most_characters
        self._references = References(store)
        self._templates: OrderedDict[Reference, _Kept] = OrderedDict()

    async def rendered(self, asked: PromptCall, tenant: Tenant, *, with_examples: bool) -> Rendered:
        """The messages of the prompt that a request asks for.

        Args:
            with_examples: its examples are turns among them.

        Raises:
            Refusal: 404 where there is none for this tenant, 400 where a variable is missing or unknown, the values do not do or make too
                much, 503 where its file is damaged.
        """
        reference, kept = await self._found(asked, tenant)
        if not asked.variables and with_examples in kept.fixed:
            return kept.fixed[with_examples]
        try:
            rendered = await asyncio.to_thread(self._render, reference, kept.template, asked, with_examples)
        except ConfigError as error:
            raise Refusal(400, str(error), code="invalid_value", param="prompt.variables") from None
        if not kept.used:
            kept.fixed[with_examples] = rendered
        return rendered

    async def used(self, asked: PromptCall, tenant: Tenant) -> tuple[str, ...]:
        """The names of the variables of the prompt that a request asks for. Raises `Refusal` as `rendered` does."""
        _, kept = await self._found(asked, tenant)
        return kept.used

    async def _found(self, asked: PromptCall, tenant: Tenant) -> tuple[Reference, _Kept]:
        ref = _ref(asked)
        reference = self._references.find(ref, tenant)
        if reference is None:
            raise await asyncio.to_thread(self._unknown, ref, tenant)
        return reference, await self._read(reference)

    async def _read(self, reference: Reference) -> _Kept:
        state = state_of(reference.path)
        kept = self._templates.get(reference)
        if kept is not None and kept.state == state:
            self._templates.move_to_end(reference)
            return kept
        try:
            template = await asyncio.to_thread(self._store.load, reference)
        except StoreError as error:
            logger.warning("a stored prompt cannot be read: %s", error)
            raise Refusal(
                503,
                "The file of this prompt is damaged, or is being replaced just now. Choose another version; the server's log says more.",
                kind=SERVER,
                code="prompt_unavailable",
                param="prompt",
            ) from None
        kept = _Kept(state, template)
        if state is not None:
            self._templates[reference] = kept
            if len(self._templates) > MOST_KEPT:
                self._templates.popitem(last=False)
        return kept

    def _render(self, reference: Reference, template: Template, asked: PromptCall, with_examples: bool) -> Rendered:
        shown = template if with_examples else template.model_copy(update={"examples": ()})
        messages = shown.render(asked.variables)
        length = sum(len(message.content) for message in messages)
        if length > self._most_characters:
            raise ConfigError(
                f"Prompt `{reference.name}` makes {length:,} characters of these values; this server takes {self._most_characters:,}. "
                "Give shorter ones."
            )
        return Rendered(reference=reference, messages=messages, shots=template.examples)

    def _unknown(self, ref: str, tenant: Tenant) -> Refusal:
        near = self._references.near(ref, tenant)
        hint = f"Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "Ask who keeps this server for its prompts' names."
        return Refusal(404, f"No prompt is named `{ref[:120]}` here. {hint}", code="prompt_not_found", param="prompt.id")


def _ref(asked: PromptCall) -> str:
    if asked.version is None:
        return asked.id
    if "@" in asked.id:
        raise Refusal(
            400,
            "`prompt.id` holds an `@` and `prompt.version` is given too. Send one of them.",
            code="invalid_value",
            param="prompt.version",
        )
    return f"{asked.id}@{asked.version}"
