"""Tools of real MCP servers: a process spoken with over pipes, and one on a socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import Says, call, final
from foreword.agent.mcp import MOST_DESCRIPTION, MOST_RESTARTS, McpServer, mcp_tools
from foreword.errors import ConfigError, ToolError
from foreword.prompting import strategy
from foreword.prompting.tool import Observation, Tools
from foreword.types import Message

pytest.importorskip("mcp", reason="the extra `agent` (package mcp) is not installed")

PROGRAM = str(Path(__file__).resolve().parents[1] / "support" / "mcp_server.py")


def stdio(way: str = "stdio", **settings: Any) -> McpServer:
    return McpServer(**{"command": sys.executable, "args": (PROGRAM, way), "start_seconds": 60, "seconds": 60, **settings})


def within(server: McpServer, act: Callable[[Tools], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with mcp_tools(server) as tools:
            return await act(tools)

    return asyncio.run(run())


def called(server: McpServer, *calls: tuple[str, dict[str, Any]]) -> list[Observation]:
    async def act(tools: Tools) -> list[Observation]:
        return [await tools.call(name, arguments) for name, arguments in calls]

    return within(server, act)


@pytest.fixture
def on_a_socket() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, PROGRAM, "http"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_lists_its_tools_and_they_can_be_called() -> None:
    async def act(tools: Tools) -> None:
        add = tools.by_name["add"]
        assert add.description == "Adds two whole numbers."
        assert add.parameters["required"] == ["a", "b"]
        assert await tools.call("add", '{"a": 40, "b": 2}') == Observation(text="42")
        bad = await tools.call("add", {"a": "many", "b": 2})
        assert not bad.ok
        assert "integer" in bad.text
        failed = await tools.call("fail", {})
        assert not failed.ok
        assert "fail" in failed.text
        assert (await tools.call("files_read_all", {})).text == "all"

    within(stdio(), act)


def test_a_server_on_a_socket_does_the_same(on_a_socket: str) -> None:
    found = called(
        McpServer(url=on_a_socket, seconds=60, start_seconds=60),
        ("add", {"a": 40, "b": 2}),
        ("fail", {}),
        ("large", {}),
        ("add", {"a": 1, "b": 1}),
    )
    assert [one.ok for one in found] == [True, False, True, True]
    assert found[0].text == "42"
    assert len(found[2].text) < 10_000


def test_calls_at_once_are_answered_each_with_its_own() -> None:
    async def act(tools: Tools) -> list[str]:
        return [one.text for one in await asyncio.gather(*(tools.call("add", {"a": n, "b": n}) for n in range(20)))]

    assert within(stdio(), act) == [str(2 * n) for n in range(20)]


def test_names_have_a_prefix_and_only_those_allowed_are_there() -> None:
    async def act(tools: Tools) -> tuple[list[str], str]:
        return [tool.name for tool in tools], (await tools.call("shop_add", {"a": 1, "b": 1})).text

    assert within(stdio(prefix="shop_", tools=("add", "files/read.all")), act) == (["shop_add", "shop_files_read_all"], "2")


def test_two_servers_have_their_tools_together() -> None:
    async def run() -> list[str]:
        async with mcp_tools(stdio(prefix="a_", tools=("add",)), stdio(prefix="b_", tools=("add",))) as tools:
            return [(await tools.call(tool.name, {"a": 1, "b": 1})).text for tool in tools]

    assert asyncio.run(run()) == ["2", "2"]


def test_one_name_twice_is_refused() -> None:
    async def run() -> None:
        async with mcp_tools(stdio(tools=("add",)), stdio(tools=("add",))):
            raise AssertionError("two tools have one name")

    with pytest.raises(ConfigError, match="Two tools are named `add`"):
        asyncio.run(run())


def test_a_server_that_dies_in_the_middle_of_a_call_is_told_and_started_again() -> None:
    first, died, second = called(stdio(), ("pid", {}), ("die", {}), ("pid", {}))
    assert not died.ok
    assert "Connection closed" in died.text
    assert "the roof is on fire" in died.text
    assert second.ok
    assert second.text != first.text


def test_one_who_asks_with_react_is_told_of_it_and_goes_on() -> None:
    model = Says(call("die"), call("add", '{"a": 40, "b": 2}'), final("42"))

    async def act(tools: Tools) -> strategy.Solved:
        question = [Message(role="user", content="What is 40 + 2?")]
        return await strategy.solve(strategy.get("react"), question, model, resources=strategy.Resources(tools=tools))

    found = within(stdio(), act)
    assert (found.status, found.final) == ("answered", "42")
    assert "Connection closed" in model.prompts[1][-1].content and model.prompts[2][-1].content == "Observation: 42"


def test_a_server_that_dies_again_and_again_is_left_alone() -> None:
    found = called(stdio(), *[("die", {})] * (MOST_RESTARTS + 3))
    assert [one.ok for one in found] == [False] * (MOST_RESTARTS + 3)
    assert "is not asked again" in found[-1].text
    assert "Connection closed" in found[MOST_RESTARTS].text


def test_a_server_on_a_socket_that_dies_is_told(on_a_socket: str) -> None:
    died, after = called(McpServer(url=on_a_socket, seconds=60, start_seconds=60), ("die", {}), ("pid", {}))
    assert not died.ok
    assert not after.ok
    assert "failed" in died.text
    assert "cannot be used" in after.text


@pytest.mark.parametrize("tool", ["hang", "block"])
def test_a_call_that_hangs_is_given_up_and_the_server_is_of_use_again(tool: str) -> None:
    async def act(tools: Tools) -> list[Observation]:
        return [await tools.call(tool, {}), await tools.call("add", {"a": 1, "b": 1})]

    async def run() -> list[Observation]:
        async with mcp_tools(stdio(seconds=1.0)) as tools:
            return await act(tools)

    hung, after = asyncio.run(run())
    assert (hung.ok, hung.text) == (False, f"`{tool}` took longer than 1 seconds and was given up.")
    assert after.ok or "longer than 1 seconds" in after.text  # on a machine that is busy the new one may be late


def test_ten_megabytes_are_cut() -> None:
    (large,) = called(stdio(most_characters=100), ("large", {}))
    assert large.ok
    assert len(large.text) < 200
    assert "more characters]" in large.text


def test_the_server_is_ended_with_the_context() -> None:
    (pid,) = called(stdio(), ("pid", {}))
    running = subprocess.run(["ps", "-eo", "pid"], capture_output=True, text=True, check=True).stdout.split()
    assert pid.text not in running


def test_secrets_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "tea")
    (names,) = called(stdio(env={"CITY": "Bern"}), ("environment", {}))
    assert "CITY" in names.text.split()
    assert "API_KEY" not in names.text.split()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("malformed", "lists no tools that can be read"),
        ("no-list", "lists no tools that can be read"),
        ("endless-pages", "more than 500 tools"),
        ("dies-at-once", "cannot find my configuration"),
    ],
)
def test_a_server_that_is_broken_is_told(way: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        called(stdio(way))


@pytest.mark.parametrize("way", ["silent", "gibberish"])
def test_a_server_that_never_answers_is_given_up_and_ended(way: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"in 0.5 seconds"):
        called(stdio(args=(PROGRAM, way, str(tmp_path)), start_seconds=0.5))
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_tool_whose_schema_is_too_long_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def act(tools: Tools) -> list[tuple[str, int]]:
        return [(tool.name, len(tool.description)) for tool in tools]

    assert within(stdio("long-schema"), act) == [("fine", MOST_DESCRIPTION + len(" [cut]"))]
    assert "left out" in caplog.text


def test_a_command_or_an_address_that_is_none_is_told() -> None:
    with pytest.raises(ToolError, match="such cannot be used"):
        called(McpServer(command="/no/such"))
    with pytest.raises(ToolError, match=r"127\.0\.0\.1:9/mcp cannot be used") as failed:
        called(McpServer(url="http://user:secret@127.0.0.1:9/mcp?key=secret"))
    assert "secret" not in str(failed.value)


def test_a_tool_that_is_wanted_and_missing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"has no tool subtract. It has: add, block"):
        called(stdio(tools=("add", "subtract")))


@pytest.mark.parametrize("given", [{}, {"command": "a", "url": "http://a"}, {"url": "file:///etc/passwd"}])
def test_a_server_is_a_command_or_an_address(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        McpServer(**given)


def test_headers_are_not_shown() -> None:
    assert "secret" not in repr(McpServer(url="https://example.org/mcp", headers={"Authorization": "secret"}))


def test_without_the_package_it_is_named() -> None:
    code = (
        "import sys, asyncio; sys.modules['mcp'] = None\n"
        "from foreword.agent.mcp import McpServer, mcp_tools\n"
        "async def run():\n"
        "    async with mcp_tools(McpServer(command='x')): pass\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'foreword[agent]'" in done.stderr


def test_importing_it_loads_no_client() -> None:
    code = "import sys, foreword.agent.mcp; print('mcp' in sys.modules, 'anyio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"
