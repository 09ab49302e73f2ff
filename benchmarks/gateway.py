"""What a request costs the gateway, beside a gateway that does nothing but pass on, and beside the LiteLLM proxy.

python -m benchmarks.gateway --litellm PATH       about ten minutes on two cores; PATH is the `litellm` program of an environment of its own
python -m benchmarks.gateway --install-peers      makes that environment first, in `.venv-litellm`
python -m benchmarks.gateway --quick              less than a minute: fewer requests

All gateways run at the same time, forward to the same server on this machine, whose answers take no time, and are asked in turns. What
counts is CPU time of the gateway's own process. `foreword serve --config` walks all stages that there are: task types by rule, a semantic
cache with an error bound that is full and finds nothing (each request is looked up, admitted, and another one makes room), history and
token limits, a check of the answer's form, and a ledger in SQLite; `foreword_uncached` is the same without a cache. `bare` is aiohttp on
both sides and does none of that. LiteLLM has neither a database nor callbacks. No gateway writes an access log.

`litellm_cpu_ratio`: LiteLLM's CPU a request over Foreword's, and `sse_cpu_ratio` the same of streams; `bare_cpu_ratio`: Foreword's over
bare's; `added_p50_ms`: over bare's, one request at a time; `sse_ttft_over_direct_ms`: until a stream's first piece, over asking the server
itself. Ratios are of one turn each, and medians over the turns. `memory_growth` is from the end of a warm-up to the end of the run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command, gateway_load
from benchmarks.gateway_process import ROOT, Server, program, served

RESULT = Path(__file__).with_name("results") / "gateway.json"
PEERS = ROOT / ".venv-litellm"
CHAT = "/v1/chat/completions"
FOREWORD, UNCACHED, BARE, LITELLM, DIRECT = "foreword", "foreword_uncached", "bare", "litellm", "direct"
SYSTEM = (
    "You answer questions of people who want to know how something works. Say first what you are sure of, then what you think, and keep "
    "both apart. Do not make up names, numbers or quotations. Where a question has more than one meaning, say which one you answer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        turns: of each measurement; all gateways are asked in each.
        requests, slow_requests: in a turn, of a fast gateway and of LiteLLM.
        streams, slow_streams: the same.
        alone: requests in a turn, one at a time.
        entries: of the cache, which is filled before anything is measured.
        long: requests while memory is watched.
    """

    turns: int
    requests: int
    slow_requests: int
    streams: int
    slow_streams: int
    alone: int
    at_once: int = 16
    streams_at_once: int = 64
    entries: int
    long: int


