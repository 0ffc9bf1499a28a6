"""What the hub's refusals become: errors that say why and what to do, and nothing that was not to be said."""

import errno
import traceback

import pytest
from huggingface_hub import errors, file_download
from hypothesis import given
from hypothesis import strategies as st

from course_helpers import CheckpointError, load_model, load_tokenizer
from course_helpers.loaders.hub_errors import did_you_mean
from course_helpers.loaders.hub_files import small_files, weight_files, weights_begin_with
from tests.loaders.fake_hub import Repository
from tests.loaders.test_hub import BUNDLED, NAME, publish, refused

TOKEN = "hf_nobodyshouldeverreadthis"
FILES = BUNDLED["tiny-gpt2"]


def test_a_gated_model_asks_for_the_licence_and_then_for_the_account(hub, monkeypatch, capsys):
    publish(hub, FILES, gated="manual", licence="llama3.2")
    error = refused()
    assert "accept a licence first" in error.cause and "hf auth login" in error.next_step
    hub.known_token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error = refused()
    assert "has not accepted" in error.cause and "on the model's page" in error.next_step
    hub.allowed = {TOKEN}
    assert load_model(NAME).num_parameters() > 0
    said = capsys.readouterr().err
    assert "Licence: llama3.2; gated" in said and TOKEN not in said


def test_a_token_that_the_hub_does_not_know(hub, monkeypatch, capsys):
    publish(hub, FILES)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error = refused()
    assert "does not know the access token" in error.cause and "unset HF_TOKEN" in error.next_step
    shown = "".join(traceback.format_exception(error)) + capsys.readouterr().err
    assert TOKEN not in shown


@pytest.mark.parametrize("odd", ["\x00", "\x7f", "é", " "])
def test_a_token_with_a_strange_character_is_not_shown_either(odd, hub, monkeypatch, capsys):
    publish(hub, FILES)
    token = TOKEN[:10] + odd + TOKEN[10:]
    # An environment variable could not hold the first of them; the file that `hf auth login` writes could.
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: token)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(CheckpointError) as caught:
        load_model(NAME)
    shown = "".join(traceback.format_exception(caught.value)) + capsys.readouterr().err
    assert TOKEN[10:] not in shown and token not in shown
    assert "token" in caught.value.cause and "hf auth login" in caught.value.next_step


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("openai-comunity/gpt2", "openai-community/gpt2"),
        ("meta-llama/Llama3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("qwen/qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("google/gemma3-270m", "google/gemma-3-270m"),
    ],
)
def test_a_name_that_is_misspelt_is_answered_with_the_right_one(asked, meant, hub):
    error = refused(asked)
    assert "no such model" in error.cause and f"did you mean {meant}" in error.next_step
    assert "private" in error.next_step and hub.got() == []


def test_a_name_like_no_other_suggests_nothing():
    assert did_you_mean("nobody/nothing").startswith("check the spelling")
    assert did_you_mean("openai-community/gpt2").startswith("did you mean openai-community/gpt2-") is False


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", "a/" + "b" * 120])
def test_a_name_that_the_library_does_not_take_is_refused(name, hub):
    assert "not how the hub spells" in refused(name).cause and hub.requests == []


def test_a_revision_that_is_not_there(hub):
    publish(hub, FILES)
    error = refused(revision="v9")
    assert error.field == "revision" and error.found == "'v9'" and "leave revision out" in error.next_step
    assert refused(revision="0" * 40).field == "revision"


@pytest.mark.parametrize(
    ("status", "headers", "cause", "next_step"),
    [
        (403, {}, "not allowed to read", "hf auth login"),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, "taken the model down", "another copy"),
        (400, {}, "status 400", "try again later"),
    ],
)
def test_other_refusals(status, headers, cause, next_step, hub):
    publish(hub, FILES)
    hub.status, hub.status_headers = status, headers
    error = refused()
    assert cause in error.cause and next_step in error.next_step


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_as_good_as_none(status, hub, capsys):
    commit = publish(hub, FILES)
    hub.status = status
    error = refused()
    assert f"status {status}" in error.cause and error.found == "missing: all files"
    hub.status = None
    load_model(NAME)
    hub.status = status
    assert load_model(NAME).load_report.origin.endswith(commit)
    assert f"the hub is in trouble (status {status}); from the local cache" in capsys.readouterr().err


def test_a_limit_in_the_middle_says_how_long_to_wait(hub):
    publish(hub, FILES)

    def limit(method: str, path: str) -> None:
        if "/resolve/" in path and path.endswith("model.safetensors"):
            hub.status, hub.status_headers = 429, {"Retry_After": "77"}

    hub.before = limit
    error = refused()
    assert "too many requests" in error.cause and "wait 77 seconds" in error.next_step


@pytest.mark.parametrize(
    ("error", "cause", "next_step"),
    [
        (OSError(errno.ENOSPC, "no space left on device"), "disk is full", "make room"),
        (PermissionError(errno.EACCES, "not yours"), "must not be written", "HF_HOME"),
        (ConnectionResetError("gone"), "broke off", "run it again"),
        (OSError("Consistency check failed"), "broke off", "run it again"),
    ],
)
def test_trouble_while_a_file_is_written(error, cause, next_step, hub, monkeypatch, tmp_path):
    publish(hub, FILES)
    whole = file_download.http_get

    def http_get(url: str, file, **options: object) -> None:
        if url.endswith("model.safetensors"):
            file.write(b"a beginning")
            raise error
        whole(url, file, **options)

    monkeypatch.setattr(file_download, "http_get", http_get)
    found = refused()
    assert cause in found.cause and next_step in found.next_step
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    monkeypatch.setattr(file_download, "http_get", whole)
    load_model(NAME)


