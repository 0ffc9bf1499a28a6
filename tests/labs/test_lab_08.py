"""M9-LAB-08: its patients are ill as it says, its treatments do what they say, its exercise checks diagnose."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from course_helpers import CheckpointError, load_model, load_tokenizer, open_checkpoint, validate_checkpoint
from course_helpers.labs import ExerciseHint, lab_08_charts, lab_08_figures
from course_helpers.labs.lab_08 import (
    DEPARTMENTS,
    FORMAT,
    SHAPE,
    SILENT,
    TOKENIZER,
    TYPE,
    admit,
    different_files,
    edit_json,
    every,
    exchanged,
    healthy_copy,
    listed,
    rebuild_index,
    strangers,
)
from course_helpers.labs.lab_08_exercises import (
    DAMAGED,
    SYMMETRIC,
    TURNED,
    check_diagnose,
    check_patient,
    check_transposed_squares,
    good_model,
    off_by,
)
from course_helpers.labs.lab_08_patients import MYSTERIES, RARE, WEB_PAGE, cases, in_pairs, renamed_shard
from course_helpers.loaders.sources import BUNDLED
from tests.formats import in_pairs as oracle_in_pairs

ALL = cases("tiny-llama3") | MYSTERIES
#: Where each kind of patient is noticed first. Only what a card tells is left to the last layer.
LAYERS = {
    FORMAT: {"files"},
    SHAPE: {"shapes"},
    TYPE: {"shapes", "forward"},
    TOKENIZER: {"generation"},
    SILENT: {"shapes"},
}


def test_there_are_patients_of_every_department_and_family():
    assert len(cases("tiny-llama3")) >= 14
    assert {case.department for case in ALL.values()} == set(DEPARTMENTS)
    assert {case.source for case in ALL.values()} == {folder.name for folder in BUNDLED.glob("tiny-*")}
    assert len({case.truth for case in ALL.values()}) == len(ALL)


@pytest.mark.parametrize("number", ALL)
def test_every_patient_is_ill_where_it_should_be(number, tmp_path):
    case = ALL[number]
    patient = admit(tmp_path, {number: case})[number]
    if case.department in (TOKENIZER, SILENT) and number not in ("02", "13"):
        assert off_by(patient.folder, first=3) > 0.0005
    else:
        assert validate_checkpoint(patient.folder, patient.dtype).failed in LAYERS[case.department]
    assert different_files(patient.folder, BUNDLED / case.source)
    assert listed(patient.folder, BUNDLED / case.source)


def test_a_healthy_copy_is_healthy_and_lists_no_hashes(tmp_path):
    folder = healthy_copy("tiny-qwen3", tmp_path / "well")
    assert different_files(folder, BUNDLED / "tiny-qwen3") == []
    assert json.loads((folder / "card.json").read_text()).keys() == {"baseline"}
    assert not listed(folder, BUNDLED / "tiny-qwen3")
    assert json.loads((folder / "card.json").read_text()).keys() == {"baseline"}, "the card is put back"
    assert off_by(folder) < 1e-4


def test_without_a_card_the_baseline_is_measured(tmp_path):
    bare = Path(shutil.copytree(BUNDLED / "tiny-qwen3", tmp_path / "bare", ignore=shutil.ignore_patterns("card.json")))
    folder = healthy_copy(str(bare), tmp_path / "well")
    card = json.loads((folder / "card.json").read_text())["baseline"]
    assert card["texts"] and len(card["loss_per_text"]) == len(card["texts"])
    assert off_by(folder) < 1e-4
    assert different_files(folder, bare) == []  # the original has no card: its files themselves are looked at
    edit_json(folder, rms_norm_eps=1e-5)
    (folder / "vocab.json").unlink()
    assert sorted(different_files(folder, bare)) == ["config.json", "vocab.json"]
    assert strangers(folder, bare) == []
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert strangers(folder, bare) == [folder / "pytorch_model.bin"]


def test_treatments_change_what_they_say_and_nothing_else(tmp_path):
    folder = healthy_copy("tiny-llama2", tmp_path / "one")
    before = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    every("layers.1.self_attn.q_proj", lambda weight: weight.T)(folder)
    exchanged("layers.0.", "layers.2.")(folder)
    after = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert [list(held) for held in before] == [list(held) for held in after]
    merged, changed = before[0] | before[1], after[0] | after[1]
    for name, tensor in merged.items():
        other = re.sub(r"layers\.([02])\.", lambda match: f"layers.{2 - int(match[1])}.", name)
        expected = tensor.T if "layers.1.self_attn.q_proj" in name else tensor
        assert torch.equal(changed[other], expected)
    exchanged("layers.0.", "layers.2.")(folder)
    every("layers.1.self_attn.q_proj", lambda weight: weight.T)(folder)
    assert different_files(folder, BUNDLED / "tiny-llama2") == []

    for treatment in (every("no such tensor", torch.clone), exchanged("no such", "tensor")):
        with pytest.raises(LookupError, match="no such"):
            treatment(folder)


def test_rows_in_pairs_are_those_of_meta():
    weight = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(in_pairs(weight), oracle_in_pairs(weight, 32))


def test_a_rebuilt_index_finds_every_tensor(tmp_path):
    folder = healthy_copy("tiny-qwen3-moe", tmp_path / "one")
    original = json.loads((folder / "model.safetensors.index.json").read_text())
    renamed_shard(folder)
    with pytest.raises(CheckpointError, match="a shard is missing"):
        open_checkpoint(folder)
    index = json.loads(rebuild_index(folder).read_text())
    assert index["metadata"]["total_size"] == original["metadata"]["total_size"]
    assert index["weight_map"].keys() == original["weight_map"].keys()
    with open_checkpoint(folder) as checkpoint, open_checkpoint("tiny-qwen3-moe") as good:
        assert all(torch.equal(checkpoint.read(name), good.read(name)) for name in good.names())


def test_the_pickle_would_run_code_and_ours_does_not(tmp_path, capsys):
    patient = admit(tmp_path, {"07": ALL["07"]})["07"]
    with pytest.raises(CheckpointError, match="before anything ran"):
        load_model(patient.folder)
    assert "weights file" not in capsys.readouterr().out
    torch.load(patient.folder / "pytorch_model.bin", weights_only=False)
    assert "this line was printed by a weights file" in capsys.readouterr().out


def test_only_float16_overflows(tmp_path):
    patient = admit(tmp_path, {"03": ALL["03"]})["03"]
    for dtype, fits in ((torch.float16, False), (torch.bfloat16, True), (torch.float32, True)):
        assert bool(load_model(patient.folder, dtype)(torch.arange(32)[None]).isfinite().all()) == fits
    assert off_by(patient.folder) < 0.0005


def test_the_rare_token_is_one_and_in_no_text_of_the_card():
    tokenizer = load_tokenizer("tiny-qwen3-moe")
    (token,) = tokenizer.encode(RARE)
    card = json.loads((BUNDLED / "tiny-qwen3-moe" / "card.json").read_text())
    texts = [*card["baseline"]["texts"], *(sample["text"] for sample in card["greedy"])]
    assert all(token not in tokenizer.encode(text) for text in texts) and token > 32


def test_the_web_page_begins_as_one():
    assert WEB_PAGE.startswith("<!DOCTYPE")
    assert int.from_bytes(WEB_PAGE.encode()[:8], "little") > 5 * 10**18


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def squares(sick, good):
    reference = dict(good.named_parameters())
    return [
        name
        for name, found in sick.named_parameters()
        if found.dim() == 2 and not torch.equal(found, reference[name]) and torch.equal(found, reference[name].T)
    ]


def mends(sick, good):
    found = squares(sick, good)
    with torch.no_grad():
        sick.get_parameter(found[0]).copy_(good.get_parameter(found[0]))
    return found


def subtracts(sick, good):
    pairs = zip(sick.named_parameters(), good.parameters(), strict=True)
    return [name for (name, one), other in pairs if (one - other.T).abs().max() == 0]


def any_equal_to_the_transpose(sick, good):
    reference = dict(good.named_parameters())
    return [
        name for name, found in sick.named_parameters() if found.dim() == 2 and torch.equal(found, reference[name].T)
    ]


def vectors_too(sick, good):
    reference = dict(good.named_parameters())
    return [name for name, found in sick.named_parameters() if torch.equal(found, reference[name].t())]


def all_that_differ(sick, good):
    reference = dict(good.named_parameters())
    return [name for name, found in sick.named_parameters() if not torch.equal(found, reference[name])]


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (subtracts, "Not every matrix is square"),
        (lambda sick, good: TURNED[0], "in a list"),
        (lambda sick, good: [*TURNED, "lm_head"], "no parameter called 'lm_head'"),
        (mends, "one of the models was changed"),
        (vectors_too, "is a vector"),
        (any_equal_to_the_transpose, f"{SYMMETRIC} is equal to the good one as it is"),
        (all_that_differ, f"{DAMAGED} differs, but not by being turned"),
        (lambda sick, good: [*TURNED, "blocks.1.feed_forward.up.weight"], "up.weight is not turned over"),
        (lambda sick, good: [], "nothing was found"),
        (lambda sick, good: squares(sick, good)[:1], f"{TURNED[1]}. Go through all"),
        (lambda sick, good: list(TURNED), "two equal models"),
    ],
)
def test_exercise_1_hints(wrong, advice):
    with pytest.raises(ExerciseHint, match=advice.replace(".", r"\.")):
        check_transposed_squares(wrong)


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_exercise_1_right(kind, capsys):
    check_transposed_squares(lambda sick, good: kind(squares(sick, good)))
    assert "right" in capsys.readouterr().out


def test_the_symmetric_matrix_of_exercise_1_is_one():
    square = good_model().get_parameter(SYMMETRIC)
    assert torch.equal(square, square.T) and square.abs().max() > 0


RIGHT = {
    "X": (SILENT, "blocks.2.feed_forward.gate.weight"),
    "Y": (TOKENIZER, "tokenizer.json"),
    "Z": (SILENT, "rope_scaling"),
}


def diagnoses(**changes):
    return lambda patients: RIGHT | changes


@pytest.mark.parametrize("place", ["blocks.2.feed_forward.up.weight", "model.layers.2.mlp.gate_proj.weight"])
def test_exercise_2_right(place, capsys):
    check_diagnose(diagnoses(X=(SILENT, place)), {})
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda patients: [SILENT], "expected a dict"),
        (lambda patients: {"X": RIGHT["X"]}, "Y has no diagnosis"),
        (diagnoses(X=SILENT), "say \\(department, place\\)"),
        (diagnoses(X=("weights", "gate")), "'weights' is no department"),
        (diagnoses(X=(SHAPE, "gate")), "X is not a case for 'shape'.*inside the model"),
        (diagnoses(X=(SILENT, "blocks.3.feed_forward.gate.weight")), "counted from 0"),
        (diagnoses(X=(SILENT, "model.safetensors")), "the first that is not ok"),
        (diagnoses(Y=(SILENT, "tokenizer.json")), "equal to the good one, to the bit"),
        (diagnoses(Y=(TOKENIZER, "vocab.json")), "vocab.json is the good copy's, byte for byte"),
        (diagnoses(Y=(TOKENIZER, "the merges")), "by hash"),
        (diagnoses(Z=(TYPE, "rope_scaling")), "Which department is left"),
        (diagnoses(Z=(SILENT, "rotary_embeddings.full_attention")), "that is where it shows"),
        (diagnoses(Z=(SILENT, "rope_theta")), "the base is right"),
        (diagnoses(Z=(SILENT, "sliding_window")), "field by field"),
    ],
)
def test_exercise_2_hints(wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_diagnose(wrong, {})


def test_what_the_hints_of_exercise_2_say_is_true(tmp_path):
    mysteries = admit(tmp_path, MYSTERIES)
    changed = {letter: different_files(one.folder, BUNDLED / one.source) for letter, one in mysteries.items()}
    assert changed["Y"] == ["tokenizer.json"] and changed["Z"] == ["config.json"]
    folders = tmp_path / "Z", BUNDLED / "tiny-olmo3"
    sick, good = (json.loads((folder / "config.json").read_text()) for folder in folders)
    assert [name for name in good if good[name] != sick[name]] == ["rope_scaling"]


def harm(folder):
    exchanged("q_norm", "k_norm")(folder)


def catches(folder):
    return off_by(folder, first=3) > 0.0005


def of_one_number(folder):
    """A doctor who knows Qwen3's loss by heart."""
    card = json.loads((folder / "card.json").read_text())["baseline"]
    return abs(card["loss_per_token"] - 0.2354) > 0.001 or catches(folder)


