"""What a `foreword.toml` says: models, task types, and what the path does with them. Unknown keys are refused, by their place.

[models.small]
engine = "transformers"                  # in this process
model = "smollm2"
price = { machine_hour = "0.40" }

[models.strong]
url = "https://api.openai.com/v1"        # any OpenAI-compatible server
model = "gpt-4o"
provider = "openai"                      # whose price list holds
key_env = "OPENAI_API_KEY"

[tasks.support]
rules = ["(?i)refund|parcel"]
tiers = ["small:support", "strong"]      # cheapest first
cache = { semantic = "bound", bound = 0.02 }
check = { labels = ["billing", "login"], at_least = 1.0 }
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from foreword.cost.prices import Price
from foreword.errors import ConfigError
from foreword.gateway.settings_paths import rooted
from foreword.gateway.stage import ORDER

AUTO = "auto"
"""The model that a client names to leave the choice to the path."""
DEFAULT_TASK = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Strict):
    """A model that calls go to: `engine` in this process, `url` of another server, or one `like` another of the models.

    Attributes:
        like: the model that this one is, in its own way: with a prompt before every request, at its own price, with limits of its own.
        prompt: a stored prompt whose messages come before the request's; for a model in this process.
        model: what the engine loads, or what the server calls it.
        key_env: the environment variable that holds the server's key.
        provider: as genai-prices calls it; its price list holds where `price` is absent.
        seconds: the most that a whole answer may take; `first_token_seconds` until its first piece comes.
        retries: further tries of a call that failed before any of its answer came.
        retry_budget: retries at most, as a share of all calls.
        output_limit: tokens at most of an answer, whatever the client asks for.
        secondary: the model that is asked where this one cannot be.
        hedge_seconds: after which a second call is sent along, and the first answer counts; None never does.
        at_once: calls under way at most; further ones wait.
        breaker_failures: failures in a row after which no call is sent for `breaker_seconds`.
    """

    engine: str | None = None
    url: str | None = Field(default=None, pattern=r"^https?://")
    like: str | None = None
    model: str = ""
    prompt: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    key_env: str | None = None
    provider: str | None = None
    price: Price | None = None
    seconds: Seconds = 120.0
    first_token_seconds: Seconds = 30.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    retry_budget: Share = 0.2
    output_limit: Annotated[int, Field(ge=1)] | None = None
    secondary: str | None = None
    hedge_seconds: Seconds | None = None
    at_once: Annotated[int, Field(ge=1)] = 1024
    breaker_failures: Annotated[int, Field(ge=1)] = 10
    breaker_seconds: Seconds = 10.0

    @model_validator(mode="after")
    def _one_place(self) -> ModelSettings:
        if [self.engine, self.url, self.like].count(None) != 2:
            raise ValueError("give one of `engine` (in this process), `url` (another server) and `like` (another of the models)")
        if (self.like is None) != bool(self.model):
            raise ValueError("`model` is needed with `engine` and `url`, and is the other model's own with `like`")
        if self.engine is not None and self.key_env is not None:
            raise ValueError("`key_env` is for a server; an engine in this process has no key")
        if self.url is not None and self.prompt is not None:
            raise ValueError("`prompt` is for a model in this process; for a server's, name it in a task type's `assemble`")
        return self

    def of(self, other: ModelSettings) -> ModelSettings:
        """These settings with what makes `other` the model that it is; its price too, where these have none."""
        own = {"engine": other.engine, "url": other.url, "model": other.model, "key_env": other.key_env, "provider": other.provider}
        price = {} if self.price is not None else {"price": other.price}
        return self.model_copy(update={**own, **price, "like": None})


class CacheSettings(_Strict):
    """What of a task type may be answered from the cache.

    Attributes:
        semantic: `off`, `fixed` (from `threshold` on), or `bound` (each entry learns from where on, so that of all requests no more than
            `bound` get a wrong answer from the cache).
        temperature_at_most: requests that are drawn more freely are answered anew.
        stale_seconds: how long past `ttl_seconds` an entry may still stand in where a budget is spent or a model does not answer.
        tags: what entries are invalidated by, besides model and prompt.
    """

    exact: bool = False
    semantic: Literal["off", "fixed", "bound"] = "off"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    bound: Annotated[float, Field(gt=0, lt=1)] = 0.02
    ttl_seconds: Seconds = 3600.0
    stale_seconds: Annotated[float, Field(ge=0)] = 86_400.0
    temperature_at_most: Annotated[float, Field(ge=0, le=2)] = 1.0
    tags: tuple[str, ...] = ()

    @property
    def on(self) -> bool:
        """Whether the cache is looked into at all."""
        return self.exact or self.semantic != "off"


class PassageSettings(_Strict):
    """Passages that stand before a question.

    Attributes:
        folder: of `.txt` and `.md` files.
        at_least: similarity below which a passage is left out.
    """

    folder: Path
    at_most: Annotated[int, Field(ge=1, le=100)] = 4
    at_least: Share = 0.3
    chunk_tokens: Annotated[int, Field(ge=16)] = 200


class AssembleSettings(_Strict):
    """What stands before the user's words, and how much of it.

    Attributes:
        tokens: of the whole context, at most; None is no limit.
        history_turns: turns that are kept as they are; earlier ones are summarised by `summary_model`, or left out where there is none.
        tools: `all`, `match` (those that the request's words match), or `used` (those that this task type has called, too).
        prompt: a stored prompt whose messages come first.
    """

    tokens: Annotated[int, Field(ge=64)] | None = None
    history_turns: Annotated[int, Field(ge=1)] | None = None
    summary_model: str | None = None
    passages: PassageSettings | None = None
    tools: Literal["all", "match", "used"] = "all"
    prompt: str | None = None


class CheckSettings(_Strict):
    """What a good answer is. All that is given must hold; with nothing given, nothing is judged.

    Attributes:
        json_schema, regex, labels: the answer's form; a label is compared without case and outer punctuation.
        citation: a source such as `[1]` must be named.
        scorer: of `foreword.evaluate.scorers`, where requests carry references in their metadata.
        judge: the model that is asked to score the answer from 0 to 1 against `rubric`.
        at_least: the score below which an answer is no success.
        escalate: whether such an answer is asked for once more, from the next tier.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    citation: bool = False
    scorer: str | None = None
    judge: str | None = None
    rubric: str = "The answer is right, complete and to the point."
    at_least: Share = 0.5
    escalate: bool = True

    @property
    def judges(self) -> bool:
        """Whether anything is looked at."""
        return bool(self.json_schema or self.regex or self.labels or self.citation or self.scorer or self.judge)

    @property
    def escalates(self) -> bool:
        """Whether an answer may be replaced by another one, so that none may be sent before it is checked."""
        return self.judges and self.escalate

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        return _compiled(regex)


class TaskSettings(_Strict):
    """A type of task.

    Attributes:
        name: filled in from the table's key.
        rules: regular expressions; one that the last user turn matches makes it this type. Task types are tried in their order.
        tiers: models by rising price; a prefix is part of the name.
        router: `first` takes the first tier, `learned` the cheapest of which the router expects a success.
        seconds: deadline of a request that names none.
        priority: of requests that name none; higher goes first where there is a queue. A request can ask for a lower one.
        capture_share: of answers that are captured where `store.capture` is set; failures always are.
    """

    name: str = ""
    rules: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    router: Literal["first", "learned"] = "first"
    cache: CacheSettings = CacheSettings()
    assemble: AssembleSettings = AssembleSettings()
    check: CheckSettings = CheckSettings()
    output_limit: Annotated[int, Field(ge=1)] | None = None
    seconds: Seconds = 120.0
    priority: int = 0
    capture_share: Share = 0.1

    @field_validator("rules")
    @classmethod
    def _compile(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            _compiled(rule)
        return rules


class BudgetSettings(_Strict):
    """Money for a period, for one tenant, one task type, or both; all budgets that fit a request hold together.

    Attributes:
        degrade_at: the share of the budget from which on requests are served more cheaply: cheapest tier, half the passages and history,
            a stale answer of the cache.
        queue_seconds: how long a request waits for money to come free before it is refused.
        allow_unpriced: whether a model whose price nobody knows may answer; what it costs is then not counted.
    """

    tenant: str | None = None
    task: str | None = None
    period: Literal["hour", "day", "week", "month"] = "day"
    amount: Annotated[Decimal, Field(gt=0)]
    degrade_at: Share = 0.8
    queue_seconds: Annotated[float, Field(ge=0)] = 0.0
    allow_unpriced: bool = False

    @field_validator("amount", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        return repr(value) if isinstance(value, float) else value


class LimitSettings(_Strict):
    """How many requests each user of each tenant may send, as `limits` writes it: `60/minute`, `5/second;1000/day`."""

    per_user: str | None = None
    per_tenant: str | None = None


class StoreSettings(_Strict):
    """Where state is kept.

    Attributes:
        ledger: a path (SQLite) or a `postgresql://` URL; `none` writes nothing down.
        redis: a `redis://` URL that budgets, limits and the exact cache are shared through by several servers.
        durable: an answer is sent only once its ledger entry is on the disk.
        capture: a path (SQLite) or a `postgresql://` URL where requests and answers are written down, personal data and secrets made
            unreadable; nothing is captured without one.
        batches: where batches, their files and what became of them are kept: a path (SQLite) or a `postgresql://` URL; by default beside
            the ledger, `batches.sqlite` or the same database. `none` closes `/v1/batches`.
    """

    ledger: str | None = None
    redis: str | None = Field(default=None, pattern=r"^(rediss?|unix)://")
    durable: bool = False
    capture: str | None = None
    batches: str | None = None
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    cache_entries: Annotated[int, Field(ge=0)] = 100_000


class BatchSettings(_Strict):
    """What batches may take.

    Attributes:
        at_once: their requests under way at most.
        busy_from: requests under way of clients that wait, from which on none of a batch's is begun.
        file_mb: of an uploaded file, at most; `tenant_mb` of all files of a tenant, results included.
        rows: of one file, at most.
        open: batches of a tenant that are not finished, at most.
        keep_days: after which files and finished batches are removed.
    """

    at_once: Annotated[int, Field(ge=1, le=1024)] = 4
    busy_from: Annotated[int, Field(ge=1)] = 2
    file_mb: Annotated[float, Field(gt=0, le=1024)] = 64.0
    tenant_mb: Annotated[float, Field(gt=0)] = 1024.0
    rows: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    open: Annotated[int, Field(ge=1)] = 50
    keep_days: Annotated[float, Field(gt=0, le=3650)] = 30.0


class PathSettings(_Strict):
    """The whole of a `foreword.toml`."""

    models: dict[str, ModelSettings] = Field(min_length=1)
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)
    stages: tuple[str, ...] = ORDER
    budgets: tuple[BudgetSettings, ...] = ()
    limits: LimitSettings = LimitSettings()
    store: StoreSettings = StoreSettings()
    batches: BatchSettings = BatchSettings()
    intake_model: Path | None = None
    router_model: Path | None = None

    @model_validator(mode="after")
    def _fit(self) -> PathSettings:
        for kind, names in (("model", self.models), ("task type", self.tasks)):
            bad = [name for name in names if not _NAME.fullmatch(name)]
            if bad:
                raise ValueError(f"a {kind} is named with `a-z 0-9 . _ -`; got `{bad[0]}`")
        if AUTO in self.models:
            raise ValueError(f"`{AUTO}` leaves the choice to the path, and cannot name a model")
        for name, model in self.models.items():
            if model.like is not None and (model.like not in self.models or self.models[model.like].like is not None):
                raise ValueError(f"`models.{name}.like` must name another of the models, which is like no further one; got `{model.like}`")
        if len([name for name, model in self.models.items() if model.engine]) > 1:
            raise ValueError("one model runs in this process; give the others a `url`")
        _check_order(self.stages)
        self._check_money()
        for where, name in self._named_models():
            if name.partition(":")[0] not in self.models:
                raise ValueError(f"{where} names the model `{name}`, and `models` has {', '.join(f'`{known}`' for known in self.models)}")
        return self

    def model(self, name: str) -> ModelSettings:
        """The settings of a model, prefix or not, with those of the one that it is like filled in."""
        found = self.models[name.partition(":")[0]]
        return found if found.like is None else found.of(self.models[found.like])

    def task(self, name: str) -> TaskSettings:
        """The settings of a task type; of one without its own, the default's, and without that either, the first model's."""
        found = self.tasks.get(name) or self.tasks.get(DEFAULT_TASK) or TaskSettings()
        tiers = found.tiers or (next(iter(self.models)),)
        return found.model_copy(update={"name": name, "tiers": tiers})

    def _check_money(self) -> None:
        needed = (("budgets", self.budgets, ("budget", "reserve")), ("limits", self.limits != LimitSettings(), ("limit",)))
        for key, given, stages in needed:
            lacking = [name for name in stages if name not in self.stages]
            if given and lacking:
                raise ValueError(f"`{key}` needs the stage `{lacking[0]}`, and `stages` has none")
        seen = set()
        for budget in self.budgets:
            if budget.task is not None and budget.task not in self.tasks and budget.task != DEFAULT_TASK:
                raise ValueError(f"a budget is for the task type `{budget.task}`, and `tasks` does not have it")
            name = (budget.tenant, budget.task, budget.period)
            if name in seen:
                raise ValueError(f"two budgets are for the same tenant, task type and period: {budget.period}")
            seen.add(name)

    def _named_models(self) -> list[tuple[str, str]]:
        named = [(f"`models.{name}.secondary`", model.secondary) for name, model in self.models.items() if model.secondary]
        for name, task in self.tasks.items():
            named += [(f"`tasks.{name}.tiers`", tier) for tier in task.tiers]
            for key, model in (("check.judge", task.check.judge), ("assemble.summary_model", task.assemble.summary_model)):
                if model:
                    named.append((f"`tasks.{name}.{key}`", model))
        return named


def read_settings(path: Path) -> PathSettings:
    """The settings in a file; relative paths in it start at its folder.

    Raises:
        ConfigError: it cannot be read, or a key cannot be used.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}. Give the path of a `foreword.toml`.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}. Mend it.") from None
    return build_settings(rooted(fields, path.parent), source=str(path))


def build_settings(fields: dict[str, Any], *, source: str) -> PathSettings:
    """The settings from their fields. Raises `ConfigError`, which names each that cannot be used."""
    try:
        return PathSettings.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"`{'.'.join(map(str, part['loc'])) or 'the whole'}`: {part['msg'].removeprefix('Value error, ')}" for part in problems[:8]]
        raise ConfigError(f"{source} cannot be used: {'; '.join(told)}.") from None


def _check_order(stages: tuple[str, ...]) -> None:
    if len(set(stages)) < len(stages):
        raise ValueError("`stages` names a stage twice")
    missing = [name for name in ("intake", "route", "infer", "bill") if name not in stages]
    if missing:
        raise ValueError(f"`stages` must have `{missing[0]}`")
    for before, after in (
        ("intake", "route"),
        ("route", "infer"),
        ("infer", "bill"),
        ("infer", "check"),
        ("check", "bill"),
        ("cache", "infer"),
        ("intake", "limit"),
        ("limit", "infer"),
        ("intake", "budget"),
        ("budget", "cache"),
        ("budget", "assemble"),
        ("budget", "reserve"),
        ("assemble", "reserve"),
        ("route", "reserve"),
        ("reserve", "infer"),
    ):
        if before in stages and after in stages and stages.index(before) > stages.index(after):
            raise ValueError(f"in `stages`, `{before}` must come before `{after}`")


def _compiled(regex: str | None) -> str | None:
    if regex is not None:
        try:
            re.compile(regex)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{regex!r} is no regular expression: {error}") from None
    return regex
