"""`foreword cost`."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foreword.cost.ledger import Entry, Ledger, Line, Saving
from foreword.cost.rates import Charge
from foreword.store.database import open_database


def line(amount: str, stage: str = "infer", model: str = "small") -> Line:
    return Line(stage=stage, model=model, charges=(Charge(meter="request", quantity=Decimal(1), rate=Decimal(amount)),), priced_by="own")


def write(path: Path, *entries: Entry) -> Path:
    ledger = Ledger(open_database(path))
    for entry in entries:
        ledger.record(entry)
    ledger.close()
    return path


def entry(id: str, *lines: Line, **fields: Any) -> Entry:
    told = {
        "at": datetime.now(UTC),
        "tenant": "acme",
        "task_type": "support",
        "asked_model": "auto",
        "model": "small",
        "status": "answered",
    }
    return Entry(id=id, lines=lines, seconds=0.1, **(told | fields))


@pytest.fixture
def ledger(home: Path) -> Path:
    """Where it is looked for."""
    return write(
        home / "ledger.sqlite",
        entry("a", line("0.00123456"), success=True),
        entry("b", line("0.01", model="big"), success=False, retries=1, savings=(Saving(lever="route", amount=Decimal("0.5")),)),
        entry("c", line("0.25", "check", "judge"), task_type="other", tenant="zeta", model="big"),
    )


def test_the_table_has_what_there_is_to_tell(foreword: Any, ledger: Path) -> None:
    result = foreword("cost")
    assert result.exit_code == 0, result.output
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert " ".join(head).startswith("task-type requests judged success rate cost (USD) cost per success cost per attempt")
    assert [row[0] for row in rows] == ["other", "support"]
    assert rows[1][1:7] == ["2", "2", "50.0%", "0.01123", "0.01123", "0.005617"]
    assert rows[0][3:6] == ["-", "0.2500", "unknown"] and "route 0.5000" in result.stdout
    # What is 0 everywhere is left out.
    assert "retries" in result.stdout and "fallbacks" not in result.stdout and "unpriced" not in result.stdout


def test_figures_for_programs_are_exact(foreword: Any, ledger: Path) -> None:
    rows = json.loads(foreword("cost", "--by", "task-type,model", "--json").stdout)
    amounts = {(row["task-type"], row["model"]): Decimal(row["cost"]) for row in rows}
    assert amounts == {("support", "small"): Decimal("0.01123456"), ("other", "big"): Decimal("0.25")}
    lines = list(csv.DictReader(io.StringIO(foreword("cost", "--csv").stdout)))
    assert [line["task-type"] for line in lines] == ["other", "support"]
    assert json.loads(lines[1]["saved"]) == {"route": "0.500000000000"} and lines[1]["fallbacks"] == "0"


def test_stages_are_told_on_their_own(foreword: Any, ledger: Path) -> None:
    rows = json.loads(foreword("cost", "--by", "stage", "--json").stdout)
    assert rows == json.loads(foreword("cost", "--stages", "--json").stdout)
    assert {(row["stage"], row["model"]): row["cost"] for row in rows}[("check", "judge")] == "0.250000000000"
    assert foreword("cost", "--stages").stdout.split()[:2] == ["stage", "model"]


def test_it_can_be_narrowed(foreword: Any, ledger: Path) -> None:
    assert [row["requests"] for row in json.loads(foreword("cost", "--tenant", "zeta", "--json").stdout)] == [1]
    assert json.loads(foreword("cost", "--until", "7d", "--json").stdout) == []
    assert len(json.loads(foreword("cost", "--since", "7d", "--json").stdout)) == 2
    empty = foreword("cost", "--tenant", "nobody")
    assert empty.exit_code == 0 and "no requests" in empty.stderr and not empty.stdout
    assert foreword("cost", "--tenant", "nobody", "--csv").stdout == ""


def test_the_ledger_may_be_another(foreword: Any, tmp_path: Path) -> None:
    write(tmp_path / "own" / "own.sqlite", entry("x", line("1")))
    config = tmp_path / "own" / "foreword.toml"
    config.write_text('[models.big]\nurl = "http://a.example"\nmodel = "m"\n[store]\nledger = "own.sqlite"\n', encoding="utf-8")
    for option in (("--config", config), ("--ledger", tmp_path / "own" / "own.sqlite")):
        rows = json.loads(foreword("cost", *option, "--json").stdout)
        assert [row["cost"] for row in rows] == ["1.000000000000"]


def test_what_is_unpriced_is_said_and_counts_as_nothing_known(foreword: Any, home: Path) -> None:
    unpriced = Line(stage="infer", model="mystery", charges=None, consumed=(("input", 3.0),))
    write(home / "ledger.sqlite", entry("a", unpriced, success=True), entry("b", line("0.5"), success=True))
    result = foreword("cost")
    assert "unknown" in result.stdout and "1 requests is unknown" in " ".join(result.stderr.split())
    assert "unpriced" in result.stdout


def test_currencies_stand_apart(foreword: Any, home: Path) -> None:
    write(home / "ledger.sqlite", entry("a", line("1")), entry("b", line("2"), currency="EUR"))
    result = foreword("cost")
    assert "currency" in result.stdout and "EUR" in result.stdout and "USD" in result.stdout
    assert len(json.loads(foreword("cost", "--json").stdout)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--json", "--csv"), "not both"),
        (("--by", "colour"), "`colour`"),
        (("--since", "soon"), "`soon`"),
        (("--ledger", "none.sqlite"), "no ledger at"),
        (("--config", "none.toml"), "cannot be read"),
    ],
)
def test_what_cannot_be_is_told(foreword: Any, ledger: Path, options: tuple[str, ...], words: str) -> None:
    result = foreword("cost", *options)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_where_nothing_is_written_down_there_is_nothing_to_report(foreword: Any, tmp_path: Path, home: Path) -> None:
    config = tmp_path / "foreword.toml"
    config.write_text('[models.big]\nurl = "http://a.example"\nmodel = "m"\n[store]\nledger = "none"\n', encoding="utf-8")
    result = foreword("cost", "--config", config)
    assert result.exit_code == 2 and "keeps no ledger" in " ".join(result.stderr.split())
    result = foreword("cost")
    assert result.exit_code == 2 and "no ledger at" in " ".join(result.stderr.split())
    assert not (home / "ledger.sqlite").exists(), "looking for a ledger makes none"
    both = foreword("cost", "--config", config, "--ledger", "x")
    assert both.exit_code == 2 and "not both" in both.stderr
