"""Every error that Foreword raises on purpose.

    ForewordError
    ├── ConfigError            a setting or an option that cannot be used
    ├── RegistryError          a name that no folder or entry point knows
    ├── DataError              a data file or a row of it (names file and line)
    ├── ModelError             a model that cannot be loaded or does not fit its use
    │   └── ConversionError    a checkpoint conversion that failed (nothing half-written stays)
    ├── PrefixError            a prefix that is malformed or used wrongly
    │   ├── PrefixFileError    a prefix file that is truncated, altered or hostile
    │   └── PrefixMismatch     a prefix made for another model or tokenizer (names each field)
    ├── StoreError             a prefix store that has no such name, version or alias
    ├── WindowError            a prompt that does not fit the model's window
    ├── TuningError            a run that cannot start or cannot go on
    │   ├── NonFiniteLoss      the loss became NaN or infinite (the best checkpoint is kept)
    │   └── OutOfMemory        memory ran out (says what to lower)
    ├── EvaluationError        a task, scorer or contender that cannot be run
    ├── StrategyError          a strategy that cannot go on
    │   └── BudgetSpent        calls, tokens, money or time are used up (says which)
    ├── ToolError              a tool that cannot do what it was called for (told to the model)
    ├── AgentError             an agent, its memory or its team that cannot go on
    └── ServingError           a request that cannot be served
        ├── Overloaded         too many requests wait already (says when to come again)
        └── ConstraintError    a grammar, schema or expression that cannot be read or that nothing satisfies

A message says what was wrong, what was given, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Mapping


class ForewordError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(ForewordError):
    """A setting or an option that cannot be used."""


class RegistryError(ForewordError):
    """A name that no folder or entry point knows."""


class DataError(ForewordError):
    """A data file, or one of its rows, that cannot be used."""


class ModelError(ForewordError):
    """A model that cannot be loaded or does not fit its use."""


class ConversionError(ModelError):
    """A checkpoint conversion that failed; nothing half-written stays behind."""


class PrefixError(ForewordError):
    """A prefix that is malformed or used wrongly."""


class PrefixFileError(PrefixError):
    """A prefix file that is truncated, altered or hostile."""


class PrefixMismatch(PrefixError):
    """A prefix made for another model or tokenizer.

    Attributes:
        differences: field name to (value in the prefix, value of the model).
    """

    def __init__(self, prefix_name: str, differences: Mapping[str, tuple[object, object]]) -> None:
        self.differences = dict(differences)
        lines = [f"  {field}: prefix has {theirs!r}, model has {ours!r}" for field, (theirs, ours) in differences.items()]
        super().__init__(
            f"Prefix `{prefix_name}` was made for another model; these fields differ:\n"
            + "\n".join(lines)
            + "\nLoad the model it was made for, or tune the prefix again for this one."
        )


class StoreError(ForewordError):
    """A prefix store that has no such name, version or alias."""


class WindowError(ForewordError):
    """A prompt that does not fit the model's window.

    Attributes:
        room: how many new tokens would still have fitted, 0 where there is no place for any; None where that is not known.
    """

    def __init__(self, message: str, *, room: int | None = None) -> None:
        super().__init__(message)
        self.room = room


class TuningError(ForewordError):
    """A tuning run that cannot start or cannot go on."""


class NonFiniteLoss(TuningError):
    """The loss became NaN or infinite; the best checkpoint so far is kept."""


class OutOfMemory(TuningError):
    """Memory ran out; the message says what to lower."""


class EvaluationError(ForewordError):
    """A task, scorer or contender that cannot be run."""


class StrategyError(ForewordError):
    """A strategy that cannot go on."""


class BudgetSpent(StrategyError):
    """Calls, tokens, money or time are used up; what was found until then is kept."""


class ToolError(ForewordError):
    """A tool that cannot do what it was called for. The message is told to the model, which may call again."""


class AgentError(ForewordError):
    """An agent, its memory or its team that cannot go on."""


class ServingError(ForewordError):
    """A request that cannot be served."""


class Overloaded(ServingError):
    """Too many requests wait already.

    Attributes:
        retry_after: seconds after which it is worth coming again.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConstraintError(ServingError):
    """A grammar, schema or expression that cannot be read, or that nothing satisfies."""
