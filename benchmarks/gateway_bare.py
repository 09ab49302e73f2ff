"""The least that a gateway in Python can do: aiohttp takes a request, sends its body on as it is, and gives the answer back as it comes.

python -m benchmarks.gateway_bare UPSTREAM-URL    prints `listening PORT`
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

MOST_BYTES = 1 << 20


async def main(upstream: str) -> None:
    """Serves until it is terminated."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"content-type": "application/json"}
            async with session.post(upstream + request.path, data=body, headers=headers, allow_redirects=False) as response:
                kind = response.headers.get("content-type", "application/json")
                if not kind.startswith("text/event-stream"):
                    return web.Response(status=response.status, body=await response.read(), headers={"content-type": kind})
                answer = web.StreamResponse(status=response.status, headers={"content-type": kind})
                await answer.prepare(request)
                async for piece in response.content.iter_any():
                    await answer.write(piece)
                await answer.write_eof()
                return answer

        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_post("/v1/chat/completions", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        sys.stdout.write(f"listening {runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
