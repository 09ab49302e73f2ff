"""The page "Serve prefixes" against a server: its Python snippets run in order, as they stand but for the address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from foreword.gateway import solving
from foreword.gateway.app import ROUTES
from foreword.gateway.strategies import CALLS, SECONDS
from foreword.gateway.wire import ChatRequest, Drawing, StrategyOut
from foreword.prompting.store import PromptStore
from foreword.prompting.template import build

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/how-to/serve.md").read_text(encoding="utf-8")


def test_the_snippets_run(page: str, start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prompts = PromptStore(tmp_path / "prompts")
    question = {"role": "user", "content": "{{ name }} asks: {{ question }}"}
    prompts.publish(build({"name": "desk", "messages": [question]}, source="test"))
    prompts.alias("desk", "prod", 1)
    server = start(base="smollm2", prompts=prompts)
    names: dict[str, Any] = {}
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert ADDRESS in snippets[0] and len(snippets) == 5
    for snippet in snippets:
        exec(snippet.replace(ADDRESS, server.url), names)
    names["client"].close()
    printed = capsys.readouterr().out
    assert printed.startswith("[support] My parcel has not arrived. Lea CompletionUsage(")
    assert "[support] My parcel has not arrived. Leaparcel\n" in printed and "\nanswered " in printed
    assert printed.endswith("desk@v1 Lea asks: Where is my parcel?\n")


def test_the_routes_and_fields_it_names_exist(page: str):
    routes = set(re.findall(r"^\| `(/\w[\w.]*)`", page, re.MULTILINE))
    assert len(routes) == 4 and routes <= {route.path for route in ROUTES}
    fields = set(Drawing.__struct_fields__) | set(ChatRequest.__struct_fields__)
    named = re.findall(r"`(top_k|min_p|repetition_penalty|ignore_eos|guided_\w+|user|metadata|store|service_tier|parallel_\w+)`", page)
    assert len(set(named)) == 12 and set(named) <= fields


def test_what_it_says_of_strategies_is_so(page: str):
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (?:`(foreword-\w+)`)? ?\|", page, re.MULTILINE)
    fields = {name for names, _ in rows for name in re.findall(r"\w+", names)}
    assert fields == set(StrategyOut.__struct_fields__)
    assert {header for _, header in rows if header} == {solving.STRATEGY, solving.CALLS, solving.STATUS, solving.REASON}
    assert f"One request may make {CALLS} calls and take {SECONDS:.0f} seconds" in page
