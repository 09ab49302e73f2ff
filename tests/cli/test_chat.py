"""`foreword chat` from a pipe: answers, memory, commands, a window that fills up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.api import compile_text, load
from foreword.prefix.store import PrefixStore
from foreword.types import Message

SHORT = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load(str(tiny))


def said(model: Any, *turns: str, **options: Any) -> str:
    """The answer to the last of alternating turns."""
    messages = [Message(role="assistant" if number % 2 else "user", content=turn) for number, turn in enumerate(turns)]
    return "".join(model.stream(messages, max_new_tokens=4, **options))


def test_the_conversation_is_remembered_until_reset(foreword: Any, tiny: Path, model: Any):
    result = foreword("chat", "--model", tiny, *SHORT, input="hello\n\nand you\n/reset\nand you\n/exit\nnever read\n")
    assert result.exit_code == 0, result.stderr
    first = said(model, "hello")
    assert result.stdout.splitlines() == [first, said(model, "hello", first, "and you"), said(model, "and you")]
    assert result.stderr == "The conversation is forgotten.\n"


def test_a_prefix_and_an_instruction(foreword: Any, tiny: Path, model: Any, home: Path):
    prefix = compile_text(model, "The Eagle is a cheap coffee shop.", name="eagle")
    PrefixStore(home / "prefixes").publish(prefix)
    result = foreword("chat", "--model", tiny, "--prefix", "eagle", "--instruction", "be brief", *SHORT, input="hello")
    assert result.stdout == said(model, "hello", prefix=prefix, instruction="be brief") + "\n"


def test_help_is_told(foreword: Any, tiny: Path):
    result = foreword("chat", "--model", tiny, input="/help\n")
    assert "/reset forgets the conversation" in result.stderr and result.stdout == ""


def test_words_that_only_look_like_commands_are_sent(foreword: Any, tiny: Path, model: Any):
    assert foreword("chat", "--model", tiny, *SHORT, input="/usr/bin\n").stdout == said(model, "/usr/bin") + "\n"


def test_a_full_window_drops_the_oldest_turns(foreword: Any, tiny: Path, model: Any):
    long = "word " * 100
    result = foreword("chat", "--model", tiny, *SHORT, input=f"{long}\n{long}\nhello\n")
    assert result.exit_code == 0
    assert result.stderr == "The window is full: the oldest 1 exchange was dropped.\n"
    alone = said(model, long.strip())
    assert result.stdout.splitlines() == [alone, alone, said(model, long.strip(), alone, "hello")]


def test_a_turn_that_never_fits_is_told_and_forgotten(foreword: Any, tiny: Path, model: Any):
    result = foreword("chat", "--model", tiny, *SHORT, input="hello\n" + "word " * 600 + "\nand you\n")
    assert result.exit_code == 0
    assert "That is too long." in result.stderr and "is 512" in result.stderr
    first = said(model, "hello")
    assert result.stdout.splitlines() == [first, said(model, "hello", first, "and you")]


def test_input_that_is_no_text(foreword: Any, tiny: Path):
    result = foreword("chat", "--model", tiny, input=b"caf\xe9\n")
    assert result.exit_code == 2
    assert "Standard input is not UTF-8: byte 0xe9" in result.stderr


def test_an_unknown_prefix(foreword: Any):
    result = foreword("chat", "--prefix", "nope", input="")
    assert result.exit_code == 2 and "No prefix is named `nope`" in result.stderr
