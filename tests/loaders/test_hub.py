"""Fetching from the hub: what is fetched, from which commit, and what is left when it does not work out.

The real huggingface_hub talks to a hub on this machine, see `fake_hub`.
"""

import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from course_helpers import FAMILIES, CheckpointError, load_model, load_tokenizer, open_checkpoint, validate_checkpoint
from course_helpers.loaders.hub import HUB_ID, pinned_name
from tests.bundled import FOLDERS, each
from tests.formats import META_CONFIG, meta
from tests.loaders.fake_hub import CHUNK, FakeHub, Repository, files_of
from tests.loaders.refusals import check_answers
from tests.loaders.test_meta_params import SMALL
from tests.tiny_models import same_parameters, theirs

NAME = "owner/name"
#: The same weights in other formats, and what else lies about in a model of the hub.
DECOYS = {
    name: name.encode()
    for name in (
        ".gitattributes",
        "README.md",
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "consolidated.safetensors",
        "tf_model.h5",
        "64-8bits.tflite",
        "onnx/model.onnx",
        "onnx/config.json",
        "original/consolidated.00.pth",
        "original/params.json",
        "training_args.bin",
    )
}
#: The bundled checkpoints without their manifests: some tests change what the manifest describes.
BUNDLED = {
    name: {file: content for file, content in files_of(folder).items() if file != "card.json"}
    for name, folder in FOLDERS.items()
}
LICENCE = {"LICENSE": b"the licence"}


def publish(hub: FakeHub, files: dict[str, bytes], **about: object) -> str:
    """A model of these files on the hub; its commit."""
    repository = hub.repositories[NAME] = Repository(**about)
    return repository.commit(files)


def refused(hub_id: str = NAME, **options: object) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_model(hub_id, **options)
    check_answers(caught.value)
    return caught.value


