"""Answers conversations through a vLLM server, over its OpenAI-compatible endpoints. Reaches neither torch nor vllm."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.engine import Conversation, Progress
from foreword.errors import ModelError, Overloaded, ServingError, WindowError
from foreword.types import Completion, Constraint, FinishReason, Sampling, TokenLogprob, Usage

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

SECONDS = 600.0
"""How long one answer may take."""
AT_ONCE = 32
"""Requests under way together; vLLM batches them."""
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "stop"}
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmClient:
    """A model on a vLLM server. Meets `Generates`.

    A prefix is passed by its name, not by its numbers: it has to be in the store that the server reads, and the server takes the version
    that the name means there.
    """

    name: str
    url: str
    window: int
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"VllmClient(name={self.name!r}, url={self.url!r}, window={self.window})"

    @classmethod
    def connect(cls, name: str, *, url: str, api_key: str | None) -> VllmClient:
        """Asks the server for its models.

        Raises:
            ModelError: none of them has that name.
            ServingError: there is no server.
        """
        client = cls(name=name, url=url, window=0, api_key=api_key)
        with closing(client._send("/models", None)) as answer:
            models = {model["id"]: model for model in json.load(answer)["data"]}
        if name not in models:
            raise ModelError(f"The server at {url} serves no model `{name}`. It serves: {', '.join(list(models)[:10])}.")
        return cls(name=name, url=url, window=models[name].get("max_model_len") or 0, api_key=api_key)

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One answer per conversation, in order; up to 32 are asked for at once.

        Raises:
            ModelError: the server has no prefix of that name.
            WindowError: prefix and prompt do not fit the window.
            Overloaded: the server takes no more requests.
            ServingError: anything else that the server or the way to it refuses.
        """
        if not conversations:
            return []
        began = time.perf_counter()

        def ask(conversation: Conversation) -> dict[str, Any]:
            with closing(self._send("/chat/completions", self._body(conversation, prefix, sampling))) as answer:
                return json.load(answer)

        answers = []
        with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(conversations))) as pool:
            for answer in pool.map(ask, conversations):
                answers.append(answer)
                if progress is not None:
                    progress(1)
        seconds = (time.perf_counter() - began) / len(conversations)
        positions = 0 if prefix is None else prefix.positions
        return [_completion(answer, positions=positions, seconds=seconds) for answer in answers]

    def stream(
        self,
        conversation: Conversation,
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    ) -> Iterator[str]:
        """The answer to one conversation, piece by piece; raises as `generate`."""
        body = self._body(conversation, prefix, sampling) | {"stream": True}
        return _pieces(self._send("/chat/completions", body))

    def _body(self, conversation: Conversation, prefix: Prefix | None, sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.name if prefix is None else f"{self.name}:{prefix.name}",
            "messages": [{"role": message.role, "content": message.content} for message in conversation],
            "return_token_ids": True,
            **_sampling_fields(sampling),
        }

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        if self.api_key:
            request.add_header("Authorization", f"Bearer {self.api_key}")
        try:
            return urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ServingError(f"No vLLM server answers at {self.url}: {reason}. Start it with `foreword serve --engine vllm`.") from error


def _refusal(error: urllib.error.HTTPError) -> ServingError | ModelError | WindowError:
    """The server's refusal as one of ours."""
    try:
        said = json.loads(error.read())["error"]
        message = said["message"] if isinstance(said, dict) else str(said)
    except (ValueError, KeyError, TypeError, OSError):
        message = error.reason
    text = f"The vLLM server refused the request ({error.code}): {message}"
    if error.code == 404:
        return ModelError(text)
    if error.code in (429, 503):
        after = error.headers.get("Retry-After", "")
        return Overloaded(text, retry_after=float(after) if after.isdigit() else _RETRY_SECONDS)
    if error.code == 400 and "maximum context length" in message:
        return WindowError(text)
    return ServingError(text)


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "ignore_eos": sampling.ignore_end,
    }
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    if sampling.constraint is not None:
        fields |= _constraint_fields(sampling.constraint)
    return fields


def _constraint_fields(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json-object":
        return {"response_format": {"type": "json_object"}}
    if constraint.kind == "json-schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(constraint.value)}}}
    if constraint.kind == "choice":
        return {"structured_outputs": {"choice": json.loads(constraint.value)}}
    return {"structured_outputs": {"regex": constraint.value}}


def _completion(answer: dict[str, Any], *, positions: int, seconds: float) -> Completion:
    choice, usage = answer["choices"][0], answer["usage"]
    logprobs = (choice.get("logprobs") or {}).get("content") or ()
    return Completion(
        text=choice["message"]["content"] or "",
        token_ids=tuple(choice.get("token_ids") or ()),
        usage=Usage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"], prefix_positions=positions),
        finish_reason=_REASONS.get(choice["finish_reason"], "cancelled"),
        seconds=seconds,
        logprobs=tuple(_logprob(entry, entry.get("top_logprobs") or ()) for entry in logprobs),
    )


def _logprob(entry: dict[str, Any], top: Sequence[dict[str, Any]]) -> TokenLogprob:
    """An entry whose `token` reads `token_id:42`, as asked for by `return_tokens_as_token_ids`."""
    return TokenLogprob(
        token_id=int(entry["token"].removeprefix("token_id:")),
        text=bytes(entry.get("bytes") or ()).decode(errors="replace"),
        logprob=entry["logprob"],
        top=tuple(_logprob(other, ()) for other in top),
    )


def _pieces(answer: Any) -> Iterator[str]:
    with closing(answer):
        for line in answer:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                raise ServingError(f"The vLLM server gave up on the answer: {event['error'].get('message', event['error'])}")
            for choice in event.get("choices", ()):
                if text := (choice.get("delta") or {}).get("content"):
                    yield text
