"""An agent behind a port: what it needs, who is let in, and serving until a signal comes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foreword.cli._agents import load_for_agent
from foreword.cli._console import plain
from foreword.cli._home import home
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.agent.settings import AgentSettings
    from foreword.gateway.tenants import Keyring

PACKAGES = frozenset({"granian", "starlette", "msgspec", "prometheus_client", "anyio"})
"""What the extra `serve` installs."""


async def serve_agent(
    settings: AgentSettings, folder: Path, keys: Keyring | None, *, host: str, port: int, public_url: str | None, at_once: int, queue: int
) -> None:
    """Opens an agent and serves it until a signal comes."""
    from importlib.metadata import version

    from foreword.agent import a2a_listening, a2a_server
    from foreword.agent.opening import opened

    async with opened(settings, load_model=load_for_agent, folder=folder, home=home()) as ready:
        application = a2a_server.build(
            lambda owner: ready.worker(owner),
            name=settings.name,
            description=settings.description or settings.instructions or f"The agent {settings.name}.",
            version=version("foreword"),
            public_url=public_url,
            admit=None if keys is None else _admit(keys),
            at_once=at_once,
            most_waiting=queue,
        )
        shown = plain(settings.name)
        await a2a_listening.serve_until_signalled(
            application, host=host, port=port, ready=lambda url: typer.echo(f"Serving {shown} on {url}")
        )


def _admit(keys: Keyring) -> Any:
    from foreword.gateway.errors import Refusal

    def admit(authorization: str | None) -> str | None:
        try:
            return keys.tenant(authorization).name
        except Refusal:
            return None

    return admit


def keyring(path: Path | None, variable: str | None) -> Keyring | None:
    """The keys in a file or an environment variable; None where neither is named. Raises `ConfigError`."""
    from foreword.gateway.tenants import parse_keys, read_keys

    if path is not None and variable is not None:
        raise ConfigError("Give --api-keys or --api-keys-env, and not both.")
    if path is not None:
        return read_keys(path)
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"--api-keys-env names the environment variable `{variable}`, which is not set. Set it, or name another.")
    return parse_keys(value, source=f"the environment variable {variable}")


def need_packages() -> None:
    """Raises `ConfigError` where the extra is not installed; asked before a model is loaded."""
    try:
        import foreword.agent.a2a_listening
        import foreword.agent.a2a_server
        import foreword.gateway.tenants  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise ConfigError(f"Serving needs the package `{error.name}`. Install it: pip install 'foreword[serve]'.") from None
