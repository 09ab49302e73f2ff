"""Tiny engines and, beside each, an untouched transformers model of the same checkpoint to compare with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.engines.transformers import TransformersEngine, load
from foreword.prefix.artifact import Prefix
from foreword.types import Message

EngineOf = Callable[..., TransformersEngine]
ReferenceOf = Callable[..., Any]

# A random Gemma with tied embeddings, which it scales, repeats its last token for ever; answers should differ from each other.
DEFAULTS: dict[str, dict[str, Any]] = {"gemma3_text": {"tie_word_embeddings": False}}


@pytest.fixture(scope="session")
def foreword_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreword-home")


@pytest.fixture(autouse=True)
def own_home(foreword_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the home of whoever runs the tests."""
    monkeypatch.setenv("FOREWORD_HOME", str(foreword_home))


@pytest.fixture(scope="session")
def folder_of(tiny_model_folder: Any) -> Callable[..., Path]:
    """`folder_of("llama")`: the checkpoint that `engine_of` and `reference_of` load."""

    def folder(family: str, **config: Any) -> Path:
        return tiny_model_folder(family, **{**DEFAULTS.get(family, {}), **config})

    return folder


@pytest.fixture(scope="session")
def engine_of(folder_of: Callable[..., Path], foreword_home: Path) -> EngineOf:
    """`engine_of("llama", dtype="float32", **fields of the config)`, loaded once each."""
    loaded: dict[str, TransformersEngine] = {}

    def engine(family: str, *, dtype: str = "float32", **config: Any) -> TransformersEngine:
        key = repr((family, dtype, sorted(config.items())))
        if key not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("FOREWORD_HOME", str(foreword_home))
                loaded[key] = load(str(folder_of(family, **config)), dtype=dtype, device="cpu")
        return loaded[key]

    return engine


@pytest.fixture(scope="session")
def reference_of(folder_of: Callable[..., Path]) -> ReferenceOf:
    """The same checkpoint as transformers loads it, with its own plain attention; float32."""
    loaded: dict[str, Any] = {}

    def reference(family: str, **config: Any) -> Any:
        from transformers import AutoModelForCausalLM

        key = repr((family, sorted(config.items())))
        if key not in loaded:
            folder = folder_of(family, **config)
            module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            loaded[key] = module.eval().requires_grad_(False)
        return loaded[key]

    return reference


@pytest.fixture(scope="session")
def conversations() -> list[tuple[Message, ...]]:
    """Conversations of very different lengths, with and without a system turn, one with several turns."""
    user, system, assistant = (lambda text, role=role: Message(role=role, content=text) for role in ("user", "system", "assistant"))
    return [
        (user("Hi"),),
        (user("name[Aromi], eatType[pub], food[Chinese], area[city centre], familyFriendly[yes] " * 3),),
        (system("Answer in one short sentence."), user("Where is my order 4711?")),
        (user("Wörter, 漢字 and emoji 🙂"),),
        (user("The river"), assistant("is near the city centre."), user("And the pub?")),
        (system("You are a helpful assistant."), user("families")),
    ]


def make_prefix(engine: TransformersEngine, key_LHND: torch.Tensor, value_LHND: torch.Tensor, **fields: Any) -> Prefix:
    """A prefix of the engine's own from keys and values."""
    return Prefix.make(
        **{
            "name": "tiny",
            "kind": "text",
            "key_LHND": key_LHND,
            "value_LHND": value_LHND,
            "fingerprint": engine.fingerprint,
            "geometry": engine.geometry,
            "prompt_format": "continuation",
            **fields,
        }
    )


@pytest.fixture(scope="session")
def prefix_of() -> Callable[..., Prefix]:
    """`prefix_of(engine, messages)`: the exact prefix of a conversation's start."""

    def prefix(engine: TransformersEngine, messages: tuple[Message, ...], **fields: Any) -> Prefix:
        return make_prefix(engine, *engine.read(engine.render_context(messages)), **fields)

    return prefix
