"""The Python interface: load a model, tune or compile a prefix, answer with it.

import foreword as fw
model = fw.load("smollm2")
prefix = fw.tune(model, "train.jsonl", dev="dev.jsonl", positions=32)
print(model.generate("name[Aromi], food[Chinese]", prefix=prefix))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from foreword import registry
from foreword.data.dataset import Dataset
from foreword.data.reading import read
from foreword.errors import ConfigError, ModelError
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.compiling.observer import Observer as CompileObserver
    from foreword.engine import Differentiable, Generates
    from foreword.prefix.artifact import Prefix
    from foreword.tuning.settings import TuneSettings

ENGINES = "foreword.engines"


class Model:
    """A frozen model, ready to answer with and without prefixes."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.engine.name

    def generate(
        self, prompt: str | Sequence[Message], *, prefix: Prefix | None = None, instruction: str | None = None, **sampling: Any
    ) -> str:
        """The answer to one prompt.

        Args:
            prompt: a text, or a conversation whose last turn is the user's.
            prefix: stands before the prompt.
            instruction: a system message; a tuned prefix brings its own.
            sampling: fields of `Sampling`, such as `max_new_tokens=64` or `temperature=0.7`.

        Raises:
            PrefixMismatch: the prefix was made for another model.
            WindowError: prefix, prompt and answer do not fit the window.
        """
        engine = cast("Generates", self.engine)
        return engine.generate([conversation(prompt, instruction)], prefix=prefix, sampling=Sampling(**sampling))[0].text

    def stream(
        self, prompt: str | Sequence[Message], *, prefix: Prefix | None = None, instruction: str | None = None, **sampling: Any
    ) -> Iterator[str]:
        """The answer to one prompt, piece by piece; arguments as for `generate`."""
        engine = cast("Generates", self.engine)
        return engine.stream(conversation(prompt, instruction), prefix=prefix, sampling=Sampling(**sampling))


def conversation(prompt: str | Sequence[Message], instruction: str | None = None) -> tuple[Message, ...]:
    """A prompt as a conversation, the instruction in front where there is one."""
    turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)
    return (Message(role="system", content=instruction), *turns) if instruction else turns


def load(
    name: str = "smollm2",
    *,
    engine: str = "transformers",
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    weights: str = "auto",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """Loads a model and freezes it.

    Args:
        name: `smollm2` (comes inside a package), a local folder, or a Hugging Face id.
        engine: which engine runs it.
        revision: commit, tag or branch of a Hugging Face id.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware multiplies it.
        device: a torch device, or `auto`: CUDA where there is one.
        weights: `auto`, or `int8` for linear layers in a quarter of float32's memory, on the CPU.
        trust_remote_code: runs code that comes with the model; off unless you have read it.
        progress: told (what is being done, steps done, steps in all) while a model is converted.

    Raises:
        ModelError: there is no such model, or it cannot take a prefix.
        RegistryError: there is no such engine.
    """
    loaded = registry.find(ENGINES, engine).load(
        name, revision=revision, dtype=dtype, device=device, weights=weights, trust_remote_code=trust_remote_code, progress=progress
    )
    return Model(loaded)


def tune(
    model: Model,
    train: str | Path | Dataset,
    *,
    dev: str | Path | Dataset | None = None,
    name: str = "prefix",
    positions: int | None = None,
    settings: TuneSettings | None = None,
    run_folder: str | Path | None = None,
    **fields: Any,
) -> Prefix:
    """Learns a prefix from examples.

    Args:
        model: the frozen model.
        train: training data, a file or a `Dataset`.
        dev: held-out data that chooses; a tenth of the training data is set aside where it is missing.
        name: the prefix's name.
        positions: virtual positions; chosen on dev where it is missing.
        settings: everything else; `fields` are the same by keyword, such as `seed=1` or `budget_seconds=60`.
        run_folder: where config, log, curves and the state for resuming go; nothing is kept where it is missing.

    Raises:
        DataError: the data cannot be used.
        TuningError: the run cannot start or cannot go on.
    """
    from foreword.tuning.settings import TuneSettings
    from foreword.tuning.tuner import tune as run

    chosen = settings or TuneSettings(name=name, positions=positions, **fields)
    result = run(
        _differentiable(model),
        _dataset(train),
        None if dev is None else _dataset(dev),
        chosen,
        run_folder=None if run_folder is None else Path(run_folder),
    )
    return result.prefix


def compile_text(
    model: Model,
    text: str,
    *,
    name: str = "text",
    method: str = "text",
    run_folder: str | Path | None = None,
    observer: CompileObserver | None = None,
    **settings: Any,
) -> Prefix:
    """A prefix that stands for a text.

    Args:
        method: `text` gives the answers that the text itself would give; `compact` takes fewer positions than the text has tokens, and
            `distil` trains these to say what the text would say.
        run_folder: where `distil` keeps what it needs to go on after an interruption.
        observer: told how far the work is.
        settings: fields of `foreword.compiling.settings.CompileSettings`, such as `ratio=10`.

    Raises:
        ConfigError: a setting that there is not, or that the method cannot honour.
        RegistryError: there is no such method.
        PrefixError: the text is empty, or the name is not allowed.
        WindowError: the prefix leaves no room in the model's window.
    """
    from pydantic import ValidationError

    from foreword.compiling import compiler
    from foreword.compiling.observer import Silent
    from foreword.compiling.settings import CompileSettings
    from foreword.prefix.header import describe

    try:
        chosen = CompileSettings(**settings)
    except ValidationError as error:
        raise ConfigError(f"This cannot be compiled: {describe(error)}.") from None
    engine = cast("CompilingEngine", _differentiable(model))
    folder = None if run_folder is None else Path(run_folder)
    return compiler.check(method, chosen).compile_source(
        engine, text, name=name, settings=chosen, observer=observer or Silent(), folder=folder
    )


def _differentiable(model: Model) -> Differentiable:
    from foreword.engine import Differentiable

    if not isinstance(model.engine, Differentiable):
        raise ModelError(f"The engine of `{model.name}` serves prefixes but cannot make them; load the model with engine='transformers'.")
    return model.engine


def _dataset(data: str | Path | Dataset) -> Dataset:
    return data if isinstance(data, Dataset) else read(data)
