"""An agent as a file: `agent.toml` says what it is, what it may use, and what it may take.

    name = "clerk"
    instructions = "You answer customers of a coffee-machine maker."

    [model]
    name = "smollm2"

    [[tools]]
    tool = "sql"
    path = "orders.sqlite"

    [memory.long_term]
    namespace = "support"

    [budget]
    steps = 12
    seconds = 120

Paths are relative to the file's folder. Secrets are not written into it: settings that end in `_env` name environment variables.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from foreword.agent.a2a_client import RemoteAgent
from foreword.agent.agent import AgentBudget
from foreword.agent.mcp import McpServer
from foreword.cost.prices import Price
from foreword.errors import ConfigError

FILE_NAME = "agent.toml"
PATH_SETTINGS = ("path", "file", "files")
"""Settings of tools that name files."""
JUDGE = "judge"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Strict):
    """Which model, and how its calls are drawn."""

    engine: str = "transformers"
    name: str = "smollm2"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)


class ToolSettings(BaseModel):
    """A tool by its key (`tool`); everything else is its own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    tool: str

    def own(self, folder: Path) -> dict[str, Any]:
        """The tool's own settings, with paths from `folder` on."""
        return {name: _placed(value, folder) if name in PATH_SETTINGS else value for name, value in (self.model_extra or {}).items()}


class McpSettings(_Strict):
    """A server of tools: a command, or an address. Attributes: env_from, headers_env: names of variables that hold the values."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env_from: dict[str, str] = {}
    url: str | None = None
    headers_env: dict[str, str] = {}
    prefix: str = ""
    tools: tuple[str, ...] | None = None
    seconds: float = Field(default=30.0, gt=0)

    def server(self) -> McpServer:
        """The server. Raises `ConfigError` where a variable is not set, or it is neither a command nor an address."""
        return McpServer(
            command=self.command,
            args=self.args,
            env={name: _from_environment(variable) for name, variable in self.env_from.items()},
            url=self.url,
            headers={name: _from_environment(variable) for name, variable in self.headers_env.items()},
            prefix=self.prefix,
            tools=self.tools,
            seconds=self.seconds,
        )


class LongTermSettings(_Strict):
    """Long-term memory.

    Attributes:
        file: None takes `memory.sqlite` in FOREWORD_HOME, or in ~/.foreword.
        embedder: its name; `auto` takes the one that is installed, `none` recalls by words.
        recalled: facts at the begin of a piece of work, at most.
        tools: let the model write facts down and look them up.
    """

    file: str | None = None
    tenant: str = "default"
    namespace: Name = "default"
    embedder: str = "auto"
    half_life_days: float = Field(default=7.0, gt=0)
    recalled: int = Field(default=5, ge=1, le=100)
    tools: bool = True


class MemorySettings(_Strict):
    """What the agent has before its eyes, and what it keeps for later."""

    most_tokens: int = Field(default=4_000, ge=64)
    summarise: bool = True
    summary_tokens: int = Field(default=200, ge=16)
    long_term: LongTermSettings | None = None


class PlannerSettings(_Strict):
    """Whether and how it plans."""

    most_tasks: int = Field(default=8, ge=1, le=12)
    revise: bool = True


class BudgetSettings(_Strict):
    """What one piece of work may take; 0 for no limit, save of steps."""

    steps: int = Field(default=20, ge=1)
    calls: int = Field(default=100, ge=0)
    tokens: int = Field(default=0, ge=0)
    money: Decimal = Field(default=Decimal(0), ge=0)
    seconds: float = Field(default=600.0, ge=0)

    @field_validator("money", mode="before")
    @classmethod
    def _no_float_dust(cls, value: object) -> object:
        return repr(value) if isinstance(value, float) else value

    def budget(self) -> AgentBudget:
        """The budget."""
        return AgentBudget(
            steps=self.steps, calls=self.calls or None, tokens=self.tokens or None, money=self.money or None, seconds=self.seconds or None
        )


class WorkerSettings(_Strict):
    """A member of the team. Attributes: model, price, budget: the agent's own where they are not given."""

    name: Name
    description: str = ""
    instructions: str = ""
    model: ModelSettings | None = None
    price: Price | None = None
    tools: tuple[ToolSettings, ...] = ()
    budget: BudgetSettings | None = None


class TeamSettings(_Strict):
    """How the workers work: for this agent as their supervisor, or as peers in a debate. Attributes: rounds: of a debate."""

    kind: Literal["supervisor", "debate"] = "supervisor"
    rounds: int = Field(default=2, ge=1, le=10)


class AgentSettings(_Strict):
    """An agent file.

    Attributes:
        description: what the agent is good for, for others that might ask it.
        goal: what it works towards where it is not told otherwise.
        check: `judge` asks the model whether an answer meets the goal; otherwise the name of a verifier.
    """

    name: Name = "agent"
    description: str = ""
    goal: str | None = None
    instructions: str = ""
    model: ModelSettings = ModelSettings()
    price: Price | None = None
    tools: tuple[ToolSettings, ...] = ()
    mcp: tuple[McpSettings, ...] = ()
    remotes: tuple[RemoteAgent, ...] = ()
    memory: MemorySettings = MemorySettings()
    planner: PlannerSettings | None = None
    check: str | None = None
    budget: BudgetSettings = BudgetSettings()
    workers: tuple[WorkerSettings, ...] = ()
    team: TeamSettings | None = None

    @model_validator(mode="after")
    def _a_team_has_workers(self) -> AgentSettings:
        if self.team is not None and not self.workers:
            raise ValueError("`team` is given without `workers`")
        return self


def load(path: Path) -> AgentSettings:
    """The agent in a file.

    Raises:
        ConfigError: it cannot be read, or says something that cannot be.
    """
    if path.is_dir():
        path = path / FILE_NAME
    try:
        return AgentSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, part['loc'])) or 'file'}: {part['msg']}" for part in error.errors(include_url=False)]
        known = ", ".join(AgentSettings.model_fields)
        raise ConfigError(f"`{path}` cannot be used:\n" + "\n".join(lines) + f"\nKeys are: {known}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"`{path}` is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"`{path}` is not valid TOML: {error}.") from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror or error}.") from None


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_placed(item, folder) for item in value]
    return str(folder / value) if isinstance(value, str) else value


def _from_environment(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"The environment variable `{variable}` is not set. Set it, or name another.")
    return value
