"""One tuning run as the commands do it: shown, resumable, kept and published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli._console import say, stderr

if TYPE_CHECKING:
    from foreword.api import Model
    from foreword.cost.prices import Price
    from foreword.data.dataset import Dataset
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.store import PrefixStore, Reference
    from foreword.tuning.settings import TuneSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A finished run: the prefix, where it was published, and what it took."""

    prefix: Prefix
    reference: Reference
    seconds: float
    stopped: str | None
    folder: Path

    @property
    def dev_loss(self) -> float | None:
        """Mean negative log-likelihood per dev target token, in nats."""
        return self.prefix.header.quality.get("dev_loss")

    @property
    def nbytes(self) -> int:
        """Bytes of the prefix file."""
        return self.reference.path.stat().st_size


def run_tuning(
    model: Model,
    train: Dataset,
    dev: Dataset | None,
    settings: TuneSettings,
    *,
    folder: Path,
    fresh: bool,
    root: Path | None,
    price: Price | None = None,
) -> Tuned | None:
    """Tunes, keeps the prefix in the run folder and publishes it; None in a worker that does not lead.

    A run that was interrupted goes on; one that is finished is done again, as a new version.

    Raises:
        TuningError: the folder holds an unfinished run with another configuration, or the run failed.
        StoreError: the store cannot be written to; the prefix is in the run folder all the same.
    """
    from foreword.cli._progress import TuningProgress
    from foreword.prefix.store import PrefixStore
    from foreword.tuning.observer import Silent
    from foreword.tuning.run_folder import STATE
    from foreword.tuning.tuner import tune
    from foreword.tuning.workers import Workers

    workers, store = Workers.from_environment(), PrefixStore(root)
    if workers.leads:
        _make_ready(folder, fresh=fresh)
        if (folder / STATE).is_file():
            say(f"Resuming the run in {folder}.")
    # Waits for the leader, so that no worker reads a state that is about to be cleared.
    workers.sum(0.0)
    if not workers.leads:
        tune(model.engine, train, dev, settings, run_folder=folder, observer=Silent(), store=store)
        return None
    with TuningProgress(stderr(), price=price) as progress:
        result = tune(model.engine, train, dev, settings, run_folder=folder, observer=progress, store=store)
    return Tuned(
        prefix=result.prefix,
        reference=_publish(result.prefix, folder, store),
        seconds=result.seconds,
        stopped=result.stopped,
        folder=folder,
    )


def _publish(prefix: Prefix, folder: Path, store: PrefixStore) -> Reference:
    from foreword.errors import ForewordError

    kept = folder / f"{prefix.name}.safetensors"
    prefix.save(kept)
    try:
        return store.publish(prefix)
    except ForewordError:
        say(f"The prefix is not lost: it is in {kept}, and `--prefix {kept}` works.")
        raise


def _make_ready(folder: Path, *, fresh: bool) -> None:
    """Clears a run's own files, and nothing else, unless there is an unfinished run to go on with."""
    from foreword.tuning import run_folder

    unfinished = (folder / run_folder.STATE).is_file() and not (folder / run_folder.DONE).is_file()
    if unfinished and not fresh:
        return
    # The state goes last: whatever interrupts this, a folder without it is never continued by mistake.
    for name in (run_folder.STATE, run_folder.CONFIG, run_folder.LOG, run_folder.CURVES, run_folder.CURVES_PNG, run_folder.DONE):
        (folder / name).unlink(missing_ok=True)
