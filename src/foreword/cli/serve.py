"""`foreword serve`: OpenAI's endpoints over one frozen model and a store of prefixes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli import _serve_path
from foreword.cli._console import plain, say
from foreword.cli._loading import load_model
from foreword.cli._options import DeviceOption, DtypeOption, ModelOption
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from foreword.engine import Serves
    from foreword.gateway.path_settings import ModelSettings, PathSettings
    from foreword.gateway.server import Application
    from foreword.gateway.strategies import Offer
    from foreword.gateway.tenants import AdminKey, Keyring
    from foreword.retrieval.embedder import Embedder

PACKAGES = frozenset({"aiohttp", "anyio", "genai_prices", "granian", "limits", "msgspec", "prometheus_client", "sqlalchemy", "starlette"})
"""What the extra `serve` installs."""
NEAR = ("127.", "localhost", "::1")
"""Starts of addresses that nobody outside this machine reaches."""
MEGABYTE = 1_000_000
MAX_ROWS, QUEUE, RESIDENT_MB = 32, 1000, 1024
NOT_LOOKED_AT: Mapping[str, Mapping[str, str | None]] = {
    "transformers": {},
    "echo": {"dtype": None, "device": None, "weights": None},
    "vllm": {
        "max_rows": "--max-num-seqs N",
        "queue": None,
        "dtype": "--dtype DTYPE",
        "device": None,
        "weights": "--quantization METHOD",
        "api_keys": "--api-key KEY",
        "api_keys_env": "--api-key KEY",
        "admin_key_env": None,
        "max_body_mb": None,
        "drain_seconds": "--shutdown-timeout SECONDS",
        "substitute": None,
        "gate": None,
        "prompts": None,
        "strategies": None,
        "strategy_calls": None,
        "strategy_seconds": None,
        "strategy_tool": None,
        "access_log": "--disable-uvicorn-access-log",
        "config": None,
    },
}
"""For each engine the options that mean nothing to it, and what vLLM calls the nearest of its own."""
NOT_LOOKED_AT_BY_PLUG_INS: Mapping[str, str | None] = {"weights": None}


class StrategyTool(StrEnum):
    """Tools that can do no harm whoever asks: they compute, and reach nothing."""

    CALCULATOR = "calculator"


def serve(
    context: typer.Context,
    engine_arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT...]", help="With --engine vllm: what else vLLM is given.", show_default=False),
    ] = None,
    model: ModelOption = "smollm2",
    prefixes: Annotated[
        Path | None,
        typer.Option("--prefixes", metavar="FOLDER", help="The prefix store.", show_default="prefixes in FOREWORD_HOME, or in ~/.foreword"),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    engine: Annotated[
        str, typer.Option("--engine", help="transformers (in this process), vllm, or echo (no model, for tests).")
    ] = "transformers",
    served_name: Annotated[
        str | None,
        typer.Option("--served-name", metavar="NAME", help="What requests call the model.", show_default="MODEL, or its folder's name"),
    ] = None,
    max_rows: Annotated[int, typer.Option("--max-rows", min=1, help="Requests computed at once.")] = MAX_ROWS,
    queue: Annotated[int, typer.Option("--queue", min=0, help="Requests that may wait besides; further ones get 429.")] = QUEUE,
    resident_mb: Annotated[float, typer.Option("--resident-mb", min=0, help="Megabytes of prefixes kept in memory.")] = RESIDENT_MB,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: Annotated[str, typer.Option("--weights", help="auto, or int8: less memory, a small cost in quality; CPU only.")] = "auto",
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", metavar="FILE", help="Keys that are let in: lines `KEY TENANT [PREFIX-PATTERN ...]`.")
    ] = None,
    api_keys_env: Annotated[
        str | None, typer.Option("--api-keys-env", metavar="NAME", help="The same lines, in an environment variable.")
    ] = None,
    admin_key_env: Annotated[
        str | None, typer.Option("--admin-key-env", metavar="NAME", help="Open /admin to the key in this environment variable.")
    ] = None,
    max_body_mb: Annotated[float, typer.Option("--max-body-mb", min=0.001, help="Largest request that is read, in megabytes.")] = 1.048576,
    drain_seconds: Annotated[float, typer.Option("--drain-seconds", min=0, help="How long answers may go on once it is to stop.")] = 30,
    substitute: Annotated[
        bool,
        typer.Option("--substitute/--no-substitute", help="Serve a conversation from a prefix that stands for its first messages."),
    ] = True,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Keep a prefix off requests that its detector says are none of its business.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FOLDER", help="The prompt store.", show_default="prompts in FOREWORD_HOME, or in ~/.foreword"),
    ] = None,
    strategies: Annotated[
        bool,
        typer.Option("--strategies/--no-strategies", help="Answer as `strategy:KEY(MODEL)` too, asking the model as often as need be."),
    ] = True,
    strategy_calls: Annotated[int, typer.Option("--strategy-calls", min=1, help="Calls of the model that one such request may take.")] = 64,
    strategy_seconds: Annotated[float, typer.Option("--strategy-seconds", min=0.001, help="Seconds that it may take.")] = 120,
    strategy_tool: Annotated[
        list[StrategyTool] | None, typer.Option("--strategy-tool", help="What strategies may call on this machine.", show_default="nothing")
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log/--no-access-log", help="A line per request on standard error.")] = True,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A foreword.toml: several models, task types, cache, budgets.", show_default=False),
    ] = None,
) -> None:
    """Serve a model and its prefixes to OpenAI clients.

    A request chooses a prefix by its model: `smollm2` is the bare model, `smollm2:support` puts the stored prefix `support` before the
    prompt, `smollm2:support@prod` what its alias means now, and `smollm2:support+anna` composes two. What is published or removed while
    the server runs is seen by the next request. A conversation with the bare model that begins with the fixed part of a compiled prompt
    is served from that prefix, and gets the same answer. As `strategy:KEY(MODEL)` a strategy asks the model as often as need be:
    `strategy:cot(smollm2)`. A request may name a stored prompt, whose messages then come before its own. With --gate, a prefix that was
    compiled with a detector is attached only where the detector says that the request is its business. SIGTERM and Ctrl-C let answers
    under way end; a second one stops at once.

    \b
    Examples:
      foreword serve
      foreword serve --model ./my-model --prefixes ./prefixes --port 0
      foreword serve --host 0.0.0.0 --api-keys keys.txt --admin-key-env FOREWORD_ADMIN_KEY
      foreword serve --strategy-calls 20 --strategy-tool calculator
      foreword serve --config foreword.toml
      foreword serve --engine vllm -- --tensor-parallel-size 2
    """
    given = _given(context)
    settings = None if config is None else _serve_path.read(config, given)
    _check_looked_at(engine, given)
    if engine == "vllm":
        from foreword.engines import vllm
        from foreword.prefix.store import default_root

        raise typer.Exit(
            vllm.launch(
                model=model,
                prefixes=prefixes or default_root(),
                host=host,
                port=port,
                served_name=served_name,
                resident_bytes=int(resident_mb * MEGABYTE) if "resident_mb" in given else None,
                extra=engine_arguments or (),
            )
        )
    if engine_arguments:
        raise ConfigError(f"The engine `{engine}` takes no arguments of its own; got {' '.join(engine_arguments)}. Leave them out.")
    keys, admin_key = _keys(api_keys, api_keys_env), _admin_key(admin_key_env)
    embedder = _embedder() if gate else None
    body_bytes = int(max_body_mb * MEGABYTE)
    outer = {"keys": keys, "admin_key": admin_key, "body_bytes": body_bytes}

    def application(serving: Serves, base: str, embedder: Embedder | None, **more: Any) -> Starlette:
        tools = [tool.value for tool in strategy_tool or ()]
        offer = _offer(strategy_calls, strategy_seconds, tools, embedder) if strategies else None
        gated = embedder if gate else None
        return _application(serving, base, prefixes, prompts, strategies=offer, substitute=substitute, gate=gated, **outer, **more)

    if access_log:
        logging.getLogger("foreword.gateway.access").setLevel(logging.INFO)
    if keys is None and not host.startswith(NEAR):
        say(f"Whoever reaches {host} may send requests. Give --api-keys to let in only those with a key.")
    listening: dict[str, Any] = {"host": host, "port": port, "drain_seconds": drain_seconds}
    if settings is not None:
        _along_a_path(settings, application, embedder, prompts=prompts, listening=listening, **outer)
        return
    base = served_name or _base_name(model)
    serving = _start(
        engine,
        model,
        dtype=dtype,
        device=device,
        weights=weights,
        max_rows=max_rows,
        queue=queue,
        resident_bytes=int(resident_mb * MEGABYTE),
    )
    try:
        app = application(serving, base, embedder)
        _run(app, lambda url: _greeting(base, url, with_keys=keys is not None), **listening)
    finally:
        serving.close()


def _along_a_path(
    settings: PathSettings,
    application: Callable[..., Starlette],
    gate: Embedder | None,
    *,
    prompts: Path | None,
    listening: Mapping[str, Any],
    **options: Any,
) -> None:
    """Serves what a file describes. Args: options: those of `foreword.gateway.path_server.build_path`."""

    def start(model: ModelSettings) -> Serves:
        said = dict(model.options)
        resident = int(float(said.pop("resident_mb", RESIDENT_MB)) * MEGABYTE)
        loading = {"dtype": "auto", "device": "auto", "weights": "auto", "max_rows": MAX_ROWS, "queue": QUEUE, **said}
        return _start(str(model.engine), model.model, resident_bytes=resident, **loading)

    def inside(serving: Serves, model: ModelSettings, embedder: Embedder | None) -> Starlette:
        return application(serving, _base_name(model.model), gate or embedder, watched=False)

    _need_packages()
    app, serving = _serve_path.build(settings, start=start, application=inside, prompts=prompts, **options)
    try:
        _run(app, lambda url: _serve_path.greeting(url, settings, with_keys=options["keys"] is not None), **listening)
    finally:
        if serving is not None:
            serving.close()


def _given(context: typer.Context) -> dict[str, str]:
    """What stands on the command line, the value that it would have anyway included: each parameter, and how it is written."""
    return {
        str(parameter.name): "/".join((*parameter.opts, *parameter.secondary_opts))
        for parameter in context.command.params
        if (source := context.get_parameter_source(str(parameter.name))) is not None and source.name == "COMMANDLINE"
    }


def _check_looked_at(engine: str, given: Mapping[str, str]) -> None:
    """Raises `ConfigError` for options that were given and that the engine would not look at."""
    ignored = NOT_LOOKED_AT.get(engine, NOT_LOOKED_AT_BY_PLUG_INS)
    told = [
        f"{option} (behind `--` its own is `{ignored[name]}`)" if ignored[name] else f"{option} (leave it out)"
        for name, option in given.items()
        if name in ignored
    ]
    if told:
        raise ConfigError(f"The engine `{engine}` does not look at {', '.join(told)}.")


def _start(engine: str, model: str, *, dtype: Any, device: str, weights: str, max_rows: int, queue: int, resident_bytes: int) -> Serves:
    """Loads the engine and has it serve."""
    from foreword import registry
    from foreword.engine import Serves

    _need_packages()
    if engine == "transformers":
        loaded = load_model(model, dtype=dtype, device=device, weights=weights).engine
    else:
        loaded = registry.find("foreword.engines", engine).load(model, dtype=dtype, device=device)
    if not hasattr(loaded, "serve"):
        raise ConfigError(f"The engine `{engine}` answers, but does not serve. Choose another with `--engine`.")
    serving = loaded.serve(max_rows=max_rows, queue=queue, resident_bytes=resident_bytes)
    assert isinstance(serving, Serves), f"what `{engine}` serves with does not meet the protocol"
    return serving


def _application(serving: Serves, base: str, prefixes: Path | None, prompts: Path | None, **options: Any) -> Starlette:
    """Args: options: those of `foreword.gateway.app.build`."""
    from foreword.gateway.app import build
    from foreword.prefix.store import PrefixStore
    from foreword.prompting.store import PromptStore

    return build(serving, base=base, store=PrefixStore(prefixes), prompts=PromptStore(prompts), **options)


def _offer(calls: int, seconds: float, tools: Sequence[str], embedder: Embedder | None) -> Offer:
    """What strategies may take and use."""
    from foreword import registry
    from foreword.gateway.strategies import Offer
    from foreword.prompting.strategy import Budget, Resources
    from foreword.prompting.tool import Tools

    made = Tools.of(registry.find("foreword.agent.tools", name).make() for name in dict.fromkeys(tools))
    return Offer(budget=Budget(calls=calls, seconds=seconds), resources=Resources(tools=made, embedder=embedder))


def _run(app: Application, greeting: Callable[[str], str], *, host: str, port: int, drain_seconds: float) -> None:
    from foreword.gateway.server import run

    run(app, host=host, port=port, drain_seconds=drain_seconds, ready=lambda url: typer.echo(greeting(url)))


def _embedder() -> Embedder:
    """What the gate reads requests with; asked before minutes are spent on loading a model."""
    from foreword.retrieval import embedder

    return embedder.get()


def _need_packages() -> None:
    """Raises `ConfigError` where the extra is not installed; asked before minutes are spent on loading a model."""
    try:
        import foreword.gateway.app
        import foreword.gateway.server  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise ConfigError(f"Serving needs the package `{error.name}`. Install it: pip install 'foreword[serve]'.") from None


def _keys(path: Path | None, variable: str | None) -> Keyring | None:
    if path is not None and variable is not None:
        raise ConfigError("Give --api-keys or --api-keys-env, and not both.")
    if path is None and variable is None:
        return None
    _need_packages()
    from foreword.gateway.tenants import parse_keys, read_keys

    if path is not None:
        return read_keys(path)
    assert variable is not None
    return parse_keys(_from_environment(variable, "--api-keys-env"), source=f"the environment variable {variable}")


def _admin_key(variable: str | None) -> AdminKey | None:
    if variable is None:
        return None
    _need_packages()
    from foreword.gateway.tenants import admin_key

    return admin_key(_from_environment(variable, "--admin-key-env"))


def _from_environment(variable: str, option: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"{option} names the environment variable `{variable}`, which is not set. Set it, or name another.")
    return value


def _base_name(model: str) -> str:
    """A Hugging Face id stays as it is; of a folder only the last part, which tells nothing about this machine."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def _greeting(base: str, url: str, *, with_keys: bool) -> str:
    name, key = plain(base), "YOUR-KEY" if with_keys else "none"
    header = " -H 'Authorization: Bearer YOUR-KEY'" if with_keys else ""
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    return f"""\
Serving {name} on {url}

curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} -d '{body}'

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
print(client.chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello!"}}]).choices[0].message.content)
"""
