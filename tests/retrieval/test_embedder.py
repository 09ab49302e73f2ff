"""Looking embedders up."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from foreword.errors import ModelError, RegistryError
from foreword.retrieval import embedder


def test_an_unknown_one_is_named_with_those_that_there_are():
    with pytest.raises(RegistryError, match=r"No `glove` among embedders. Known: .*wordllama"):
        embedder.get("glove")


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")
def test_the_default_is_found_by_key_and_by_its_own_name():
    found = embedder.get()
    assert found.name.startswith(f"{embedder.DEFAULT}/") and embedder.get(found.name).name == found.name


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")
def test_another_model_of_the_same_embedder_is_refused():
    with pytest.raises(ModelError, match=r"`wordllama/l3-512` is wanted, and the installed embedder is `wordllama/l2-supercat-256`"):
        embedder.get("wordllama/l3-512")


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")
def test_embedding_loads_no_tensor_library_and_not_the_package_itself():
    code = (
        "import sys\nfrom foreword.retrieval import embedder\nembedder.get().embed(['one'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers', 'wordllama', 'requests'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
