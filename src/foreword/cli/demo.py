"""`foreword demo`: the main job on the example data, from tuning to the table."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli._comparison import comparison_progress, failed, show_answers
from foreword.cli._console import say, stderr, stdout
from foreword.cli._home import home, run_folder
from foreword.cli._loading import load_model, settings_from_options
from foreword.cli._options import DeviceOption, DtypeOption, ModelOption, RootOption, SeedOption
from foreword.cli._tuning import Tuned, run_tuning
from foreword.cli._units import duration, size
from foreword.cli.compare import report
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.api import Model

SERVING = ("granian", "starlette", "msgspec", "prometheus_client", "openai")
NAME = "support"
FOLDER = Path("examples") / NAME
STRATEGIES = ("zero-shot", "few-shot:8")
QUESTION = "hi, the steam wand on my Skylark stopped working after two weeks. is that covered? Nora"


def demo(
    budget: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="Tuning time; 75s when absent.", show_default=False)
    ] = 75.0,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Judge on N dev rows, drawn with the seed.")] = 60,
    model: ModelOption = "smollm2",
    seed: SeedOption = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start tuning over instead of resuming an interrupted demo.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the report goes.", show_default="demo/support.html in FOREWORD_HOME"),
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: RootOption = None,
) -> None:
    """Tune a prefix on the example task, compare it with prompting, and serve it.

    It takes about four minutes on two cores.

    The task: a shop's customer messages, to be routed to a queue and answered in the house's format. The prefix learns from the training
    rows alone; the table is made on other rows. It is published as `support`.

    \b
    Examples:
      foreword demo
      foreword demo --budget 5m --limit 92
    """
    from foreword.evaluate.comparison import compare
    from foreword.evaluate.task import load_task

    task = load_task(example_folder())
    say(f"Task `{task.name}`: {len(task.train)} messages to learn from, {len(task.dev)} to judge on.\n1. Tuning a prefix ({budget:.0f} s)")
    loaded = load_model(model, dtype=dtype, device=device)
    tuned = _tune(task, loaded, budget=budget, seed=seed, fresh=fresh, root=root)
    if tuned is None:
        return
    say(f"   {tuned.reference}: {tuned.prefix.positions} positions, {size(tuned.nbytes)}, {tuned.seconds:.0f} s")
    say(f"2. Comparing it with {' and '.join(STRATEGIES)} on {min(limit, len(task.dev))} other messages")
    with comparison_progress(stderr()) as on_progress:
        comparison = compare(
            task,
            (*STRATEGIES, f"prefix:{NAME}"),
            model=model,
            budget_seconds=budget,
            seed=seed,
            dev_limit=limit,
            dtype=dtype,
            device=device,
            store_root=root,
            on_progress=on_progress,
        )
    show_answers(comparison, stdout())
    place = html or home() / "demo" / f"{NAME}.html"
    report(comparison, as_json=False, markdown=None, html=place)
    _serve(loaded, root)
    say(
        f'\nTry it:  foreword generate "{QUESTION}" --prefix {NAME}\nServe it:  foreword serve\n'
        "Your own data:  foreword tune --data train.jsonl --name mine"
    )
    if failed(comparison):
        raise typer.Exit(1)


def example_folder() -> Path:
    """The example task: in the checkout that the package runs from, or under the working folder.

    Raises:
        ConfigError: it is in neither.
    """
    checkout = Path(__file__).resolve().parents[3]
    for folder in (checkout / FOLDER, Path(FOLDER)):
        if (folder / "task.toml").is_file():
            return folder
    raise ConfigError(
        f"The demo's data ({FOLDER}) are in Foreword's source checkout, and this is an installed package. Run it in a checkout "
        "(`make demo`), or on your own data: foreword tune --data train.jsonl --name mine"
    )


def _tune(task, loaded: Model, *, budget: float, seed: int, fresh: bool, root: Path | None) -> Tuned | None:
    from foreword.tuning.settings import TuneSettings

    settings = settings_from_options(
        TuneSettings, name=NAME, instruction=task.instruction, budget_seconds=budget, seed=seed, licence="CC0-1.0"
    )
    # The dev rows judge the table, so they must not choose: the run sets some of the training rows aside for that.
    return run_tuning(loaded, task.train, None, settings, folder=run_folder(NAME), fresh=fresh, root=root)


def _serve(loaded: Model, root: Path | None) -> None:
    """Answers one message through the server and OpenAI's client, as an application would get it."""
    missing = [package for package in SERVING if find_spec(package) is None]
    if missing:
        say(f"3. Serving it needs {', '.join(missing)}: pip install 'foreword[serve]' openai")
        return
    from openai import OpenAI

    from foreword.cli._served import served
    from foreword.prefix.store import PrefixStore

    base = Path(loaded.name).name
    with served(loaded.engine.serve(), base=base, store=PrefixStore(root)) as url:
        say(f"3. Serving it on {url}, and asking `{base}:{NAME}` through OpenAI's client")
        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        asked = [{"role": "user", "content": QUESTION}]
        answer = client.chat.completions.create(model=f"{base}:{NAME}", messages=asked, temperature=0, max_tokens=120)  # type: ignore[arg-type]
        client.close()
    say(f"   {QUESTION}\n   {answer.choices[0].message.content}")
    usage = answer.usage
    if usage is not None:
        say(f"   {usage.prompt_tokens} prompt tokens, {usage.completion_tokens} completion tokens")
