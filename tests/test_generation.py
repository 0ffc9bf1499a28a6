"""Greedy is transformers' greedy, batches are their rows, and sampling follows its distribution."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_helpers import FAMILIES, CourseWarning, generate, load_model, stream
from course_helpers.generation import limit, sampler
from tests.tiny_models import CONFIGS, EXAMPLES, logits_of, ours, random_ids, theirs

MODELS = {family: ours(config) for family, config in EXAMPLES.items()}
every_family = pytest.mark.parametrize("family", FAMILIES)
with_and_without_cache = pytest.mark.parametrize("use_cache", [True, False])


def prompts_of(family: str, lengths: list[int], seed: int = 0) -> list[list[int]]:
    return [random_ids(EXAMPLES[family], 1, n, seed + i)[0].tolist() for i, n in enumerate(lengths)]


def by_hand(family: str, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding as one would write it down: the whole text through the model for every token."""
    for _ in range(count):
        prompt = [*prompt, int(logits_of(MODELS[family], torch.tensor([prompt]))[0, -1].argmax())]
    return prompt


@every_family
@settings(max_examples=15)
@given(data=st.data(), length=st.integers(1, 20), seed=st.integers(0, 99))
def test_greedy_is_the_greedy_of_transformers(family, data, length, seed):
    """With the cache and without it."""
    config = data.draw(CONFIGS[family])
    reference, prompt = theirs(config, seed), random_ids(config, 2, length, seed)
    model = load_model(reference, config=config)
    expected = reference.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=20,
        min_new_tokens=20,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=config.get("sliding_window") != 1,  # its cache keeps the last W - 1 positions as [-0:]: all of them
    )
    for use_cache in (True, False):
        assert torch.equal(generate(model, prompt, max_new_tokens=20, use_cache=use_cache), expected)


@every_family
@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_ragged_batch_is_its_rows_alone(family, lengths, seed):
    """With the cache and without it."""
    prompts = prompts_of(family, lengths, seed)
    expected = [by_hand(family, prompt, 12) for prompt in prompts]
    for use_cache in (True, False):
        assert generate(MODELS[family], prompts, max_new_tokens=12, use_cache=use_cache) == expected


@every_family
@with_and_without_cache
def test_stream_gives_what_generate_appends(family, use_cache):
    prompt = prompts_of(family, [5])[0]
    for options in (
        {},
        {"temperature": 1.0, "seed": 3},
        {"temperature": 1.0, "seed": 3, "top_k": 4, "top_p": 0.9},
    ):
        whole = generate(MODELS[family], [prompt], max_new_tokens=15, use_cache=use_cache, **options)[0]
        for form in (prompt, torch.tensor(prompt), torch.tensor([prompt])):
            streamed = list(stream(MODELS[family], form, max_new_tokens=15, use_cache=use_cache, **options))
            assert prompt + streamed == whole


@every_family
def test_stream_yields_each_token_before_the_next_is_computed(family):
    calls = []
    hook = MODELS[family].register_forward_hook(lambda *_: calls.append(1))
    tokens = stream(MODELS[family], [1, 2, 3], max_new_tokens=5)
    assert inspect.isgenerator(tokens) and [(next(tokens), len(calls))[1] for _ in range(3)] == [1, 2, 3]
    hook.remove()


@every_family
@pytest.mark.parametrize("form", [list, set, tuple, torch.tensor, iter])
def test_a_row_ends_after_its_first_stop_id(family, form):
    prompts = prompts_of(family, [3, 7, 5])
    whole = [by_hand(family, prompt, 12) for prompt in prompts]
    stops = [whole[0][3 + 4], whole[1][7 + 2]]
    expected = [
        row[: next((i + 1 for i in range(len(p), len(row)) if row[i] in stops), len(row))]
        for p, row in zip(prompts, whole, strict=True)
    ]
    assert generate(MODELS[family], prompts, max_new_tokens=12, stop_ids=form(stops)) == expected != whole
    assert prompts[0] + list(stream(MODELS[family], prompts[0], max_new_tokens=12, stop_ids=form(stops))) == expected[0]


