"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from foreword.errors import ConfigError
from foreword.types import Sampling

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

ModelOption = Annotated[str, typer.Option("--model", metavar="MODEL", help="Frozen model: smollm2, a folder, or a Hugging Face id.")]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch of a Hugging Face id.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model. Only for models that you have read.")
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Number format of the weights; auto takes bfloat16 where it is fast.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="The prefix store.", show_default="prefixes in FOREWORD_HOME, or in ~/.foreword"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
PrefixOption = Annotated[
    str | None, typer.Option("--prefix", metavar="REF", help="Stored prefix (support, support@prod, support@v3) or a .safetensors file.")
]
InstructionOption = Annotated[str | None, typer.Option("--instruction", help="System message; a tuned prefix brings its own.")]
CurrencyOption = Annotated[str, typer.Option("--currency", metavar="CODE", help="Currency of the prices, as three capital letters.")]

MaxNewTokensOption = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token each time.")]
TopPOption = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest tokens that have this share.")]
TopKOption = Annotated[int, typer.Option("--top-k", min=0, help="Draw from this many likeliest tokens; 0 is no limit.")]
StopOption = Annotated[list[str] | None, typer.Option("--stop", metavar="TEXT", help="End the answer before this text; may be repeated.")]


def sampling_from_options(max_new_tokens: int, temperature: float, top_p: float, top_k: int, seed: int, stop: list[str] | None) -> Sampling:
    """How answers are drawn.

    Raises:
        ConfigError: a value that no answer could be drawn with.
    """
    if top_p == 0:
        raise ConfigError("--top-p 0 leaves no token to draw. For the likeliest token each time, use --temperature 0.")
    if stop and "" in stop:
        raise ConfigError("--stop '' would end every answer before it begins. Give some text, or leave it out.")
    return Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=tuple(stop or ()))
