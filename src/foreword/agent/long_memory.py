"""Long-term memory: facts in one SQLite file, recalled by meaning, fading with time, each with where it came from, and removable.

A memory object sees the facts of one namespace of one tenant, and no call can make it see others. With an embedder facts are recalled by
their vectors, and by common words where there is none. What is committed outlives a killed process (WAL, flushed at each commit). What is
forgotten is gone from the file: the pages are overwritten, the file is written anew and its log is emptied.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.agent.facts import MOST_CHARACTERS, Decay, Fact, Provenance, Recalled, Weights, Words, words
from foreword.errors import AgentError

if TYPE_CHECKING:
    from foreword.retrieval.embedder import Embedder

APPLICATION_ID = 0x464F5245
FORMAT = 1
MOST_FACTS = 100_000
LEAST_RELEVANCE = 0.2
BUSY_SECONDS = 10.0
_COLUMNS = "id, text, importance, run, span, source, made, used, recalls"
_TABLE = """
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL, namespace TEXT NOT NULL,
    text TEXT NOT NULL, importance REAL NOT NULL,
    run TEXT NOT NULL, span INTEGER NOT NULL, source TEXT NOT NULL,
    made REAL NOT NULL, used REAL NOT NULL, recalls INTEGER NOT NULL DEFAULT 0,
    embedder TEXT, vector BLOB)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS facts_by_owner ON facts (tenant, namespace, run)"


