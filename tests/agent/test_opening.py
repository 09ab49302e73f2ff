"""Settings made into agents that work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import Says, call, done, final
from foreword.agent.agent import AgentResult
from foreword.agent.opening import LoadedModel, opened
from foreword.agent.settings import AgentSettings, ModelSettings
from foreword.errors import AgentError, ConfigError, RegistryError
from foreword.types import Message


def settings(**fields: Any) -> AgentSettings:
    return AgentSettings.model_validate(fields)


def run(wanted: AgentSettings, models: Any, tmp_path: Path, *, goal: str = "Go.", tenant: str | None = None, **loaded: Any) -> AgentResult:
    """Args: models: a model, or a function of the model's settings."""

    async def work() -> AgentResult:
        def load(model: ModelSettings) -> LoadedModel:
            return LoadedModel(model=models(model) if callable(models) else models, **loaded)

        async with opened(wanted, load_model=load, folder=tmp_path, home=tmp_path) as ready:
            return await ready.worker(tenant).run(goal)

    return done(work())


def test_tools_by_their_keys(tmp_path: Path):
    model = Says(call("calculator", '{"expression": "6 * 7"}'), final("42"))
    result = run(settings(instructions="You count.", tools=[{"tool": "calculator"}]), model, tmp_path)
    assert result.text == "42" and "42" in model.prompts[1][-1].content
    assert model.prompts[0][0].content.startswith("You count.")


def test_what_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(RegistryError, match="calculator"):
        run(settings(tools=[{"tool": "calculatr"}]), Says("x"), tmp_path)
    with pytest.raises(ConfigError, match="colour"):
        run(settings(tools=[{"tool": "calculator", "colour": 1}]), Says("x"), tmp_path)
    with pytest.raises(RegistryError):
        run(settings(check="no-such-check"), Says("x"), tmp_path)


def test_a_judge_is_asked(tmp_path: Path):
    def say(conversation: Sequence[Message]) -> str:
        asked = conversation[-1].content
        return ("Yes." if "blue" in asked else "No, it is blue.") if "Write Yes or No" in asked else next(answers)

    answers = iter([final("red"), final("blue")])
    result = run(settings(check="judge"), Says(say), tmp_path)
    assert (result.status, result.text) == ("goal-met", "blue")


def test_long_term_memory_is_kept_for_each_tenant(tmp_path: Path):
    wanted = settings(memory={"long_term": {"file": "facts.sqlite", "embedder": "none"}})
    run(wanted, Says(call("remember", '{"fact": "Tea costs 3."}'), final("noted")), tmp_path, tenant="anna")
    model = Says(final("3"))
    run(wanted, model, tmp_path, goal="What does tea cost?", tenant="anna")
    assert "Tea costs 3." in model.prompts[0][1].content
    for tenant in ("ben", None):
        other = Says(final("?"))
        run(wanted, other, tmp_path, goal="What does tea cost?", tenant=tenant)
        assert "Tea costs 3." not in other.prompts[0][1].content
    assert (tmp_path / "facts.sqlite").is_file()


def test_the_window_bounds_the_prompt(tmp_path: Path):
    wanted = settings(model={"max_new_tokens": 100}, tools=[{"tool": "calculator"}])
    result = run(wanted, Says(final("x")), tmp_path, goal="word " * 400, window=500)
    assert result.status == "failed" and "short-term memory has 336" in result.reason
    with pytest.raises(ConfigError, match="max_new_tokens"):
        run(wanted, Says(final("x")), tmp_path, window=120)


def test_supervisors_and_workers_with_models_of_their_own(tmp_path: Path):
    models = {
        "big": Says(call("delegate", '{"worker": "counter", "task": "6 * 7"}'), final("42")),
        "small": Says(call("calculator", '{"expression": "6 * 7"}'), final("42")),
    }
    wanted = settings(
        model={"name": "big"},
        workers=[{"name": "counter", "description": "Counts.", "model": {"name": "small"}, "tools": [{"tool": "calculator"}]}],
    )
    result = run(wanted, lambda model: models[model.name], tmp_path)
    assert result.text == "42" and result.calls == 4
    assert "calculator" not in models["big"].prompts[0][0].content


def test_debates(tmp_path: Path):
    wanted = settings(workers=[{"name": "anna"}, {"name": "ben", "instructions": "Doubt."}], team={"kind": "debate", "rounds": 1})
    result = run(wanted, Says("Answer: 4"), tmp_path)
    assert (result.text, result.calls) == ("4", 2)


def test_planners(tmp_path: Path):
    model = Says("- [ ] answer", final("x"))
    result = run(settings(planner={}), model, tmp_path)
    assert result.status == "goal-met" and "- [ ] answer" in model.prompts[1][-1].content


MCP_SERVER = str(Path(__file__).resolve().parents[1] / "support" / "mcp_server.py")


def test_tools_of_a_server_and_a_server_that_dies_in_the_middle_of_a_call(tmp_path: Path):
    pytest.importorskip("mcp", reason="the extra `agent` (package mcp) is not installed")
    server = {"command": sys.executable, "args": [MCP_SERVER, "stdio"], "prefix": "my_", "seconds": 60}
    model = Says(call("my_add", '{"a": 40, "b": 2}'), call("my_die"), final("42, and then it died"))
    result = run(settings(mcp=[server]), model, tmp_path)
    assert result.status == "goal-met", result.reason
    assert model.prompts[1][-1].content == "Observation: 42"
    assert result.trace.of_kind("tool")[1].status == "error"


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path):
    pytest.importorskip("mcp", reason="the extra `agent` (package mcp) is not installed")
    with pytest.raises(AgentError):
        run(settings(mcp=[{"command": "/no/such/program"}]), Says(final("x")), tmp_path)
