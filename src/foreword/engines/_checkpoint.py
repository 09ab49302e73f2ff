"""From a model's name to a folder of safetensors, and from that folder to a fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foreword.engines import _smollm2
from foreword.errors import ModelError
from foreword.prefix.header import Fingerprint

logger = logging.getLogger(__name__)

SHA256 = re.compile("[0-9a-f]{64}")
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
NOT_ARCHITECTURE = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_attn_implementation_autoset"})


def home() -> Path:
    """Where Foreword keeps what it makes: `FOREWORD_HOME`, or `~/.foreword`."""
    return Path(os.environ.get("FOREWORD_HOME") or Path.home() / ".foreword")


def resolve(name: str, *, revision: str | None = None, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Folder that holds the model called `name`.

    Args:
        name: `smollm2`, a local folder, or a Hugging Face id such as `org/model`.
        revision: commit, tag or branch of a Hugging Face id.

    Raises:
        ModelError: nothing of that name, or it holds no safetensors.
    """
    if name == "smollm2":
        if revision is not None:
            raise ModelError(f"`smollm2` comes inside a package and has no revisions; got {revision!r}. Leave `revision` out.")
        return _smollm2.checkpoint(home() / "models", progress=progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"{folder} is a folder and has no revisions; got {revision!r}. Leave `revision` out.")
        return _with_safetensors(folder, name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"No model `{name}`: it is not `smollm2`, not a folder, and not a Hugging Face id like `org/model`.")
    return _with_safetensors(_download(name, revision), name)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Interrupted downloads resume: the hub's cache links a file only when it is whole.
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"`{name}`{f' at {revision}' if revision else ''} could not be fetched from Hugging Face: {error}. "
            "Check the id, the revision and the network; a model on disk is named by its folder."
        ) from error


def _with_safetensors(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"`{name}` has no config.json in {folder}; a model folder holds config.json, *.safetensors and a tokenizer.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"`{name}` has no *.safetensors in {folder}. Other weight formats can run code when loaded and are refused; "
            "save the model again with `safe_serialization=True`."
        )
    return folder


def fingerprint(folder: Path, config: Any, tokenizer: Any) -> Fingerprint:
    """What identifies a model whatever it is called and wherever it lies."""
    settings = {key: value for key, value in config.to_dict().items() if key not in NOT_ARCHITECTURE}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return Fingerprint(
        architecture=(config.architectures or [type(config).__name__])[0],
        config=_text_sha256(json.dumps(settings, sort_keys=True, default=str)),
        weights=weights_sha256(folder),
        tokenizer=_text_sha256(vocabulary),
        chat_template=_text_sha256(_template_text(tokenizer.chat_template)),
    )


def _template_text(template: str | dict[str, str] | None) -> str:
    """One text for a template, for several under their names, and for none."""
    return json.dumps(template, sort_keys=True) if isinstance(template, dict) else template or ""


def weights_sha256(folder: Path) -> str:
    """Hash of the weight files' bytes, remembered by size and modification time (hashing gigabytes takes seconds)."""
    files = sorted(folder.glob("*.safetensors"))
    stamp = _text_sha256(json.dumps([(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]))
    remembered = home() / "fingerprints" / stamp
    if remembered.is_file() and SHA256.fullmatch(text := remembered.read_text(encoding="ascii", errors="replace")):
        return text
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    try:
        _remember(remembered, digest.hexdigest())
    except OSError as error:
        logger.warning("The fingerprint of %s could not be kept in %s and will be computed again: %s", folder, home(), error)
    return digest.hexdigest()


def _remember(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="ascii")
    os.replace(part, path)


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
