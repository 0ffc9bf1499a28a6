"""TensorFlow checkpoints: what TensorFlow itself wrote is read to the bit, and is the same GPT-2 as transformers'."""

import json
import shutil

import pytest
import torch

from course_helpers import (
    load_model,
    load_tokenizer,
    load_weights,
    open_checkpoint,
    save_checkpoint,
    validate_checkpoint,
)
from course_helpers.families import FAMILIES
from course_helpers.loaders.openai import config_of
from course_helpers.loaders.save import export
from course_helpers.loaders.strategies import STRATEGIES
from course_helpers.loaders.tf_checkpoint import TensorFlowFile
from tests.loaders.refusals import assert_untouched, refusal
from tests.loaders.tensorflow_files import DATA, FIXTURE, INDEX, copy_of, expected, reference
from tests.tiny_models import EXAMPLES, logits_of, ours, random_ids, same_parameters, write_config

GPT2 = FIXTURE / "gpt2"
HPARAMS = json.loads((GPT2 / "hparams.json").read_text())
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.mark.parametrize("folder", ["gpt2", "sharded", "training", "types"])
def test_every_tensor_is_what_tensorflows_own_reader_finds(folder):
    scratch = torch.empty(2**16, dtype=torch.uint8)
    with open_checkpoint(FIXTURE / folder) as checkpoint:
        assert checkpoint.format == "tensorflow" and set(checkpoint.names()) <= expected().keys()
        for name in checkpoint.names():
            wanted = expected()[name]
            for found in (checkpoint.read(name), checkpoint.peek(name, scratch), checkpoint.map(name)):
                assert found.dtype == wanted.dtype == checkpoint.dtype(name)
                assert found.shape == wanted.shape == checkpoint.shape(name) and torch.equal(found, wanted)


def test_the_fixture_has_what_it_is_for():
    """All of OpenAI's variables, two data files, every type that we read, no values, one value."""
    assert len(TensorFlowFile(FIXTURE / "sharded" / INDEX).shards) == 2
    types = TensorFlowFile(FIXTURE / "types" / INDEX).tensors
    assert {entry.dtype for entry in types.values()} == set(expected()[name].dtype for name in types)
    assert len({entry.dtype for entry in types.values()}) == 13 and types["empty"].shape == (0, 4)
    rules = FAMILIES["gpt2"].weight_maps[1].expand(FAMILIES["gpt2"].config.from_hf(config_of(file(GPT2))))
    assert set(file(GPT2).tensors) == rules.keys() - {"model/lm_head"}
    assert file(GPT2).tensors["model/h0/attn/c_attn/w"].shape == (1, 12, 36)


def file(folder):
    return TensorFlowFile(folder / INDEX)


@every_strategy
def test_logits_are_those_of_transformers(strategy):
    model = load_model(GPT2, strategy=strategy)
    ids = random_ids(model.config.to_hf(), 3, 40)
    assert (logits_of(model, ids) - logits_of(reference(), ids)).abs().max() <= 1e-5
    assert same_parameters(model, load_model(reference()))
    assert (model.load_report.format, model.load_report.layout) == ("tensorflow", "openai")


@every_strategy
def test_a_dtype_that_is_asked_for_is_a_plain_cast(strategy):
    model = load_model(GPT2, dtype=torch.bfloat16, strategy=strategy)
    assert model.dtype == torch.bfloat16 and same_parameters(model, load_model(reference()).to(torch.bfloat16))


@pytest.mark.parametrize("strategy", ["naive", "sequential", "stream"])
def test_no_parameter_holds_on_to_more_memory_than_its_own(strategy):
    model = load_model(GPT2, strategy=strategy)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())


