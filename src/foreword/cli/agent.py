"""`foreword agent`: have a model work towards a goal with tools, look at what it did, keep its memory, and serve it to others."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.cli._agent_serving import keyring, need_packages, serve_agent
from foreword.cli._agents import (
    echo_json,
    folder_of,
    load_for_agent,
    memory_at,
    result_row,
    settings_of,
    shower,
    summary_of,
)
from foreword.cli._console import plain, say, stdout
from foreword.cli._home import home
from foreword.cli._options import JsonOption
from foreword.cli._sources import STDIN, read_text
from foreword.cli._units import duration
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.agent.agent import AgentResult
    from foreword.agent.settings import AgentSettings

NEAR = ("127.", "localhost", "::1")
"""Starts of addresses that nobody outside this machine reaches."""

app = typer.Typer(no_args_is_help=True)
memory_app = typer.Typer(no_args_is_help=True)

AgentOption = Annotated[
    Path | None, typer.Option("--agent", metavar="FILE", help="The agent's file, agent.toml; options stand above what it says.")
]
EngineOption = Annotated[str | None, typer.Option("--engine", help="transformers, echo or scripted.", show_default="transformers")]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="smollm2, a folder, or a Hugging Face id.", show_default="smollm2")
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The memory.", show_default="memory.sqlite in FOREWORD_HOME, or in ~/.foreword"),
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Which part of the memory.")]
TenantOption = Annotated[str, typer.Option("--tenant", help="Whose facts.")]


@app.callback()
def agent() -> None:
    """Have a model work towards a goal, step by step, with tools, memory and plans, within a budget.

    An agent is a file, agent.toml, or is put together by options. Its tools: calculator, retrieval, sql, python, http-get, tools of MCP
    servers, and other agents.
    """


@memory_app.callback()
def memory() -> None:
    """Look at what agents remember, and have it forgotten."""


app.add_typer(memory_app, name="memory")


@app.command("run")
def run(
    goal: Annotated[
        str | None,
        typer.Argument(metavar="[GOAL]", help="What is to be done; - reads standard input.", show_default="the file's goal"),
    ] = None,
    agent_file: AgentOption = None,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="TOOL", help="A tool besides the file's, such as calculator or sql(path=shop.db); may be repeated."),
    ] = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    instructions: Annotated[str | None, typer.Option(help="How it is to work.")] = None,
    plan: Annotated[bool | None, typer.Option("--plan/--no-plan", help="Make a plan and look it over after each step.")] = None,
    check: Annotated[str | None, typer.Option(metavar="NAME", help="Check answers: judge (the model itself), or a verifier.")] = None,
    remember: Annotated[bool, typer.Option("--memory", help="Keep a long-term memory.")] = False,
    budget_steps: Annotated[int | None, typer.Option(min=1, help="Steps at most.", show_default="20")] = None,
    budget_calls: Annotated[int | None, typer.Option(min=1, help="Calls of models at most.", show_default="100")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens at most, prompts' and answers'.")] = None,
    budget_money: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Money at most; needs prices in the agent's file.")] = None,
    budget_time: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Time at most, such as 90s or 5m.", show_default="10m")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of one answer.", show_default="512")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 takes the likeliest token each time.", show_default="0")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything that is drawn.", show_default="0")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything that happens to a file, for `replay`.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the steps.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Work towards a goal. The answer goes to standard output, the steps to standard error as they happen.

    Exits with 1 where the goal was not met: the budget was spent, the model went round in circles, or nothing more could be done. The last
    line on standard error says which.

    \b
    Examples:
      foreword agent run "What is 17 * 23 - 4?" --tool calculator
      foreword agent run "Which product sold best?" --tool "sql(path=shop.sqlite)" --trace best.jsonl
      foreword agent run --agent clerk/agent.toml --budget-steps 10 --json
    """
    settings = settings_of(
        agent_file,
        instructions=instructions,
        model={"engine": engine, "name": model, "max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed},
        budget={"steps": budget_steps, "calls": budget_calls, "tokens": budget_tokens, "money": budget_money, "seconds": budget_time},
        check=check,
    )
    settings = _with_switches(settings, plan=plan, remember=remember)
    wanted = read_text(STDIN) if goal == STDIN else goal if goal is not None else settings.goal
    if wanted is None:
        raise ConfigError('Give a GOAL, or write `goal = "..."` into the agent\'s file.')
    result = asyncio.run(_run(settings, wanted, folder_of(agent_file), tool or [], quiet=quiet))
    _told(result, trace, as_json=as_json)
    if result.status != "goal-met":
        raise typer.Exit(1)


def _with_switches(settings: AgentSettings, *, plan: bool | None, remember: bool) -> AgentSettings:
    """The settings with a planner or without one, and with a long-term memory."""
    from foreword.agent.settings import LongTermSettings, PlannerSettings

    changes: dict[str, Any] = {}
    if plan is not None:
        changes["planner"] = (settings.planner or PlannerSettings()) if plan else None
    if remember and settings.memory.long_term is None:
        changes["memory"] = settings.memory.model_copy(update={"long_term": LongTermSettings()})
    return settings.model_copy(update=changes)


async def _run(settings: AgentSettings, goal: str, folder: Path, tools: list[str], *, quiet: bool) -> AgentResult:
    from foreword.agent.opening import opened
    from foreword.agent.tool import parse

    more = [parse(text) for text in tools]
    watch = None if quiet else shower()
    async with opened(settings, load_model=load_for_agent, folder=folder, home=home(), more_tools=more, watch=watch) as ready:
        return await ready.worker().run(goal)


def _told(result: AgentResult, trace: Path | None, *, as_json: bool) -> None:
    from foreword.agent import recording

    # The answer first: it was paid for, and the file may turn out not to be writable.
    if as_json:
        echo_json(result_row(result))
    elif result.text:
        typer.echo(plain(result.text))
    if trace is not None:
        recording.write(result, trace)
        say(f"Wrote {trace}")
    say(plain(summary_of(result)))


@app.command("replay")
def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A file that `agent run --trace` wrote.")],
    again: Annotated[
        bool, typer.Option("--again", help="Do the work again with the recorded answers and observations, and report the first difference.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what an agent did, step by step; or do it again, without a model and without touching anything.

    Done again, the same version of Foreword does the same. Where something differs, the first difference is shown, and the exit code is 1.

    \b
    Examples:
      foreword agent replay best.jsonl
      foreword agent replay best.jsonl --again
    """
    from foreword.agent import recording

    found = recording.read(trace)
    if again:
        _again(found, as_json=as_json)
        return
    if as_json:
        echo_json([span.model_dump(mode="json") for span in found.trace.spans])
        return
    depths: dict[int | None, int] = {None: -1}
    for span in found.trace.spans:
        depths[span.id] = depths.get(span.parent, -1) + 1
        indent = "  " * depths[span.id]
        failed = "" if span.status == "ok" else f" [{span.status}]"
        body = plain(recording.told(span)).replace("\n", f"\n{indent}    ")
        typer.echo(f"{indent}{span.id}. {span.kind}{failed} ({span.seconds:.3f} s) {body}")
    header = found.header
    typer.echo(f"{header.status or 'cut off'}{f': {plain(header.reason)}' if header.reason else ''} ({header.steps} steps)")


def _again(found: Any, *, as_json: bool) -> None:
    from foreword.agent import recording

    repeated = asyncio.run(recording.again(found))
    divergence = repeated.divergence
    if as_json:
        row = None if divergence is None else {name: getattr(divergence, name) for name in ("where", "what", "recorded", "now")}
        echo_json({"same": repeated.same, "divergence": row})
    elif divergence is None:
        typer.echo(f"The same: {found.header.steps} steps, {found.header.status}.")
    else:
        typer.echo(
            plain(f"Different at {divergence.where}, {divergence.what}.\nRecorded: {divergence.recorded}\nNow:      {divergence.now}")
        )
    if divergence is not None:
        raise typer.Exit(1)


@memory_app.command("ls")
def ls(
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="Only what fits this, best first.", show_default=False)
    ] = None,
    file: FileOption = None,
    namespace: NamespaceOption = "default",
    tenant: TenantOption = "default",
    as_json: JsonOption = False,
) -> None:
    """List the facts of a memory with where they came from; looking does not make them fresh again.

    \b
    Examples:
      foreword agent memory ls
      foreword agent memory ls "Anna's address" --namespace support --json
    """
    found = memory_at(file, tenant, namespace, embedder="none" if question is None else "auto")
    try:
        facts = found.facts() if question is None else [item.fact for item in found.recall(question, most=20, reinforce=False)]
        rows = [_fact_row(fact, found.strength(fact)) for fact in facts]
    finally:
        found.close()
    if as_json:
        echo_json(rows)
    elif not rows:
        say("Nothing is remembered here." if question is None else "Nothing that is remembered fits this.")
    else:
        table = Table()
        for title in ("id", "fact", "source", "run", "strength", "recalls"):
            table.add_column(title, justify="right" if title in ("id", "strength", "recalls") else "left", overflow="fold")
        for row in rows:
            table.add_row(
                str(row["id"]), plain(row["text"]), plain(row["source"]), row["run"], f"{row['strength']:.2f}", str(row["recalls"])
            )
        stdout().print(table)


def _fact_row(fact: Any, strength: float) -> dict[str, Any]:
    told = fact.provenance
    return {
        "id": fact.id,
        "text": fact.text,
        "source": told.source,
        "run": told.run,
        "span": told.span,
        "importance": fact.importance,
        "strength": round(strength, 4),
        "recalls": fact.recalls,
        "made": fact.made,
        "used": fact.used,
    }


@memory_app.command("forget")
def forget(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Facts by their numbers.", show_default=False)] = None,
    words: Annotated[str | None, typer.Option(help="Facts that hold all of these words.")] = None,
    source: Annotated[str | None, typer.Option(help="Facts that came from there, such as tool:sql.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Facts that were written down in one piece of work.")] = None,
    faded: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Facts of whose strength less than this is left.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All facts of the namespace.")] = False,
    file: FileOption = None,
    namespace: NamespaceOption = "default",
    tenant: TenantOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Forget facts for good: they are removed from the file, and what remained of them on the disk is overwritten.

    Several conditions forget what meets any of them.

    \b
    Examples:
      foreword agent memory forget 12 15
      foreword agent memory forget --words "Anna address" --namespace support
      foreword agent memory forget --faded 0.05
    """
    found = memory_at(file, tenant, namespace)
    try:
        gone = [] if faded is None else found.fade(below=faded)
        if faded is None or ids or words or source or run_id or everything:
            gone += found.forget(ids=ids or (), run=run_id, source=source, words_of=words, everything=everything)
    finally:
        found.close()
    if as_json:
        echo_json({"forgotten": [fact.id for fact in gone]})
    else:
        typer.echo(f"Forgot {len(gone)} facts." if len(gone) != 1 else "Forgot 1 fact.")


@app.command("serve")
def serve(
    agent_file: AgentOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8100,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the agent is reached, for its card.", show_default="as it is asked for")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Tasks worked on together.")] = 4,
    queue: Annotated[int, typer.Option(min=0, help="Tasks that may wait besides; further ones are rejected.")] = 64,
    api_keys: Annotated[Path | None, typer.Option("--api-keys", metavar="FILE", help="Keys that are let in: lines `KEY TENANT`.")] = None,
    api_keys_env: Annotated[
        str | None, typer.Option("--api-keys-env", metavar="NAME", help="The same lines, in an environment variable.")
    ] = None,
) -> None:
    """Serve an agent to other agents, over HTTP as the A2A protocol has it.

    Its card is at /.well-known/agent-card.json; tasks come as JSON-RPC: message/send, tasks/get, tasks/cancel. With keys, each tenant has
    tasks and a long-term memory of its own. Ctrl-C stops it; tasks under way are then cancelled.

    \b
    Examples:
      foreword agent serve --agent clerk/agent.toml
      foreword agent serve --agent clerk/agent.toml --host 0.0.0.0 --public-url https://clerk.example.org/ --api-keys keys.txt
    """
    need_packages()
    settings = settings_of(agent_file, model={"engine": engine, "name": model})
    keys = keyring(api_keys, api_keys_env)
    if keys is None and not host.startswith(NEAR):
        say(f"Whoever reaches {host} may send tasks. Give --api-keys to let in only those with a key.")
    asyncio.run(
        serve_agent(settings, folder_of(agent_file), keys, host=host, port=port, public_url=public_url, at_once=at_once, queue=queue)
    )
    # Everything is closed by now. A thread that outlasts the server by a moment can abort an interpreter that is being taken down.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
