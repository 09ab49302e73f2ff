"""The folder of one run: configuration, log, curves, and the state that a resumed run continues from.

Every file is replaced whole, so a run that is killed at any moment leaves a folder that can be continued.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.errors import TuningError

CONFIG, LOG, STATE, CURVES, CURVES_PNG, DONE = "config.json", "log.jsonl", "state.safetensors", "curves.json", "curves.png", "done.json"


class RunFolder:
    """Reads and writes one run's files; with no path, keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def begin(self, config: Mapping[str, Any]) -> None:
        """Claims the folder for a run.

        Raises:
            TuningError: it holds a run with another configuration.
        """
        if self.path is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob("*.part"):
            leftover.unlink(missing_ok=True)
        before = self._read(CONFIG)
        if before is not None and before != json.loads(json.dumps(config)):
            changed = sorted(key for key in {*before, *config} if before.get(key) != json.loads(json.dumps(config.get(key))))
            raise TuningError(
                f"{self.path} holds a run that differs in: {', '.join(changed)}. Choose another run folder, or start over with `--fresh`."
            )
        self._write(CONFIG, json.dumps(config, indent=1))
        if not (self.path / STATE).is_file():
            # A finished run is done again, and is not finished until then.
            (self.path / DONE).unlink(missing_ok=True)

    def save_state(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keeps what a resumed run needs."""
        if self.path is None:
            return
        from safetensors.torch import save

        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"run": json.dumps(about)})
        self._write(STATE, data)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `save_state` kept last, or None for a new run."""
        if self.path is None or not (file := self.path / STATE).is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118 (not a mapping)
                return tensors, json.loads(handle.metadata()["run"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TuningError(f"{file} cannot be read ({error}); start over with `--fresh`.") from error

    def log(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Rewrites the log: one JSON object per step."""
        if self.path is not None:
            self._write(LOG, "".join(json.dumps(record) + "\n" for record in records))

    def finish(self, summary: Mapping[str, Any], curves: Mapping[str, Any]) -> None:
        """Writes the curves and the summary; the state is no longer needed."""
        if self.path is None:
            return
        self._write(CURVES, json.dumps(curves))
        if (picture := _drawn(curves)) is not None:
            self._write(CURVES_PNG, picture)
        self._write(DONE, json.dumps(summary, indent=1))
        self.drop_state()

    def drop_state(self) -> None:
        """Forgets what a resumed run would need: there is nothing left to go on with."""
        if self.path is not None:
            (self.path / STATE).unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        file = self.path / name if self.path else None
        if file is None or not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TuningError(f"{file} cannot be read ({error}); start over with `--fresh`.") from error

    def _write(self, name: str, data: str | bytes) -> None:
        if self.path is None:
            return
        part = self.path / f"{name}.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise TuningError(f"{self.path / name} could not be written: {error}. The run so far is kept; free some space.") from error


def _drawn(curves: Mapping[str, Any]) -> bytes | None:
    """Training and dev loss of every candidate as PNG, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves["candidates"].items()):
        colour = f"C{number}"
        axes.plot(*zip(*curve["train"], strict=True), color=colour, alpha=0.25, linewidth=1) if curve["train"] else None
        axes.plot(*zip(*curve["dev"], strict=True), color=colour, marker="o", label=name) if curve["dev"] else None
    axes.set(xlabel="step", ylabel="loss (nats): faint training, solid dev", title=curves["name"])
    axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