def test_a_mapped_model_can_be_trained_and_leaves_the_file_as_it_is(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    model = load_model(folder, strategy="mmap")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same_parameters(load_model(folder), load_model(GPT2))


def test_hparams_json_becomes_a_config():
    config = load_model(GPT2).config
    assert config.to_hf() == load_model(reference()).config.to_hf() | {"bos_token_id": 262, "eos_token_id": 262}
    assert (config.layer_norm_epsilon, config.tie_word_embeddings, config.n_inner) == (1e-5, True, 48)


@pytest.mark.parametrize("content", [None, "{}", '{"<|endoftext|>": 263}', '{"<|endoftext|>": "262"}'])
def test_without_a_usable_encoder_json_no_token_is_guessed(content, tmp_path):
    folder = copy_of("gpt2", tmp_path)
    (folder / "encoder.json").unlink() if content is None else (folder / "encoder.json").write_text(content)
    assert (load_model(folder).config.bos_token_id, load_model(folder).config.eos_token_id) == (None, None)


def test_a_saved_model_is_in_hugging_faces_layout_with_a_tokenizer(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, text = load_tokenizer(GPT2), "the inner her, a tin"
    folder = save_checkpoint(load_model(GPT2), tmp_path / "saved", tokenizer)
    assert same_parameters(load_model(folder), load_model(GPT2)) and load_tokenizer(folder).kind == "vocab.json"
    theirs, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([tokenizer.encode(text)])
    assert torch.equal(theirs(ids).logits, reference()(ids).logits)
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids == tokenizer.encode(text)
    assert load_tokenizer(folder).stop_ids == tokenizer.stop_ids == (262,)


@pytest.mark.parametrize("kind", [None, "encoder.json"])
def test_the_tokenizer_gives_the_ids_that_it_gives_under_hugging_faces_names(kind, tmp_path):
    for theirs, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        shutil.copy(GPT2 / theirs, tmp_path / name)
    ours, same = load_tokenizer(GPT2, kind=kind), load_tokenizer(tmp_path)
    assert (ours.kind, same.kind, ours.vocab_size, ours.bos_id) == ("encoder.json", "vocab.json", 263, 262)
    for text in ("the inner her, a tin", " The\n\n<|endoftext|>", "ä€🙂"):
        assert ours.encode(text) == same.encode(text) and ours.decode(ours.encode(text)) == text
    assert max(ours.encode("the inner")) > 255  # merges were used


@pytest.mark.parametrize("place", ["", "model.ckpt", INDEX])
def test_model_and_tokenizer_by_every_name_of_the_place(place):
    assert same_parameters(load_model(GPT2 / place), load_model(reference()))
    assert load_tokenizer(GPT2 / place).kind == "encoder.json"


def test_the_tokenizer_of_another_size_is_refused(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | {"n_vocab": 200}))
    with pytest.raises(ValueError, match="knows more tokens"):
        load_tokenizer(folder)


def test_what_a_training_run_saved_beside_the_weights_is_left_out_with_a_reason(tmp_path):
    folder = copy_of("training", tmp_path)
    shutil.copy(GPT2 / "hparams.json", folder)
    model = load_model(folder)
    assert same_parameters(model, load_model(reference()))
    dropped = model.load_report.dropped
    assert len(dropped) == 2 * 28 + 3 and all("training only" in reason for reason in dropped.values())


def test_weights_in_hand_are_replaced_and_another_config_is_refused():
    model = ours(load_model(GPT2).config.to_hf(), seed=3)
    load_weights(model, GPT2)
    assert same_parameters(model, load_model(GPT2))
    other = ours(EXAMPLES["gpt2"])
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="config is not the model's"):
        load_weights(other, GPT2)
    assert_untouched(other, before)


def test_the_checkpoint_passes_validation_up_to_what_it_was_never_taught():
    """Its weights are random, and nearly as good as chance: 263 tokens, most of them one byte."""
    report = validate_checkpoint(GPT2)
    assert report.failed == "baseline" and "compressor" in report.checks[-1].detail, report
    assert 6 < report.telemetry["bits_per_byte"] < 9


def test_every_byte_is_accounted_for_on_request():
    assert load_model(GPT2, verify=True).num_parameters() * 4 == (GPT2 / DATA).stat().st_size


def test_the_table_is_hugging_faces_with_other_names_and_one_dimension_more():
    """Both tables hold the same tensors, GPT-2's own; only the matrices have a first dimension of 1."""
    model = load_model(GPT2)
    theirs = export(model)
    rules = FAMILIES["gpt2"].weight_maps[1].expand(model.config)
    parameters = dict(model.named_parameters())
    pairs = zip([rule for rule in rules.values() if "output_head.weight" not in rule.targets], theirs, strict=True)
    for rule, name in pairs:
        tensor = rule.to_theirs([parameters[target] for target in rule.targets])
        assert torch.equal(tensor.squeeze(0) if rule.squeeze else tensor, theirs[name])
        assert rule.describe().startswith("squeeze, transpose") == rule.squeeze == (tensor.dim() == 3)


def test_a_head_of_its_own_is_missed_where_a_config_asks_for_one():
    error = refusal(GPT2, load_model(GPT2).config.to_hf() | {"tie_word_embeddings": False})
    assert error.what == "a tensor is missing" and "not tied" in error.cause


def test_a_config_that_is_handed_over_goes_before_hparams_json(tmp_path):
    folder, config = copy_of("gpt2", tmp_path), load_model(GPT2).config.to_hf() | {"layer_norm_epsilon": 0.5}
    (folder / "hparams.json").write_bytes(b"\xff not read")
    assert load_model(folder, config=config).config.layer_norm_epsilon == 0.5
    write_config(folder, config)
    assert load_model(folder).config.layer_norm_epsilon == 0.5


def test_hugging_faces_files_are_taken_where_there_are_both(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    save_checkpoint(load_model(GPT2), tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        shutil.copy(path, folder)
    assert load_model(folder).load_report.format == "safetensors"
    assert load_model(folder / INDEX).load_report.format == "tensorflow"
