"""The stored prompt that stands first: the one that the request asks for, or the one of its task type."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_wire import PathMessage, PathRequest
from foreword.gateway.prompts import HEADER, Prompts
from foreword.gateway.tenants import EVERYBODY
from foreword.gateway.wire import PromptCall
from foreword.prompting.store import PromptStore

MOST_CHARACTERS = 8 * 2**20
"""Of the messages that one prompt may make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A request behind its prompt.

    Attributes:
        count: how many messages of it are the prompt's, the question not among them.
    """

    request: PathRequest
    count: int


class StoredPrompts:
    """Puts prompts of a store before requests. For one event loop."""

    def __init__(self, store: PromptStore | None) -> None:
        self._prompts = None if store is None else Prompts(store, most_characters=MOST_CHARACTERS)

    async def put(self, passage: Passage, standing: str | None) -> Put:
        """The request with the prompt that it asks for before its messages; or else with that of its task type.

        Args:
            standing: the task type's prompt. Its variables take their values from the request's metadata.

        Raises:
            Refusal: there is no such prompt for this tenant, or it cannot be made of these values.
        """
        request = passage.request
        own = isinstance(request.prompt, PromptCall)
        if not own and standing is None:
            return Put(request=request, count=0)
        if self._prompts is None:
            raise Refusal(404, "This server has no stored prompts. Send the messages.", code="prompt_not_found", param="prompt")
        if isinstance(request.prompt, PromptCall):
            rendered = await self._prompts.rendered(request.prompt, passage.tenant, with_examples=True)
        else:
            # Whoever wrote the configuration chose it, so it is there for every tenant.
            asked = await self._standing(self._prompts, standing or "", request)
            rendered = await self._prompts.rendered(asked, EVERYBODY, with_examples=True)
        passage.prompt = str(rendered.reference)
        passage.told[HEADER] = passage.prompt
        first = tuple(PathMessage(role=message.role, content=message.content) for message in rendered.messages)
        messages = (*first, *request.messages)
        if messages[-1].role == "assistant" and not request.messages:
            raise Refusal(
                400,
                f"The prompt `{rendered.reference.name}` ends without a turn of the user. Send `messages` with one.",
                code="invalid_value",
                param="messages",
            )
        count = len(first) if request.messages else len(first) - 1
        passage.prompted = 0 if own else count
        return Put(request=msgspec.structs.replace(request, messages=messages, prompt=UNSET), count=count)

    async def _standing(self, prompts: Prompts, ref: str, request: PathRequest) -> PromptCall:
        asked = PromptCall(id=ref)
        metadata = request.metadata if isinstance(request.metadata, dict) else {}
        if not metadata:
            return asked
        values = {name: metadata[name] for name in await prompts.used(asked, EVERYBODY) if name in metadata}
        return PromptCall(id=ref, variables=values or None)


def without_prompt(passage: Passage, model: str) -> PathRequest:
    """The request for a model: one that is named with a prefix does without the task type's prompt, whose place the prefix takes."""
    request = passage.request
    if not passage.prompted or ":" not in model:
        return request
    return msgspec.structs.replace(request, messages=request.messages[passage.prompted :])
