"""What every request needs: the engine, the bridge to it, names, keys, and whether the server still takes work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from foreword.engine import Serves
from foreword.gateway.bridge import Bridge
from foreword.gateway.gating import Gate
from foreword.gateway.metrics import Metrics
from foreword.gateway.naming import Names
from foreword.gateway.prompts import Prompts
from foreword.gateway.stands_for import StandIns
from foreword.gateway.strategies import Strategies
from foreword.gateway.tenants import EVERYBODY, AdminKey, Keyring, Tenant

BODY_BYTES = 1 << 20
TENANT = "foreword.tenant"
"""Where a request that comes from within this process says whose it is; nothing that a client sends gets there."""


class Traffic:
    """Counts requests under way, and closes the door before the server stops."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """A request begins."""
        self.in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Returns once no request is under way."""
        await self._idle.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One engine as it is served.

    Attributes:
        keys: None where anybody may send requests.
        admin: None where there are no admin routes.
        pinned: what the admin routes have pinned.
        stand_ins: finds prefixes for messages; None where only those count that are asked for.
        gate: keeps prefixes off what is none of their business; None where every prefix that is asked for is attached.
        prompts: renders stored prompts; None where there are none.
        strategies: those at work; None where none are offered.
    """

    engine: Serves
    names: Names
    bridge: Bridge
    metrics: Metrics
    keys: Keyring | None = None
    admin: AdminKey | None = None
    body_bytes: int = BODY_BYTES
    traffic: Traffic = field(default_factory=Traffic)
    pinned: set[tuple[Path, ...]] = field(default_factory=set)
    stand_ins: StandIns | None = None
    gate: Gate | None = None
    prompts: Prompts | None = None
    strategies: Strategies | None = None

    def tenant(self, request: Request) -> Tenant:
        """Who asks. Raises `Refusal` (401)."""
        inside: Tenant | None = request.scope.get(TENANT)
        if inside is not None:
            return inside
        return EVERYBODY if self.keys is None else self.keys.tenant(request.headers.get("authorization"))

    async def cut_short(self) -> None:
        """Ends what is under way."""
        if self.strategies is not None:
            self.strategies.stop()
        await asyncio.to_thread(self.engine.close)

    async def close(self) -> None:
        """Ends its own threads, once every answer is sent."""
        self.bridge.close()


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return request.app.state.service