# What is in the model.


@pytest.mark.parametrize("shard", ["../model.safetensors", "sub/model.safetensors", "/etc/passwd", "gone.safetensors"])
def test_an_index_that_names_other_files_is_refused_before_they_are_fetched(shard, hub):
    index = b'{"weight_map": {"wte.weight": "%s"}}' % shard.encode()
    files = {name: content for name, content in FILES.items() if name != "model.safetensors"}
    publish(hub, files | {"model.safetensors.index.json": index, "sub/model.safetensors": b""})
    error = refused()
    assert error.field == "weight_map" and error.found == shard
    assert set(hub.got()) == {"config.json", "model.safetensors.index.json"}


@pytest.mark.parametrize("index", [b"{}", b"[]", b"", b'{"weight_map": {}}', b'{"weight_map": 3}', b"\xff"])
def test_an_index_that_is_none_is_refused(index, hub):
    publish(hub, FILES | {"model.safetensors.index.json": index})
    assert refused().next_step and hub.got().count("model.safetensors") == 0


@pytest.mark.parametrize(
    "files",
    [[], ["model.gguf"], ["tf_model.h5"], ["a.index", "b.index"], ["a.safetensors", "b.safetensors"]],
)
def test_a_model_without_weights_to_choose_is_refused_with_what_it_has(files, hub):
    publish(hub, {"config.json": FILES["config.json"], "README.md": b""} | dict.fromkeys(files, b"weights"))
    error = refused()
    assert "no weights that this package can choose" in error.what
    assert error.found == (", ".join(sorted(files)) or "nothing")
    assert load_tokenizer_refusal().what == "a tokenizer file is missing"


def load_tokenizer_refusal() -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(NAME)
    return caught.value


GPT2 = "config.json generation_config.json merges.txt tokenizer.json tokenizer_config.json vocab.json"
LLAMA_3 = "LICENSE config.json generation_config.json original/tokenizer.model special_tokens_map.json tokenizer.json"
#: Models of the hub as they are: all their files, and those that are wanted of them.
LISTINGS = {
    "openai-community/gpt2": (
        "64-8bits.tflite 64-fp16.tflite 64.tflite README.md flax_model.msgpack model.safetensors onnx/config.json "
        "onnx/decoder_model.onnx onnx/tokenizer.json pytorch_model.bin rust_model.ot tf_model.h5",
        GPT2.split(),
        ["model.safetensors"],
    ),
    "meta-llama/Llama-3.2-1B": (
        "README.md USE_POLICY.md original/consolidated.00.pth original/params.json model.safetensors",
        LLAMA_3.split(),
        ["model.safetensors"],
    ),
    "meta-llama/Llama-2-13b": (
        "README.md checklist.chk consolidated.00.pth consolidated.01.pth tokenizer_checklist.chk",
        ["LICENSE.txt", "params.json", "tokenizer.model"],
        ["params.json", "consolidated.00.pth", "consolidated.01.pth"],
    ),
    "an old one": ("pytorch_model.bin flax_model.msgpack training_args.bin", GPT2.split(), ["pytorch_model.bin"]),
    "one file of another name": ("gpt2-124M.pth README.md", ["config.json"], ["gpt2-124M.pth"]),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_of_real_models_the_right_files_are_chosen(name, tmp_path):
    others, small, weights = LISTINGS[name]
    names = sorted({*others.split(), *small, *weights})
    assert small_files(names) == sorted(small)
    assert weight_files(name, names, tmp_path) == weights


INDEX = "model.safetensors.index.json"
outer_names = [
    INDEX,
    "model.safetensors",
    "pytorch_model.bin",
    "a.safetensors",
    "b.bin",
    "c.pth",
    "d.pth",
    "params.json",
]
inner_names = ["consolidated.00.pth", "original/consolidated.00.pth", "original/params.json", "x/w.bin"]


@given(names=st.lists(st.sampled_from(outer_names + inner_names), unique=True))
def test_one_kind_of_weights_is_chosen_whatever_there_is(names):
    begin = weights_begin_with(names)
    outer = {name for name in names if "/" not in name}
    usual = [name for name in (INDEX, "model.safetensors", "pytorch_model.bin") if name in outer]
    meta = [[f"{folder}params.json", f"{folder}consolidated.00.pth"] for folder in ("", "original/")]
    whole = [pair for pair in meta if set(pair) <= set(names)]
    kinds = [[name for name in outer if name.endswith(ending)] for ending in (".safetensors", ".bin", ".pth")]
    lone = next((kind for kind in kinds if kind), [])
    if usual:
        assert begin == usual[:1]
    elif whole:
        assert begin == whole[0]
    else:
        assert begin == (lone if len(lone) == 1 else [])


def test_answers_of_the_library_that_are_wrapped_are_still_understood(hub):
    """A model that becomes private while it is fetched: the library wraps the hub's answer in one of its own."""
    publish(hub, FILES)

    def vanish(method: str, path: str) -> None:
        if "/resolve/" in path:
            hub.repositories.clear()

    hub.before = vanish
    error = refused()
    assert "no such model, or it is private" in error.cause
    hub.before = lambda method, path: None
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(FILES)
    assert isinstance(load_model(NAME).load_report.origin, str)
    assert issubclass(errors.GatedRepoError, errors.RepositoryNotFoundError)  # the order of the questions matters
