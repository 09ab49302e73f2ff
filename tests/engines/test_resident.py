"""Prefixes in memory: bounded, replaced when their file is, kept for those who hold them."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from foreword.engines._resident import NO_PREFIX, PrefixTensors, ResidentPrefixes
from foreword.errors import PrefixFileError

SIZE = 2 * 3 * 4
"""Bytes of one prefix made here: keys and values of three float32."""


class Disk:
    """Reads files as prefixes and remembers what was read."""

    def __init__(self):
        self.read = []

    def __call__(self, paths):
        self.read.append(tuple(path.name for path in paths))
        values = torch.tensor([float(path.read_text()) for path in paths][:1] * 3)
        return PrefixTensors(key_LGND=values, value_LGND=values.clone(), positions=len(paths), prompt_format="full")


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / f"p{number}.safetensors" for number in range(5)]
    for number, path in enumerate(made):
        path.write_text(str(number))
    return made


def test_read_once_and_shared(files):
    disk = Disk()
    held = ResidentPrefixes(disk, most_bytes=10 * SIZE)
    first = held.get((files[0],))
    assert held.get((files[0],)) is first and disk.read == [("p0.safetensors",)]
    assert held.get((files[0], files[1])) is not first
    assert held.get(()) is NO_PREFIX
    residence = held.residence()
    assert (residence.prefixes, residence.size, residence.hits, residence.misses) == (2, 2 * SIZE, 1, 2)


def test_the_one_used_longest_ago_goes_first_and_pinned_ones_stay(files):
    held = ResidentPrefixes(Disk(), most_bytes=2 * SIZE)
    held.get((files[0],), pinned=True)
    held.get((files[1],))
    held.get((files[2],))
    assert held.paths() == ((files[2],), (files[0],))
    held.get((files[3],))
    assert held.paths() == ((files[3],), (files[0],))
    held.let_go((files[0],))
    assert held.paths() == ((files[3],),) and held.residence().size == SIZE


def test_one_larger_than_the_bound_serves_and_is_not_kept(files):
    held = ResidentPrefixes(Disk(), most_bytes=SIZE - 1)
    assert held.get((files[4],)).key_LGND.tolist() == [4.0] * 3
    assert held.paths() == () and held.residence().size == 0


def test_a_replaced_file_is_read_again_and_the_old_tensors_live_on(files):
    disk = Disk()
    held = ResidentPrefixes(disk, most_bytes=10 * SIZE)
    old = held.get((files[0],))
    new = files[0].with_suffix(".new")
    new.write_text("9")
    os.replace(new, files[0])
    assert held.get((files[0],)).key_LGND[0] == 9 and old.key_LGND[0] == 0
    assert len(disk.read) == 2


def test_a_missing_file_is_named_without_its_folder(files):
    held = ResidentPrefixes(Disk(), most_bytes=SIZE)
    files[0].unlink()
    with pytest.raises(PrefixFileError, match=r"p0\.safetensors") as caught:
        held.get((files[0],))
    assert str(files[0].parent) not in str(caught.value)


def test_many_threads_count_right(files):
    held = ResidentPrefixes(Disk(), most_bytes=3 * SIZE)

    def ask(start):
        for step in range(200):
            held.get((files[(start + step) % 5],))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    residence = held.residence()
    assert residence.hits + residence.misses == 800
    assert residence.size == SIZE * residence.prefixes <= 3 * SIZE
