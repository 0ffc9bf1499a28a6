"""The tables that pair tensors: complete, one to one, and reversible."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES, load_model
from course_helpers.families import family_of
from course_helpers.loaders.rules import Rule, WeightMap
from course_helpers.loaders.weight_maps import GPT2
from tests.tiny_models import CONFIGS, EXAMPLES, ours, same_parameters, theirs

every_family = pytest.mark.parametrize("family", FAMILIES)


def table_of(data: dict) -> tuple[WeightMap, dict[str, Rule], dict[str, torch.Size]]:
    family = family_of(data)
    config = family.config.from_hf(data)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in family.model(config).named_parameters()}
    return family.weight_maps[0], family.weight_maps[0].expand(config), shapes


@every_family
@settings(max_examples=25)
@given(data=st.data())
def test_each_parameter_is_the_target_of_exactly_one_tensor(family, data):
    """Or of as many tensors as it has parts, which fill it without a gap: the matrices of experts."""
    config = data.draw(CONFIGS[family])
    _, rules, shapes = table_of(config)
    parameters = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for rule in rules.values():
        for target in rule.targets:
            if target in parameters:
                rule.region(parameters[target]).add_(1)
    assert all((parameter == 1).all() for parameter in parameters.values())


@every_family
@settings(max_examples=25)
@given(data=st.data())
def test_the_table_names_the_tensors_that_transformers_has_in_their_shapes(family, data):
    config = data.draw(CONFIGS[family])
    config |= {"tie_word_embeddings": False}
    _, _, shapes = table_of(config)
    expected = {name: tuple(tensor.shape) for name, tensor in theirs(config).state_dict().items()}
    row = family_of(config)
    layouts = [
        weight_map.expand(row.config.from_hf(config), trunk)
        for weight_map in row.weight_maps
        for trunk in weight_map.trunks
    ]
    found = [
        {
            name: tuple(rule.source_shape([shapes[target] for target in rule.targets]))
            for name, rule in layout.items()
            if set(rule.targets) <= shapes.keys()
        }
        for layout in layouts
    ]
    assert expected in found


@every_family
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 99))
def test_what_is_read_can_be_written_back_to_the_bit(family, data, seed):
    _, rules, shapes = table_of(data.draw(CONFIGS[family]))
    generator = torch.Generator().manual_seed(seed)
    for rule in rules.values():
        if rule.targets[0] not in shapes:
            continue  # a tied head, or a part that this layer does not have
        sizes = [shapes[target] for target in rule.targets]
        tensor = torch.randn(rule.source_shape(sizes), generator=generator)
        parameters = [torch.zeros(size) for size in sizes]
        for parameter, values in zip(parameters, rule.to_ours(tensor, sizes), strict=True):
            rule.region(parameter).copy_(values)
        assert torch.equal(rule.to_theirs(parameters), tensor)


@given(
    heights=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    width=st.none() | st.integers(1, 6),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_rule_is_its_own_inverse(heights, width, turned, seed):
    sizes = [torch.Size((height,) if width is None else (height, width)) for height in heights]
    rule = Rule(tuple(f"p{i}" for i in range(len(sizes))), transpose=turned and width is not None)
    parameters = list(
        torch.randn(sum(s.numel() for s in sizes), generator=torch.Generator().manual_seed(seed)).split(
            [s.numel() for s in sizes]
        )
    )
    parameters = [p.view(s) for p, s in zip(parameters, sizes, strict=True)]
    whole = rule.to_theirs(parameters)
    assert tuple(whole.shape) == tuple(rule.source_shape(sizes))
    assert all(torch.equal(a, b) for a, b in zip(rule.to_ours(whole, sizes), parameters, strict=True))


def test_gpt2_matrices_are_turned_and_cut_as_its_conv1d_stores_them():
    reference, model = theirs(EXAMPLES["gpt2"]), ours(EXAMPLES["gpt2"])
    attention, fused = model.blocks[1].attention, reference.transformer.h[1].attn.c_attn
    for index, part in enumerate((attention.query, attention.key, attention.value)):
        assert torch.equal(part.weight, fused.weight[:, 16 * index : 16 * (index + 1)].T)
        assert torch.equal(part.bias, fused.bias[16 * index : 16 * (index + 1)])
    assert torch.equal(attention.output.weight, reference.transformer.h[1].attn.c_proj.weight.T)


def test_llama_matrices_are_taken_as_they_are():
    reference, model = theirs(EXAMPLES["llama3"]), ours(EXAMPLES["llama3"])
    layer, block = reference.model.layers[1], model.blocks[1]
    assert torch.equal(block.feed_forward.gate.weight, layer.mlp.gate_proj.weight)
    assert torch.equal(block.feed_forward.up.weight, layer.mlp.up_proj.weight)
    assert torch.equal(block.attention.key.weight, layer.self_attn.k_proj.weight)


@every_family
def test_either_trunk_prefix_is_understood(family):
    reference, model = theirs(EXAMPLES[family]), ours(EXAMPLES[family])
    trunk = reference.base_model.state_dict()
    head = {"lm_head.weight": reference.state_dict()["lm_head.weight"]}
    for tensors in (reference.state_dict(), trunk | head):
        assert same_parameters(load_model(tensors, config=EXAMPLES[family]), model)


#: Constants that old files carry, and the map that must leave them out.
CONSTANTS = {
    "gpt2": (GPT2, ["transformer.h.{layer}.attn.bias", "transformer.h.{layer}.attn.masked_bias"]),
} | {
    family: (row.weight_maps[0], ["model.layers.{layer}.self_attn.rotary_emb.inv_freq"])
    for family, row in FAMILIES.items()
    if family != "gpt2"
}


@every_family
def test_constants_in_old_files_are_left_out_with_a_reason(family):
    weight_map, patterns = CONSTANTS[family]
    model = ours(EXAMPLES[family])
    positions, pairs = model.config.max_position_embeddings, model.config.head_dim // 2
    values = {
        "attn.bias": torch.tril(torch.ones(1, 1, positions, positions)),
        "masked_bias": torch.tensor(-1e4),
        "inv_freq": (EXAMPLES[family].get("rope_theta") or 1.0) ** -(torch.arange(pairs) / pairs),
    }
    constants = {
        pattern.format(layer=layer): next(value for end, value in values.items() if pattern.endswith(end))
        for pattern in patterns
        for layer in (0, 1)
    }
    tensors = theirs(EXAMPLES[family]).state_dict() | constants
    model = load_model(tensors, config=EXAMPLES[family])
    assert same_parameters(model, ours(EXAMPLES[family]))
    assert constants.keys() <= model.load_report.dropped.keys()
    reasons = {reason for pattern, reason in weight_map.dropped.items() if not pattern.endswith("*")}
    assert reasons <= set(model.load_report.dropped.values())
    assert all(f"{name}  " in str(model.load_report) for name in constants)


@every_family
@pytest.mark.parametrize("tied", [True, False])
def test_the_report_accounts_for_every_tensor_on_both_sides(family, tied):
    reference = theirs(EXAMPLES[family] | {"tie_word_embeddings": tied})
    model = load_model(reference)
    report, parameters = model.load_report, dict(model.named_parameters())
    sources, targets = [row.source for row in report.rows], [t for row in report.rows for t in row.targets]
    assert sorted([*sources, *report.dropped]) == sorted(reference.state_dict())
    assert sorted(targets) == sorted(parameters)
    assert report.parameters == model.num_parameters() == sum(p.numel() for p in parameters.values())
    assert report.nbytes == 4 * report.parameters
    assert report.layout == ("transformers 5, fused experts" if "num_experts" in EXAMPLES[family] else "huggingface")
    assert ("lm_head.weight" in report.dropped) == tied
    assert all(name in str(report) for name in reference.state_dict()) and "MiB as float32" in report.summary()


def per_expert(tensors: dict) -> dict:
    """A state dict of transformers 5 as the hub has it: three matrices an expert."""
    result = {}
    for name, tensor in tensors.items():
        for expert, matrix in enumerate(tensor) if ".experts." in name else ():
            place = f"{name.rpartition('.')[0]}.{expert}"
            if name.endswith("gate_up_proj"):
                half = len(matrix) // 2
                result |= {f"{place}.gate_proj.weight": matrix[:half], f"{place}.up_proj.weight": matrix[half:]}
            else:
                result[f"{place}.down_proj.weight"] = matrix
        if ".experts." not in name:
            result[name] = tensor
    return result


@pytest.mark.parametrize("strategy", ["naive", "sequential", "mmap", "stream"])
def test_experts_one_by_one_and_fused_are_one_model(strategy):
    tensors = theirs(EXAMPLES["qwen3_moe"]).state_dict()
    fused = load_model(tensors, config=EXAMPLES["qwen3_moe"], strategy=strategy)
    single = load_model(per_expert(tensors), config=EXAMPLES["qwen3_moe"], strategy=strategy)
    assert same_parameters(fused, single) and single.load_report.layout == "huggingface"
    assert torch.equal(
        single.blocks[0].feed_forward.experts.gate_up, tensors["model.layers.0.mlp.experts.gate_up_proj"]
    )


@pytest.mark.parametrize("trunk", ["language_model.model.", "model.language_model."])
def test_the_language_part_of_a_multimodal_checkpoint_is_found(trunk):
    tensors = theirs(EXAMPLES["gemma3"]).state_dict()
    renamed = {name.replace("model.", trunk, 1): value for name, value in tensors.items() if "lm_head" not in name}
    seeing = {"vision_tower.encoder.weight": torch.zeros(2), "multi_modal_projector.norm.weight": torch.zeros(2)}
    outer = {"model_type": "gemma3", "text_config": EXAMPLES["gemma3"]}
    model = load_model(renamed | seeing, config=outer)
    assert same_parameters(model, ours(EXAMPLES["gemma3"]))
    assert seeing.keys() <= model.load_report.dropped.keys()
    assert "sees pictures" in model.load_report.dropped["vision_tower.encoder.weight"]
