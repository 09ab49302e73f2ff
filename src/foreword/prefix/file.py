"""A prefix on disk: written whole or not at all, read memory-mapped and bit for bit. `preamble.py` describes the format."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from foreword.errors import PrefixError, PrefixFileError
from foreword.prefix import preamble
from foreword.prefix.artifact import Prefix, check_finite, check_tensors, digest, tensor_bytes
from foreword.prefix.header import PrefixHeader
from foreword.prefix.relevance import Detector
from foreword.store.versions import TEMPORARY_SUFFIX, sync_folder


def save(prefix: Prefix, path: str | os.PathLike[str]) -> None:
    """Writes `prefix` to `path`, replacing what is there in one step.

    The bytes go to a hidden file in the same folder, are flushed to the disk and renamed. Equal prefixes give equal bytes.

    Raises:
        PrefixFileError: the folder is missing or the disk is full or refuses; a file that was at `path` is as it was.
        PrefixError: the prefix's tensors were changed since it was made.
    """
    target = Path(path)
    temporary = write_temporary(prefix, target)
    try:
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _not_written(target, error) from error
    sync_folder(target.parent)


def load(path: str | os.PathLike[str], *, verify: bool = True) -> Prefix:
    """Memory-maps a prefix file.

    Args:
        verify: also read every byte: compare with the header's digest, and refuse numbers that are not finite.

    Raises:
        PrefixFileError: the file is missing, truncated, altered or hostile; the message names what is wrong.
    """
    source = Path(path)
    header = preamble.read(source)
    tensors, detector = _map_tensors(source, header)
    try:
        check_tensors(header, tensors)
        if verify and digest(header, tensors) != header.digest:
            raise PrefixError("its tensors do not match the header's digest; the file was altered.")
        if verify:
            check_finite(header.name, tensors)
    except PrefixError as error:
        raise PrefixFileError(f"{source} is not a sound prefix file: {error} Take a fresh copy, or make the prefix again.") from None
    return Prefix(header=header, detector=detector, **tensors)


def write_temporary(prefix: Prefix, target: Path) -> Path:
    """Writes `prefix` to a new hidden file beside `target`, flushed to the disk, and returns its path.

    Raises:
        PrefixFileError, PrefixError: as `save`; no file is left behind.
    """
    if digest(prefix.header, prefix.tensors) != prefix.header.digest:
        raise PrefixError(f"The tensors of prefix `{prefix.name}` were changed since it was made; make a new one with `Prefix.make`.")
    arrays = {} if prefix.detector is None else prefix.detector.arrays()
    start, order = preamble.build(prefix.header)
    temporary = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        with _removed_on_failure(temporary), temporary.open("xb") as file:
            file.write(start)
            for label in order:
                file.write(arrays[label].tobytes() if label in arrays else tensor_bytes(prefix.tensors[label]))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _not_written(target, error) from error
    return temporary


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _not_written(target: Path, error: OSError) -> PrefixFileError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "Free some space or choose another disk."
    elif error.errno == errno.ENOENT:
        hint = f"Make the folder {target.parent} first."
    else:
        hint = "Choose a folder that you may write to."
    return PrefixFileError(f"Cannot write prefix file {target}: {error.strerror or error}. {hint} What was there is untouched.")


def _map_tensors(source: Path, header: PrefixHeader) -> tuple[dict[str, Tensor], Detector | None]:
    try:
        with safe_open(source, framework="pt") as mapped:
            metadata = mapped.metadata() or {}
            # The path is opened a second time: another process may have replaced the file in between.
            if PrefixHeader.model_validate_json(metadata.get(preamble.METADATA_KEY, "")) != header:
                raise PrefixFileError(f"{source} was replaced while it was being read; load it again.")
            tensors = {label: mapped.get_tensor(label) for label in header.tensors()}
            if header.relevance is None:
                return tensors, None
            arrays = {label: mapped.get_tensor(label).numpy() for label in header.relevance.tensors()}
            return tensors, Detector.from_arrays(header.relevance, arrays)
    except PrefixFileError:
        raise
    except PrefixError as error:
        raise PrefixFileError(f"The detector in {source} cannot be used: {error} Take a fresh copy, or make the prefix again.") from None
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise PrefixFileError(f"Cannot map prefix file {source}: {error}. Take a fresh copy, or make the prefix again.") from error
