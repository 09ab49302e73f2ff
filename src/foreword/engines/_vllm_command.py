"""Starts vLLM so that it serves prefixes: finds it, writes its command line, runs it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foreword.engines._checkpoint import fingerprint, home, resolve
from foreword.engines._continuation_template import continuation_template
from foreword.errors import ConfigError, ModelError
from foreword.prefix.header import Fingerprint
from foreword.prefix.store import default_root

logger = logging.getLogger(__name__)

PLUGIN = "foreword.vllm_plugin"
LOWEST, ABOVE = (0, 32), (0, 33)
"""As in `vllm_plugin/versions.py`, which checks again inside vLLM; a test holds the two together."""
CPU_BLOCK = 32
"""The smallest block that vLLM's CPU attention can take. Whole blocks are shared between requests, so small ones share more."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PROBE = """
import importlib.util, json, pathlib, re
def found(name):
    try: return importlib.util.find_spec(name)
    except ImportError: return None
spec = found("vllm")
file = pathlib.Path(spec.origin).with_name("_version.py") if spec and spec.origin else None
match = re.search(r"^__version__ = version = '([^']+)'", file.read_text(), re.M) if file and file.is_file() else None
print(json.dumps({"vllm": match and match[1], "foreword": bool(found("foreword"))}))
"""


def command(
    *,
    model: str,
    prefixes: str | os.PathLike[str] | None = None,
    vllm: str | os.PathLike[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    served_name: str | None = None,
    revision: str | None = None,
    resident_bytes: int | None = None,
    block_size: int | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The words of the `vllm serve` command line that serves `model` with the prefixes of a store.

    Args:
        model: `smollm2`, a local folder, or a Hugging Face id. It is fetched and converted first where needed, since a prefix is checked
            against the fingerprint of its files.
        prefixes: folder of the prefix store, which may still be missing; by default the one that `foreword prefix` uses.
        vllm: the `vllm` program; see `find_vllm`.
        served_name: what clients call the model; by default as `model`, or the folder's name.
        resident_bytes: memory for prefixes kept ready in each worker; 1 GiB by default.
        block_size: positions in a block of vLLM's cache; by default 32 where there is no GPU, else vLLM's own choice.
        extra: further words for vLLM, such as `--tensor-parallel-size 2`. They stand last and win.

    Raises:
        ConfigError: there is no vLLM.
        ModelError: there is no such model.
    """
    folder = resolve(model, revision=revision).resolve()
    extra, template_file = _taken(list(extra), "--chat-template")
    prints, template = _read_model(folder, template_file)
    root = default_root() if prefixes is None else Path(prefixes)
    settings: dict[str, Any] = {"prefixes": str(root.expanduser().resolve()), "fingerprint": prints.model_dump()}
    if resident_bytes is not None:
        settings["resident_bytes"] = resident_bytes
    transfer = {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": f"{PLUGIN}.connector",
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": settings,
    }
    options: dict[str, str | None] = {
        "--served-model-name": served_name or (folder.name if Path(model).expanduser().is_dir() else model),
        "--host": host,
        "--port": None if port is None else str(port),
        "--block-size": str(block_size or CPU_BLOCK) if block_size or not _has_gpu() else None,
        "--chat-template": template and str(template),
    }
    given = {word.partition("=")[0] for word in extra if word.startswith("--")}
    chosen = [word for option, value in options.items() if value is not None and option not in given for word in (option, value)]
    return [
        str(find_vllm(vllm)),
        "serve",
        str(folder),
        *chosen,
        "--middleware",
        f"{PLUGIN}.PrefixMiddleware",
        "--kv-transfer-config",
        json.dumps(transfer),
        *extra,
    ]


