"""Listening on an address, and what is said where it cannot be."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx2
import pytest

from foreword.errors import ConfigError, ServingError
from foreword.listening import Listening, listen


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request with a word."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_it_answers_until_it_is_asked_to_stop() -> None:
    async def work() -> str:
        stop, server = asyncio.Event(), await listen(hello, host="127.0.0.1", port=0)
        async with httpx2.AsyncClient(trust_env=False) as client:
            said = (await client.get(server.url)).text
        assert not server.ended
        stop.set()
        await server.wait(stop)
        await server.close()
        assert server.ended
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        return said

    assert asyncio.run(work()) == "hello"


def test_an_address_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"Cannot listen on 127\.0\.0\.1 port \d+: .*--port"):
            asyncio.run(listen(hello, host="127.0.0.1", port=taken.getsockname()[1]))


def test_a_server_that_ended_by_itself_is_told() -> None:
    async def work() -> None:
        ended = asyncio.create_task(asyncio.sleep(0))
        server: Any = None
        listening = Listening(server, ended, host="::1", port=8000)
        assert listening.url == "http://[::1]:8000"
        await listening.wait(asyncio.Event())
        await listening.close()

    with pytest.raises(ServingError, match="ended by itself"):
        asyncio.run(work())
