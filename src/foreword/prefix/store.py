"""Where prefixes are kept: names with versions and aliases. One folder, no server, no index that could go stale; reaches no torch.

    root/
      support/
        v0001.safetensors     versions count up from 1 and a removed one is not given again
        v0002.removed         an empty file that remembers a removed version
        aliases.json          {"prod": 1}
      .locks/support.lock     held while support's folder changes; the system frees it when its holder dies

A reference reads `support` (latest version), `support@prod` (alias), `support@v3` or `support@3` (version).
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.errors import StoreError
from foreword.prefix.header import PrefixHeader, check_name, read_header

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

LATEST = "latest"

_VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
_VERSION_FILE = re.compile(r"v([0-9]{4,9})\.(safetensors|removed)")
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIASES_FILE = "aliases.json"
_TEMPORARY = ".tmp"


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


def default_root() -> Path:
    """The folder `prefixes` in `FOREWORD_HOME`, or in `~/.foreword` where that is not set."""
    home = os.environ.get("FOREWORD_HOME")
    return (Path(home) if home else Path.home() / ".foreword") / "prefixes"


class PrefixStore:
    """Named, versioned prefixes in a folder. Several processes may use one; nothing is cached, so each sees the others' changes."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Args: root: the folder, made when something is first published; by default `default_root()`."""
        self.root = Path(root) if root is not None else default_root()

    def publish(self, prefix: Prefix) -> Reference:
        """Adds `prefix` as the next version of its name.

        The version appears whole or not at all, and never in place of another.

        Raises:
            StoreError: the folder cannot be written to.
            PrefixFileError: the disk is full or refuses.
        """
        from foreword.prefix import file

        _check_name(prefix.name)
        folder = self.root / prefix.name
        with self._changing(prefix.name):
            _make_folder(folder)
            _clean(self.root, prefix.name)
            version = _highest(folder) + 1
            temporary = file.write_temporary(prefix, _version_path(folder, version))
            try:
                version = _link_next(temporary, folder, version)
            finally:
                temporary.unlink(missing_ok=True)
            file.sync_folder(folder)
        return Reference(name=prefix.name, version=version, path=_version_path(folder, version))

    def resolve(self, ref: str | Reference) -> Reference:
        """The version that a reference means now. An alias or version is looked up without listing a folder.

        Raises:
            StoreError: the reference is malformed, or there is no such name, version or alias; near names are suggested.
        """
        name, selector = _split(ref)
        folder = self.root / name
        if selector is None:
            versions = _versions(folder)
            if not versions:
                raise self._unknown_name(name)
            version = versions[-1]
        elif match := _VERSION.fullmatch(selector):
            version = int(match[1])
        else:
            version = self._aliased(name, selector)
        path = _version_path(folder, version)
        if not path.is_file():
            raise self._unknown_version(name, version)
        return Reference(name=name, version=version, path=path)

    def load(self, ref: str | Reference, *, verify: bool = True) -> Prefix:
        """The prefix that a reference means, memory-mapped.

        Raises:
            StoreError: see `resolve`.
            PrefixFileError: the file is not sound.
        """
        from foreword.prefix import file

        return file.load(self.resolve(ref).path, verify=verify)

    def header(self, ref: str | Reference) -> PrefixHeader:
        """The header that a reference means, without torch; raises as `load`."""
        return read_header(self.resolve(ref).path)

    def list(self) -> tuple[Listing, ...]:
        """Every name that has a version, in alphabetical order.

        Raises:
            StoreError: an alias file is damaged.
        """
        listings = []
        for name in self._names():
            versions = _versions(self.root / name)
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
        self._aliased(_split(name)[0], alias)
        with self._changing(name):
            self._aliased(name, alias)
            aliases = _read_aliases(self.root / name)
            _write_aliases(self.root / name, {key: version for key, version in aliases.items() if key != alias})

    def remove(self, ref: str | Reference, *, all: bool = False, force: bool = False) -> tuple[Reference, ...]:
        """Removes one version, or with `all` a whole name, and returns what was removed. Prefixes already loaded stay usable.

        After a whole name is removed, its versions count from 1 again.

        Args:
            force: also remove what an alias points at, and the alias.

        Raises:
            StoreError: there is no such thing; an alias points at it and `force` is not set; or a bare name without `all`.
        """
        name, selector = _split(ref)
        if all and selector is not None:
            raise StoreError(f"`all` removes a whole name; got `{ref}`. Give `{name}` alone, or leave `all` out.")
        if not all and selector is None:
            raise StoreError(f"`{name}` is a whole name. Say which version, as in `{name}@v1`, or ask for all of them.")
        self.resolve(ref)
        with self._changing(name):
            return self._remove_name(name, force=force) if all else self._remove_version(self.resolve(ref), force=force)

    def _remove_version(self, reference: Reference, *, force: bool) -> tuple[Reference, ...]:
        folder = reference.path.parent
        aliases = _read_aliases(folder)
        kept = {key: version for key, version in aliases.items() if version != reference.version}
        if len(kept) != len(aliases):
            _refuse_aliased(str(reference), sorted(set(aliases) - set(kept)), force=force)
            _write_aliases(folder, kept)
        reference.path.with_suffix(".removed").touch()
        reference.path.unlink()
        return (reference,)

    def _remove_name(self, name: str, *, force: bool) -> tuple[Reference, ...]:
        folder = self.root / name
        versions = _versions(folder)
        if not versions:
            raise self._unknown_name(name)
        aliases = _read_aliases(folder)
        if aliases:
            _refuse_aliased(name, sorted(aliases), force=force)
        # Renamed first, so that no reader or crash ever sees half a name.
        doomed = self.root / f".removed-{name}@{secrets.token_hex(4)}"
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return tuple(Reference(name=name, version=version, path=_version_path(folder, version)) for version in versions)

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Holds the lock of one name."""
        _check_name(name)
        locks = self.root / ".locks"
        _make_folder(locks)
        try:
            descriptor = os.open(locks / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"Cannot lock `{name}` in {self.root}: {error.strerror}. Choose a folder that you may write to.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _names(self) -> tuple[str, ...]:
        try:
            with os.scandir(self.root) as entries:
                return tuple(sorted(entry.name for entry in entries if _is_name(entry.name) and entry.is_dir()))
        except FileNotFoundError:
            return ()

    def _aliased(self, name: str, alias: str) -> int:
        if alias == LATEST:
            return self.resolve(name).version
        aliases = _read_aliases(self.root / name)
        if alias not in aliases:
            if not _versions(self.root / name):
                raise self._unknown_name(name)
            raise StoreError(f"`{name}` has no alias `{alias}`.{_suggest(alias, tuple(aliases), 'Its aliases are')}")
        return aliases[alias]

    def _unknown_name(self, name: str) -> StoreError:
        return StoreError(f"No prefix is named `{name}` in {self.root}.{_suggest(name, self._names(), 'There are')}")

    def _unknown_version(self, name: str, version: int) -> StoreError:
        folder = self.root / name
        versions = _versions(folder)
        if not versions:
            return self._unknown_name(name)
        fate = "was removed" if _version_path(folder, version).with_suffix(".removed").exists() else "does not exist"
        return StoreError(f"Version {version} of `{name}` {fate}. There are: {', '.join(f'v{number}' for number in versions[-20:])}.")


def _split(ref: str | Reference) -> tuple[str, str | None]:
    name, at, selector = str(ref).partition("@")
    _check_name(name)
    if at and not _ALIAS.fullmatch(selector):
        raise StoreError(f"`{str(ref)[:120]}` is no reference. Write `name`, `name@alias` or `name@v3`.")
    return name, selector if at else None


def _check_name(name: str) -> None:
    try:
        check_name(name, composed=True)
    except ValueError as error:
        raise StoreError(f"That cannot name a prefix in a store: {error}.") from None


def _is_name(name: str) -> bool:
    try:
        check_name(name, composed=True)
    except ValueError:
        return False
    return True


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias == LATEST or re.fullmatch(r"v?[0-9]+", alias):
        raise StoreError(
            f"An alias has 1 to 64 characters of `a-z 0-9 . _ -`, starts with a letter or digit, and is neither a version nor `{LATEST}`;"
            f" got {alias[:80]!r}."
        )


def _version_path(folder: Path, version: int) -> Path:
    return folder / f"v{version:04d}.safetensors"


def _numbers(folder: Path) -> list[tuple[int, str]]:
    """Each (version, suffix) in a folder."""
    try:
        with os.scandir(folder) as entries:
            matches = [match for entry in entries if (match := _VERSION_FILE.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(int(match[1]), match[2]) for match in matches if match[1] == f"{int(match[1]):04d}" and int(match[1])]


def _versions(folder: Path) -> tuple[int, ...]:
    return tuple(sorted(number for number, suffix in _numbers(folder) if suffix == "safetensors"))


def _highest(folder: Path) -> int:
    return max((number for number, _ in _numbers(folder)), default=0)


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
    temporary = folder / f".{_ALIASES_FILE}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}"
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            json.dump(dict(sorted(aliases.items())), stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"Cannot write {target}: {error.strerror or error}. The aliases are as they were.") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {folder}: {error.strerror or error}. Choose another place, e.g. with FOREWORD_HOME.") from error


def _clean(root: Path, name: str) -> None:
    """Deletes what a killed process left of this name. Its lock is held, so nobody is still writing them."""
    for leftover in (root / name).glob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)
    for doomed in root.glob(f".removed-{name}@*"):
        shutil.rmtree(doomed, ignore_errors=True)


def _refuse_aliased(what: str, aliases: list[str], *, force: bool) -> None:
    if not force:
        raise StoreError(f"`{what}` is in use: {', '.join(aliases)} points at it. Point the alias elsewhere first, or force the removal.")


def _link_next(temporary: Path, folder: Path, version: int) -> int:
    """Gives `temporary` the first free version from `version` on, and returns it."""
    while True:
        target = _version_path(folder, version)
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


def _suggest(wanted: str, known: tuple[str, ...], lead: str) -> str:
    near = difflib.get_close_matches(wanted, known, n=3)
    if near:
        return f" Did you mean {' or '.join(f'`{name}`' for name in near)}?"
    if not known:
        return " There are none yet."
    return f" {lead}: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
