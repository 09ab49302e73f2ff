"""The `echo` engine: no weights; it answers with the words of the last message, one word per token.

It is a real engine in everything but what it says: it has a window, a bounded queue, a thread of its own, resident prefixes and
cancellation. What is built on engines is tried on it. Of a prefix only the header is read, and its name begins the answer: `[support] `.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.engine import Conversation, Deliver, Load, Progress, Request
from foreword.errors import ConfigError, ConstraintError, Overloaded, ServingError, WindowError
from foreword.prefix.header import PrefixHeader, read_header
from foreword.types import Completion, Constraint, Delta, FinishReason, Sampling, TokenLogprob, Usage

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

WINDOW = 4096
CERTAIN, UNLIKELY = 0.0, -20.0
"""Log-probability of the word that is said, and of the first of those that are not."""
_PACE = re.compile(r"-([0-9]{1,5})ms$")
_WORD = re.compile(r"\s*\S+")


def load(name: str = "echo", *, window: int = WINDOW, fails_at: str | None = None, **ignored: Any) -> EchoEngine:
    """An engine that needs no files.

    Args:
        name: any; one that ends like `echo-20ms` takes 20 milliseconds for each step.
        window: positions that prefix, prompt and answer may take together.
        fails_at: a word at which it fails, as a model's own code may: where it serves, the request that would say it ends with `error`.
        ignored: what other engines are loaded with (`dtype`, `device`, ...), which means nothing here.
    """
    pace = _PACE.search(name)
    return EchoEngine(name=name, window=window, step_seconds=int(pace[1]) / 1000 if pace else 0.0, fails_at=fails_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Script:
    """An answer, known from the start: its tokens, how many characters of them are said, and why it ends."""

    tokens: tuple[str, ...]
    shown: int
    finish_reason: FinishReason
    prompt_tokens: int
    prefix_positions: int

    def usage(self, said: int) -> Usage:
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=said, prefix_positions=self.prefix_positions)


class EchoEngine:
    """Meets `Generates`; `serve` gives what meets `Serves`."""

    def __init__(self, *, name: str, window: int = WINDOW, step_seconds: float = 0.0, fails_at: str | None = None) -> None:
        self._name, self._window, self._step_seconds, self._fails_at = name, window, step_seconds, fails_at

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self._name

    @property
    def window(self) -> int:
        """Positions that prefix, prompt and answer may take together."""
        return self._window

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling | None = None,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One answer per conversation, in order. Raises as `Serves.submit`."""
        wanted = sampling or Sampling()
        completions = []
        for conversation in conversations:
            began = time.perf_counter()
            script = self._script(Request(conversation=tuple(conversation), sampling=wanted), () if prefix is None else (prefix.header,))
            time.sleep(self._step_seconds * len(script.tokens))
            completions.append(
                Completion(
                    text="".join(script.tokens)[: script.shown],
                    token_ids=tuple(_token_id(token) for token in script.tokens),
                    usage=script.usage(len(script.tokens)),
                    finish_reason=script.finish_reason,
                    seconds=time.perf_counter() - began,
                    logprobs=_logprobs(script.tokens, wanted.logprobs),
                )
            )
            if progress is not None:
                progress(1)
        return completions

    def stream(self, conversation: Conversation, *, prefix: Prefix | None = None, sampling: Sampling | None = None) -> Iterator[str]:
        """The answer to one conversation, word by word."""
        request = Request(conversation=tuple(conversation), sampling=sampling or Sampling())
        script = self._script(request, () if prefix is None else (prefix.header,))
        said = 0
        for token in script.tokens:
            time.sleep(self._step_seconds)
            text = token[: max(script.shown - said, 0)]
            said += len(token)
            if text:
                yield text

    def serve(self, *, max_rows: int = 8, queue: int = 256, resident_bytes: int = 1 << 30) -> EchoServing:
        """Starts to serve.

        Args:
            max_rows: requests that are answered at once.
            queue: requests that may wait besides; a further one is refused.
            resident_bytes: bytes of the prefixes that count as held, pinned ones aside.

        Raises:
            ConfigError: no rows, or less than nothing of the others.
        """
        if max_rows < 1 or queue < 0 or resident_bytes < 0:
            raise ConfigError(
                f"Serving takes 1 or more rows, and 0 or more of queue and bytes; got {max_rows}, {queue} and {resident_bytes}."
            )
        return EchoServing(self, max_rows=max_rows, queue=queue, resident_bytes=resident_bytes, step_seconds=self._step_seconds)

    def _script(self, request: Request, headers: Sequence[PrefixHeader]) -> _Script:
        sampling = request.sampling
        _check(sampling)
        said_before = [message.content for message in request.conversation] if request.text is None else [request.text]
        prompt_tokens = sum(len(text.split()) for text in said_before)
        positions = sum(header.positions for header in headers)
        needed = positions + prompt_tokens + sampling.max_new_tokens
        if needed > self._window:
            raise WindowError(
                f"{positions} prefix positions, {prompt_tokens} prompt tokens and {sampling.max_new_tokens} new ones make {needed}; "
                f"the window of `{self._name}` is {self._window}. Shorten the prompt or ask for fewer tokens.",
                room=max(0, self._window - positions - prompt_tokens),
            )
        words = _constrained(said_before[-1].strip() if said_before else "", sampling.constraint)
        names = "+".join(header.name for header in headers)
        text = f"[{names}] {words}" if headers and sampling.constraint is None else words
        tokens = tuple(_WORD.findall(text))
        if sampling.ignore_end and tokens:
            again = itertools.cycle([f" {token.lstrip()}" for token in tokens])
            tokens = (tokens[0], *itertools.islice(again, 1, sampling.max_new_tokens))
        return _cut(tokens, sampling, prompt_tokens=prompt_tokens, prefix_positions=positions)


