"""Makes of settings an agent that can work: loads models, makes tools, connects servers and other agents, opens memories; closes it all."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from foreword.agent import tool as tools_that_come_along
from foreword.agent.a2a_client import remote_tool
from foreword.agent.a2a_tasks import Works
from foreword.agent.agent import Agent, Watch
from foreword.agent.checking import judge
from foreword.agent.facts import DAY, Decay
from foreword.agent.long_memory import LongMemory
from foreword.agent.mcp import mcp_tools
from foreword.agent.planner import Planner
from foreword.agent.settings import JUDGE, AgentSettings, LongTermSettings, ModelSettings, ToolSettings, WorkerSettings
from foreword.agent.short_memory import ShortTerm, estimated_tokens
from foreword.agent.team import Debate, Supervised, Worker
from foreword.errors import AgentError, ConfigError, ToolError
from foreword.prompting import verifier
from foreword.prompting.model import Model
from foreword.prompting.tool import Tool, Tools
from foreword.prompting.verifier import Verify
from foreword.retrieval import embedder as embedders
from foreword.retrieval.embedder import Embedder
from foreword.types import Sampling

MEMORY_FILE = "memory.sqlite"
SPARE_TOKENS = 64
"""Of the window: counts of parts do not add up to the count of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model to work with. Attributes: window: positions of prompt and answer together; None where that is not known."""

    model: Model
    count: Callable[[str], int] = estimated_tokens
    window: int | None = None


LoadModel = Callable[[ModelSettings], LoadedModel]


class Opened:
    """An agent ready to work."""

    def __init__(self, make: Callable[[LongMemory | None], Works], memory: Callable[[str | None], LongMemory | None]) -> None:
        self._make, self._memory = make, memory

    def worker(self, tenant: str | None = None) -> Works:
        """The agent, the team or the debate. Args: tenant: whose long-term memory it has; None for the one that the settings name."""
        return self._make(self._memory(tenant))


@asynccontextmanager
async def opened(
    settings: AgentSettings,
    *,
    load_model: LoadModel,
    folder: Path,
    home: Path,
    more_tools: Sequence[Tool] = (),
    watch: Watch | None = None,
) -> AsyncIterator[Opened]:
    """The agent that settings describe, for as long as the context lasts.

    Args:
        folder: what paths in the settings are relative to.
        home: where the long-term memory is, unless the settings say otherwise.
        more_tools: besides those of the settings.

    Raises:
        ConfigError, RegistryError: something in the settings does not exist or cannot be used.
        ModelError: a model or an embedder cannot be loaded.
        AgentError: a memory, a server of tools or another agent cannot be reached.
    """
    async with AsyncExitStack() as stack:
        models: dict[ModelSettings, LoadedModel] = {}
        for wanted in (settings.model, *(worker.model for worker in settings.workers if worker.model is not None)):
            if wanted not in models:
                models[wanted] = load_model(wanted)
                stack.push_async_callback(models[wanted].model.close)
        tools = [*_made(settings.tools, folder), *more_tools, *await _connected(settings, stack)]
        lead = _agent(settings, models[settings.model], Tools.of(tools), watch)
        members = [_worker(worker, settings, lead, models, folder) for worker in settings.workers]
        yield Opened(
            lambda memory: _together(settings, replace(lead, memory=memory), members),
            _memories(settings.memory.long_term, folder, home, stack),
        )


def _agent(settings: AgentSettings, loaded: LoadedModel, tools: Tools, watch: Watch | None) -> Agent:
    long_term = settings.memory.long_term or LongTermSettings()
    planner = settings.planner
    return Agent(
        model=loaded.model,
        name=settings.name,
        instructions=settings.instructions,
        tools=tools,
        memory_tools=long_term.tools,
        remembered=long_term.recalled,
        short_term=_short_term(settings, settings.model, loaded),
        count=loaded.count,
        planner=None if planner is None else Planner(most_tasks=planner.most_tasks, revise=planner.revise),
        check=_check(settings.check),
        budget=settings.budget.budget(),
        sampling=_sampling(settings.model),
        price=settings.price,
        watch=watch,
    )


def _worker(
    settings: WorkerSettings, lead_settings: AgentSettings, lead: Agent, models: dict[ModelSettings, LoadedModel], folder: Path
) -> Worker:
    model = settings.model or lead_settings.model
    loaded = models[model]
    own = replace(
        lead,
        model=loaded.model,
        name=settings.name,
        instructions=settings.instructions,
        tools=Tools.of(_made(settings.tools, folder)),
        memory=None,
        planner=None,
        check=None,
        short_term=_short_term(lead_settings, model, loaded),
        count=loaded.count,
        budget=(settings.budget or lead_settings.budget).budget(),
        sampling=_sampling(model),
        price=settings.price or (lead.price if settings.model is None else None),
    )
    return Worker(agent=own, description=settings.description or settings.instructions or settings.name)


def _together(settings: AgentSettings, lead: Agent, members: Sequence[Worker]) -> Works:
    if not members:
        return lead
    if settings.team is not None and settings.team.kind == "debate":
        return Debate(
            peers=tuple(member.agent for member in members),
            rounds=settings.team.rounds,
            name=lead.name,
            budget=lead.budget,
            watch=lead.watch,
        )
    return Supervised(supervisor=lead, workers=tuple(members))


async def _connected(settings: AgentSettings, stack: AsyncExitStack) -> list[Tool]:
    """The tools of servers and other agents."""
    found: list[Tool] = []
    if settings.mcp:
        try:
            found += await stack.enter_async_context(mcp_tools(*(server.server() for server in settings.mcp)))
        except ToolError as error:
            raise AgentError(str(error)) from error
    for remote in settings.remotes:
        found.append(await remote_tool(remote))
    return found


def _made(wanted: Sequence[ToolSettings], folder: Path) -> list[Tool]:
    return [tools_that_come_along.get(settings.tool, **settings.own(folder)) for settings in wanted]


def _short_term(settings: AgentSettings, model: ModelSettings, loaded: LoadedModel) -> ShortTerm:
    memory = settings.memory
    room = memory.most_tokens if loaded.window is None else loaded.window - model.max_new_tokens - SPARE_TOKENS
    if room < SPARE_TOKENS:
        raise ConfigError(
            f"The window of `{loaded.model.name}` is {loaded.window:,}; answers of {model.max_new_tokens:,} tokens leave no room for a "
            "prompt. Lower `max_new_tokens`."
        )
    return ShortTerm(
        most_tokens=min(memory.most_tokens, room), summarise=memory.summarise, summary_tokens=min(memory.summary_tokens, room // 4)
    )


def _sampling(model: ModelSettings) -> Sampling:
    return Sampling(max_new_tokens=model.max_new_tokens, temperature=model.temperature, top_p=model.top_p, seed=model.seed)


def _check(name: str | None) -> Verify | None:
    return None if name is None else judge if name == JUDGE else verifier.get(name)


def _memories(
    settings: LongTermSettings | None, folder: Path, home: Path, stack: AsyncExitStack
) -> Callable[[str | None], LongMemory | None]:
    """Opens the memory of one tenant after another, each once."""
    if settings is None:
        return lambda tenant: None
    path = home / MEMORY_FILE if settings.file is None else folder / settings.file
    embedder = embedder_of(settings.embedder)
    open_ones: dict[str, LongMemory] = {}

    def memory(tenant: str | None) -> LongMemory:
        owner = tenant or settings.tenant
        if owner not in open_ones:
            decay = Decay(half_life=settings.half_life_days * DAY)
            open_ones[owner] = LongMemory(path, tenant=owner, namespace=settings.namespace, embedder=embedder, decay=decay)
            stack.callback(open_ones[owner].close)
        return open_ones[owner]

    memory(None)
    return memory


def embedder_of(name: str) -> Embedder | None:
    """The embedder that settings name. Raises `RegistryError`, `ModelError`."""
    if name == "none" or (name == "auto" and importlib.util.find_spec(embedders.DEFAULT) is None):
        return None
    return embedders.get(embedders.DEFAULT if name == "auto" else name)