@every_family
def test_a_stop_id_in_the_prompt_stops_nothing(family):
    prompt = prompts_of(family, [6])[0]
    whole = by_hand(family, prompt, 5)
    unseen = next(token for token in prompt if token not in whole[6:])
    assert generate(MODELS[family], [prompt], max_new_tokens=5, stop_ids=[unseen]) == [whole]


@every_family
def test_a_tensor_is_filled_up_with_the_stop_id_that_ended_each_row(family):
    prompts = random_ids(EXAMPLES[family], 3, 5)
    whole = [by_hand(family, row, 10)[5:] for row in prompts.tolist()]
    stop = whole[0][3]
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
    width = max(map(len, cut))
    expected = [p + row + [stop] * (width - len(row)) for p, row in zip(prompts.tolist(), cut, strict=True)]
    assert generate(MODELS[family], prompts, max_new_tokens=10, stop_ids=[stop]).tolist() == expected


@every_family
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_prompts_come_back_in_the_form_they_came_in(family, dtype):
    rows = prompts_of(family, [4, 4])
    together = generate(MODELS[family], torch.tensor(rows, dtype=dtype), max_new_tokens=3)
    apart = generate(MODELS[family], [torch.tensor(rows[0], dtype=dtype), tuple(rows[1])], max_new_tokens=3)
    assert isinstance(together, Tensor) and together.dtype == apart[0].dtype == dtype and together.shape == (2, 7)
    assert isinstance(apart, list) and isinstance(apart[1], list) and [apart[0].tolist(), apart[1]] == together.tolist()


@every_family
def test_prompts_are_not_modified(family):
    rows, tensor = prompts_of(family, [3, 5]), random_ids(EXAMPLES[family], 2, 4)
    kept, kept_tensor = [list(row) for row in rows], tensor.clone()
    generate(MODELS[family], rows, max_new_tokens=4)
    generate(MODELS[family], tensor, max_new_tokens=4)
    list(stream(MODELS[family], rows[0], max_new_tokens=4))
    assert rows == kept and torch.equal(tensor, kept_tensor)


@every_family
def test_no_new_tokens_gives_the_prompts_back(family):
    assert generate(MODELS[family], [[1, 2], [3]], max_new_tokens=0) == [[1, 2], [3]]


@every_family
def test_a_seed_repeats_a_sample_and_another_does_not(family):
    draws = [generate(MODELS[family], [[1, 2]], 20, temperature=1.5, seed=seed) for seed in (1, 1, 2, None, None)]
    assert draws[0] == draws[1] != draws[2] and draws[3] != draws[4]