@dataclass(slots=True, kw_only=True, eq=False)
class _Row:
    """A request under way; also its ticket."""

    script: _Script
    deliver: Deliver
    logprobs: int | None
    fails_at: str | None
    said: int = 0
    characters: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def prompt_tokens(self) -> int:
        """Words of the prompt."""
        return self.script.prompt_tokens

    def cancel(self) -> None:
        """Ends the request at the next step."""
        self.cancelled.set()

    def step(self) -> bool:
        """Says one more word, or that it was cancelled or failed; whether that was the last."""
        tokens = self.script.tokens
        token = tokens[self.said : self.said + 1]
        if self.cancelled.is_set() or (token and token[0].strip() == self.fails_at):
            reason: FinishReason = "cancelled" if self.cancelled.is_set() else "error"
            self.deliver(Delta(text="", finish_reason=reason, usage=self.script.usage(self.said)))
            return True
        text = "".join(token)[: max(self.script.shown - self.characters, 0)]
        self.characters += len("".join(token))
        self.said += len(token)
        last = self.said >= len(tokens)
        self.deliver(
            Delta(
                text=text,
                token_ids=tuple(_token_id(word) for word in token),
                logprobs=_logprobs(token, self.logprobs),
                finish_reason=self.script.finish_reason if last else None,
                usage=self.script.usage(self.said) if last else None,
            )
        )
        return last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A prefix in memory: headers, the states of their files when they were read, and their tensors' bytes."""

    headers: tuple[PrefixHeader, ...]
    states: tuple[tuple[int, int, int], ...]
    nbytes: int
    pinned: bool


