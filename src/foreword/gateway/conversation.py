"""The conversation that a chat request means: the messages of a stored prompt, then its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foreword.gateway.errors import Refusal
from foreword.gateway.service import Service
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import ChatRequest, InMessage
from foreword.prompting.template import Shot
from foreword.types import Message, Role

_ROLES: dict[str, Role] = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What was said so far; its last turn is the user's.

    Attributes:
        shots: the stored prompt's examples.
        headers: what the answer says of the stored prompt.
    """

    messages: tuple[Message, ...]
    shots: tuple[Shot, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


async def conversation_of(service: Service, body: ChatRequest, tenant: Tenant, *, with_examples: bool = True) -> Conversation:
    """The conversation of a request.

    Args:
        with_examples: a stored prompt's examples are turns of it.

    Raises:
        Refusal: the last turn is not the user's, or the stored prompt cannot be used.
    """
    own = _to_messages(body.messages)
    if body.prompt is None:
        _check_end(own, body.messages)
        return Conversation(messages=own)
    if service.prompts is None:
        raise Refusal(404, "This server has no stored prompts. Send the messages.", code="prompt_not_found", param="prompt")
    rendered = await service.prompts.rendered(body.prompt, tenant, with_examples=with_examples)
    messages = (*rendered.messages, *own)
    _check_end(messages, body.messages)
    return Conversation(messages=messages, shots=rendered.shots, headers=rendered.headers)


def _check_end(messages: Sequence[Message], own: Sequence[InMessage]) -> None:
    if not messages:
        raise Refusal(400, "`messages` is empty. Send one turn or more, the user's last.", code="invalid_value", param="messages")
    if messages[-1].role == "user":
        return
    if not own:
        raise Refusal(
            400,
            f"The prompt ends with the {messages[-1].role}'s turn. Send `messages` that end with the user's, which is to be answered.",
            code="invalid_value",
            param="messages",
        )
    raise Refusal(
        400,
        f"`messages` must end with the user's turn, which is to be answered; it ends with the {own[-1].role}'s.",
        code="invalid_value",
        param=f"messages[{len(own) - 1}].role",
    )


def _to_messages(turns: Sequence[InMessage]) -> tuple[Message, ...]:
    return tuple(Message(role=_ROLES[turn.role], content=_text(turn, number)) for number, turn in enumerate(turns))


def _text(turn: InMessage, number: int) -> str:
    if turn.content is None:
        raise Refusal(
            400, f"`messages[{number}]` has no content. Give it a text.", code="invalid_value", param=f"messages[{number}].content"
        )
    return turn.content if isinstance(turn.content, str) else "".join(part.text for part in turn.content)