FULL = Size(turns=7, requests=3000, slow_requests=300, streams=640, slow_streams=128, alone=500, entries=2000, long=200_000)
QUICK = Size(turns=2, requests=1000, slow_requests=100, streams=192, slow_streams=64, alone=150, entries=1000, long=2000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """CPU seconds of a gateway for some requests, and what the client saw."""

    cpu_ms: float
    load: Mapping[str, Any]


class Bench:
    """All gateways, asked in turns. Requests go round: no gateway sees one again before it has seen all others."""

    def __init__(self, size: Size, servers: Sequence[Server], bodies: Mapping[str, Path]) -> None:
        """Args: servers: `DIRECT` is the server that the others forward to; bodies: files of requests, by `plain` and `stream`."""
        self.size = size
        self.servers = {server.name: server for server in servers}
        self._bodies = bodies
        self.sent = dict.fromkeys(self.servers, 0)
        self._next = dict.fromkeys(self.servers, 0)
        self.failed = dict.fromkeys(self.servers, 0)

    @property
    def gateways(self) -> tuple[str, ...]:
        """Names of all but the server itself."""
        return tuple(name for name in self.servers if name != DIRECT)

    def ask(self, name: str, kind: str, requests: int, at_once: int, *, spread_seconds: float = 0.0) -> Taken:
        """Sends requests of a kind; raises `RuntimeError` where more than one in a hundred fails: a server that refuses takes no time."""
        server = self.servers[name]
        load = gateway_load.Load(
            url=server.url + CHAT,
            bodies=str(self._bodies[kind]),
            first=self._next[name],
            requests=requests,
            at_once=at_once,
            spread_seconds=spread_seconds,
        )
        self.sent[name] += requests
        self._next[name] += requests
        before = server.cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gateway_load"], input=gateway_load.as_input(load), capture_output=True, cwd=ROOT, check=True
        )
        cpu_ms = 1e3 * (server.cpu_seconds() - before) / requests
        seen = json.loads(done.stdout)
        self.failed[name] += seen["failed"]
        if seen["failed"] > requests / 100:
            raise RuntimeError(f"{name} failed {seen['failed']} of {requests} requests: {seen['said']}")
        return Taken(cpu_ms=cpu_ms, load=seen)

    def plain(self) -> list[dict[str, Taken]]:
        """Whole answers, by turns."""
        return [
            {name: self.ask(name, "plain", self._requests(name), self.size.at_once) for name in _turned(self.gateways, turn)}
            for turn in range(self.size.turns)
        ]

    def alone(self) -> list[dict[str, Taken]]:
        """Whole answers, one at a time, in short turns, so that what else the machine does meets all alike."""
        names = tuple(name for name in (DIRECT, BARE, FOREWORD, UNCACHED) if name in self.servers)
        return [{name: self.ask(name, "plain", self.size.alone, 1) for name in _turned(names, turn)} for turn in range(2 * self.size.turns)]

    def streams(self) -> list[dict[str, Taken]]:
        """Streams, begun one after the other over the time that one lasts."""
        from benchmarks.gateway_upstream import CHUNKS, PACE_SECONDS

        asked = partial(self.ask, kind="stream", at_once=self.size.streams_at_once, spread_seconds=CHUNKS * PACE_SECONDS)
        return [
            {name: asked(name, requests=self._streams(name)) for name in _turned(tuple(self.servers), turn)}
            for turn in range(self.size.turns)
        ]

    def warm_up(self) -> None:
        """Fills the cache, and lets everything be loaded that a first request loads."""
        for name in self.servers:
            slow = name == LITELLM
            self.ask(name, "stream", 32 if slow else 128, 32)
            self.ask(name, "plain", 50 if slow else 500, self.size.at_once)
        self.ask(FOREWORD, "plain", int(1.1 * self.size.entries), self.size.at_once)
        self._check_cache()

    def from_cache(self) -> int:
        """Foreword's requests that never came to the server behind it."""
        with urllib.request.urlopen(f"{self.servers[DIRECT].url}/count", timeout=10) as answer:
            return sum(self.sent.values()) - json.loads(answer.read())["count"]

    def _check_cache(self) -> None:
        """Raises `RuntimeError` where answers are not kept: nothing would then be measured of that."""
        before, again = self.from_cache(), 100
        self._next[FOREWORD] -= again
        self.ask(FOREWORD, "plain", again, 1)
        found = self.from_cache() - before
        if found < 0.9 * again:
            raise RuntimeError(f"Of {again} requests that were sent again, {found} were answered from the cache.")

    def memory(self) -> dict[str, Any]:
        """Resident memory of Foreword, over many requests."""
        server, steps = self.servers[FOREWORD], 20
        seen = [server.memory_mb()]
        for _ in range(steps):
            self.ask(FOREWORD, "plain", self.size.long // steps, self.size.at_once)
            seen.append(server.memory_mb())
        # A twentieth more is warm-up: the cache was full before, but nothing has been replaced often.
        return {"memory_mb": max(seen), "memory_growth": seen[-1] / seen[1] - 1, "memory_mb_by_step": [round(value, 1) for value in seen]}

    def _requests(self, name: str) -> int:
        return self.size.slow_requests if name == LITELLM else self.size.requests

    def _streams(self, name: str) -> int:
        return self.size.slow_streams if name == LITELLM else self.size.streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    parser = command.parser("gateway", __doc__, quick="fewer requests and turns")
    parser.add_argument("--litellm", type=Path, metavar="PATH", help=f"the `litellm` program (default: that of {PEERS.name}, if there)")
    parser.add_argument("--install-peers", action="store_true", help=f"install LiteLLM's latest release into {PEERS.name}")
    options = parser.parse_args(arguments)
    litellm = _litellm(options)
    return command.run(options, partial(measure, litellm=litellm), full=FULL, quick=QUICK, result=RESULT)


def measure(data: Path, size: Size, *, litellm: Path | None) -> Iterator[dict[str, Any]]:
    """Every figure that there is, after each part that is measured."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        bodies = write_bodies(data, folder)
        direct = stack.enter_context(program(DIRECT, ["benchmarks.gateway_upstream"], folder))
        servers = [direct, stack.enter_context(program(BARE, ["benchmarks.gateway_bare", direct.url], folder))]
        stages, left_out = known_stages()
        for name in (FOREWORD, UNCACHED):
            servers.append(stack.enter_context(_foreword(name, direct.url, size.entries, stages, folder / name)))
        if litellm is not None:
            servers.append(stack.enter_context(_litellm_proxy(litellm, direct.url, folder)))
        bench = Bench(size, servers, bodies)
        bench.warm_up()
        figures: dict[str, Any] = {"stages": stages, "stages_left_out": left_out, "cache_entries": size.entries} | _about(litellm)
        for part in (bench.plain, bench.alone, bench.streams):
            figures |= FIGURES[part.__name__](part())
            yield figures
        before, sent = bench.from_cache(), bench.sent[FOREWORD]
        figures |= bench.memory() | {"failed": bench.failed}
        figures["answered_from_cache"] = (bench.from_cache() - before) / (bench.sent[FOREWORD] - sent)
        yield figures | {"ledger_entries_missing": bench.sent[FOREWORD] - _entries(folder / FOREWORD)}


def plain_figures(turns: Sequence[Mapping[str, Taken]]) -> dict[str, Any]:
    """CPU of whole answers."""
    return {
        "litellm_cpu_ratio": ratio(turns, LITELLM, FOREWORD),
        "bare_cpu_ratio": ratio(turns, FOREWORD, BARE),
        "uncached_litellm_cpu_ratio": ratio(turns, LITELLM, UNCACHED),
        "uncached_bare_cpu_ratio": ratio(turns, UNCACHED, BARE),
        "cpu_ms": _each(turns, lambda taken: taken.cpu_ms),
        "cpu_ms_by_turn": {name: [round(turn[name].cpu_ms, 4) for turn in turns] for name in turns[0]},
    }


def alone_figures(turns: Sequence[Mapping[str, Taken]]) -> dict[str, Any]:
    """Time of whole answers, one at a time."""
    return {
        "added_p50_ms": _over(turns, FOREWORD, BARE, "p50_ms"),
        "alone_p50_ms": _each(turns, lambda taken: taken.load["p50_ms"]),
        "alone_p99_ms": _each(turns, lambda taken: taken.load["p99_ms"]),
        "alone_cpu_ms": _each(turns, lambda taken: taken.cpu_ms),
    }


def stream_figures(turns: Sequence[Mapping[str, Taken]]) -> dict[str, Any]:
    """CPU of streams, and the time until their first pieces."""
    return {
        "sse_cpu_ratio": ratio(turns, LITELLM, FOREWORD),
        "sse_bare_cpu_ratio": ratio(turns, FOREWORD, BARE),
        "uncached_sse_cpu_ratio": ratio(turns, LITELLM, UNCACHED),
        "sse_ttft_over_direct_ms": _over(turns, FOREWORD, DIRECT, "first_p50_ms"),
        "sse_cpu_ms": _each(turns, lambda taken: taken.cpu_ms),
        "sse_ttft_p50_ms": _each(turns, lambda taken: taken.load["first_p50_ms"]),
        "sse_ttft_p99_ms": _each(turns, lambda taken: taken.load["first_p99_ms"]),
        "sse_whole_p50_ms": _each(turns, lambda taken: taken.load["p50_ms"]),
    }


FIGURES: Mapping[str, Callable[[Sequence[Mapping[str, Taken]]], dict[str, Any]]] = {
    "plain": plain_figures,
    "alone": alone_figures,
    "streams": stream_figures,
}


def ratio(turns: Sequence[Mapping[str, Taken]], over: str, under: str) -> float | None:
    """The median over turns of one's CPU over another's; None where one of them did not take part."""
    if over not in turns[0] or under not in turns[0]:
        return None
    return statistics.median(turn[over].cpu_ms / turn[under].cpu_ms for turn in turns)


def _over(turns: Sequence[Mapping[str, Taken]], mine: str, others: str, key: str) -> float:
    return statistics.median(turn[mine].load[key] - turn[others].load[key] for turn in turns)


def _each(turns: Sequence[Mapping[str, Taken]], figure: Callable[[Taken], float]) -> dict[str, float]:
    return {name: statistics.median(figure(turn[name]) for turn in turns) for name in sorted(turns[0])}


def _turned(names: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """Each turn begins with another one."""
    first = turn % len(names)
    return names[first:] + names[:first]


def known_stages() -> tuple[list[str], list[str]]:
    """The stages of the path that are there, in order, and those that are not."""
    from foreword.gateway.stage import ORDER, names

    there = names()
    return [name for name in ORDER if name in there], [name for name in ORDER if name not in there]


def config(upstream: str, entries: int, stages: Sequence[str], folder: Path, *, cached: bool = True) -> str:
    """The `foreword.toml`: something to do for every stage; without `cached` for all but the cache."""
    cache = 'exact = true, semantic = "bound", bound = 0.02' if cached else ""
    return f"""
stages = {json.dumps(list(stages))}

[models.mock]
url = "{upstream}/v1"
model = "mock-1"
price = {{ input_per_million = "0.15", output_per_million = "0.6" }}

[tasks.refunds]
rules = ['(?i)\\brefund(s|ed)?\\b']

[tasks.default]
rules = ['(?i)\\w']
cache = {{ {cache} }}
assemble = {{ tokens = 4096, history_turns = 8 }}
check = {{ regex = '(?s).*[a-z].*', escalate = false }}

[store]
ledger = "{folder / "ledger.sqlite"}"
cache_entries = {entries}
cache_bytes = {2_000 * entries}
"""


def write_bodies(data: Path, folder: Path) -> dict[str, Path]:
    """Requests with a system prompt and one of Quora's questions, each question once; whole and as streams."""
    found: dict[str, Path] = {}
    texts = _questions(data)
    for kind, more in (("plain", {}), ("stream", {"stream": True})):
        found[kind] = folder / f"{kind}.jsonl"
        rows = (
            {"model": "mock", "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}], **more}
            for text in texts
        )
        found[kind].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return found


def _questions(data: Path) -> list[str]:
    """Those that no other one of the list is judged a duplicate of."""
    with gzip.open(data / "qqp_cache" / "dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return list(dict.fromkeys(row["text_a"] for row in rows if row["label"] == 0))


def _foreword(name: str, upstream: str, entries: int, stages: Sequence[str], folder: Path) -> Any:
    folder.mkdir()
    path = folder / "foreword.toml"
    path.write_text(config(upstream, entries, stages, folder, cached=name != UNCACHED), encoding="utf-8")
    program_path = Path(sys.executable).with_name("foreword")
    arguments = [str(program_path), "serve", "--config", str(path), "--port", "{port}", "--no-access-log"]
    return served(name, arguments, "/healthz", folder, {"FOREWORD_HOME": str(folder / "home")})


def _litellm_proxy(litellm: Path, upstream: str, folder: Path) -> Any:
    """One worker, as documented; without an access log, without looking for a newer price list, in its mode for production."""
    path, logs = folder / "litellm.json", folder / "litellm_logs.json"
    parameters = {"model": "openai/mock-1", "api_base": f"{upstream}/v1", "api_key": "none"}
    path.write_text(json.dumps({"model_list": [{"model_name": "mock", "litellm_params": parameters}]}), encoding="utf-8")
    quiet = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.access": {"level": "WARNING"}}}
    logs.write_text(json.dumps(quiet), encoding="utf-8")
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # Nobody else reaches it; looking at keys would only make it slower.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    command_line = [str(litellm), "--config", str(path), "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1"]
    return served(LITELLM, [*command_line, "--log_config", str(logs)], "/health/liveliness", folder, environment)


def _litellm(options: argparse.Namespace) -> Path | None:
    if options.install_peers:
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(PEERS / "bin" / "pip"), "install", "--quiet", "--upgrade", "litellm[proxy]"], check=True)
    installed = PEERS / "bin" / "litellm"
    return options.litellm or (installed if installed.is_file() else None)


def _about(litellm: Path | None) -> dict[str, Any]:
    from importlib.metadata import version

    about: dict[str, Any] = {"versions": {name: version(name) for name in ("aiohttp", "granian", "msgspec")}}
    if litellm is None:
        return about | {"litellm_left_out": "there is no `litellm` program; give --litellm PATH or --install-peers"}
    asked = "from importlib.metadata import version; print(version('litellm'))"
    said = subprocess.run([str(litellm.with_name("python")), "-c", asked], capture_output=True, text=True, check=True)
    about["versions"]["litellm"] = said.stdout.strip()
    return about


def _entries(folder: Path) -> int:
    """Requests in the ledger, once it had time to write the last ones."""
    time.sleep(2)
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        return database.execute("select count(*) from ledger_entries").fetchone()[0]


if __name__ == "__main__":
    sys.exit(main())