class EchoServing:
    """Answers many requests at once. Meets `Serves`."""

    def __init__(self, engine: EchoEngine, *, max_rows: int, queue: int, resident_bytes: int, step_seconds: float) -> None:
        self._engine, self._max_rows, self._queue = engine, max_rows, queue
        self._step_seconds = step_seconds
        self._resident = _Resident(most_bytes=resident_bytes)
        self._changed = threading.Condition()
        self._waiting: deque[_Row] = deque()
        self._running: list[_Row] = []
        self._closing = False
        self._prompt_tokens = self._completion_tokens = self._steps = 0
        self._thread = threading.Thread(target=self._work, name="foreword-echo", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def window(self) -> int:
        """The engine's window."""
        return self._engine.window

    def submit(self, request: Request, deliver: Deliver) -> _Row:
        """Takes a request on; see `Serves.submit`."""
        script = self._engine._script(request, self._resident.get(request.prefix))
        row = _Row(script=script, deliver=deliver, logprobs=request.sampling.logprobs, fails_at=self._engine._fails_at)
        with self._changed:
            if self._closing:
                raise ServingError("The engine is about to stop and takes no more requests. Send it to another one.")
            if len(self._running) + len(self._waiting) >= self._max_rows + self._queue:
                raise Overloaded(f"{len(self._waiting)} requests wait already, which is all that may. Come again later.", retry_after=1.0)
            self._waiting.append(row)
            self._changed.notify_all()
        return row

    def keep(self, prefix: tuple[Path, ...], *, pinned: bool = False) -> None:
        """Reads a prefix's header ahead of its first request."""
        self._resident.get(prefix, pinned=pinned, count=False)

    def let_go(self, prefix: tuple[Path, ...]) -> None:
        """Forgets a prefix."""
        self._resident.drop(prefix)

    def resident(self) -> tuple[tuple[Path, ...], ...]:
        """Prefixes held, the one used last first."""
        return self._resident.names()

    def load(self) -> Load:
        """What is being done now."""
        with self._changed:
            return Load(
                running=len(self._running),
                waiting=len(self._waiting),
                resident_prefixes=len(self._resident.names()),
                resident_bytes=self._resident.nbytes,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                steps=self._steps,
                prefix_hits=self._resident.hits,
                prefix_misses=self._resident.misses,
            )

    def close(self, *, drain_seconds: float = 0.0) -> None:
        """Takes no more requests, waits, cancels the rest, and ends its thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running and not self._waiting, timeout=drain_seconds)
            for row in (*self._running, *self._waiting):
                row.cancel()
        self._thread.join()

    def _work(self) -> None:
        while self._admitted():
            # A pause stands for the forward pass, in which nothing is locked.
            time.sleep(self._step_seconds)
            before = sum(row.said for row in self._running)
            ended = [row for row in self._running if row.step()]
            with self._changed:
                self._completion_tokens += sum(row.said for row in self._running) - before
                self._steps += 1
                self._running = [row for row in self._running if row not in ended]
                self._changed.notify_all()

    def _admitted(self) -> bool:
        """Waits for something to do and fills the free rows; False once there is nothing and never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or self._waiting or self._closing)
            while self._waiting and len(self._running) < self._max_rows:
                row = self._waiting.popleft()
                self._prompt_tokens += row.prompt_tokens
                self._running.append(row)
            return bool(self._running)


