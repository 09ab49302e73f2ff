"""Serving along a path: what `foreword serve --config` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from foreword.engine import Serves
    from foreword.gateway.path_server import PathServer
    from foreword.gateway.path_settings import ModelSettings, PathSettings
    from foreword.retrieval.embedder import Embedder

ENGINE_OPTIONS: dict[str, tuple[type, ...]] = {
    "dtype": (str,),
    "device": (str,),
    "weights": (str,),
    "max_rows": (int,),
    "queue": (int,),
    "resident_mb": (int, float),
}
"""What `models.NAME.options` may say of a model in this process, as `foreword serve` calls it."""
IN_THE_FILE = ("model", "engine", "served_name", "max_rows", "queue", "resident_mb", "dtype", "device", "weights")
"""Options of `foreword serve` that the file has in their place."""


def read(config: Path, given: dict[str, str]) -> PathSettings:
    """The file's settings. Raises `ConfigError`, also for options that the file has in their place."""
    from foreword.gateway.path_settings import read_settings

    # Products in the served path are small, and a second thread for them only takes turns with the event loop. Numpy is not loaded yet.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    twice = [option for name, option in given.items() if name in IN_THE_FILE]
    if twice:
        raise ConfigError(f"With --config, models are described in the file; leave out {', '.join(twice)}.")
    return read_settings(config)


def embedded(settings: PathSettings) -> ModelSettings | None:
    """The model that runs in this process. Raises `ConfigError` where its options are unknown, or cannot be."""
    model = next((model for model in settings.models.values() if model.engine is not None), None)
    if model is not None and (unknown := sorted(set(model.options) - set(ENGINE_OPTIONS))):
        raise ConfigError(f"`options` of `{model.model}` has `{unknown[0]}`. It takes {', '.join(sorted(ENGINE_OPTIONS))}.")
    if model is not None:
        _check_options(model)
    return model


def _check_options(model: ModelSettings) -> None:
    """Raises `ConfigError`."""
    for name, value in model.options.items():
        kinds, least = ENGINE_OPTIONS[name], 1 if name == "max_rows" else 0
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not fits or (isinstance(value, int | float) and value < least):
            kind = "a text" if kinds == (str,) else f"a number from {least} on"
            raise ConfigError(f"`options.{name}` of `{model.model}` must be {kind}; got {value!r}.")


def needs_embedder(settings: PathSettings) -> bool:
    """Whether anything of the path compares texts by their meaning."""
    tasks = settings.tasks.values()
    return bool(settings.intake_model or settings.router_model) or any(
        task.cache.semantic != "off" or task.assemble.passages is not None or task.assemble.tools != "all" for task in tasks
    )


def build(
    settings: PathSettings,
    *,
    start: Callable[[ModelSettings], Serves],
    application: Callable[[Serves, ModelSettings, Embedder | None], Starlette],
    prompts: Path | None,
    **options: Any,
) -> tuple[PathServer, Serves | None]:
    """The path's application, and the engine in this process, which the caller closes.

    Args:
        start: loads a model and has it serve.
        application: what answers for it.
        options: those of `foreword.gateway.path_server.build_path`.
    """
    from foreword.gateway.path_server import build_path
    from foreword.prompting.store import PromptStore
    from foreword.retrieval import embedder

    compares = embedder.get() if needs_embedder(settings) else None
    model = embedded(settings)
    serving = None if model is None else start(model)
    try:
        inside = None if serving is None or model is None else application(serving, model, compares)
        return build_path(settings, inside=inside, prompts=PromptStore(prompts), embedder=compares, **options), serving
    except BaseException:
        if serving is not None:
            serving.close()
        raise


def greeting(url: str, settings: PathSettings, *, with_keys: bool = False) -> str:
    """What is said once the server listens."""
    models, key = ", ".join(settings.models), "YOUR-KEY" if with_keys else "none"
    return f"""\
Serving {models} on {url}

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
print(client.chat.completions.create(model="auto", messages=[{{"role": "user", "content": "Hello!"}}]).choices[0].message.content)
"""
