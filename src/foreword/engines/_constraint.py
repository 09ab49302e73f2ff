"""Answers that must fit a JSON schema, a regular expression or a list of choices, through llguidance (MIT).

llguidance keeps an Earley parser over a lexer of regular-expression derivatives and says, for each step, which tokens can still lead to
a complete answer (https://github.com/guidance-ai/llguidance). Grammars come from clients, so nothing here may hang or fall over:

- the text is bounded before it is read, and so is how deep it makes the compiler recurse: llguidance follows `$ref` by recursion, and
  a chain of a few thousand overflows the stack of a thread, which ends the process;
- `multipleOf` is bounded, because llguidance builds one state for each remainder, without a limit of its own;
- parsing is bounded by llguidance's limits on fuel, states and grammar size, which answer for the time and memory of a step;
- where a schema allows blanks between its parts, it allows `MOST_BLANKS` in a row, so that an answer cannot be blanks for ever.

A schema keyword that llguidance does not implement is refused, never ignored.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foreword.errors import ConstraintError, ServingError
from foreword.types import Constraint, ConstraintKind

if TYPE_CHECKING:
    from llguidance import LLMatcher

logger = logging.getLogger(__name__)

LONGEST_VALUE = 32_768
"""Characters of a schema, an expression or a list of choices."""
MOST_LEVELS = 4000
"""Bound on how deep the compiler recurses: the schema's depth times the places that it refers to."""
STACK_BYTES = 64 * 2**20
"""Of the thread that compiles; a level was measured to take 5 kB at most. What is not used is never allocated."""
MOST_REMAINDERS = 10_000
MOST_BLANKS = 32
MOST_STATES, MOST_SYMBOLS = 20_000, 100_000
"""Lexer states (1-2 kB each) of one answer in the making, and grammar symbols."""
CACHED = 128
_DETAIL = 400


