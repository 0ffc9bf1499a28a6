"""The registry: complete, consistent, and cheap to import."""

import json
import subprocess
import sys

import pytest

from course_helpers import FAMILIES, ConfigError
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.config import ModelConfig
from course_helpers.families import family_of
from course_helpers.family_table import family_table, sizes
from course_helpers.memory import parameter_count
from tests.tiny_models import EXAMPLES

every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_a_row_fits_together(family):
    row = FAMILIES[family]
    assert issubclass(row.config, ModelConfig) and issubclass(row.model, LanguageModel) and row.title
    assert row.presets and all(type(preset) is row.config for preset in row.presets.values())
    assert row.tokenizer and row.licence


def test_no_two_families_claim_the_same_files():
    assert len({row.tiny for row in FAMILIES.values()}) == len(FAMILIES)
    names = [name for row in FAMILIES.values() for name in row.presets]
    assert len(set(names)) == len(names)


@every_family
def test_presets_are_listed_from_the_smallest_up(family):
    row = FAMILIES[family]
    counts = [parameter_count(row.model, preset) for preset in row.presets.values()]
    assert counts == sorted(counts)


def test_families_of_one_model_type_share_all_that_is_code():
    """A config.json cannot tell them apart, so it must not matter which of them is found."""
    for one in FAMILIES.values():
        for other in FAMILIES.values():
            if one.config.model_type == other.config.model_type:
                assert (one.config, one.model, one.weight_maps) == (other.config, other.model, other.weight_maps)


def test_the_table_says_what_every_model_weighs():
    table = family_table()
    lines = {words[0]: words for line in table.splitlines() if (words := line.split())}
    for row in FAMILIES.values():
        assert f"{row.title}; bundled and ready to run: {row.tiny}" in table
        for hub_id, preset in row.presets.items():
            words, count = lines[hub_id], parameter_count(row.model, preset)
            assert words[1:3] == [f"{count:,}", f"{2 * count / 2**30:.2f}"]
            per_token = 2 * 2 * preset.num_hidden_layers * preset.num_key_value_heads * preset.head_dim / 1024
            assert float(words[3]) == per_token
            assert ("no" in words) != row.gated


def test_figures_of_the_facts_page_are_in_the_table():
    """Facts page, section 2: KiB of cache a token, and Gemma's and OLMo's windows at 32,768 tokens by hand."""
    found = {size.hub_id: size for size in sizes()}
    per_token = {"meta-llama/Llama-2-7b-hf": 512, "Qwen/Qwen3-0.6B": 112, "google/gemma-3-270m": 18}
    assert {name: found[name].cache_kib_per_token for name in per_token} == per_token
    # 18 layers, 3 of them full, 1 KiB a layer and token; 32 layers, 8 of them full, 16 KiB.
    assert found["google/gemma-3-270m"].cache_mib_at_32k == (3 * 32768 + 15 * 512) / 1024
    assert found["allenai/Olmo-3-1025-7B"].cache_mib_at_32k == (8 * 32768 + 24 * 4096) * 16 / 1024


@every_family
def test_a_family_is_found_by_its_model_type(family):
    assert family_of(EXAMPLES[family]).config is FAMILIES[family].config


@every_family
def test_transformers_knows_the_names_that_are_written_to_config_json(family):
    import transformers

    config = FAMILIES[family].config
    assert getattr(transformers, config.architecture).config_class.model_type == config.model_type


@pytest.mark.parametrize("model_type", [None, "", "mamba", "llama4", 3, ["llama"], "GPT2"])
def test_an_unknown_model_type_is_refused(model_type):
    with pytest.raises(ConfigError) as caught:
        family_of({"model_type": model_type})
    assert caught.value.field == "model_type" and caught.value.found == repr(model_type)
    assert all(row.config.model_type in caught.value.expected for row in FAMILIES.values())


HEAVY = (
    "transformers",
    "tokenizers",
    "tiktoken",
    "safetensors",
    "sentencepiece",
    "matplotlib",
    "huggingface_hub",
    "manim",
)


#: What is quick to import: all of it together, and so each alone.
LIGHT = (
    "course_helpers",
    "course_helpers.loaders.load",
    "course_helpers.families",
    "course_helpers.first_mismatch",
    "course_helpers.memory",
)


def test_importing_the_package_imports_nothing_heavy_but_torch():
    code = f"import json, sys, {', '.join(LIGHT)}; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
