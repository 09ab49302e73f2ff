"""Prefix files as vLLM's processes use them: read in full and checked once, and held open while a request needs them."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.errors import PrefixFileError
from foreword.vllm_plugin.names import Found, Identity

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

logger = logging.getLogger(__name__)

SOUND_KEPT = 65536
"""Files remembered as sound; one takes some hundred bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a worker finds a prefix.

    Attributes:
        digest: of its tensors; a file with another is not used.
        paths: tried in order. The first leads to the file that the scheduler holds open, whatever has become of its name; it works on
            the scheduler's own machine. The second is the name.
    """

    reference: str
    digest: str
    first_position: int
    paths: tuple[str, ...]

    @property
    def key(self) -> str:
        """What two sources of equal keys and values share."""
        return f"{self.digest}:{self.first_position}"


class SoundFiles:
    """Remembers which files were read in full and found to be what their headers say."""

    def __init__(self) -> None:
        self._sound: OrderedDict[Identity, None] = OrderedDict()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._sound

    def verify(self, found: Found, path: str | None = None) -> None:
        """Reads every byte of a file that was not read before.

        Args:
            path: another way to the same file.

        Raises:
            PrefixFileError: the file is gone, truncated, altered, or has numbers that are not finite.
        """
        if found.identity in self._sound:
            self._sound.move_to_end(found.identity)
            return
        read_sound(path or found.identity.path, digest=found.header.digest)
        self._sound[found.identity] = None
        if len(self._sound) > SOUND_KEPT:
            self._sound.popitem(last=False)


def read_sound(path: str, *, digest: str) -> Prefix:
    """Memory-maps a prefix after comparing every byte with its digest, and that with the one expected.

    Raises:
        PrefixFileError: the file is gone, not sound, or another one.
    """
    from foreword.prefix import file

    prefix = file.load(path, verify=True)
    if prefix.header.digest != digest:
        raise PrefixFileError(f"{path} now holds another prefix than when the request came; send the request again.")
    return prefix


def read_source(source: Source) -> Prefix:
    """The prefix of a source, from the first path that leads to it.

    Raises:
        PrefixFileError: none does.
    """
    problems = []
    for path in source.paths:
        try:
            return read_sound(path, digest=source.digest)
        except PrefixFileError as error:
            problems.append(str(error))
    raise PrefixFileError(f"Prefix `{source.reference}` cannot be read any more: {' '.join(problems)}")


class HeldFiles:
    """Files kept open on behalf of requests, each once, so that a removed or replaced name does not take them away."""

    def __init__(self) -> None:
        self._held: dict[Identity, _Held] = {}
        self._sound = SoundFiles()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, found: Found) -> Source:
        """Opens and verifies a file; every call is paid back with one of `release`.

        Raises:
            PrefixFileError: the file is gone, replaced since it was found, or not sound.
        """
        held = self._held.get(found.identity)
        if held is None:
            held = self._open(found)
            self._held[found.identity] = held
        held.users += 1
        return held.source

    def release(self, identity: Identity) -> None:
        """Gives up what `hold` gave; the last one closes the file."""
        held = self._held[identity]
        held.users -= 1
        if not held.users:
            del self._held[identity]
            os.close(held.descriptor)

    def close(self) -> None:
        """Closes every file."""
        for held in self._held.values():
            os.close(held.descriptor)
        self._held.clear()

    def _open(self, found: Found) -> _Held:
        try:
            descriptor = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PrefixFileError(f"Prefix `{found.reference}` cannot be opened: {error.strerror}. Ask for another version.") from error
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (found.identity.device, found.identity.inode):
                raise PrefixFileError(f"Prefix `{found.reference}` was replaced while it was being read; send the request again.")
            paths = _ways_to(descriptor, found.path)
            self._sound.verify(found, paths[0])
        except BaseException:
            os.close(descriptor)
            raise
        source = Source(reference=found.reference, digest=found.header.digest, first_position=found.header.first_position, paths=paths)
        return _Held(descriptor, source)


class _Held:
    __slots__ = ("descriptor", "source", "users")

    def __init__(self, descriptor: int, source: Source) -> None:
        self.descriptor = descriptor
        self.source = source
        self.users = 0


def _ways_to(descriptor: int, path: Path) -> tuple[str, ...]:
    """The name, and before it the way through this process where the system has one (Linux)."""
    through = f"/proc/{os.getpid()}/fd/{descriptor}"
    return (through, str(path)) if os.path.exists(through) else (str(path),)
