"""From a name to an engine, what is refused on the way, and what the fingerprint sees."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foreword.engines._checkpoint import home, resolve
from foreword.engines.transformers import load
from foreword.errors import ModelError
from foreword.types import Message, Sampling


@pytest.fixture
def copy(folder_of, tmp_path) -> Path:
    """A copy of a tiny Llama that a test may break."""
    folder = tmp_path / "copy"
    shutil.copytree(folder_of("llama"), folder)
    return folder


def engine(folder: Path | str, **options):
    return load(str(folder), **{"dtype": "float32", "device": "cpu", **options})


def edit(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", ["nothing", "./nothing", "~/nothing/at-all", "/nothing", "a/b/c", ""])
def test_a_name_of_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="it is not `smollm2`, not a folder, and not a Hugging Face id"):
        resolve(name or "no such model")


def test_a_hub_id_without_network():
    with pytest.raises(ModelError, match=r"`nobody/no-such-model` at v1 could not be fetched.*Check the id"):
        resolve("nobody/no-such-model", revision="v1")


def test_revisions_belong_to_the_hub(copy):
    with pytest.raises(ModelError, match="no revisions"):
        resolve("smollm2", revision="main")
    with pytest.raises(ModelError, match="no revisions"):
        resolve(str(copy), revision="main")


def test_a_folder_without_a_config(copy):
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        engine(copy)


def test_pickled_weights_are_refused(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*.safetensors .* can run code when loaded and are refused"):
        engine(copy)


def test_a_pickle_beside_the_weights_is_not_opened(copy):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(copy / "sprung"),))

    torch.save(Trap(), copy / "pytorch_model.bin")
    engine(copy)
    assert not (copy / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(copy, keep):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(ModelError, match="could not be loaded"):
        engine(copy)


def test_a_weight_that_is_not_there(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .*model.layers.1.mlp.up_proj.weight"):
        engine(copy)


def test_a_weight_of_another_shape(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="could not be loaded"):
        engine(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "no-such-family"}'])
def test_a_config_that_is_no_config(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match="could not be loaded"):
        engine(copy)


def test_a_folder_without_a_tokenizer(copy):
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        engine(copy)


def test_code_that_comes_with_a_model_is_not_run(copy):
    (copy / "trap.py").write_text(
        f"import os\nos.mkdir({str(copy / 'sprung')!r})\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class TrapConfig(LlamaConfig):\n    model_type = 'trap'\n"
        "class TrapModel(LlamaForCausalLM):\n    config_class = TrapConfig\n"
    )
    edit(copy / "config.json", model_type="trap", auto_map={"AutoConfig": "trap.TrapConfig", "AutoModelForCausalLM": "trap.TrapModel"})
    with pytest.raises(ModelError, match="could not be loaded"):
        engine(copy)
    # A family that transformers knows is loaded with its own code, whatever the config maps it to.
    edit(copy / "config.json", model_type="llama")
    assert type(engine(copy).module).__module__.startswith("transformers.")
    assert not (copy / "sprung").exists()


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_dtype_names(copy, name, dtype):
    loaded = engine(copy, dtype=name)
    assert loaded.dtype == dtype and loaded.read((5, 6))[0].dtype == dtype
    (answer,) = loaded.generate([(Message(role="user", content="Hi"),)], sampling=Sampling(max_new_tokens=2))
    assert answer.usage.completion_tokens <= 2
    assert engine(copy, dtype="auto").dtype in (torch.float32, torch.bfloat16)


def test_names_of_no_dtype_and_no_device(copy):
    for name in ("float64", "int8", "torch.float32", ""):
        with pytest.raises(ModelError, match="dtype must be `auto` or one of float32, bfloat16, float16"):
            engine(copy, dtype=name)
    for name in ("banana", "cuda:97"):
        with pytest.raises(ModelError, match=f"device '{name}' cannot be used here"):
            engine(copy, device=name)


def test_the_fingerprint_of_a_copy_is_the_same(folder_of, copy):
    original = engine(folder_of("llama"))
    assert engine(copy).fingerprint == original.fingerprint
    assert engine(copy, dtype="bfloat16").fingerprint == original.fingerprint
    assert original.fingerprint.architecture == "LlamaForCausalLM"


def test_the_fingerprint_sees_one_weight(folder_of, copy):
    original = engine(folder_of("llama")).fingerprint
    assert engine(copy).fingerprint == original
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert set(original.differences(engine(copy).fingerprint)) == {"weights"}


def test_the_fingerprint_sees_a_config_field(folder_of, copy):
    edit(copy / "config.json", rms_norm_eps=1e-3)
    assert set(engine(folder_of("llama")).fingerprint.differences(engine(copy).fingerprint)) == {"config"}


def test_the_fingerprint_sees_the_tokenizer(folder_of, copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert set(engine(folder_of("llama")).fingerprint.differences(engine(copy).fingerprint)) == {"tokenizer"}


def test_the_fingerprint_sees_the_template(folder_of, copy):
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert set(engine(folder_of("llama")).fingerprint.differences(engine(copy).fingerprint)) == {"chat_template"}


def test_hashes_are_remembered_and_a_spoilt_memory_is_not_believed(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    first = engine(copy).fingerprint
    (remembered,) = (home() / "fingerprints").iterdir()
    assert remembered.read_text() == first.weights
    for spoilt in (b"", b"\xff\xfe", b"x" * 64):
        remembered.write_bytes(spoilt)
        assert engine(copy).fingerprint == first
    assert remembered.read_text() == first.weights


def test_a_home_that_cannot_be_written_costs_only_time(copy, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "file"))
    assert engine(copy).fingerprint.weights and "computed again" in caplog.text
