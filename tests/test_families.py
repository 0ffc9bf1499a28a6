"""The registry: complete, consistent, and cheap to import."""

import json
import subprocess
import sys

import pytest

from course_helpers import FAMILIES, ConfigError
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.config import ModelConfig
from course_helpers.families import family_of
from tests.tiny_models import EXAMPLES

every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_a_row_fits_together(family):
    row = FAMILIES[family]
    assert issubclass(row.config, ModelConfig) and issubclass(row.model, LanguageModel) and row.title
    assert row.presets and all(type(preset) is row.config for preset in row.presets.values())
    assert set(row.hub_ladder) <= set(row.presets) and set(row.ungated) <= set(row.hub_ladder)


def test_no_two_families_claim_the_same_files():
    assert len({row.tiny for row in FAMILIES.values()}) == len(FAMILIES)
    names = [name for row in FAMILIES.values() for name in row.presets]
    assert len(set(names)) == len(names)


@every_family
def test_the_hub_ladder_climbs(family):
    import torch

    row = FAMILIES[family]
    with torch.device("meta"):
        sizes = [row.model(row.presets[name]).num_parameters() for name in row.hub_ladder]
    assert sizes == sorted(sizes)


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


@pytest.mark.parametrize("module", ["course_helpers", "course_helpers.loaders.load", "course_helpers.families"])
def test_importing_the_package_imports_nothing_heavy_but_torch(module):
    code = f"import json, sys, {module}; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
