"""The Python interface, on a tiny model."""

from __future__ import annotations

import pytest

import foreword as fw
from foreword.api import Model, conversation
from foreword.errors import ConfigError, ModelError, PrefixMismatch, RegistryError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.types import Completion, Message, Sampling, Usage


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def model(home, tiny_model_folder) -> Model:
    return fw.load(str(tiny_model_folder("llama")), dtype="float32", device="cpu")


def prefix_for(model: Model, text: str = "You are a helpful assistant.") -> Prefix:
    engine = model.engine
    key_LHND, value_LHND = engine.read(engine.render_context((Message(role="system", content=text),)))
    return Prefix.make(
        name="support",
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
    )


class Echo:
    """An engine that answers with what it was asked."""

    name = "echo"
    window = 100

    def generate(self, conversations, *, prefix=None, sampling=None, progress=None):
        return [
            Completion(
                text=f"{[message.content for message in turns]} {sampling}",
                token_ids=(),
                usage=Usage(prompt_tokens=1, completion_tokens=0),
                finish_reason="stop",
                seconds=0.0,
            )
            for turns in conversations
        ]

    def stream(self, conversation, *, prefix=None, sampling=None):
        yield from (message.content for message in conversation)


def test_a_prompt_becomes_a_conversation():
    turns = (Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c"))
    assert conversation("Hi") == (Message(role="user", content="Hi"),)
    assert conversation("Hi", "Be nice")[0] == Message(role="system", content="Be nice")
    assert conversation(list(turns)) == turns
    assert conversation(turns, "Be nice")[1:] == turns


def test_arguments_reach_the_engine():
    model = Model(Echo())
    assert model.name == "echo"
    assert model.generate("Hi", instruction="Be nice", max_new_tokens=3, stop=("END",)) == (
        f"['Be nice', 'Hi'] {Sampling(max_new_tokens=3, stop=('END',))}"
    )
    assert list(model.stream("Hi", instruction="Be nice")) == ["Be nice", "Hi"]
    with pytest.raises(TypeError, match="temprature"):
        model.generate("Hi", temprature=1.0)


def test_generate_and_stream(model):
    answer = model.generate("Where is my order 4711?", max_new_tokens=12)
    (direct,) = model.engine.generate([conversation("Where is my order 4711?")], sampling=Sampling(max_new_tokens=12))
    assert answer == direct.text and answer
    assert "".join(model.stream("Where is my order 4711?", max_new_tokens=12)) == answer
    drawn = {model.generate("Hi", max_new_tokens=12, temperature=1.5, seed=seed) for seed in (1, 1, 2)}
    assert len(drawn) == 2


def test_a_prefix_takes_the_place_of_its_text(model):
    instruction = "You are a helpful assistant."
    prefix = prefix_for(model, instruction)
    with_prefix = model.generate("Where is my order?", prefix=prefix, max_new_tokens=12)
    assert with_prefix == model.generate("Where is my order?", instruction=instruction, max_new_tokens=12)
    assert with_prefix == "".join(model.stream("Where is my order?", prefix=prefix, max_new_tokens=12))
    assert with_prefix != model.generate("Where is my order?", max_new_tokens=12)


def test_a_prefix_for_other_weights_is_refused(model, tiny_model_folder):
    other = fw.load(str(tiny_model_folder("llama", seed=99)), dtype="float32", device="cpu")
    for answer in (model.generate, model.stream):
        with pytest.raises(PrefixMismatch, match="weights: prefix has") as caught:
            answer("Hi", prefix=prefix_for(other))
        assert set(caught.value.differences) == {"weights"}
        theirs, ours = caught.value.differences["weights"]
        assert (theirs, ours) == (other.engine.fingerprint.weights, model.engine.fingerprint.weights)


def test_a_prefix_for_another_family_names_each_field(model, tiny_model_folder):
    other = fw.load(str(tiny_model_folder("gemma3_text")), dtype="float32", device="cpu")
    with pytest.raises(PrefixMismatch) as caught:
        model.generate("Hi", prefix=prefix_for(other))
    fields = {"architecture", "config", "weights", "tokenizer", "chat_template"}
    assert set(caught.value.differences) == fields
    message = str(caught.value)
    assert all(f"{field}: prefix has" in message for field in fields)
    assert "Gemma3ForCausalLM" in message and "LlamaForCausalLM" in message and "`support`" in message


def test_errors_come_before_the_first_piece(model):
    with pytest.raises(WindowError, match="max_new_tokens"):
        model.stream("Hi", max_new_tokens=10_000)
    with pytest.raises(ConfigError, match="top_p"):
        model.stream("Hi", temperature=1.0, top_p=0.0)


def test_what_cannot_be_loaded(home, tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        fw.load(str(tmp_path))
    with pytest.raises(RegistryError, match=r"No `warp` among engines\. Known: .*transformers"):
        fw.load("smollm2", engine="warp")


def test_an_engine_that_only_serves_makes_no_prefix():
    with pytest.raises(ModelError, match="serves prefixes but cannot make them"):
        fw.compile_text(Model(Echo()), "Some text.")
