"""Long-term memory on a real file: recall, decay, provenance, deletion that leaves nothing, tenants apart, and kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from foreword.agent.facts import DAY, Decay, Provenance
from foreword.agent.long_memory import LongMemory
from foreword.errors import AgentError
from word_vectors import WordVectors


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.sqlite"


def texts(memory: LongMemory) -> list[str]:
    return [fact.text for fact in memory.facts()]


@pytest.mark.parametrize("embedder", [None, WordVectors()], ids=["words", "vectors"])
def test_what_fits_is_recalled(path: Path, embedder: WordVectors | None):
    memory = LongMemory(path, embedder=embedder)
    memory.remember("Anna's parcel is number 4711.")
    memory.remember("Ben drinks tea with milk.")
    found = memory.recall("Which number has Anna's parcel?")
    assert [item.fact.text for item in found] == ["Anna's parcel is number 4711."]
    assert memory.recall("quantum chromodynamics") == []
    memory.close()


def test_recall_goes_on_after_the_file_was_closed(path: Path):
    first = LongMemory(path, embedder=WordVectors())
    fact = first.remember("The shop opens at nine.", importance=0.9, provenance=Provenance(run="r", span=3, source="tool:sql"))
    first.close()
    second = LongMemory(path, embedder=WordVectors())
    assert second.get(fact.id) == fact
    assert second.recall("shop opens")[0].fact.provenance == Provenance(run="r", span=3, source="tool:sql")
    second.close()


def test_vectors_of_another_embedder_do_not_compare(path: Path):
    LongMemory(path, embedder=WordVectors("other/16", 16)).remember("The shop opens at nine.")
    memory = LongMemory(path, embedder=WordVectors())
    assert [item.fact.text for item in memory.recall("shop opens")] == ["The shop opens at nine."]


def test_fresh_and_important_facts_come_first(path: Path):
    clock = Clock()
    memory = LongMemory(path, clock=clock, decay=Decay(half_life=DAY))
    memory.remember("The price of tea is 3.", importance=0.5)
    clock.now += 10 * DAY
    memory.remember("The price of tea is 4.", importance=0.5)
    memory.remember("The price of tea is secret.", importance=0.9)
    found = memory.recall("price of tea", reinforce=False)
    assert [item.fact.text for item in found] == ["The price of tea is secret.", "The price of tea is 4.", "The price of tea is 3."]
    assert found[2].recency == pytest.approx(0.5**10)


def test_recall_makes_fresh_again(path: Path):
    clock = Clock()
    memory = LongMemory(path, clock=clock, decay=Decay(half_life=DAY))
    fact = memory.remember("The price of tea is 3.")
    clock.now += 2 * DAY
    before = memory.strength(memory.get(fact.id))
    memory.recall("price of tea", reinforce=False)
    assert memory.get(fact.id).recalls == 0
    memory.recall("price of tea")
    after = memory.get(fact.id)
    assert after.recalls == 1 and after.used == clock.now and memory.strength(after) > before
    clock.now += 2 * DAY
    assert memory.strength(after) > before


def test_what_fades_can_be_cleared_away(path: Path):
    clock = Clock()
    memory = LongMemory(path, clock=clock, decay=Decay(half_life=DAY))
    memory.remember("Old news.", importance=0.2)
    clock.now += 5 * DAY
    memory.remember("New facts.", importance=0.2)
    assert [fact.text for fact in memory.fade()] == ["Old news."]
    assert texts(memory) == ["New facts."]


def test_a_fact_is_not_doubled(path: Path):
    memory = LongMemory(path)
    first = memory.remember("Tea is hot.", importance=0.3)
    again = memory.remember(" Tea is hot. ", importance=0.8)
    assert again.id == first.id and again.importance == 0.8 and len(memory.facts()) == 1


def test_a_full_memory_lets_the_weakest_go(path: Path):
    clock = Clock()
    memory = LongMemory(path, clock=clock, most_facts=10)
    for number in range(15):
        clock.now += DAY
        memory.remember(f"Fact number {number}.")
    assert texts(memory) == [f"Fact number {number}." for number in range(5, 15)]


@pytest.mark.parametrize("text", ["", "   ", "x" * 5000])
def test_facts_that_cannot_be_kept_are_refused(path: Path, text: str):
    with pytest.raises(AgentError, match="1 to 4,000"):
        LongMemory(path).remember(text)


def test_importance_is_bounded(path: Path):
    with pytest.raises(AgentError, match="0 to 1"):
        LongMemory(path).remember("x y z", importance=2)


def test_halves_of_characters_are_kept_as_question_marks(path: Path):
    assert LongMemory(path, embedder=WordVectors()).remember("half \ud800 character").text == "half ? character"


# Tenants and namespaces


def test_tenants_and_namespaces_are_apart(path: Path):
    anna, ben, work = LongMemory(path, tenant="anna"), LongMemory(path, tenant="ben"), LongMemory(path, tenant="anna", namespace="work")
    fact = anna.remember("Anna's password is swordfish.")
    for other in (ben, work):
        assert other.recall("What is Anna's password?") == [] and other.facts() == []
        with pytest.raises(AgentError, match="no fact"):
            other.get(fact.id)
        assert other.forget(ids=[fact.id]) == []
        assert other.forget(words_of="password") == []
        assert other.forget(everything=True) == []
        assert other.remember("Anna's password is swordfish.").id != fact.id
    assert texts(anna) == ["Anna's password is swordfish."]


# Forgetting


def test_forgets_by_id_by_provenance_and_by_words(path: Path):
    memory = LongMemory(path)
    one = memory.remember("One egg.")
    memory.remember("Two eggs.", provenance=Provenance(run="r1", source="tool:sql"))
    memory.remember("Three eggs.", provenance=Provenance(run="r1", source="user"))
    memory.remember("Four hens on Anna's farm.")
    memory.remember("Five hens.")
    assert [fact.text for fact in memory.forget(ids=[one.id])] == ["One egg."]
    assert [fact.text for fact in memory.forget(source="tool:sql")] == ["Two eggs."]
    assert [fact.text for fact in memory.forget(run="r1")] == ["Three eggs."]
    assert [fact.text for fact in memory.forget(words_of="hens anna")] == ["Four hens on Anna's farm."]
    assert [fact.text for fact in memory.forget(everything=True)] == ["Five hens."]
    assert memory.facts() == []


def test_forgetting_must_say_what(path: Path):
    memory = LongMemory(path)
    memory.remember("One egg.")
    with pytest.raises(AgentError, match="Say what"):
        memory.forget()
    with pytest.raises(AgentError, match="no word"):
        memory.forget(words_of="the of")
    assert len(memory.facts()) == 1


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


def test_what_is_forgotten_is_gone_from_the_disk(path: Path):
    memory = LongMemory(path, embedder=WordVectors())
    for number in range(300):
        memory.remember(f"Marker-{number:04d} {'lorem ipsum ' * (number % 40)} swordfish.", provenance=Provenance(run=f"run-{number % 2}"))
    vector = WordVectors().embed([memory.facts()[0].text])[0].astype("<f4").tobytes()
    assert b"Marker-0000" in on_disk(path) and vector in on_disk(path)
    memory.forget(run="run-0")
    left = on_disk(path)
    assert not any(f"Marker-{number:04d}".encode() in left for number in range(0, 300, 2))
    assert all(f"Marker-{number:04d}".encode() in left for number in range(1, 300, 2))
    assert vector not in left and b"run-0" not in left
    memory.forget(everything=True)
    assert b"swordfish" not in on_disk(path)


def test_a_reader_that_holds_the_log_is_told_of(path: Path):
    memory = LongMemory(path, busy_seconds=0.1)
    memory.remember("One secret egg.")
    with sqlite3.connect(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM facts").fetchone()
        with pytest.raises(AgentError, match="being read"):
            memory.forget(everything=True)
        reader.execute("COMMIT")
    reader.close()
    assert memory.forget(everything=True) == []
    assert b"secret egg" not in on_disk(path)


# The file


def test_the_file_is_for_its_owner_only(path: Path):
    LongMemory(path).remember("x y z")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_other_files_are_left_alone(path: Path, tmp_path: Path):
    path.write_bytes(b"This is no database, but a long enough text to be looked at as one." * 10)
    with pytest.raises(AgentError, match="cannot be used"):
        LongMemory(path)
    assert path.read_bytes().startswith(b"This is no database")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    with pytest.raises(AgentError, match="no memory of an agent"):
        LongMemory(other)
    with pytest.raises(AgentError, match="cannot be opened"):
        LongMemory(tmp_path)


def test_threads_and_processes_share_it(path: Path):
    memories = [LongMemory(path) for _ in range(3)]

    def write(number: int) -> None:
        for step in range(10):
            memories[number % 3].remember(f"Fact {number} of {step}.")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memories[0].facts()) == 40


WRITER = """
import sys
from pathlib import Path
from foreword.agent.long_memory import LongMemory
memory = LongMemory(Path(sys.argv[1]))
number = 0
while True:
    fact = memory.remember(f"Fact number {number} {'x' * 500}")
    print(fact.id, flush=True)
    number += 1
"""


def test_a_killed_process_loses_nothing_that_it_had_written(path: Path):
    written: list[int] = []
    for least in (5, 40):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                written.append(int(line))
                if len(written) >= least:
                    process.send_signal(signal.SIGKILL)
                    break
            written += [int(line) for line in process.stdout.read().splitlines() if line.isdigit()]
        memory = LongMemory(path)
        assert set(written) <= {fact.id for fact in memory.facts()}
        assert memory.recall("fact number") != []
        memory.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
