"""Requests as they come over HTTP: which endpoints take a prefix, what is refused, and what is passed on in a body's place.

Pure functions on decoded JSON; the middleware does the talking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foreword.vllm_plugin.attaching import PARAMETER

Body = dict[str, Any]
Counts = list[tuple[str, Body]]
"""Requests, each an endpoint and a body, whose answers tell how many tokens a prompt has."""

TRANSFER = "kv_transfer_params"
TEMPLATE_KEY = "foreword_continuation"
"""The variable by which a chat template made for continuation (see `engines/_continuation_template.py`) knows what is asked of it."""

_NESTED = (("vllm_xargs",), ("sampling_params", "extra_args"))
"""Other fields that vLLM would take `kv_transfer_params` from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An endpoint that takes a prefix.

    Attributes:
        generates: it reaches the engine; where not, it only counts or shows tokens.
        templated: whether this body is put through the chat template.
        counted_by: the requests to other endpoints that tell how long this body's prompts are, or None where none can tell.
    """

    generates: bool
    templated: Callable[[Body], bool]
    counted_by: Callable[[Body], Counts | None]


def _always(body: Body) -> bool:
    return True


def _never(body: Body) -> bool:
    return False


def _has_messages(body: Body) -> bool:
    return "messages" in body


def _uncounted(body: Body) -> Counts | None:
    return None


def _of_chat(body: Body) -> Counts | None:
    return [("/tokenize", {key: body[key] for key in _TOKENIZED if body.get(key) is not None})]


def _of_batch(body: Body) -> Counts | None:
    conversations = body.get("messages")
    if not isinstance(conversations, list):
        return None
    return [request for messages in conversations for request in _of_chat(body | {"messages": messages}) or ()]


def _of_completion(body: Body) -> Counts | None:
    prompt = body.get("prompt")
    texts = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(text, str) for text in texts):
        return None
    shared = {key: body[key] for key in ("model", "add_special_tokens") if key in body}
    return [("/tokenize", shared | {"prompt": text}) for text in texts]


def _of_responses(body: Body) -> Counts | None:
    turns = body.get("input")
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if body.get("previous_response_id") or not isinstance(turns, list) or not all(_is_plain_turn(turn) for turn in turns):
        return None
    lead = [{"role": "system", "content": body["instructions"]}] if isinstance(body.get("instructions"), str) else []
    return _of_chat({key: value for key, value in body.items() if key != "tools"} | {"messages": [*lead, *turns]})


def _is_plain_turn(turn: object) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _of_messages(body: Body) -> Counts | None:
    kept = ("model", "messages", "system", "tools", "tool_choice", "chat_template_kwargs")
    return [("/v1/messages/count_tokens", {key: body[key] for key in kept if body.get(key) is not None})]


ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route(generates=True, templated=_always, counted_by=_of_chat),
    "/v1/chat/completions/batch": Route(generates=True, templated=_always, counted_by=_of_batch),
    "/v1/completions": Route(generates=True, templated=_never, counted_by=_of_completion),
    "/v1/responses": Route(generates=True, templated=_always, counted_by=_of_responses),
    "/v1/messages": Route(generates=True, templated=_always, counted_by=_of_messages),
    "/v1/messages/count_tokens": Route(generates=False, templated=_always, counted_by=_uncounted),
    "/inference/v1/generate": Route(generates=True, templated=_never, counted_by=_uncounted),
    "/tokenize": Route(generates=False, templated=_has_messages, counted_by=_uncounted),
    "/detokenize": Route(generates=False, templated=_never, counted_by=_uncounted),
}


def without_transfer(body: Body) -> Body:
    """The body without what only this server may set; the body itself where a client has set none of it.

    A client that could set it would choose a prefix past the checks made here, and past whoever decides by model name who may use what.
    """
    cleaned = _without(body, TRANSFER)
    for path in _NESTED:
        cleaned = _without_nested(cleaned, path)
    if isinstance(cleaned.get("chat_template_kwargs"), Mapping):
        cleaned = _replaced(cleaned, "chat_template_kwargs", _without(cleaned["chat_template_kwargs"], TEMPLATE_KEY))
    return cleaned


def refusal(path: str, body: Body) -> str | None:
    """Why this request cannot have a prefix, or None where it can."""
    sampling = body.get("sampling_params")
    sampling = sampling if isinstance(sampling, Mapping) else {}
    echoes_prompt = bool(body.get("echo")) and (path != "/v1/completions" or body.get("logprobs") is not None)
    asked = {
        "prompt_logprobs": body.get("prompt_logprobs") is not None or sampling.get("prompt_logprobs") is not None,
        "prompt_logprob_token_ids": sampling.get("prompt_logprob_token_ids") is not None,
        # vLLM takes an echo with log-probabilities, and any echo of a chat, as a wish for those of the prompt.
        "echo with logprobs": echoes_prompt,
        "use_beam_search": bool(body.get("use_beam_search")),
        "prompt_embeds": body.get("prompt_embeds") is not None,
    }
    for what, is_asked in asked.items():
        if is_asked:
            return f"A model name with a prefix does not go with `{what}`: vLLM would compute the answer without the prefix. Leave one out."
    return None


def rewritten(path: str, body: Body, *, base: str, reference: str, continues: bool) -> Body:
    """The body that vLLM is given in place of one whose model name has a prefix.

    Args:
        reference: of the prefix's version.
        continues: the prefix holds the start of the conversation, so only what follows is rendered.
    """
    route = ROUTES[path]
    new = body | {"model": base}
    if route.generates:
        new[TRANSFER] = {PARAMETER: reference}
    if continues and route.templated(body):
        given = body.get("chat_template_kwargs")
        new["chat_template_kwargs"] = (given if isinstance(given, dict) else {}) | {TEMPLATE_KEY: True}
    elif continues and path in ("/v1/completions", "/tokenize"):
        # The prefix has the start-of-text token where the tokenizer wants one.
        new.setdefault("add_special_tokens", False)
    return new


def given_tokens(body: Body) -> int | None:
    """Tokens of the longest prompt of a body that gives its prompts as token ids, else None."""
    prompt = body["token_ids"] if "token_ids" in body else body.get("prompt")
    if not isinstance(prompt, list) or not prompt:
        return None
    if all(type(token) is int for token in prompt):
        return len(prompt)
    return max(map(len, prompt)) if all(isinstance(tokens, list) for tokens in prompt) else None


def counted(answer: object) -> int:
    """Tokens in what an endpoint that counts answers; 0 where it answers something else."""
    count = (answer.get("count") or answer.get("input_tokens")) if isinstance(answer, dict) else None
    return count if isinstance(count, int) else 0


def may_be_long(body_bytes: int, room: int) -> bool:
    """Whether a prompt might have `room` tokens or more, judged by the bytes of the request: a token is seldom less than one.

    The engine checks the count itself; this only decides whether it is worth counting before.
    """
    return body_bytes + _TEMPLATE_TOKENS >= room


_TEMPLATE_TOKENS = 512
"""What a chat template may add of its own."""
_TOKENIZED = (
    *("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "add_special_tokens"),
    "mm_processor_kwargs",
)
"""Fields of a chat request that its tokens depend on."""


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    if key not in mapping and isinstance(mapping, dict):
        return mapping
    return {name: value for name, value in mapping.items() if name != key}


def _replaced(body: Body, key: str, value: object) -> Body:
    return body if body[key] is value else body | {key: value}


def _without_nested(body: Body, path: tuple[str, ...]) -> Body:
    inner = body.get(path[0])
    if not isinstance(inner, dict):
        return body
    cleaned = _without(inner, TRANSFER) if len(path) == 1 else _without_nested(inner, path[1:])
    return _replaced(body, path[0], cleaned)
