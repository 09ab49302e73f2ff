"""The benchmark of the gateway: its server, its load, its measuring of processes, and its arithmetic; no gateway is timed here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import gateway, gateway_load, gateway_upstream
from benchmarks.gateway_process import Server, family, program

from foreword.gateway.path_settings import read_settings

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp("servers")
    with program("direct", ["benchmarks.gateway_upstream"], folder) as direct, program("bare", _bare(direct), folder) as bare:
        yield {"direct": direct, "bare": bare}


def _bare(direct: Server) -> list[str]:
    return ["benchmarks.gateway_bare", direct.url]


def _count(direct: Server) -> int:
    with urllib.request.urlopen(f"{direct.url}/count", timeout=10) as answer:
        return json.loads(answer.read())["count"]


def _load(server: Server, folder: Path, *, stream: bool, requests: int = 20, at_once: int = 4) -> gateway_load.Load:
    bodies = folder / "bodies.jsonl"
    rows = [{"model": "mock", "messages": [{"role": "user", "content": f"question {number}"}], "stream": stream} for number in range(7)]
    bodies.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return gateway_load.Load(url=server.url + CHAT, bodies=str(bodies), first=3, requests=requests, at_once=at_once)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["direct", "bare"])
def test_every_request_of_a_load_is_answered_and_counted(servers: dict[str, Server], name: str, stream: bool, tmp_path: Path) -> None:
    before = _count(servers["direct"])
    seen = asyncio.run(gateway_load.run(_load(servers[name], tmp_path, stream=stream)))
    assert (seen["answered"], seen["failed"], seen["said"]) == (20, 0, "")
    assert _count(servers["direct"]) - before == 20


def test_a_stream_lasts_as_long_as_its_pace_says_and_begins_before_its_end(servers: dict[str, Server], tmp_path: Path) -> None:
    seen = asyncio.run(gateway_load.run(_load(servers["direct"], tmp_path, stream=True, requests=4)))
    least = 1e3 * (gateway_upstream.CHUNKS - 1) * gateway_upstream.PACE_SECONDS
    assert seen["p50_ms"] >= least > seen["first_p50_ms"]


def test_what_is_no_answer_fails(servers: dict[str, Server], tmp_path: Path) -> None:
    load = _load(servers["bare"], tmp_path, stream=False, requests=3)
    wrong = gateway_load.Load(url=servers["bare"].url + "/elsewhere", bodies=load.bodies, first=0, requests=3, at_once=1)
    seen = asyncio.run(gateway_load.run(wrong))
    assert (seen["answered"], seen["failed"]) == (0, 3)
    assert "404" in seen["said"]


def test_a_server_that_is_not_there_fails_every_request(tmp_path: Path) -> None:
    nowhere = Server(name="nowhere", url="http://127.0.0.1:9", pid=0)
    seen = asyncio.run(gateway_load.run(_load(nowhere, tmp_path, stream=False, requests=2)))
    assert (seen["answered"], seen["failed"]) == (0, 2)


def test_answers_differ_and_the_same_request_gets_the_same_one() -> None:
    answers = gateway_upstream.Answers(kinds=64)
    given = [answers.whole(b"question %d" % number) for number in range(200)]
    assert len(set(given)) > 50
    assert answers.whole(b"question 0") == given[0]
    assert answers.count == 201


def test_cpu_time_of_another_process_is_what_it_says_itself() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    said = float(process.stdout.readline())
    seen = Server(name="work", url="", pid=process.pid)
    assert said <= seen.cpu_seconds() < said + 0.2
    assert 1 < seen.memory_mb() < 1000
    process.communicate(b"\n")
    assert seen.cpu_seconds() == 0


def test_children_count_while_they_run_and_after() -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE)\n"
        "input()\nchild.communicate(b'\\n')\nprint('ended', flush=True)\ninput()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    seen = Server(name="parent", url="", pid=process.pid)
    assert process.stdout.readline() == b"done\n"
    assert len(family(process.pid)) == 2
    assert seen.cpu_seconds() > 0.3
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"ended\n"
    assert family(process.pid) == [process.pid]
    # A tick of the kernel's is a hundredth of a second.
    assert seen.cpu_seconds() > 0.28
    process.communicate(b"\n")


def test_own_process_is_its_family() -> None:
    before = Server(name="own", url="", pid=os.getpid()).cpu_seconds()
    assert before == pytest.approx(sum(os.times()[:4]), abs=5.0)


def _turn(**cpu_ms: float) -> dict[str, gateway.Taken]:
    return {name: gateway.Taken(cpu_ms=value, load={"p50_ms": value, "p99_ms": value}) for name, value in cpu_ms.items()}


def test_ratios_are_of_one_turn_each() -> None:
    turns = [_turn(foreword=1, bare=0.5, litellm=20), _turn(foreword=2, bare=1, litellm=60), _turn(foreword=4, bare=1, litellm=40)]
    figures = gateway.plain_figures(turns)
    assert (figures["bare_cpu_ratio"], figures["litellm_cpu_ratio"]) == (2.0, 20.0)
    assert figures["cpu_ms"] == {"foreword": 2, "bare": 1, "litellm": 40}


def test_without_litellm_its_ratios_are_null_and_the_reason_is_told() -> None:
    turns = [_turn(foreword=1, bare=0.5)]
    assert gateway.plain_figures(turns)["litellm_cpu_ratio"] is None
    assert "--install-peers" in gateway._about(None)["litellm_left_out"]


def test_added_time_is_over_bare_in_the_same_turn() -> None:
    turns = [_turn(foreword=1.0, bare=0.75), _turn(foreword=9.0, bare=8.5), _turn(foreword=2.0, bare=1.0)]
    assert gateway.alone_figures(turns)["added_p50_ms"] == 0.5


def test_every_stage_that_is_there_is_in_the_configuration(tmp_path: Path) -> None:
    stages, left_out = gateway.known_stages()
    assert {"intake", "route", "infer", "bill"} <= set(stages)
    path = tmp_path / "foreword.toml"
    path.write_text(gateway.config("http://127.0.0.1:9", 100, stages, tmp_path), encoding="utf-8")
    settings = read_settings(path)
    assert list(settings.stages) == stages
    assert not set(stages) & set(left_out)
    task = settings.task("default")
    assert (task.cache.exact, task.cache.semantic, task.check.judges) == (True, "bound", True)
    path.write_text(gateway.config("http://127.0.0.1:9", 100, stages, tmp_path, cached=False), encoding="utf-8")
    assert not read_settings(path).task("default").cache.on


def test_requests_are_questions_each_once(shared_data: Path, tmp_path: Path) -> None:
    bodies = gateway.write_bodies(shared_data, tmp_path)
    plain, stream = ([json.loads(line) for line in bodies[kind].read_bytes().splitlines()] for kind in ("plain", "stream"))
    texts = [row["messages"][-1]["content"] for row in plain]
    assert len(set(texts)) == len(texts) > 5000
    assert all(row["stream"] for row in stream)