def find_vllm(program: str | os.PathLike[str] | None = None) -> Path:
    """The `vllm` program: the one given, `FOREWORD_VLLM`, the one beside this Python, or the one on the path, in this order.

    Raises:
        ConfigError: there is none, or the one named is not there.
    """
    named = program or os.environ.get("FOREWORD_VLLM")
    if named:
        path = Path(named).expanduser()
        if path.is_file() and os.access(path, os.X_OK):
            return path.absolute()
        raise ConfigError(
            f"`{named}` is no program that can be run. Name the `vllm` in the `bin` folder of the environment it is installed in."
        )
    beside = Path(sys.executable).parent / "vllm"
    if beside.is_file():
        return beside
    if found := shutil.which("vllm"):
        return Path(found)
    raise ConfigError(
        "vLLM is not installed here, nor is a `vllm` program on the path. Install it (it may live in an environment of its own) and name "
        "its program, by `--vllm` or the variable FOREWORD_VLLM."
    )


def launch(
    *,
    model: str,
    prefixes: str | os.PathLike[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    extra: Sequence[str] = (),
    vllm: str | os.PathLike[str] | None = None,
    show: Callable[[str], object] | None = None,
    **options: Any,
) -> int:
    """Shows the command line, runs it until it ends, and returns its exit code. SIGINT, SIGTERM and SIGHUP are passed on to it.

    Args:
        show: takes the command line as one text that a shell reads; by default it goes to standard error.
        options: further arguments of `command`.

    Raises:
        ConfigError: there is no vLLM, it is a version that prefixes were not made for, or its environment has no Foreword.
        ModelError: there is no such model.
    """
    words = command(model=model, prefixes=prefixes, host=host, port=port, extra=extra, vllm=vllm, **options)
    check_environment(Path(words[0]))
    (show or _to_standard_error)(shlex.join(words))
    return run(words)


def run(words: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit code; signals are passed on to it."""
    # In a session of its own, so that Ctrl-C in a terminal reaches it once: through here.
    process = subprocess.Popen(words, start_new_session=True)
    with _forwarding(process):
        return process.wait()


def check_environment(program: Path) -> None:
    """Raises `ConfigError` unless the environment of a `vllm` program has a vLLM that fits, and Foreword.

    Nothing is checked where the program has no Python beside it; the plugin looks again when vLLM loads it.
    """
    python = program.parent / "python"
    if not python.exists():
        return
    try:
        probed = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True, check=True, timeout=60)
        found = json.loads(probed.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("The environment of %s could not be looked at: %s", program, error)
        return
    version = found["vllm"]
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    if numbers is not None and not LOWEST <= (int(numbers[1]), int(numbers[2])) < ABOVE:
        wanted = f">={'.'.join(map(str, LOWEST))},<{'.'.join(map(str, ABOVE))}"
        raise ConfigError(f"{program} is vLLM {version}; Foreword serves prefixes on vLLM {wanted}. Install one of these beside it.")
    if not found["foreword"]:
        raise ConfigError(
            f"The environment of {program} has no Foreword, which loads inside vLLM. Install it there: {python} -m pip install foreword."
        )


def _read_model(folder: Path, template_file: str | None) -> tuple[Fingerprint, Path | None]:
    """The model's fingerprint, and a file with its chat template made fit for continuation."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        config = AutoConfig.from_pretrained(folder)
        template = tokenizer.chat_template if template_file is None else Path(template_file).read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} cannot be read as a model: {error}") from error
    return fingerprint(folder, config, tokenizer), _template_file(tokenizer, template)


def _template_file(tokenizer: Any, template: object) -> Path | None:
    made = continuation_template(tokenizer, template) if isinstance(template, str) else None
    if made is None:
        if template:
            logger.warning("This model's chat template cannot be continued; prefixes that hold a conversation's start will be refused.")
        return None
    path = home() / "vllm" / f"{hashlib.sha256(made.encode()).hexdigest()[:16]}.jinja"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("w", encoding="utf-8") as stream:
            stream.write(made)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    return path


def _taken(words: list[str], option: str) -> tuple[list[str], str | None]:
    """The words without an option, and its value."""
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            return words[:place] + words[place + 2 :], words[place + 1]
        if word.startswith(f"{option}="):
            return words[:place] + words[place + 1 :], word.partition("=")[2]
    return words, None


def _has_gpu() -> bool:
    return any(Path(device).exists() for device in GPU_DEVICES)


def _to_standard_error(line: str) -> None:
    sys.stderr.write(line + "\n")


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """While open, signals to this process go to the other one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
