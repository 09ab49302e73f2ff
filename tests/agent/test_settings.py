"""Agent files."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from foreword.agent.agent import AgentBudget
from foreword.agent.settings import AgentSettings, McpSettings, load
from foreword.errors import ConfigError

FULL = """
name = "clerk"
description = "Answers questions about orders."
goal = "Which product sold best?"
instructions = "Be short."
check = "judge"

[model]
engine = "echo"
name = "echo"
temperature = 0.5

[price]
input_per_million = 0.5
output_per_million = 1.5

[[tools]]
tool = "calculator"

[[tools]]
tool = "sql"
path = "orders.sqlite"
most_rows = 5

[[tools]]
tool = "retrieval"
files = ["a.txt", "/abs/b.txt"]

[[mcp]]
command = "server"
args = ["--quiet"]
env_from = { TOKEN = "SERVER_TOKEN" }

[[remotes]]
name = "other"
url = "https://other.example.org/"
key_env = "OTHER_KEY"

[memory]
most_tokens = 2000

[memory.long_term]
namespace = "support"
half_life_days = 30

[planner]
most_tasks = 4

[budget]
steps = 7
calls = 0
money = 0.1

[[workers]]
name = "counter"
instructions = "You count."
tools = [{ tool = "calculator" }]

[team]
kind = "supervisor"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_can_be_said(tmp_path: Path):
    settings = load(written(tmp_path, FULL))
    assert settings == load(tmp_path)
    assert settings.budget.budget() == AgentBudget(steps=7, calls=None, money=Decimal("0.1"), seconds=600.0)
    assert settings.tools[1].own(Path("/there")) == {"path": "/there/orders.sqlite", "most_rows": 5}
    assert settings.tools[2].own(Path("/there")) == {"files": ["/there/a.txt", "/abs/b.txt"]}
    assert settings.workers[0].tools[0].tool == "calculator"
    assert AgentSettings.model_validate(settings.model_dump(exclude_unset=True)) == settings


def test_nothing_has_to_be_said(tmp_path: Path):
    assert load(written(tmp_path, "")) == AgentSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour = 1", "colour"),
        ("[budget]\nsteps = 0", "budget.steps"),
        ("[model]\nnmae = 'x'", "model.nmae"),
        ("[[tools]]\npath = 'x'", r"tools\.0\.tool"),
        ("[[remotes]]\nname = 'a b'\nurl = 'x'", r"remotes\.0\.name"),
        ("[memory.long_term]\nnamespace = '../x'", "namespace"),
        ("[team]\nkind = 'debate'", "without `workers`"),
        ("name = ", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(tmp_path: Path, text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        load(written(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "agent.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path)


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    settings = McpSettings(url="https://tools.example.org/mcp", headers_env={"authorization": "TOOLS_KEY"})
    with pytest.raises(ConfigError, match="TOOLS_KEY"):
        settings.server()
    monkeypatch.setenv("TOOLS_KEY", "Bearer secret")
    server = settings.server()
    assert server.headers == {"authorization": "Bearer secret"} and "secret" not in repr(server)
