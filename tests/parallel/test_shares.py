"""Who holds what: arithmetic, without any process."""

import dataclasses
import math
import re

import pytest
import torch

from course_helpers import FAMILIES, CheckpointError
from course_helpers.loaders.rules import Rule
from course_helpers.parallelism.apply import shares_of
from course_helpers.parallelism.plans import STYLES
from course_helpers.parallelism.reading import source_cut
from course_helpers.parallelism.shares import Cut, Share
from course_helpers.parallelism.styles import MAKERS
from course_helpers.sizes import on_meta
from tests.new_family.qwen2 import QWEN2, SMALLEST, Qwen2Model

PRESETS = [pytest.param(family, hub_id, id=hub_id) for family in FAMILIES.values() for hub_id in family.presets]


def whole(family, hub_id):
    return on_meta(family.model, family.presets[hub_id])


def allowed(model, size: int) -> bool:
    """Whether a released model can be cut, from its config alone."""
    config = model.config
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    widths = [size for name, size in vars(config).items() if name in ("intermediate_size", "n_inner", "num_experts")]
    return (
        not heads % size
        and shared % size in (0, shared)
        and size % min(shared, size) == 0
        and not any(width % size for width in widths)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize(("family", "hub_id"), PRESETS)
def test_every_released_model_is_cut_completely_or_refused(family, hub_id, size):
    """The parts of all ranks, put together, are every parameter; parts are equal, but for the vocabulary's."""
    model = whole(family, hub_id)
    if not allowed(model, size):
        with pytest.raises(CheckpointError, match=f"cannot be cut into {size} equal parts"):
            shares_of(model, size)
        return
    shares = shares_of(model, size)
    assert shares.keys() == dict(model.named_parameters()).keys()
    for name, values in model.named_parameters():
        cuts = [shares[name].cut(values.shape, rank, size) for rank in range(size)]
        if shares[name].dim is None:
            assert set(cuts) == {None}
            continue
        distinct = list(dict.fromkeys(cuts))
        assert [cut.start for cut in distinct] == [0, *(cut.stop for cut in distinct[:-1])]
        assert distinct[-1].stop == values.shape[shares[name].dim]
        assert shares[name].style.uneven or len({cut.stop - cut.start for cut in cuts}) == 1


@pytest.mark.parametrize(("heads", "shared", "size"), [(8, 2, 4), (8, 4, 8), (4, 1, 2), (16, 8, 4), (6, 3, 6)])
def test_query_heads_lie_with_the_heads_they_ask(heads, shared, size):
    """Query head h asks key/value head h // (heads / shared): in every rank, the one that is there."""
    for rank in range(size):
        queries = Share("", "query heads", 0, size).cut((heads,), rank, size)
        keys = Share("", "key/value heads", 0, math.gcd(shared, size)).cut((shared,), rank, size)
        asked = {head * shared // heads for head in range(queries.start, queries.stop)}
        assert asked == set(range(keys.start, keys.stop))


@pytest.mark.parametrize(("rows", "size"), [(61, 2), (61, 4), (50257, 8), (5, 4), (3, 4)])
def test_parts_are_those_that_torch_makes(rows, size):
    """Where the number of rows is no multiple, too. DTensor cuts as `torch.chunk` does."""
    chunks = torch.arange(rows).chunk(size)
    for rank in range(size):
        cut = Share("", "vocabulary", 0, size).cut((rows, 3), rank, size)
        expected = chunks[rank].tolist() if rank < len(chunks) else []  # DTensor gives the last ranks nothing, too
        assert list(range(cut.start, cut.stop)) == expected and cut.shape((rows, 3)) == (len(expected), 3)


def test_the_longest_row_holds():
    """Layers with experts and without, in one model: the row for a mixture does not reach into a dense layer."""
    family = FAMILIES["qwen3_moe"]
    config = dataclasses.replace(next(iter(family.presets.values())), mlp_only_layers=(1,))
    shares = shares_of(on_meta(family.model, config), 2)
    assert shares["blocks.0.feed_forward.experts.gate_up"].style_name == "experts"
    assert shares["blocks.0.feed_forward.router.weight"].style_name == "copy"
    assert shares["blocks.1.feed_forward.gate.weight"].style_name == "columns"


def test_impossible_numbers_are_refused_with_those_that_are_possible():
    model = whole(FAMILIES["gpt2"], "openai-community/gpt2")  # 12 heads
    with pytest.raises(CheckpointError) as refusal:
        shares_of(model, 8)
    assert refusal.value.tensor == "blocks.0.attention.query.weight" and refusal.value.found == "12 heads"
    assert refusal.value.next_step == "start 1, 2, 3, 4, 6 or 12 processes"


def test_a_parameter_without_a_row_is_refused(monkeypatch):
    """A module that was forgotten would be whole in every rank, and the sums over the ranks wrong."""
    family = FAMILIES["olmo3"]
    plan = {row: style for row, style in family.parallel.items() if not row.endswith("query_norm")}
    monkeypatch.setitem(FAMILIES, "olmo3", dataclasses.replace(family, parallel=plan))
    with pytest.raises(CheckpointError, match="does not say how") as refusal:
        shares_of(whole(family, "allenai/Olmo-3-1025-7B"), 2)
    assert refusal.value.tensor == "blocks.0.attention.query_norm.weight"


def test_a_family_from_outside_without_a_plan_is_refused_and_with_one_is_cut(monkeypatch):
    monkeypatch.setitem(FAMILIES, "qwen2", dataclasses.replace(QWEN2, parallel={}))
    model = on_meta(Qwen2Model, SMALLEST)
    with pytest.raises(CheckpointError, match="does not say how"):
        shares_of(model, 2)
    monkeypatch.setitem(FAMILIES, "qwen2", QWEN2)
    assert shares_of(model, 2)["blocks.0.attention.query.bias"].cut((896,), 1, 2) == Cut(0, 448, 896)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_row_is_for_nothing(name):
    """A row that leads to no parameter is one that nobody checks. Heads of their own and dense layers count."""
    family = FAMILIES[name]
    modules = set()
    for config in family.presets.values():
        for varied in (config, dataclasses.replace(config, tie_word_embeddings=False)):
            if hasattr(varied, "mlp_only_layers"):
                varied = dataclasses.replace(varied, mlp_only_layers=(1,))
            shares = shares_of(on_meta(family.model, varied), 1)
            modules |= {re.sub(r"\.\d+\.", ".*.", share.module) for share in shares.values()}
    assert modules == family.parallel.keys()


def test_every_style_has_its_maker_and_every_row_its_style():
    assert MAKERS.keys() == STYLES.keys()
    assert {style for family in FAMILIES.values() for style in family.parallel.values()} == STYLES.keys()


def test_a_fused_tensor_is_cut_where_its_parts_are():
    """GPT-2's query, key and value in one matrix, stored transposed: the columns of the second third's second half."""
    shapes = [torch.Size((8, 8))] * 3
    rule = Rule(("q", "k", "v"), transpose=True)
    assert source_cut(rule, 1, shapes, Cut(0, 4, 8)) == Cut(1, 12, 16)
    assert source_cut(rule, 2, shapes, None) == Cut(1, 16, 24)
    assert source_cut(Rule(("w",), transpose=True, squeeze=True), 0, shapes[:1], Cut(1, 4, 8)) == Cut(1, 4, 8)
    assert source_cut(Rule(("w",)), 0, shapes[:1], Cut(1, 4, 8)) == Cut(1, 4, 8)
    assert source_cut(Rule(("w",)), 0, shapes[:1], None) is None
