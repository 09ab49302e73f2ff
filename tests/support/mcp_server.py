"""An MCP server for tests: `python mcp_server.py stdio`, `python mcp_server.py http` (prints its port), or a broken one, in many ways."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time


def server():
    """A server whose tools do what tools do, good and bad."""
    from mcp.server.mcpserver import MCPServer

    made = MCPServer("for-tests", log_level="ERROR")

    @made.tool()
    def add(a: int, b: int) -> int:
        """Adds two whole numbers."""
        return a + b

    @made.tool()
    def fail() -> str:
        """Fails."""
        raise ValueError("there is no tea")

    @made.tool()
    def die() -> str:
        """Ends the server in the middle of the call."""
        os.write(2, b"the roof is on fire\n")
        os._exit(3)

    @made.tool()
    async def hang() -> str:
        """Never ends."""
        await asyncio.sleep(3600)
        return ""

    @made.tool()
    def block() -> str:
        """Never ends, and holds up everything else."""
        time.sleep(3600)
        return ""

    @made.tool()
    def large() -> str:
        """Ten megabytes."""
        return "x" * 10_000_000

    @made.tool()
    def pid() -> int:
        """The server's process."""
        return os.getpid()

    @made.tool()
    def environment() -> str:
        """The names of its environment's variables."""
        return " ".join(sorted(os.environ))

    @made.tool(name="files/read.all")
    def read_all() -> str:
        """Has a name that no model API takes."""
        return "all"

    return made


def http() -> None:
    """Serves on a free port of this machine and prints it."""
    import uvicorn

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    print(sock.getsockname()[1], flush=True)
    app = server().streamable_http_app()
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="critical")).serve(sockets=[sock]))


def by_hand(tools: object, pages: bool = False) -> None:
    """Speaks the protocol without the library, and lists whatever it is told to."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "initialize":
            reply["result"] = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "by-hand", "version": "1"},
            }
        elif message["method"] == "tools/list":
            reply["result"] = {"tools": tools} | ({"nextCursor": "more"} if pages else {})
        else:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        print(json.dumps(reply), flush=True)


TOOL = {"name": "fine", "description": "d" * 5_000, "inputSchema": {"type": "object"}}
WAYS = {
    "stdio": lambda: server().run("stdio"),
    "http": http,
    "malformed": lambda: by_hand([{"name": 5}, "tool"]),
    "no-list": lambda: by_hand("tools"),
    "long-schema": lambda: by_hand([TOOL, {**TOOL, "name": "long", "inputSchema": {"type": "object", "x": "y" * 50_000}}]),
    "endless-pages": lambda: by_hand([TOOL] * 50, pages=True),
    "silent": lambda: time.sleep(3600),
    "gibberish": lambda: [print("\x00not json" * 100, flush=True) for _ in range(1000)] and time.sleep(3600),
    "dies-at-once": lambda: sys.exit("cannot find my configuration"),
}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