def other_weights(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model with another value somewhere in each file of weights."""
    return {
        name: content[:-1] + bytes([content[-1] ^ 1]) if name.endswith(".safetensors") else content
        for name, content in files.items()
    }


@each
def test_every_bundled_checkpoint_comes_whole_and_alone_through_the_hub(folder, hub):
    files = files_of(folder)
    commit = publish(hub, files | DECOYS | LICENCE)
    model = load_model(NAME, strategy="mmap")
    assert same_parameters(model, load_model(folder))
    assert model.load_report.origin == f"{NAME} at {commit}"
    assert sorted(hub.got()) == sorted({*files, *LICENCE})
    text = "Once upon a time"
    assert load_tokenizer(NAME).encode(text) == load_tokenizer(folder).encode(text)
    assert len(hub.got()) == len(files) + 1


def test_the_weights_come_last(hub):
    publish(hub, BUNDLED["tiny-llama2"])
    load_model(NAME)
    assert [name.endswith(".safetensors") for name in hub.got()] == [False] * (len(hub.got()) - 2) + [True] * 2


def test_a_tokenizer_needs_no_weights(hub):
    publish(hub, BUNDLED["tiny-gpt2"])
    assert load_tokenizer(NAME).encode("Once")
    assert hub.got() and not any("safetensors" in name for name in hub.got())
    load_model(NAME)
    assert hub.got().count("model.safetensors") == 1 and len(hub.got()) == len(BUNDLED["tiny-gpt2"])


def test_metas_own_files_are_fetched_where_there_are_no_others(hub, tmp_path):
    meta(2)(theirs(META_CONFIG), tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(SMALL))
    files = {name: content for name, content in files_of(tmp_path).items() if name.endswith((".pth", "params.json"))}
    assert len(files) == 3
    for hub_id, prefix in (("meta/outer", ""), ("meta/inner", "original/")):
        there = {prefix + name: content for name, content in files.items()}
        hub.repositories[hub_id] = Repository()
        hub.repositories[hub_id].commit(there | {"README.md": b"about"})
        hub.requests.clear()
        assert same_parameters(load_model(hub_id), load_model(theirs(META_CONFIG)))
        assert sorted(hub.got()) == sorted(there)


def test_openais_own_files_are_fetched_where_there_are_no_others(hub):
    folder = Path(__file__).parent / "tensorflow_gpt2" / "gpt2"
    files = {name: content for name, content in files_of(folder).items() if name != "checkpoint"}
    publish(hub, files | {"model.ckpt.meta": b"a program"})
    assert same_parameters(load_model(NAME), load_model(folder))
    assert sorted(hub.got()) == sorted(files)


def test_weights_without_a_config_take_one_from_the_caller(hub):
    publish(hub, {"weights.safetensors": BUNDLED["tiny-gpt2"]["model.safetensors"]})
    config = json.loads(BUNDLED["tiny-gpt2"]["config.json"])
    assert same_parameters(load_model(NAME, config=config), load_model("tiny-gpt2"))
    assert refused().expected == "config.json in the same folder, or the config argument"


# One commit.


def test_a_branch_that_moves_meanwhile_changes_nothing(hub):
    first = BUNDLED["tiny-llama2"]
    commit = publish(hub, first)
    repository = hub.repositories[NAME]

    def move(method: str, path: str) -> None:
        if path.endswith("/config.json") and method == "GET":
            repository.commit(other_weights(first))

    hub.before = move
    model = load_model(NAME)
    assert repository.references["main"] != commit
    assert model.load_report.origin.endswith(commit) and same_parameters(model, load_model(FOLDERS["tiny-llama2"]))
    assert all(commit in path for _, path, _ in hub.requests if "/resolve/" in path or "/tree/" in path)

    hub.before = lambda method, path: None
    moved = load_model(NAME)
    assert moved.load_report.origin.endswith(repository.references["main"]) and not same_parameters(moved, model)
    assert hub.got().count("config.json") == 1  # the same content is fetched once


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "the commit"])
def test_any_revision_is_resolved_to_its_commit(revision, hub, capsys):
    old = publish(hub, BUNDLED["tiny-gpt2"])
    hub.repositories[NAME].references |= {"v1.0": old, "refs/pr/1": old}
    hub.repositories[NAME].commit(other_weights(BUNDLED["tiny-gpt2"]))
    revision = old if revision == "the commit" else revision
    model = load_model(NAME, revision=revision)
    assert model.load_report.origin == f"{NAME} at {old}"
    assert same_parameters(model, load_model("tiny-gpt2"))
    assert old[:12] in capsys.readouterr().err


def test_a_commit_in_the_cache_is_loaded_without_asking(hub, capsys):
    commit = publish(hub, BUNDLED["tiny-gpt2"])
    load_model(NAME)
    hub.requests.clear()
    capsys.readouterr()
    load_model(NAME, revision=commit)
    assert hub.requests == [] and capsys.readouterr().err == ""
    load_model(NAME)  # which commit a branch stands at, only the hub knows
    assert [path for _, path, _ in hub.requests] == [f"/api/models/{NAME}"] and capsys.readouterr().err == ""


def test_errors_in_the_checkpoint_itself_name_the_commit(hub):
    files = BUNDLED["tiny-gpt2"]
    commit = publish(hub, files | {"config.json": files["config.json"].replace(b'"gpt2"', b'"gpt7"')})
    error = refused()
    assert error.field == "model_type" and error.file == f"{NAME} at {commit}"


def test_what_another_program_left_in_the_cache_is_used_and_completed(hub, monkeypatch):
    publish(hub, BUNDLED["tiny-gpt2"])
    for name in ("config.json", "model.safetensors"):
        huggingface_hub.hf_hub_download(NAME, name)  # as transformers does, which asks for single files
    with monkeypatch.context() as offline:
        go_offline(offline, None, "offline mode")
        assert same_parameters(load_model(NAME), load_model("tiny-gpt2"))
        with pytest.raises(CheckpointError, match="a tokenizer file is missing"):
            load_tokenizer(NAME)
    assert load_tokenizer(NAME).encode("Once") == load_tokenizer("tiny-gpt2").encode("Once")
    load_model(NAME)
    assert sorted(hub.got()) == sorted(BUNDLED["tiny-gpt2"])


# Connections that break.


def test_a_connection_that_breaks_once_is_taken_up_where_it_broke(hub):
    publish(hub, BUNDLED["tiny-gpt2"])
    size = len(BUNDLED["tiny-gpt2"]["model.safetensors"])
    hub.drops["model.safetensors"] = 1
    assert same_parameters(load_model(NAME), load_model("tiny-gpt2"))
    ranges = [wanted for method, path, wanted in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert ranges == [None, f"bytes={size // 2 // CHUNK * CHUNK}-"]


def test_a_download_that_breaks_for_good_leaves_nothing_that_loads(hub, tmp_path):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    commit = publish(hub, BUNDLED["tiny-llama2"])
    hub.drops[second] = 10**6
    error = refused()
    assert "broke off" in error.cause and "not fetched twice" in error.next_step
    snapshot = tmp_path / f"cache/models--owner--name/snapshots/{commit}"
    with pytest.raises(CheckpointError, match=second):
        load_model(snapshot)
    assert not [path for path in (tmp_path / "cache").rglob("*") if "incomplete" in path.name]

    hub.status = 503
    for revision in (None, commit):
        error = refused(revision=revision)
        assert "not complete in the local cache" in error.what and error.found == f"missing: {second}"

    hub.status = None
    hub.drops.clear()
    hub.requests.clear()
    assert same_parameters(load_model(NAME), load_model(FOLDERS["tiny-llama2"]))
    assert hub.got() == [second] and first not in hub.got()


# Without a network.


def go_offline(monkeypatch, hub: FakeHub | None, how: str) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    if hub is not None:
        hub.server_close()  # the port is closed: nobody answers
    close_session()
    if how == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_list(*_: object, **options: object) -> None:
    raise errors.CachedRepoTreeNotFoundError("not cached")


ways = pytest.mark.parametrize("how", ["offline mode", "no network"])


@ways
def test_what_is_complete_is_served_from_the_cache(how, hub, monkeypatch, capsys):
    commit = publish(hub, BUNDLED["tiny-llama2"] | DECOYS)
    hub.repositories[NAME].references["v1"] = commit
    load_model(NAME), load_model(NAME, revision="v1")
    capsys.readouterr()
    go_offline(monkeypatch, hub, how)
    for revision in (None, "main", "v1", commit):
        model = load_model(NAME, revision=revision)
        assert same_parameters(model, load_model(FOLDERS["tiny-llama2"]))
        assert model.load_report.origin == f"{NAME} at {commit}"
        said = "" if how == "offline mode" or revision == commit else f"from the local cache, commit {commit[:12]}"
        assert said in capsys.readouterr().err
    assert load_tokenizer(NAME).encode("Once")
    assert validate_checkpoint(NAME).ok


@ways
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "gone", ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.model"]
)
def test_what_is_not_complete_is_refused_by_name(how, listed, gone, hub, monkeypatch, tmp_path):
    commit = publish(hub, BUNDLED["tiny-llama2"])
    load_model(NAME)
    storage = tmp_path / "cache/models--owner--name"
    (storage / "snapshots" / commit / gone).unlink()
    if not listed:  # as older versions of the library leave it
        monkeypatch.setattr(huggingface_hub, "get_cached_repo_tree", no_list)
    go_offline(monkeypatch, hub, how)
    if gone == "tokenizer.model" and not listed:  # no list says that there is one: the weights do not need it
        assert same_parameters(load_model(NAME), load_model(FOLDERS["tiny-llama2"]))
        with pytest.raises(CheckpointError, match="a tokenizer file is missing"):
            load_tokenizer(NAME)
        return
    error = refused()
    if listed or gone == "model-00002-of-00002.safetensors":
        assert error.file == f"{NAME} at {commit}" and error.found == f"missing: {gone}"
        assert ("HF_HUB_OFFLINE" if how == "offline mode" else "no connection") in error.cause
        assert "connect to the network" in error.next_step


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_in_the_cache_that_was_cut_short_is_refused(listed, hub, monkeypatch, tmp_path):
    publish(hub, BUNDLED["tiny-gpt2"])
    load_model(NAME)
    path = next((tmp_path / "cache").rglob("model.safetensors")).resolve()
    path.write_bytes(path.read_bytes()[:-100])
    if not listed:
        monkeypatch.setattr(huggingface_hub, "get_cached_repo_tree", no_list)
    go_offline(monkeypatch, hub, "offline mode")
    error = refused()
    assert error.found == "missing: model.safetensors" if listed else "longer or shorter" in str(error) or error.file


@ways
def test_what_was_never_fetched_is_refused(how, hub, monkeypatch):
    publish(hub, BUNDLED["tiny-gpt2"])
    load_tokenizer(NAME)
    go_offline(monkeypatch, hub, how)
    error = refused()
    assert error.found == "missing: model.safetensors" and "checkpoints/" in error.next_step
    assert load_tokenizer(NAME).encode("Once")
    assert refused("other/name").found == "missing: all files"


def test_an_update_that_was_not_finished_leaves_the_older_one_for_when_there_is_no_network(hub, monkeypatch):
    files = BUNDLED["tiny-llama2"]
    old = publish(hub, files)
    load_model(NAME)
    hub.repositories[NAME].commit(other_weights(files))
    hub.drops["model-00001-of-00002.safetensors"] = 10**6
    refused()
    go_offline(monkeypatch, hub, "no network")
    model = load_model(NAME)
    assert model.load_report.origin.endswith(old) and same_parameters(model, load_model(FOLDERS["tiny-llama2"]))


# Names.


@pytest.mark.parametrize("name", ["a/b/c", "/absolute", "../up", "name", "https://somewhere/x", "a b/c", "", "./x"])
def test_what_is_no_hub_id_is_not_taken_for_one(name):
    assert HUB_ID.fullmatch(name) is None


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_hub_id_of_the_families_is_one(family):
    assert all(HUB_ID.fullmatch(name) for name in family.presets)


def test_an_existing_path_wins_over_a_hub_id(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    Path("owner/name").symlink_to(FOLDERS["tiny-gpt2"])
    load_model(NAME)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/cache/models--openai-community--gpt2/snapshots/abc", "openai-community/gpt2 at abc"),
        ("/cache/models--openai-community--gpt2/snapshots/abc/original/weights.pth", "openai-community/gpt2 at abc"),
        ("/cache/datasets--openai-community--gpt2/snapshots/abc", None),
        ("/home/snapshots/abc", None),
        ("/", None),
        ("gpt2", None),
    ],
)
def test_paths_in_the_cache_are_known_by_model_and_commit(path, name):
    assert pinned_name(Path(path)) == name


def test_a_checkpoint_of_the_hub_opens_too(hub):
    commit = publish(hub, BUNDLED["tiny-gpt2"])
    with open_checkpoint(NAME) as checkpoint:
        assert checkpoint.origin == f"{NAME} at {commit}" and checkpoint.config["model_type"] == "gpt2"