class _Resident:
    """Prefixes in memory, the one used last at the end; those used longest ago go first when there are too many bytes."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[tuple[Path, ...], _Held] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return sum(held.nbytes for held in list(self._held.values()))

    def names(self) -> tuple[tuple[Path, ...], ...]:
        """What is held, the one used last first."""
        with self._lock:
            return tuple(reversed(self._held))

    def get(self, prefix: tuple[Path, ...], *, pinned: bool = False, count: bool = True) -> tuple[PrefixHeader, ...]:
        """The headers of a prefix, read again where a file was replaced. Raises `PrefixFileError`."""
        if not prefix:
            return ()
        with self._lock:
            states = tuple(_state(path) for path in prefix)
            held = self._held.get(prefix)
            fresh = held is not None and held.states == states
            self.hits += count and fresh
            self.misses += count and not fresh
            headers = held.headers if held is not None and fresh else tuple(read_header(path) for path in prefix)
            nbytes = sum(spec.nbytes for header in headers for spec in header.tensors().values())
            stays = pinned or (held is not None and held.pinned)
            self._held[prefix] = _Held(headers=headers, states=states, nbytes=nbytes, pinned=stays)
            self._held.move_to_end(prefix)
            self._evict()
            return headers

    def drop(self, prefix: tuple[Path, ...]) -> None:
        """Forgets a prefix, pinned or not."""
        with self._lock:
            self._held.pop(prefix, None)

    def _evict(self) -> None:
        for name in [name for name, held in self._held.items() if not held.pinned]:
            if self.nbytes <= self._most_bytes:
                return
            del self._held[name]


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced; zeros where there is none, which reading it will tell."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _check(sampling: Sampling) -> None:
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.max_new_tokens < 1:
        raise ConfigError(
            "No answer can be drawn with these settings: temperature must be 0 or more, top_p above 0 and at most 1, and there must be a "
            f"token to draw; got {sampling.temperature}, {sampling.top_p} and {sampling.max_new_tokens}."
        )


def _cut(tokens: tuple[str, ...], sampling: Sampling, *, prompt_tokens: int, prefix_positions: int) -> _Script:
    """Ends an answer at its first stop text or its most tokens, whichever comes first."""
    limited = tokens[: sampling.max_new_tokens]
    text = "".join(limited)
    stops = [(text.find(stop), len(stop)) for stop in sampling.stop if stop in text]
    reason: FinishReason = "length" if len(tokens) > len(limited) or (sampling.ignore_end and tokens) else "stop"
    shown = len(text)
    if stops:
        shown, length = min(stops)
        reason = "stop"
        ends = itertools.accumulate(len(token) for token in limited)
        limited = limited[: sum(end < shown + length for end in ends) + 1]
    return _Script(tokens=limited, shown=shown, finish_reason=reason, prompt_tokens=prompt_tokens, prefix_positions=prefix_positions)


def _constrained(words: str, constraint: Constraint | None) -> str:
    """The words, where they are what is asked for. An echo makes nothing up, so otherwise nothing satisfies the constraint.

    A choice is the first one that the words hold, or the first of all; a JSON object is made around the words; an expression is met by the
    words that it spells out, and is not run: matching a stranger's expression with backtracking can take for ever.
    """
    if constraint is None:
        return words
    if constraint.kind == "json-object":
        return json.dumps({"echo": words}, ensure_ascii=False)
    if constraint.kind == "choice":
        choices = _json(constraint.value)
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
            raise ConstraintError(f"A choice is a JSON list of texts; got {constraint.value[:80]!r}. Give one or more texts.")
        return next((choice for choice in choices if choice in words), choices[0])
    if constraint.kind == "regex":
        try:
            re.compile(constraint.value)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConstraintError(f"The regular expression cannot be read: {error}. Mend it.") from None
        fits = constraint.value in (words, re.escape(words))
    else:
        _json(constraint.value)
        fits = _is_json(words)
    if not fits:
        raise ConstraintError(f"The echo of this prompt is not what the {constraint.kind} asks for. Ask with words that are.")
    return words


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"The constraint is no JSON: {error}. Mend it.") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _token_id(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "surrogatepass"))


def _logprobs(tokens: Sequence[str], most: int | None) -> tuple[TokenLogprob, ...]:
    return () if most is None else tuple(_logprob(token, most) for token in tokens)


def _logprob(token: str, most: int) -> TokenLogprob:
    """The word that is said is certain; the places after it are filled with its number of dots."""
    others = [TokenLogprob(token_id=_token_id(f"{token}{'.' * n}"), text=f"{token}{'.' * n}", logprob=UNLIKELY - n) for n in range(1, most)]
    said = TokenLogprob(token_id=_token_id(token), text=token, logprob=CERTAIN)
    return TokenLogprob(token_id=said.token_id, text=token, logprob=CERTAIN, top=(said, *others) if most else ())