@every_family
def test_sampling_leaves_the_global_random_state_alone(family):
    before = torch.get_rng_state()
    generate(MODELS[family], [[1, 2]], 5, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


@every_family
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"top_k": 0, "temperature": 1.0}, "top_k 1 or more"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p above 0"),
        ({"top_p": 1.1, "temperature": 1.0}, "top_p above 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(family, options, message):
    with pytest.raises(ValueError, match=message):
        generate(MODELS[family], [[1]], **options)
    with pytest.raises(ValueError, match=message):
        list(stream(MODELS[family], [1], **options))


@every_family
@pytest.mark.parametrize("prompts", [[], [[]], [[1], []], torch.zeros(1, 0, dtype=torch.int64)])
def test_an_empty_prompt_is_refused(family, prompts):
    with pytest.raises(ValueError, match="at least one token"):
        generate(MODELS[family], prompts)


@every_family
@pytest.mark.parametrize("prompts", [[1, 2, 3], torch.tensor([1, 2, 3])])
def test_a_single_flat_prompt_is_refused_in_words(family, prompts):
    with pytest.raises(ValueError, match=r"one sequence of ids a row.*\[prompt\]"):
        generate(MODELS[family], prompts)


def test_gpt2_refuses_to_generate_beyond_its_positions():
    with pytest.raises(ValueError, match="learned 64 positions"):
        next(stream(MODELS["gpt2"], [1] * 60, max_new_tokens=6))  # at once, not after five tokens
    assert len(generate(MODELS["gpt2"], [[1] * 60], max_new_tokens=5)[0]) == 65  # the last one needs no position


def test_llama_warns_before_it_writes_beyond_its_context():
    with pytest.warns(CourseWarning, match="66 tokens are more than the 64"):
        generate(MODELS["llama3"], [[1] * 60], max_new_tokens=7)


@every_family
def test_one_stop_id_may_be_a_number(family):
    prompt = prompts_of(family, [4])[0]
    stop = by_hand(family, prompt, 6)[-1]
    assert generate(MODELS[family], [prompt], 6, stop_ids=stop) == generate(
        MODELS[family], [prompt], 6, stop_ids=[stop]
    )


# --- sampling ---

rows_of_logits = st.lists(st.floats(-8, 8), min_size=1, max_size=12)


def kept_by_top_k(logits: list[float], k: int) -> list[bool]:
    """A token stays if fewer than k are likelier."""
    return [sum(other > value for other in logits) < k for value in logits]


def kept_by_top_p(logits: list[float], p: float) -> list[bool]:
    """A token stays if those likelier than it do not reach p by themselves."""
    weights = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
    return [sum(other for other in weights if other > own) < p for own in weights]


@given(logits=rows_of_logits, k=st.integers(1, 14))
def test_top_k_keeps_the_k_likeliest(logits, k):
    found = limit(torch.tensor([logits], dtype=torch.float64), k, None)[0]
    assert (found > -torch.inf).tolist() == kept_by_top_k(logits, k)


@given(logits=st.lists(st.integers(-80, 80), min_size=1, max_size=12, unique=True), p=st.floats(0.05, 0.97))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    values = [value / 10 for value in logits]
    found = limit(torch.tensor([values], dtype=torch.float64), None, p)[0]
    kept = found > -torch.inf
    assert kept.tolist() == kept_by_top_p(values, p)
    probabilities = torch.tensor(values, dtype=torch.float64).softmax(0)[kept].sort().values
    assert probabilities.sum() >= p - 1e-9 and probabilities[1:].sum() < p


@given(logits=rows_of_logits, k=st.integers(1, 14), p=st.floats(0.05, 1.0))
def test_limits_change_no_logit_that_they_keep(logits, k, p):
    before = torch.tensor([logits, logits[::-1]], dtype=torch.float64)
    after = limit(before.clone(), k, p)
    assert ((after == before) | after.isneginf()).all() and (after > -torch.inf).any(dim=1).all()


@pytest.mark.parametrize(("k", "p"), [(None, None), (4, None), (None, 0.7), (4, 0.8)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_and_limited_distribution(temperature, k, p):
    logits, count = torch.tensor([2.0, 1.5, 1.0, 0.2, -0.5, -3.0]), 20_000
    tempered = logits / temperature
    keep = torch.tensor(kept_by_top_k(tempered.tolist(), k or 6))
    tempered = tempered.masked_fill(~keep, -torch.inf)
    keep &= torch.tensor(kept_by_top_p(tempered.tolist(), p or 2.0))
    expected = tempered.masked_fill(~keep, -torch.inf).softmax(0)
    drawn = sampler(temperature, k, p, 0, torch.device("cpu"))(logits.expand(count, -1))
    found = torch.bincount(drawn, minlength=6) / count
    # Hoeffding: P(|found - expected| > t) <= 2 exp(-2 n t^2), below 1e-9 for this t.
    assert (found - expected).abs().max() < (21.5 / (2 * count)) ** 0.5
    assert (found[~keep] == 0).all()


def test_temperature_0_takes_the_likeliest_whatever_the_limits():
    logits = torch.randn(50, 9)
    assert torch.equal(sampler(0.0, 3, 0.5, 1, torch.device("cpu"))(logits), logits.argmax(-1))
