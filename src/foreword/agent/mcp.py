"""Tools from MCP servers, with the official client (package `mcp`); https://modelcontextprotocol.io.

    async with mcp_tools(McpServer(command="uvx", args=("mcp-server-time",))) as tools:
        ...

A server is a stranger's program. Whatever it does (dies in the middle of a call, hangs, lists tools that are none, answers with ten
megabytes), a call ends in time with an observation that says what happened. One that was lost is started or asked again at the next call,
a few times.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, Tool, Tools

if TYPE_CHECKING:
    from mcp import Client

MOST_TOOLS = 500
"""Tools of one server."""
MOST_PAGES = 50
"""Pages of one server's list of tools."""
MOST_DESCRIPTION = 2_000
MOST_SCHEMA = 20_000
"""Characters of a tool's description, which is cut, and of its schema, without which it is left out."""
MOST_RESTARTS = 3
"""How often in a row a server that was lost is started or asked again."""
_MOST_EVENT = 64 << 20
_LAST_WORDS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """Where a server is: a command that is started and spoken with over its standard input and output, or the address of one that runs.

    Attributes:
        args: of the command.
        env: added to the few variables that the command inherits (PATH, HOME and the like; no secrets).
        url: of the streamable HTTP endpoint.
        headers: of requests to it.
        prefix: put before the names of its tools.
        tools: names, without prefix, of the tools that may be called; None for all.
        seconds: after which a call is given up.
        start_seconds: after which a server that does not answer the first greeting is given up.
        most_characters: of a call's text.
    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    prefix: str = ""
    tools: tuple[str, ...] | None = None
    seconds: float = 30.0
    start_seconds: float = 30.0
    most_characters: int = MOST_CHARACTERS

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ConfigError("An MCP server is either a `command` or a `url`. Give one of the two.")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"`url` must begin with https:// or http://; got `{self.url[:120]}`.")

    @property
    def name(self) -> str:
        """What it is called in messages: the command, or the address without what may be secret in it."""
        if self.url is None:
            return os.path.basename(self.command or "")
        parts = urlsplit(self.url)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


@asynccontextmanager
async def mcp_tools(*servers: McpServer) -> AsyncIterator[Tools]:
    """The tools of servers, for as long as the context lasts; on leaving it, what was started is ended.

    Raises:
        ConfigError: the package `mcp` is not installed, two tools have one name, or a tool that was named does not exist.
        ToolError: a server cannot be started or reached, or lists nothing that can be read.
    """
    _require()
    async with AsyncExitStack() as stack:
        found: list[Tool] = []
        for server in servers:
            connection = _Connection(server)
            stack.push_async_callback(connection.close)
            found += await connection.tools()
        yield Tools.of(found)


class _Connection:
    """One server, held by a task of its own: the client's context must be entered and left by the same task."""

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._holder: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._leave = asyncio.Event()
        self._starting = asyncio.Lock()
        self._starts = self._under_way = 0
        self._words = _LastWords()

    async def tools(self) -> list[Tool]:
        """What the server lists, as tools that call it."""
        listed: list[Any] = []
        cursor = None
        try:
            async with asyncio.timeout(self._server.start_seconds):
                client = await self._connected()
                for _ in range(MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    listed += page.tools
                    cursor = page.next_cursor
                    if cursor is None or len(listed) > MOST_TOOLS:
                        break
        except ToolError:
            raise
        except TimeoutError:
            raise ToolError(
                f"The MCP server {self._server.name} did not list its tools in {self._server.start_seconds:g} seconds."
            ) from None
        except Exception as error:
            raise ToolError(
                f"The MCP server {self._server.name} lists no tools that can be read: {_told(error)}{self._words.told()}"
            ) from None
        if len(listed) > MOST_TOOLS:
            raise ToolError(f"The MCP server {self._server.name} lists more than {MOST_TOOLS} tools. Use one that has fewer.")
        return self._allowed(listed)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a tool of the server says. Raises `ToolError`."""
        client = await self._connected()
        self._under_way += 1
        is_lost = False
        try:
            async with asyncio.timeout(self._server.seconds):
                result = await client.call_tool(name, dict(arguments))
        except TimeoutError:
            is_lost = self._under_way == 1  # others may still be answered
            raise ToolError(f"`{name}` took longer than {self._server.seconds:g} seconds and was given up.") from None
        except Exception as error:
            is_lost = _is_lost(error)
            lost = " It is started or asked again at the next call." if is_lost else ""
            raise ToolError(
                f"The MCP server {self._server.name} failed: {_told(error)}{self._words.told() if is_lost else ''}{lost}"
            ) from None
        finally:
            self._under_way -= 1
            if is_lost:
                await self._drop()
        self._starts = 1
        return _text(result, name, self._server.most_characters)

    async def close(self) -> None:
        """Ends the connection, and the server where it was started for it."""
        await self._drop()

    async def _connected(self) -> Client:
        async with self._starting:
            if self._client is not None and self._holder is not None and not self._holder.done():
                return self._client
            if self._starts > MOST_RESTARTS:
                raise ToolError(f"The MCP server {self._server.name} was lost {self._starts} times and is not asked again.")
            self._starts += 1
            await self._drop()
            self._leave = asyncio.Event()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._holder = asyncio.create_task(self._hold(ready, self._leave))
            try:
                async with asyncio.timeout(self._server.start_seconds):
                    self._client = await ready
            except TimeoutError:
                await self._drop()
                raise ToolError(f"The MCP server {self._server.name} gave no answer in {self._server.start_seconds:g} seconds.") from None
            except asyncio.CancelledError:
                await self._drop()
                raise
            return self._client

    async def _hold(self, ready: asyncio.Future[Client], leave: asyncio.Event) -> None:
        """Enters the client, waits, and leaves it."""
        from mcp import Client

        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(await self._transport(stack)))
                if not ready.done():
                    ready.set_result(client)
                await leave.wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(ToolError(f"The MCP server {self._server.name} cannot be used: {_told(error)}{self._words.told()}"))
            else:
                _log.info("The MCP server %s ended with %s.", self._server.name, type(error).__name__)

    async def _transport(self, stack: AsyncExitStack) -> Any:
        server = self._server
        if server.url is not None:
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            http = await stack.enter_async_context(create_mcp_http_client(headers=dict(server.headers)))
            return streamable_http_client(server.url, http_client=http, max_sse_event_size=_MOST_EVENT)
        from mcp import StdioServerParameters, stdio_client

        parameters = StdioServerParameters(command=server.command or "", args=list(server.args), env=dict(server.env))
        return stdio_client(parameters, errlog=stack.enter_context(self._words.listening()))

    async def _drop(self) -> None:
        holder, self._holder = self._holder, None
        greeted, self._client = self._client is not None, None
        if holder is None:
            return
        self._leave.set()
        if not greeted:
            holder.cancel()
        # The client ends its server within a few seconds; one that cannot be ended must not hold up the caller.
        _, left = await asyncio.wait({holder}, timeout=10.0)
        for task in left:
            task.cancel()

    def _allowed(self, listed: list[Any]) -> list[Tool]:
        wanted = self._server.tools
        missing = sorted(set(wanted or ()) - {tool.name for tool in listed})
        if missing:
            known = ", ".join(sorted(tool.name for tool in listed)) or "none"
            raise ConfigError(f"The MCP server {self._server.name} has no tool {', '.join(missing)}. It has: {known}.")
        made = (self._tool(tool) for tool in listed if wanted is None or tool.name in wanted)
        return [tool for tool in made if tool is not None]

    def _tool(self, listed: Any) -> Tool | None:
        """One of the server's tools; None, and a warning, where its schema is none."""
        schema = listed.input_schema
        if schema.get("type", "object") != "object" or len(json.dumps(schema)) > MOST_SCHEMA:
            _log.warning("A tool of the MCP server %s was left out: its arguments' schema is too long or no object's.", self._server.name)
            return None
        name = listed.name
        told = (listed.description or listed.title or name).strip()

        async def call(arguments: Mapping[str, Any]) -> str:
            return await self.call(name, arguments)

        return Tool(
            name=re.sub("[^A-Za-z0-9_-]", "_", f"{self._server.prefix}{name}")[:64],
            description=told if len(told) <= MOST_DESCRIPTION else f"{told[:MOST_DESCRIPTION]} [cut]",
            parameters=schema,
            call=call,
            # The call's own time is up first, and then there may be a server to start before it, or to end after.
            seconds=self._server.seconds + self._server.start_seconds + 15,
            most_characters=self._server.most_characters,
        )


class _LastWords:
    """The end of what a server writes to its standard error, where it says why it failed."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=20)

    def listening(self) -> Any:
        """A file to write to, whose lines are kept; closed with the context."""
        out, into = os.pipe()
        file = os.fdopen(into, "w")

        def keep() -> None:
            with os.fdopen(out, "rb") as lines:
                while piece := lines.readline(_LAST_WORDS):
                    self._kept.append(piece.decode("utf-8", "replace").strip())

        threading.Thread(target=keep, name="foreword-mcp-words", daemon=True).start()
        return file

    def told(self) -> str:
        """The last line, for a message; empty where there is none."""
        words = next((line for line in reversed(self._kept) if line), "")
        return f" It said: {words[:_LAST_WORDS].rstrip('.')}." if words else ""


def _text(result: Any, name: str, most: int) -> str:
    """What a result says: its texts; other parts only by their kind; its structure where it says nothing else."""
    parts = [part for block in result.content[:1_000] if (part := _part(block))]
    text = "\n".join(parts)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if result.is_error:
        raise ToolError(text[:most] or f"`{name}` failed and does not say why.")
    return text or "(nothing)"


def _part(block: Any) -> str:
    if block.type == "text":
        return block.text
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return text if isinstance(text, str) else f"[{block.resource.mime_type or 'a file'}: {block.resource.uri}]"
    if block.type == "resource_link":
        return f"[{block.name}: {block.uri}]"
    return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4:,} bytes]"


def _is_lost(error: Exception) -> bool:
    """Whether the connection is of no more use. A server that answers with an error is still there."""
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED

    return not isinstance(error, MCPError) or error.code == CONNECTION_CLOSED


def _told(error: BaseException) -> str:
    """An error in a line; of a group, its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    words = (str(error).splitlines() or [""])[0][:300].rstrip(".")
    return f"{words or type(error).__name__}."


def _require() -> None:
    try:
        import mcp  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Tools from MCP servers need the package `mcp`, which is not installed (no module `{error.name}`). "
            "Install it with: pip install 'foreword[agent]'"
        ) from error
