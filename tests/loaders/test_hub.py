"""Fetching from the hub, with the hub's answers played back: what is asked for, and what a refusal says."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from course_helpers import CheckpointError, load_model, load_tokenizer
from course_helpers.loaders.hub import HUB_ID
from tests.bundled import FOLDERS

# As on the hub: the weights in several formats, and some of them once more in sub-folders.
GPT2_FILES = ("config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.bin", "64-8bits.tflite")
META_FILES = ("config.json", "consolidated.00.pth", "original/model.safetensors")


class Hub:
    """A hub that has one model, or answers with an error; it remembers what was asked."""

    def __init__(self, monkeypatch, files=GPT2_FILES, listing_error=None, download_error=None):
        self.files, self.listing_error, self.download_error = files, listing_error, download_error
        self.asked = None
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self.model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def model_info(self, hub_id, revision=None, timeout=None):
        if self.listing_error:
            raise self.listing_error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files])

    def snapshot_download(self, hub_id, **options):
        self.asked = (hub_id, options["revision"], options["allow_patterns"], options["ignore_patterns"])
        if self.download_error:
            raise self.download_error
        return str(FOLDERS["tiny-gpt2"])

    @property
    def kinds(self):
        return [kind for kind in ("*.safetensors", "*.bin", "*.pth") if kind in self.asked[2]]


def http_error(kind, status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("the hub said no", response=response)


def test_one_kind_of_weights_is_fetched_and_the_model_loads(monkeypatch):
    hub = Hub(monkeypatch)
    model = load_model("openai-community/gpt2", revision="abc123")
    assert model.num_parameters() == 957_184
    assert hub.asked[:2] == ("openai-community/gpt2", "abc123")
    assert hub.kinds == ["*.safetensors"]
    assert set(hub.asked[3]) == {"*/*.safetensors", "*/*.bin", "*/*.pth"}


def test_other_kinds_are_fetched_where_there_is_no_safetensors(monkeypatch):
    hub = Hub(monkeypatch, META_FILES)
    load_model("some/model")
    assert hub.kinds == ["*.pth"]


def test_a_tokenizer_needs_no_weights(monkeypatch):
    hub = Hub(monkeypatch)
    assert load_tokenizer("openai-community/gpt2").encode("Once")
    assert hub.kinds == []


def test_without_a_network_the_cache_is_used(monkeypatch):
    hub = Hub(monkeypatch, listing_error=RuntimeError("name or service not known"))
    load_model("openai-community/gpt2")
    assert hub.kinds == ["*.safetensors", "*.bin", "*.pth"]


@pytest.mark.parametrize(
    ("error", "cause", "next_step"),
    [
        (http_error(errors.GatedRepoError, 403), "accept a licence", "hf auth login"),
        (http_error(errors.RepositoryNotFoundError, 404), "no such model", "check the spelling"),
        (http_error(errors.HfHubHTTPError, 500), "cannot be reached", "connect to the network"),
        (errors.LocalEntryNotFoundError("not in the cache"), "cannot be reached", "use a bundled one"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(monkeypatch, error, cause, next_step):
    Hub(monkeypatch, download_error=error)
    with pytest.raises(CheckpointError) as caught:
        load_model("meta-llama/Llama-3.2-1B")
    assert cause in caught.value.cause and next_step in caught.value.next_step
    assert caught.value.file == "meta-llama/Llama-3.2-1B"


def test_an_unknown_model_is_refused_before_anything_is_fetched(monkeypatch):
    hub = Hub(monkeypatch, listing_error=http_error(errors.RepositoryNotFoundError, 404))
    with pytest.raises(CheckpointError, match="could not be fetched"):
        load_model("nobody/nothing")
    assert hub.asked is None


@pytest.mark.parametrize("name", ["a/b/c", "/absolute", "../up", "name", "https://somewhere/x", "a b/c", "", "./x"])
def test_what_is_no_hub_id_is_not_taken_for_one(name):
    assert HUB_ID.fullmatch(name) is None


def test_an_existing_path_wins_over_a_hub_id(monkeypatch, tmp_path):
    hub = Hub(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    Path("owner/name").symlink_to(FOLDERS["tiny-gpt2"])
    load_model("owner/name")
    assert hub.asked is None
