"""Files are read in full once, and stay what they were while a request needs them."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from foreword.errors import PrefixFileError
from foreword.vllm_plugin.files import HeldFiles, SoundFiles, read_source
from foreword.vllm_plugin.names import Names

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a way to a file that was removed")


@pytest.fixture
def published(store, make_prefix):
    """The file of `support`, and how it is found."""
    return store.publish(make_prefix()).path, Names(store)


def flip_last_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_altered_byte_is_found_though_the_header_is_sound(published):
    path, names = published
    flip_last_byte(path)
    found = names.find("support")
    with pytest.raises(PrefixFileError, match="digest"):
        SoundFiles().verify(found)
    with pytest.raises(PrefixFileError, match="digest"):
        HeldFiles().hold(found)


def test_a_file_is_read_in_full_once(published):
    path, names = published
    sound, found = SoundFiles(), names.find("support")
    assert found.identity not in sound
    sound.verify(found)
    assert found.identity in sound
    # Bytes altered behind its back, with size and time as before, would be seen only by reading again.
    status = path.stat()
    flip_last_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    sound.verify(found)
    with pytest.raises(PrefixFileError):
        SoundFiles().verify(found)


@linux
@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_held_file_stays_what_it_was(store, published, make_prefix, tmp_path, fate):
    path, names = published
    held, found = HeldFiles(), names.find("support")
    source = held.hold(found)
    if fate == "removed":
        store.remove("support", all=True)
    else:
        make_prefix(seed=9).save(tmp_path / "other")
        os.replace(tmp_path / "other", path)
    assert torch.equal(read_source(source).key_LHND, make_prefix().key_LHND)
    held.release(found.identity)
    with pytest.raises(PrefixFileError, match="`support@v1` cannot be read any more"):
        read_source(source)


def test_a_file_is_open_as_long_as_somebody_holds_it(published):
    _, names = published
    held, found = HeldFiles(), names.find("support")
    assert held.hold(found) is held.hold(found) and len(held) == 1
    held.release(found.identity)
    assert len(held) == 1
    held.release(found.identity)
    assert len(held) == 0


def test_a_file_replaced_since_it_was_found_is_not_taken_for_it(published, make_prefix, tmp_path):
    path, names = published
    found = names.find("support")
    make_prefix(seed=9).save(tmp_path / "other")
    os.replace(tmp_path / "other", path)
    held = HeldFiles()
    with pytest.raises(PrefixFileError, match="replaced"):
        held.hold(found)
    assert len(held) == 0


def test_no_descriptor_is_left_open(published):
    path, names = published
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    held, found = HeldFiles(), names.find("support")
    held.hold(found)
    held.close()
    flip_last_byte(path)
    with pytest.raises(PrefixFileError):
        held.hold(names.find("support"))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
