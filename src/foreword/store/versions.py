"""Names with versions and aliases, each version one file. One folder, no server, no index that could go stale; reaches no torch.

    root/
      support/
        v0001.safetensors     versions count up from 1 and a removed one is not given again
        v0002.removed         an empty file that remembers a removed version
        aliases.json          {"prod": 1}
      .locks/support.lock     held while support's folder changes; the system frees it when its holder dies

A reference reads `support` (latest version), `support@prod` (alias), `support@v3` or `support@3` (version). The root's time of change
moves with every change below it that is made here, so that one `stat` tells whether anything may be new.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import StoreError

LATEST = "latest"
TEMPORARY_SUFFIX = ".tmp"

_VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
_VERSION_FILE = re.compile(r"v([0-9]{4,9})\.([a-z]+)")
_REMOVED = "removed"
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIASES_FILE = "aliases.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One version of one name; as text, `support@v3`."""

    name: str
    version: int
    path: Path

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the store holds under one name: versions ascending, alias to version."""

    name: str
    versions: tuple[int, ...]
    aliases: Mapping[str, int]

    @property
    def latest(self) -> int:
        """The highest version."""
        return self.versions[-1]


def default_root(folder: str) -> Path:
    """That folder in `FOREWORD_HOME`, or in `~/.foreword` where that is not set."""
    home = os.environ.get("FOREWORD_HOME")
    return (Path(home) if home else Path.home() / ".foreword") / folder


class VersionedFiles:
    """Named, versioned files in a folder. Several processes may use one; nothing is cached, so each sees the others' changes."""

    def __init__(self, root: Path, *, noun: str, suffix: str, check_name: Callable[[str], None]) -> None:
        """
        Args:
            root: the folder, made when something is first published.
            noun: what one file is called in messages.
            suffix: of the files, without its dot.
            check_name: raises ValueError for what cannot be a name. It must refuse whatever could leave the folder.
        """
        self.root = root
        self._noun, self._suffix, self._checks = noun, suffix, check_name

    def resolve(self, ref: str | Reference) -> Reference:
        """The version that a reference means now. An alias or version is looked up without listing a folder.

        Raises:
            StoreError: the reference is malformed, or there is no such name, version or alias; near names are suggested.
        """
        name, selector = self._split(ref)
        if selector is None:
            versions = self._versions(name)
            if not versions:
                raise self._unknown_name(name)
            version = versions[-1]
        elif match := _VERSION.fullmatch(selector):
            version = int(match[1])
        else:
            version = self._aliased(name, selector)
        path = self._path(name, version)
        if not path.is_file():
            raise self._unknown_version(name, version)
        return Reference(name=name, version=version, path=path)

    def names(self) -> tuple[str, ...]:
        """Every name that has a folder, in alphabetical order, whether or not a version is left in it."""
        try:
            with os.scandir(self.root) as entries:
                return tuple(sorted(entry.name for entry in entries if self._is_name(entry.name) and entry.is_dir()))
        except FileNotFoundError:
            return ()

    def references(self, name: str) -> tuple[Reference, ...]:
        """Every version of a name, ascending; none where there is no such name."""
        return tuple(Reference(name=name, version=version, path=self._path(name, version)) for version in self._versions(name))

    def list(self) -> tuple[Listing, ...]:
        """Every name that has a version, in alphabetical order.

        Raises:
            StoreError: an alias file is damaged.
        """
        listings = []
        for name in self.names():
            versions = self._versions(name)
            if versions:
                listings.append(Listing(name=name, versions=versions, aliases=_read_aliases(self.root / name)))
        return tuple(listings)

    def alias(self, name: str, alias: str, version: int | str) -> Reference:
        """Points `alias` at a version of `name`, in one step, and returns that version.

        Args:
            version: a number, `v3`, or another alias, which is looked up now.

        Raises:
            StoreError: the alias is not allowed, or there is no such name or version.
        """
        _check_alias(alias)
        self.resolve(f"{name}@{version}")
        with self._changing(name):
            target = self.resolve(f"{name}@{version}")
            aliases = _read_aliases(self.root / name)
            _write_aliases(self.root / name, aliases | {alias: target.version})
        return target

    def unalias(self, name: str, alias: str) -> None:
        """Forgets an alias; the version stays. Raises `StoreError` where there is none."""
        self._aliased(self._split(name)[0], alias)
        with self._changing(name):
            self._aliased(name, alias)
            aliases = _read_aliases(self.root / name)
            _write_aliases(self.root / name, {key: version for key, version in aliases.items() if key != alias})

    def remove(self, ref: str | Reference, *, all: bool = False, force: bool = False) -> tuple[Reference, ...]:
        """Removes one version, or with `all` a whole name, and returns what was removed. What is already loaded stays usable.

        After a whole name is removed, its versions count from 1 again.

        Args:
            force: also remove what an alias points at, and the alias.

        Raises:
            StoreError: there is no such thing; an alias points at it and `force` is not set; or a bare name without `all`.
        """
        name, selector = self._split(ref)
        if all and selector is not None:
            raise StoreError(f"`all` removes a whole name; got `{ref}`. Give `{name}` alone, or leave `all` out.")
        if not all and selector is None:
            raise StoreError(f"`{name}` is a whole name. Say which version, as in `{name}@v1`, or ask for all of them.")
        self.resolve(ref)
        with self._changing(name):
            return self._remove_name(name, force=force) if all else self._remove_version(self.resolve(ref), force=force)

    def _publish(self, name: str, write: Callable[[Path], Path]) -> Reference:
        """Adds the next version of a name. It appears whole or not at all, and never in place of another.

        Args:
            write: given where the version will lie, writes it to a new hidden file beside that, flushed, and returns the file.

        Raises:
            StoreError: the name is not allowed, or the folder cannot be written to.
        """
        folder = self.root / name
        with self._changing(name):
            _make_folder(folder)
            _clean(self.root, name)
            version = max((number for number, _ in _numbers(folder)), default=0) + 1
            temporary = write(self._path(name, version))
            try:
                version = self._link_next(temporary, name, version)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(folder)
        return Reference(name=name, version=version, path=self._path(name, version))

    def _remove_version(self, reference: Reference, *, force: bool) -> tuple[Reference, ...]:
        folder = reference.path.parent
        aliases = _read_aliases(folder)
        kept = {key: version for key, version in aliases.items() if version != reference.version}
        if len(kept) != len(aliases):
            _refuse_aliased(str(reference), sorted(set(aliases) - set(kept)), force=force)
            _write_aliases(folder, kept)
        reference.path.with_suffix(f".{_REMOVED}").touch()
        reference.path.unlink()
        return (reference,)

    def _remove_name(self, name: str, *, force: bool) -> tuple[Reference, ...]:
        folder = self.root / name
        references = self.references(name)
        if not references:
            raise self._unknown_name(name)
        aliases = _read_aliases(folder)
        if aliases:
            _refuse_aliased(name, sorted(aliases), force=force)
        # Renamed first, so that no reader or crash ever sees half a name.
        doomed = self.root / f".removed-{name}@{secrets.token_hex(4)}"
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return references

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Holds the lock of one name, and marks the root as changed."""
        self._check_name(name)
        locks = self.root / ".locks"
        _make_folder(locks)
        try:
            descriptor = os.open(locks / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"Cannot lock `{name}` in {self.root}: {error.strerror}. Choose a folder that you may write to.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
            self._mark_changed()
        finally:
            os.close(descriptor)

    def _mark_changed(self) -> None:
        try:
            os.utime(self.root)
        except OSError as error:
            # The change itself is done; whoever watches the root will see it later.
            logger.debug("the time of change of %s cannot be set: %s", self.root, error)

    def _aliased(self, name: str, alias: str) -> int:
        if alias == LATEST:
            return self.resolve(name).version
        aliases = _read_aliases(self.root / name)
        if alias not in aliases:
            if not self._versions(name):
                raise self._unknown_name(name)
            raise StoreError(f"`{name}` has no alias `{alias}`.{_suggest(alias, tuple(aliases), 'Its aliases are')}")
        return aliases[alias]

    def _unknown_name(self, name: str) -> StoreError:
        return StoreError(f"No {self._noun} is named `{name}` in {self.root}.{_suggest(name, self.names(), 'There are')}")

    def _unknown_version(self, name: str, version: int) -> StoreError:
        versions = self._versions(name)
        if not versions:
            return self._unknown_name(name)
        fate = "was removed" if self._path(name, version).with_suffix(f".{_REMOVED}").exists() else "does not exist"
        return StoreError(f"Version {version} of `{name}` {fate}. There are: {', '.join(f'v{number}' for number in versions[-20:])}.")

    def _split(self, ref: str | Reference) -> tuple[str, str | None]:
        name, at, selector = str(ref).partition("@")
        self._check_name(name)
        if at and not _ALIAS.fullmatch(selector):
            raise StoreError(f"`{str(ref)[:120]}` is no reference. Write `name`, `name@alias` or `name@v3`.")
        return name, selector if at else None

    def _check_name(self, name: str) -> None:
        try:
            self._checks(name)
        except ValueError as error:
            raise StoreError(f"That cannot name a {self._noun} in a store: {error}.") from None

    def _is_name(self, name: str) -> bool:
        try:
            self._checks(name)
        except ValueError:
            return False
        return True

    def _path(self, name: str, version: int) -> Path:
        return self.root / name / f"v{version:04d}.{self._suffix}"

    def _versions(self, name: str) -> tuple[int, ...]:
        return tuple(sorted(number for number, suffix in _numbers(self.root / name) if suffix == self._suffix))

    def _link_next(self, temporary: Path, name: str, version: int) -> int:
        """Gives `temporary` the first free version from `version` on, and returns it."""
        while True:
            target = self._path(name, version)
            try:
                # A link, unlike a rename, fails where the target exists, even if somebody put it there without the lock.
                os.link(temporary, target)
            except FileExistsError:
                version += 1
            except OSError as error:
                reason = error.strerror or error
                raise StoreError(f"Cannot link {target}: {reason}. A store needs hard links; choose a disk that has them.") from error
            else:
                return version


def write_temporary(target: Path, content: bytes) -> Path:
    """Writes `content` to a new hidden file beside `target`, flushed to the disk, and returns its path. Leaves nothing behind on failure.

    Raises:
        OSError: the disk is full or refuses.
    """
    temporary = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, so that a rename in it outlives a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; the file itself is already safe.
        logger.debug("folder %s cannot be flushed: %s", folder, error)


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias == LATEST or re.fullmatch(r"v?[0-9]+", alias):
        raise StoreError(
            f"An alias has 1 to 64 characters of `a-z 0-9 . _ -`, starts with a letter or digit, and is neither a version nor `{LATEST}`;"
            f" got {alias[:80]!r}."
        )


def _numbers(folder: Path) -> list[tuple[int, str]]:
    """Each (version, suffix) in a folder."""
    try:
        with os.scandir(folder) as entries:
            matches = [match for entry in entries if (match := _VERSION_FILE.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(int(match[1]), match[2]) for match in matches if match[1] == f"{int(match[1]):04d}" and int(match[1])]


def _read_aliases(folder: Path) -> dict[str, int]:
    path = folder / _ALIASES_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise StoreError(f"The alias file {path} cannot be read ({error}). Mend it or remove it; versions are not affected.") from error
    if not isinstance(value, dict) or not all(type(version) is int and version > 0 for version in value.values()):
        raise StoreError(f'The alias file {path} must be an object like {{"prod": 1}}. Mend it or remove it; versions are not affected.')
    return value


def _write_aliases(folder: Path, aliases: Mapping[str, int]) -> None:
    target = folder / _ALIASES_FILE
    try:
        temporary = write_temporary(target, json.dumps(dict(sorted(aliases.items())), indent=2).encode())
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}. The aliases are as they were.") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {folder}: {error.strerror or error}. Choose another place, e.g. with FOREWORD_HOME.") from error


def _clean(root: Path, name: str) -> None:
    """Deletes what a killed process left of this name. Its lock is held, so nobody is still writing them."""
    for leftover in (root / name).glob(f".*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)
    for doomed in root.glob(f".removed-{name}@*"):
        shutil.rmtree(doomed, ignore_errors=True)


def _refuse_aliased(what: str, aliases: list[str], *, force: bool) -> None:
    if not force:
        raise StoreError(f"`{what}` is in use: {', '.join(aliases)} points at it. Point the alias elsewhere first, or force the removal.")


def _suggest(wanted: str, known: tuple[str, ...], lead: str) -> str:
    near = difflib.get_close_matches(wanted, known, n=3)
    if near:
        return f" Did you mean {' or '.join(f'`{name}`' for name in near)}?"
    if not known:
        return " There are none yet."
    return f" {lead}: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