def of_bytes(folder):
    """A doctor who compares files with the originals."""
    tied = json.loads((folder / "config.json").read_text())["model_type"]
    return bool(different_files(folder, BUNDLED / {"llama": "tiny-llama3"}.get(tied, "tiny-qwen3")))


def deaf(folder):
    return off_by(folder, first=3) > 0.01


def without_its_tokenizer(folder):
    """A doctor who brings a tokenizer along."""
    from course_helpers.validation_layers.baseline import losses

    card = json.loads((folder / "card.json").read_text())["baseline"]
    family = "tiny-llama3" if "llama" in (folder / "config.json").read_text() else "tiny-qwen3"
    found, _ = losses(load_model(folder, torch.float32), load_tokenizer(family), card["texts"][:1])
    return abs(found[0] - card["loss_per_text"][0]) > 0.0005


def strict(folder):
    if catches(folder):
        raise CheckpointError("this one is ill")
    return False


def cuts(folder):
    every("q_proj", lambda weight: weight[:-1])(folder)


def other_card(folder):
    harm(folder)
    (folder / "card.json").write_text("{}")


def hardly(folder):
    edit_json(folder, rms_norm_eps=1.1e-6)


def test_exercise_3_right(tmp_path, capsys):
    check_patient(harm, catches, tmp_path)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("disease", "doctor", "advice"),
    [
        (empty, catches, "still empty"),
        (harm, empty, "still empty"),
        (harm, silent, "return statement"),
        (cuts, catches, "your patient is refused"),
        (other_card, catches, "changed card.json"),
        (lambda folder: None, catches, "as well as before"),
        (hardly, catches, "no more than rounding"),
        (harm, lambda folder: 1.0, "True or False, not a float"),
        (harm, lambda folder: True, "an untouched copy"),
        (harm, lambda folder: False, "your own patient, and your doctor lets it go"),
        (harm, of_one_number, "another family"),
        (harm, of_bytes, "only saved again"),
        (harm, without_its_tokenizer, "use the tokenizer of the folder"),
        (harm, deaf, "another epsilon"),
        (harm, strict, "what does a refusal say"),
    ],
)
def test_exercise_3_hints(disease, doctor, advice, tmp_path):
    with pytest.raises(ExerciseHint, match=advice):
        check_patient(disease, doctor, tmp_path)


