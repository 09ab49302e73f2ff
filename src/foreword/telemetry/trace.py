"""A trace: the steps of one piece of work as spans, each within another, with what it took and how it ended.

    tracer = Tracer()
    with tracer.span("run", "self-consistency"):
        with tracer.span("call", "smollm2") as span:
            span.set(prompt_tokens=12)
    tracer.trace().write(path)

Spans follow the task that opens them: what a coroutine opens stands under what was open where it was started (a `ContextVar`, as
OpenTelemetry does), so that a hundred branches under way at once do not get mixed up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError

from foreword.errors import DataError
from foreword.store.versions import write_temporary

Kind = Literal["run", "call", "tool", "check", "search", "memory", "plan", "message"]
Status = Literal["ok", "error", "cancelled"]

_open_span: ContextVar[int | None] = ContextVar("foreword_open_span", default=None)


class Span(BaseModel):
    """One step.

    Attributes:
        id: counts from 1 in the order in which steps begin.
        parent: the step in which it was opened; None for the outermost.
        start, seconds: when it began, counted from the trace's begin, and how long it took.
        message: why it ended badly; empty otherwise.
        attributes: what the step says of itself: tokens, texts, scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    id: int
    parent: int | None
    kind: Kind
    name: str
    start: float
    seconds: float
    status: Status = "ok"
    message: str = ""
    attributes: dict[str, JsonValue] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Steps in the order in which they began."""

    spans: tuple[Span, ...]

    def of_kind(self, kind: Kind) -> tuple[Span, ...]:
        """The steps of one kind."""
        return tuple(span for span in self.spans if span.kind == kind)

    def children(self, parent: int | None) -> tuple[Span, ...]:
        """The steps right under one, or the outermost."""
        return tuple(span for span in self.spans if span.parent == parent)

    def lines(self) -> Iterator[str]:
        """One JSON object for each step."""
        return (_line(span) for span in self.spans)

    def write(self, path: Path) -> None:
        """Writes the trace as JSON lines, whole or not at all. Raises `OSError`."""
        write_temporary(path, "".join(f"{line}\n" for line in self.lines()).encode()).replace(path)


def _line(span: Span) -> str:
    try:
        return span.model_dump_json()
    except PydanticSerializationError:
        told = {"name": span.name, "message": span.message, "attributes": span.attributes}
        return span.model_copy(update=_encodable(told)).model_dump_json()


def _encodable(value: Any) -> Any:
    """The value without halves of characters, which JSON can carry in escapes and no file can."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value


def read(path: Path) -> Trace:
    """The trace in a file of JSON lines.

    Raises:
        DataError: there is no such file, or a line of it is no step of a trace.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Give a file that was written as a trace.") from None
    return Trace(spans=tuple(_spans(path, lines)))


def _spans(path: Path, lines: Iterable[str]) -> Iterator[Span]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Span.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise DataError(f"{path}:{number} is no step of a trace: {place or 'line'}: {problem['msg']}.") from None


@dataclass(slots=True, kw_only=True, eq=False)
class OpenSpan:
    """A step under way."""

    id: int
    parent: int | None
    kind: Kind
    name: str
    start: float
    attributes: dict[str, Any] = field(default_factory=dict)
    status: Status = "ok"
    message: str = ""
    seconds: float | None = None

    def set(self, **attributes: JsonValue) -> None:
        """Adds to what the step says of itself."""
        self.attributes.update(attributes)

    def failed(self, message: str) -> None:
        """Says that the step ended badly, where that is not said by an exception."""
        self.status, self.message = "error", message


class Tracer:
    """Records the steps of one piece of work. For one event loop or thread."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spans: list[OpenSpan] = []

    @contextmanager
    def span(self, kind: Kind, name: str, attributes: Mapping[str, JsonValue] | None = None) -> Iterator[OpenSpan]:
        """A step that lasts as long as the `with` does; an exception that leaves it ends it badly."""
        parent = _open_span.get()
        span = OpenSpan(
            id=len(self._spans) + 1,
            parent=parent,
            kind=kind,
            name=name,
            start=time.perf_counter() - self._began,
            attributes=dict(attributes or {}),
        )
        self._spans.append(span)
        token = _open_span.set(span.id)
        try:
            yield span
        except Exception as error:
            span.failed(str(error) or type(error).__name__)
            span.set(error=type(error).__name__)
            raise
        except BaseException:
            span.status = "cancelled"
            raise
        finally:
            _open_span.reset(token)
            span.seconds = time.perf_counter() - self._began - span.start

    @contextmanager
    def outermost(self) -> Iterator[None]:
        """What is opened inside starts a tree of its own, whatever another tracer has open here."""
        token = _open_span.set(None)
        try:
            yield
        finally:
            _open_span.reset(token)

    def trace(self) -> Trace:
        """What is recorded so far; steps under way count as ended now."""
        now = time.perf_counter() - self._began
        return Trace(
            spans=tuple(
                Span(
                    id=span.id,
                    parent=span.parent,
                    kind=span.kind,
                    name=span.name,
                    start=span.start,
                    seconds=now - span.start if span.seconds is None else span.seconds,
                    status=span.status,
                    message=span.message,
                    attributes=span.attributes,
                )
                for span in self._spans
            )
        )


def as_text(trace: Trace, *, attributes: bool = False) -> str:
    """The trace as an indented list, for reading."""
    depths: dict[int | None, int] = {None: -1}
    lines = []
    for span in trace.spans:
        depths[span.id] = depths.get(span.parent, -1) + 1
        told = f" {json.dumps(span.attributes, ensure_ascii=False)}" if attributes and span.attributes else ""
        ended = "" if span.status == "ok" else f" [{span.status}{': ' if span.message else ''}{span.message}]"
        lines.append(f"{'  ' * depths[span.id]}{span.kind} {span.name} {span.seconds * 1000:.0f} ms{ended}{told}")
    return "\n".join(lines)