class LongMemory:
    """The facts of one namespace of one tenant. Safe to use from several threads, and beside other processes."""

    def __init__(
        self,
        path: Path,
        *,
        tenant: str = "default",
        namespace: str = "default",
        embedder: Embedder | None = None,
        decay: Decay | None = None,
        weights: Weights | None = None,
        most_facts: int = MOST_FACTS,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        """Opens the file, or makes it.

        Args:
            most_facts: of the namespace; beyond, the weakest make room.
            busy_seconds: how long others who use the file are waited for.

        Raises:
            AgentError: the file is no memory, or cannot be opened.
        """
        self.path, self.tenant, self.namespace = path, tenant, namespace
        self._embedder, self._decay, self._weights = embedder, decay or Decay(), weights or Weights()
        self._most_facts, self._clock = most_facts, clock
        self._lock = threading.RLock()
        self._connection = _open(path, busy_seconds)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def remember(self, text: str, *, importance: float = 0.5, provenance: Provenance | None = None) -> Fact:
        """Writes a fact down, for good once this returns. One that is known word for word is not doubled: it becomes fresh again.

        Raises:
            AgentError: the text is empty or too long, or the file cannot be written.
        """
        text = text.encode("utf-8", "replace").decode().strip()
        if not text or len(text) > MOST_CHARACTERS:
            raise AgentError(f"A fact has 1 to {MOST_CHARACTERS:,} characters; this one has {len(text):,}. Say it shorter.")
        if not 0 <= importance <= 1:
            raise AgentError(f"Importance is a number from 0 to 1; got {importance}.")
        vector = None if self._embedder is None else self._embedder.embed([text])[0].astype("<f4").tobytes()
        told, now = provenance or Provenance(), self._clock()
        with self._changing() as connection:
            known = connection.execute(
                "SELECT id FROM facts WHERE tenant = ? AND namespace = ? AND text = ?", (self.tenant, self.namespace, text)
            ).fetchone()
            if known is not None:
                connection.execute("UPDATE facts SET used = ?, importance = max(importance, ?) WHERE id = ?", (now, importance, known[0]))
                number = known[0]
            else:
                name = None if self._embedder is None else self._embedder.name
                values = (self.tenant, self.namespace, text, importance, told.run, told.span, told.source, now, now, name, vector)
                number = connection.execute(
                    "INSERT INTO facts (tenant, namespace, text, importance, run, span, source, made, used, embedder, vector) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                ).lastrowid
                self._make_room(connection, now)
        return self.get(int(number or 0))

    def recall(self, question: str, *, most: int = 5, least_relevance: float = LEAST_RELEVANCE, reinforce: bool = True) -> list[Recalled]:
        """The facts that fit a question best, best first.

        Args:
            least_relevance: facts below are not recalled, however fresh and important they are.
            reinforce: what is recalled becomes fresh again and fades more slowly; off for looking without touching.
        """
        rows = self._rows(f"SELECT {_COLUMNS}, embedder, vector FROM facts WHERE tenant = ? AND namespace = ?")
        if not rows:
            return []
        facts = [_fact(row) for row in rows]
        now = self._clock()
        found = []
        for fact, relevance in zip(facts, self._relevances(question, rows), strict=True):
            if relevance >= least_relevance:
                recency = self._decay.recency(fact, now)
                score = self._weights.score(relevance=relevance, recency=recency, importance=fact.importance)
                found.append(Recalled(fact=fact, score=score, relevance=relevance, recency=recency))
        found = sorted(found, key=lambda item: (-item.score, item.fact.id))[:most]
        if reinforce and found:
            with self._changing() as connection:
                connection.executemany(
                    "UPDATE facts SET used = ?, recalls = recalls + 1 WHERE id = ? AND tenant = ? AND namespace = ?",
                    [(now, item.fact.id, self.tenant, self.namespace) for item in found],
                )
        return found

    def get(self, number: int) -> Fact:
        """One fact. Raises `AgentError` where this namespace has none of that number."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM facts WHERE tenant = ? AND namespace = ? AND id = ?", number)
        if not rows:
            raise AgentError(f"There is no fact {number} in the namespace `{self.namespace}`.")
        return _fact(rows[0])

    def facts(self) -> list[Fact]:
        """All facts, in the order in which they were written."""
        return [_fact(row) for row in self._rows(f"SELECT {_COLUMNS} FROM facts WHERE tenant = ? AND namespace = ? ORDER BY id")]

    def strength(self, fact: Fact) -> float:
        """What is left of a fact: its recency times its importance."""
        return self._decay.recency(fact, self._clock()) * fact.importance

    def forget(
        self,
        *,
        ids: Iterable[int] = (),
        run: str | None = None,
        source: str | None = None,
        words_of: str | None = None,
        everything: bool = False,
    ) -> list[Fact]:
        """Removes facts, and what remains of them on the disk; returns what was removed. Each condition given removes what meets it.

        Args:
            ids: these.
            run, source: those that come from there.
            words_of: those that hold all words of this text.
            everything: the whole namespace.

        Raises:
            AgentError: nothing to forget is named; or somebody else reads the file all the time, so that its log could not be emptied (the
                facts are removed then; forgetting anything once more empties it).
        """
        wanted = set(ids)
        asked = None if words_of is None else words(words_of)
        if asked is not None and not asked:
            raise AgentError(f"`{(words_of or '')[:80]}` has no word to look for. Give one of three letters or more, or a number.")
        if not (wanted or run or source or asked or everything):
            raise AgentError("Say what to forget: ids, a run, a source, words, or everything.")
        gone = [
            fact
            for fact in self.facts()
            if everything
            or fact.id in wanted
            or (run and fact.provenance.run == run)
            or (source and fact.provenance.source == source)
            or (asked and asked <= words(fact.text))
        ]
        self._remove(gone)
        return gone

    def fade(self, *, below: float = 0.05) -> list[Fact]:
        """Removes the facts of which less than `below` is left (see `strength`); returns them."""
        gone = [fact for fact in self.facts() if self.strength(fact) < below]
        self._remove(gone)
        return gone

    def _relevances(self, question: str, rows: Sequence[tuple]) -> list[float]:
        by_words = Words([row[1] for row in rows]).relevance(question)
        if self._embedder is None:
            return by_words
        import numpy as np

        asked_D = self._embedder.embed([question])[0]
        comparable = [index for index, row in enumerate(rows) if row[9] == self._embedder.name and row[10] is not None]
        if comparable:
            vectors_ND = np.frombuffer(b"".join(rows[index][10] for index in comparable), dtype="<f4").reshape(len(comparable), -1)
            for index, near in zip(comparable, vectors_ND @ asked_D, strict=True):
                # Vectors blur names and numbers, which words get right; the better of the two counts.
                by_words[index] = max(by_words[index], min(1.0, float(near)))
        return by_words

    def _make_room(self, connection: sqlite3.Connection, now: float) -> None:
        owner = (self.tenant, self.namespace)
        (count,) = connection.execute("SELECT count(*) FROM facts WHERE tenant = ? AND namespace = ?", owner).fetchone()
        if count <= self._most_facts:
            return
        rows = connection.execute(f"SELECT {_COLUMNS} FROM facts WHERE tenant = ? AND namespace = ?", owner).fetchall()
        weakest = sorted((_fact(row) for row in rows), key=lambda fact: (self._decay.recency(fact, now) * fact.importance, fact.id))
        # A hundredth at once, so that not every fact has to look for a place.
        surplus = count - self._most_facts + self._most_facts // 100
        connection.executemany("DELETE FROM facts WHERE id = ?", [(fact.id,) for fact in weakest[:surplus]])

    def _remove(self, facts: Sequence[Fact]) -> None:
        if facts:
            with self._changing() as connection:
                connection.executemany(
                    "DELETE FROM facts WHERE id = ? AND tenant = ? AND namespace = ?",
                    [(fact.id, self.tenant, self.namespace) for fact in facts],
                )
        with self._lock, _explained(self.path):
            # Overwriting reaches the row's own cell; copies that moving between pages left behind go when the file is written anew.
            self._connection.execute("VACUUM")
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise AgentError(
                f"{len(facts)} facts are removed, but {self.path.name} is being read by others, so that its log still holds them. "
                "Repeat the command when nobody reads."
            )

    def _rows(self, query: str, *more: object) -> list[tuple]:
        with self._lock, _explained(self.path):
            return self._connection.execute(query, (self.tenant, self.namespace, *more)).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._lock, _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise AgentError(f"The memory {path} cannot be used: {error}. Is it a memory, and is there room on the disk?") from error


def _open(path: Path, busy_seconds: float) -> sqlite3.Connection:
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is remembered of people is nobody else's to read.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise AgentError(f"The memory {path} cannot be opened: {error.strerror or error}. Choose another file.") from None
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
    try:
        with _explained(path):
            _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (owner,), (form,) = connection.execute("PRAGMA application_id").fetchone(), connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and owner != APPLICATION_ID:
        raise AgentError(f"{path} is a database, but no memory of an agent. Choose another file.")
    if tables and form != FORMAT:
        raise AgentError(f"{path} has format {form}, and this version reads {FORMAT}. Use the version of Foreword that wrote it.")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    if not tables:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        connection.execute(_INDEX)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")


def _fact(row: Sequence) -> Fact:
    number, text, importance, run, span, source, made, used, recalls = row[:9]
    return Fact(
        id=number,
        text=text,
        importance=importance,
        provenance=Provenance(run=run, span=span, source=source),
        made=made,
        used=used,
        recalls=recalls,
    )