def alt(image):
    return image._repr_mimebundle_()[1]["image/png"]["alt"]


def test_figures_say_in_words_what_they_show():
    assert "until it passes" in alt(lab_08_figures.the_way())
    tree = alt(lab_08_figures.decision_tree())
    assert "first_mismatch" in tree and "healthy as far as anybody can tell" in tree
    room = alt(lab_08_figures.waiting_room({"05 tiny-gpt2": "refused: a shard", "16 tiny-qwen3": "Once\x07 upon"}))
    assert "2 cards" in room and "05 tiny-gpt2: refused: a shard" in room


def test_charts_say_their_numbers():
    loud = alt(lab_08_charts.loudness({"a": 0.00116, "b": 916.3}, {"a": False, "b": True}, 0.0005))
    assert "a 0.00116 nats, only the card tells; b 916 nats, also seen without a card" in loud
    counts = {"files": {FORMAT: 4}, "baseline": {TOKENIZER: 2, SILENT: 7}}
    tools = {"files": "open_checkpoint", "baseline": "losses"}
    noticed = alt(lab_08_charts.who_noticed(counts, tools, {"files": 1.2, "baseline": 222.0}))
    assert "files: 4 (4 file format), 1 ms" in noticed and "baseline: 9 (2 tokenizer, 7 silent), 222 ms" in noticed