class ConstraintCompiler:
    """Makes grammars for one tokenizer; safe to use from several threads. The tokenizer is read when the first grammar is asked for."""

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: Iterable[int], *, cached: int = CACHED) -> None:
        """
        Args:
            tokenizer: a fast Hugging Face tokenizer.
            vocabulary: how many logits the model gives; it may be more or fewer than the tokenizer has tokens.
            stop_ids: tokens that end an answer.
            cached: how many grammars are kept, the ones used longest ago let go first.
        """
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._stop_ids = tuple(sorted(token for token in stop_ids if 0 <= token < vocabulary))
        self._most_cached = cached
        self._cache: OrderedDict[tuple[ConstraintKind, str], Grammar] = OrderedDict()
        self._read: Any = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def compile(self, constraint: Constraint) -> Grammar:
        """The grammar of a constraint; blocks for milliseconds (the first time a second), so not for an event loop.

        Raises:
            ConstraintError: it cannot be read, is too large, or nothing satisfies it.
            ServingError: llguidance is not installed, or does not know this kind of tokenizer.
        """
        key = (constraint.kind, constraint.value if constraint.kind != "json-object" else "")
        with self._lock:
            if (found := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return found
        grammar = self._compiled(constraint)
        with self._lock:
            self._cache[key] = grammar
            while len(self._cache) > self._most_cached:
                self._cache.popitem(last=False)
        return grammar

    def _compiled(self, constraint: Constraint) -> Grammar:
        if constraint.kind not in _SOURCES:
            raise _refusal(constraint, f"there is no such kind; there are {', '.join(_SOURCES)}")
        if len(constraint.value) > LONGEST_VALUE:
            raise _refusal(constraint, f"it has {len(constraint.value)} characters; {LONGEST_VALUE} are allowed")
        llguidance, vocabulary = _library(), self._llguidance_tokenizer()
        limits = llguidance.LLParserLimits(max_lexer_states=MOST_STATES, max_grammar_size=MOST_SYMBOLS, verbose_errors=False)

        def build() -> LLMatcher:
            matcher = llguidance.LLMatcher(vocabulary, _SOURCES[constraint.kind](constraint), log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.compute_bitmask()  # an unsatisfiable grammar shows only now
            return matcher

        matcher = _with_deep_stack(build, constraint)
        if matcher.is_error():
            reason = matcher.get_error().removesuffix("<non-verbose/>").strip()
            raise _refusal(constraint, "nothing satisfies it" if reason.startswith("NoExtension") else reason)
        grammar = Grammar(matcher, self._vocabulary, self._stop_ids)
        first = grammar.start()
        first.allowed()
        if first.failure is not None:
            raise _refusal(constraint, "no token of this model's vocabulary can begin it")
        return grammar

    def _llguidance_tokenizer(self) -> Any:
        with self._reading:
            if self._read is None:
                _library()
                from llguidance.hf import from_tokenizer

                try:
                    self._read = from_tokenizer(
                        self._tokenizer, n_vocab=max(self._vocabulary, len(self._tokenizer)), eos_token=list(self._stop_ids) or None
                    )
                except (ValueError, TypeError, AttributeError, RuntimeError) as error:
                    raise ServingError(
                        f"This model's tokenizer ({type(self._tokenizer).__name__}) is of a kind that llguidance cannot constrain: "
                        f"{str(error)[:_DETAIL]}. Leave the constraint out, or use a model with a byte-level or byte-fallback tokenizer."
                    ) from error
            return self._read


class Grammar:
    """A compiled constraint, to be started once for every answer."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, stop_ids: tuple[int, ...]) -> None:
        self._matcher, self._vocabulary, self._stop_ids = matcher, vocabulary, stop_ids
        self._lock = threading.Lock()

    def start(self) -> Matcher:
        """A matcher at the beginning of an answer, independent of all others."""
        with self._lock:
            return Matcher(self._matcher.deep_copy(), self._vocabulary, self._stop_ids)


class Matcher:
    """Where one answer stands in its grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, stop_ids: tuple[int, ...]) -> None:
        self._matcher, self._vocabulary, self._stop_ids = matcher, vocabulary, list(stop_ids)
        self._stopped = False
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the answer cannot go on although it is not complete, as when a limit was reached; None while all is well."""
        return self._failure

    @property
    def may_stop(self) -> bool:
        """Whether the answer is complete as it is."""
        return self._failure is None and self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether nothing but the end can follow; the row need not be computed further."""
        return self._stopped or self._failure is not None or self._matcher.is_stopped()

    def allowed(self) -> Tensor:
        """The tokens that may come next: bool, one per logit, on the CPU.

        Stop tokens are allowed where the answer is complete, and only there. In a dead end, where nothing can follow an incomplete answer,
        stop tokens are all that is allowed, so that the row ends, and `failure` says why.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = torch.from_numpy(np.unpackbits(packed, bitorder="little", count=self._vocabulary).view(np.bool_))
        if self._failure is None and self._matcher.is_error():
            self._fail(self._matcher.get_error())
        allowed_V[self._stop_ids] = self.may_stop
        if self._failure is None and not allowed_V.any():
            self._fail("no token of the vocabulary can follow")
        if self.finished:
            allowed_V.zero_()
            allowed_V[self._stop_ids] = True
        return allowed_V

    def accept(self, token_id: int) -> None:
        """Takes the token that was chosen among the allowed ones; `failure` and `finished` say what came of it."""
        if token_id in self._stop_ids:
            self._stopped = True
        elif self._failure is None and not self._matcher.consume_token(token_id):
            self._fail(self._matcher.get_error())

    def _fail(self, reason: str) -> None:
        self._failure = reason.removesuffix("<non-verbose/>").strip() or "the grammar cannot go on"
        # The reason may quote the answer, which belongs in no log.
        logger.warning("A constrained answer ended before it was complete: its grammar could not go on.")


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ServingError("Constrained answers need the package `llguidance`. Install it: pip install 'foreword[serve]'") from error
    return llguidance


def _with_deep_stack(build: Callable[[], LLMatcher], constraint: Constraint) -> LLMatcher:
    """Runs `build` in a thread of its own, whose stack holds the recursion of everything that the bounds let through."""
    found: list[LLMatcher] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(build())
        except BaseException as error:  # a panic in the library is no Exception, and must not be lost with the thread
            errors.append(error)

    with _STACK_SIZE:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="foreword-grammar", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        if isinstance(errors[0], ServingError):
            raise errors[0]
        raise _refusal(constraint, str(errors[0])) from errors[0]
    return found[0]


_STACK_SIZE = threading.Lock()


def _refusal(constraint: Constraint, reason: str) -> ConstraintError:
    mend = {
        "json-schema": "Give a JSON schema of the part that llguidance implements (its documentation lists the keywords).",
        "json-object": "Leave the constraint out.",
        "regex": "Give an expression without look-around, back-references or word boundaries; it is matched against the whole answer.",
        "choice": 'Give a JSON list of texts, such as ["yes", "no"].',
    }
    reason = reason if len(reason) <= _DETAIL else f"{reason[:_DETAIL]}…"
    return ConstraintError(
        f"The constraint ({constraint.kind}) cannot be used: {reason.rstrip('.')}. {mend.get(constraint.kind, '')}".rstrip()
    )


def _json_schema(constraint: Constraint) -> str:
    schema = _json(constraint)
    if schema is False:
        raise _refusal(constraint, "nothing satisfies it")
    if not isinstance(schema, dict) and schema is not True:
        raise _refusal(constraint, "a schema is a JSON object")
    _check_schema(constraint, schema)
    return _schema_grammar("{}" if schema is True else constraint.value)


def _json_object(_: Constraint) -> str:
    return _schema_grammar('{"type": "object"}')


def _schema_grammar(schema: str) -> str:
    blanks = rf"[\x20\x0A\x0D\x09]{{1,{MOST_BLANKS}}}"
    return _library().LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": blanks, "lenient": False})


def _regex(constraint: Constraint) -> str:
    return _library().LLMatcher.grammar_from_regex(constraint.value)


def _choice(constraint: Constraint) -> str:
    choices = _json(constraint)
    if not isinstance(choices, list) or not choices or not all(isinstance(text, str) for text in choices):
        raise _refusal(constraint, "it is no list of texts, or an empty one")
    # One terminal: as alternatives of a rule they would each be an item of the parser's row.
    return _library().LLMatcher.grammar_from_lark(
        "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(text) for text in dict.fromkeys(choices))
    )


_SOURCES: dict[ConstraintKind, Callable[[Constraint], str]] = {
    "json-schema": _json_schema,
    "json-object": _json_object,
    "regex": _regex,
    "choice": _choice,
}


def _json(constraint: Constraint) -> Any:
    try:
        return json.loads(constraint.value)
    except (ValueError, RecursionError) as error:
        raise _refusal(constraint, f"it is not JSON: {error}") from error


def _check_schema(constraint: Constraint, schema: Any) -> None:
    depth, references, divisors = 1, set(), [1]
    for level, key, value in _walk(schema):
        depth = max(depth, level)
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            references.add(value)
        if key == "multipleOf" and isinstance(value, (int, float)) and math.isfinite(value):
            exact = Fraction(str(value))
            divisors += [abs(exact.numerator), exact.denominator]
    if depth * (1 + len(references)) > MOST_LEVELS:
        raise _refusal(
            constraint, f"it is {depth} levels deep and refers to {len(references)} places; the product may be {MOST_LEVELS} at most"
        )
    # `allOf` may join all of them into one condition.
    if math.lcm(*(divisor for divisor in divisors if divisor)) > MOST_REMAINDERS:
        raise _refusal(constraint, f"the least common multiple of its `multipleOf` is above {MOST_REMAINDERS}")


def _walk(schema: Any) -> Iterator[tuple[int, str, Any]]:
    """(level, key, value) of everything in a JSON value; without recursion, and items of a list have an empty key."""
    waiting: list[tuple[int, str, Any]] = [(1, "", schema)]
    while waiting:
        level, key, value = waiting.pop()
        yield level, key, value
        if isinstance(value, dict):
            waiting += [(level + 1, name, inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(level + 1, "", inner) for inner in value]
