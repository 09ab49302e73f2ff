"""`assemble`: what stands before the question, and how much of it: prompt, history, passages and tools, under the budget of the task type.

Whatever is left out is told in the answer's header `foreword-assembled`, as in `history -12 summarised, tools 3/40`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import UNSET

from foreword.errors import ConfigError
from foreword.gateway.assembling.context import Assembling
from foreword.gateway.assembling.history import Summaries
from foreword.gateway.assembling.passages import Chunks
from foreword.gateway.assembling.prompt import StoredPrompts
from foreword.gateway.assembling.tools import Tools, called_in, tool_name
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import DEFAULT_TASK, AssembleSettings
from foreword.gateway.path_wire import REPLY
from foreword.gateway.stage import Next, Parts, Stage

_AS_IT_IS = AssembleSettings()


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError`: the settings need a part that is missing, or a folder of passages cannot be read."""
    settings = parts.settings
    plans = {name: settings.task(name).assemble for name in {*settings.tasks, DEFAULT_TASK}}
    folders = _folders(parts, plans)
    prompts = StoredPrompts(parts.prompts)
    tools = Tools(parts.embedder)
    assembling = Assembling(embedder=parts.embedder, summaries=Summaries(parts.targets, settings), tools=tools)
    idle = frozenset(name for name, plan in plans.items() if plan == _AS_IT_IS)

    async def assemble(passage: Passage) -> Next:
        name = passage.task.name
        if name in idle and passage.request.prompt is UNSET:
            return Next.ON
        plan = plans[name]
        put = await prompts.put(passage, plan.prompt)
        passage.request = put.request
        if plan.tools == "used" and put.request.tools:
            _remember(passage, tools)
        if _needs_context(plan):
            passage.request = await assembling.context(passage, plan, folders.get(name), prompted=put.count)
        return Next.ON

    return assemble


def _needs_context(plan: AssembleSettings) -> bool:
    return plan.tokens is not None or plan.history_turns is not None or plan.passages is not None or plan.tools != "all"


def _remember(passage: Passage, tools: Tools) -> None:
    """Notes calls of tools: those that the conversation shows the last answer to have made, and those of the answer to come."""
    since = next((place for place, message in enumerate(reversed(passage.request.messages)) if message.role == "user"), 0)
    tools.remember(passage, called_in(passage.request.messages[-since:] if since else ()))

    async def called() -> None:
        reply = passage.reply
        if reply is None or not reply.tool_calls or not reply.body:
            # A streamed answer's calls come back in the conversation, with what the tools said.
            return
        try:
            choices = REPLY.decode(reply.body).choices
        except msgspec.MsgspecError:
            return
        calls = [call for choice in choices for call in choice.message.tool_calls or ()]
        tools.remember(passage, [name for call in calls if (name := tool_name(call)) is not None])

    passage.afterwards.append(called)


def _folders(parts: Parts, plans: dict[str, AssembleSettings]) -> dict[str, Chunks]:
    """The passages of each task type; those of one folder once."""
    if parts.prompts is None and any(plan.prompt for plan in plans.values()):
        raise ConfigError("A task type has a `prompt`, and there is no store of prompts. Give `prompts`.")
    read: dict[tuple[Path, int], Chunks] = {}
    found: dict[str, Chunks] = {}
    for name, plan in plans.items():
        if plan.passages is None:
            continue
        if parts.embedder is None:
            raise ConfigError(f"`tasks.{name}.assemble.passages` needs an embedder. Install one: pip install 'foreword[retrieval]'.")
        place = (plan.passages.folder, plan.passages.chunk_tokens)
        if place not in read:
            read[place] = Chunks.of(plan.passages, parts.embedder)
        found[name] = read[place]
    return found
