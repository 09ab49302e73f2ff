"""One request on its way along the path: what came in, what the stages make of it, and what it has cost so far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from foreword.cost.ledger import CacheUse, Line, Saving, Status
from foreword.cost.rates import Consumed
from foreword.gateway.path_wire import PathRequest
from foreword.gateway.tenants import Tenant

if TYPE_CHECKING:
    import numpy as np

    from foreword.gateway.path_settings import TaskSettings

AttemptStatus = Literal["answered", "refused", "unavailable", "timeout", "broken", "cancelled", "open-circuit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of a model, whatever came of it.

    Attributes:
        why: `first`, `retry`, `fallback`, `hedge`, `escalation`, `judge`, `summary`.
        consumed: None where the model did not say, as with a call that failed before it answered.
    """

    model: str
    why: str
    status: AttemptStatus
    seconds: float
    http_status: int | None = None
    consumed: Consumed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        model: its name here, a prefix included.
        body: the JSON that goes to the client, as the model gave it.
        headers: what goes to the client besides.
    """

    model: str
    body: bytes
    text: str
    finish_reason: str | None
    consumed: Consumed | None
    tool_calls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A piece of a streamed answer: the bytes for the client (one or several whole server-sent events), and what the path reads in them."""

    data: bytes
    text: str = ""
    finish_reason: str | None = None
    consumed: Consumed | None = None
    tool_calls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a model is asked.

    Attributes:
        request: with the messages, tools and limits that the stages settled on; its `model` is replaced by the target's own.
        model: the name here, such as `small:support@prod`.
        seconds: the most that it may take.
    """

    request: PathRequest
    model: str
    tenant: Tenant
    request_id: str
    seconds: float


class Target(Protocol):
    """A model that calls go to: an upstream, or an engine in this process. Raises `TargetError` and nothing else."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    async def complete(self, call: Call) -> Reply:
        """A whole answer."""
        ...

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """An answer piece by piece; the last event but `[DONE]` has the usage where the model tells it. Closing it gives the call up."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A target that knows which version of a prefix a model's name means now."""

    def version(self, model: str, tenant: Tenant) -> str:
        """Such as `support@v3`; as it was named where there is no such prefix."""
        ...


class TargetError(Exception):
    """A call that failed.

    Attributes:
        status: what an attempt is recorded with.
        http_status: of the model's answer, None where there was none.
        retry_after: seconds, where the model says.
        refusal: the model's own words, safe for the client, where the request itself is at fault (400, 404, 413, 422); `code` and `param`
            as the model gave them with it.
        begun: whether a part of the answer had come, so that the same request must not be sent again behind the client's back.
    """

    def __init__(
        self,
        message: str,
        *,
        status: AttemptStatus,
        http_status: int | None = None,
        retry_after: float | None = None,
        refusal: bytes | None = None,
        code: str | None = None,
        param: str | None = None,
        begun: bool = False,
    ) -> None:
        super().__init__(message)
        self.status: AttemptStatus = status
        self.http_status, self.retry_after, self.refusal, self.begun = http_status, retry_after, refusal, begun
        self.code, self.param = code, param


class Hold(Protocol):
    """Money that is set aside for a request, where a budget holds for it."""

    async def reserve(self) -> None:
        """Sets money aside for the first call. Raises `Refusal` where there is none left."""
        ...

    async def more(self, model: str, request: PathRequest) -> bool:
        """Sets money aside for one further call; False where there is none left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An answer that did not reach the bar, while a better one is looked for."""

    reply: Reply
    model: str
    prompt: str
    prefix: str
    score: float


@dataclass(slots=True, kw_only=True, eq=False)
class Passage:
    """A request under way.

    Attributes:
        id: the answer's id and the ledger's.
        request: as it stands now; stages replace it, and never change it in place.
        task: the settings of its task type.
        deadline: `loop.time()` by which the answer must be complete.
        tiers: models left to try, the next one first; `route` fills it, `infer` and `check` take from it.
        why: of the next attempt.
        reply: the whole answer, once there is one.
        events: the answer in pieces, where the client wants a stream and nothing has to be checked before it is sent.
        success, score: what `check` found.
        lines: what was paid for.
        told: headers of the answer, all of them starting with `foreword-` or `x-ratelimit-`.
        afterwards: awaited once the answer is complete, streamed ones included: the cache's admission, for instance.
        question_vector: of the last user turn, with the text that it is of; `question.question_vector` computes it once for all stages.
        sources: passages that stand before the question, by their numbers from 1: name and text.
        spared: the model and the counts of an answer that the cache has given again.
        spared_tokens: about how many tokens `assemble` left out.
        prompted: how many of the request's first messages are those of the task type's prompt; a model with a prefix does without them.
        hold: where a budget holds for the request.
        rejected: the answer that `check` escalated from; the better of the two goes to the client.
        billed: whether the ledger has it; what happens to its client after that changes nothing.
    """

    id: str
    at: datetime
    began: float
    tenant: Tenant
    user: str
    asked: PathRequest
    request: PathRequest
    headers: dict[str, str]
    task: TaskSettings
    deadline: float
    priority: int = 0
    tiers: list[str] = field(default_factory=list)
    why: str = "first"
    model: str = ""
    prompt: str = ""
    prefix: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    reply: Reply | None = None
    events: AsyncIterator[Event] | None = None
    cache: CacheUse = "off"
    success: bool | None = None
    score: float | None = None
    status: Status = "answered"
    escalated: bool = False
    retries: int = 0
    fallbacks: int = 0
    degraded: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    savings: list[Saving] = field(default_factory=list)
    first_token: float | None = None
    told: dict[str, str] = field(default_factory=dict)
    afterwards: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    question_vector: tuple[str, np.ndarray] | None = None
    sources: tuple[tuple[str, str], ...] = ()
    spared_tokens: int = 0
    spared: tuple[str, Consumed] | None = None
    prompted: int = 0
    hold: Hold | None = None
    rejected: Rejected | None = None
    billed: bool = False

    @property
    def buffered(self) -> bool:
        """Whether the answer must be whole before any of it is sent: the client wants no stream, or the check may call for another."""
        return not self.request.streams or self.task.check.escalates

    def take_back(self, rejected: Rejected) -> None:
        """Makes an earlier answer the answer again."""
        self.reply, self.model, self.prompt, self.prefix = rejected.reply, rejected.model, rejected.prompt, rejected.prefix
        self.told["foreword-model"] = rejected.model
