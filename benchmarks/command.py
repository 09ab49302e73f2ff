"""The command line that benchmarks on evaluation data share: `--quick`, `--json`, `--data`, and what becomes of the figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import machine, result_file, shared_tasks

Size = TypeVar("Size")


def parser(name: str, about: str | None, *, quick: str) -> argparse.ArgumentParser:
    """The options of `python -m benchmarks.NAME`. Args: quick: what is less of a quick run."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about, formatter_class=argparse.RawTextHelpFormatter)
    found.add_argument("--quick", action="store_true", help=quick)
    found.add_argument("--json", action="store_true", help="end with one line of JSON")
    found.add_argument("--data", type=Path, default=shared_tasks.DEFAULT_DATA, help="folder of evaluation data (default: %(default)s)")
    return found


def run(
    options: argparse.Namespace, measure: Callable[[Path, Size], Iterable[dict[str, Any]]], *, full: Size, quick: Size, result: Path
) -> int:
    """Measures, prints, and writes a full run's result each time that `measure` gives all figures so far; returns the exit code.

    A run that is stopped leaves what it has measured.
    """
    if not options.data.is_dir():
        sys.stderr.write(f"There is no folder {options.data}; name the evaluation data with --data.\n")
        return 2
    figures: dict[str, Any] = {}
    for figures in measure(options.data, quick if options.quick else full):
        if not options.quick:
            result_file.write(result, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def main(
    name: str,
    about: str | None,
    measure: Callable[[Path, Size], Iterable[dict[str, Any]]],
    arguments: Sequence[str] | None,
    *,
    full: Size,
    quick: Size,
    less: str,
    result: Path,
) -> int:
    """Both, for a benchmark that has no options of its own. Args: less: what is less of a quick run."""
    return run(parser(name, about, quick=less).parse_args(arguments), measure, full=full, quick=quick, result=result)
