"""The echo engine as the model in this process: the application that a path asks, without a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from foreword.engines.echo import load
from foreword.gateway.app import build
from foreword.prefix.store import PrefixStore

NAME = "echo-model"
"""What the model calls itself; tests call it `small`."""
SETTINGS = {"engine": "echo", "model": NAME, "price": {"machine_hour": "3.6"}}
"""At a tenth of a cent for each second."""


@contextlib.contextmanager
def echo_inside(store: Path | PrefixStore, *, name: str = "echo", fails_at: str | None = None, **options: Any) -> Iterator[Starlette]:
    """Args: store: of prefixes; name: of the engine, such as `echo-20ms`; options: of `app.build`."""
    serving = load(name, fails_at=fails_at).serve(max_rows=8, queue=64)
    kept = store if isinstance(store, PrefixStore) else PrefixStore(store)
    try:
        yield build(serving, base=NAME, store=kept, watched=False, **options)
    finally:
        serving.close()
