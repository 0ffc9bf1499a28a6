"""What weight-only int8 costs: loss on held-out stories, and predictions beside those of float32, on every checkpoint.

    python -m benchmarks.int8            a minute or two; writes benchmarks/results/int8.json and int8.md
    python -m benchmarks.int8 --quick    on few stories, to see whether it runs

Nothing is timed: on the same kind of machine, with the same versions, the figures come out the same. int8 weights are
computed with in bfloat16, which costs something of its own. So both are measured, and int8's weights in float32's
arithmetic, too: that is what the rounding of the weights costs alone.

Shape suffixes: N tokens of all texts, V vocabulary, O rows of a matrix, I inputs, k experts of a token.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.int8_table import LAST, table
from benchmarks.loading import machine
from course_helpers import load_model, load_tokenizer
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.experts import MixtureOfExperts
from course_helpers.architectures.packing import Int8Matrix
from course_helpers.dtypes import short
from course_helpers.families import FAMILIES
from course_helpers.labs.records import write_json, write_text
from course_helpers.loaders.sources import BUNDLED
from course_helpers.planning.forms import turned
from course_helpers.validation_layers.baseline import marked

RESULTS = Path(__file__).parent / "results"
STORIES, QUICK, BATCH = 200, 4, 50
HELD_OUT_SEED = 2  # that of checkpoints/build.py: no model has learned from these stories
SINGLE, BRAIN = torch.float32, torch.bfloat16
FORMS = ("float32", "bfloat16", "int8", LAST)


def held_out(count: int) -> list[str]:
    """The first of the stories that the checkpoints' cards were measured on."""
    sys.path.insert(0, str(BUNDLED))
    try:
        from stories import stories
    finally:
        sys.path.pop(0)
    return [story.text for story in stories(count, HELD_OUT_SEED)]


def written_out(matrix: Int8Matrix) -> Tensor:
    """(O, I), float32: the numbers that an int8 matrix stands for."""
    return matrix.whole_OI.float() * matrix.scale_O.float()[:, None]


def matrices(model: LanguageModel) -> Iterator[Tensor]:
    """Every matrix (O, I) that int8 rounds; of experts, each one's."""
    for parts, _ in turned(model):
        for part in parts:
            yield from part.detach() if part.dim() == 3 else (part.detach(),)


def weight_errors(model: LanguageModel) -> dict[str, float]:
    """How far int8 moves the weights of a bfloat16 model: in steps of their row's scale, and beside the weights."""
    largest, steps, errors, squares, count = 0.0, 0.0, 0.0, 0.0, 0
    for weight_OI in matrices(model):
        matrix = Int8Matrix(weight_OI)
        off_OI = (written_out(matrix).double() - weight_OI.double()).abs()
        in_steps_OI = off_OI / matrix.scale_O.double()[:, None]
        largest, steps = max(largest, in_steps_OI.max().item()), steps + in_steps_OI.sum().item()
        errors, squares = errors + off_OI.square().sum().item(), squares + weight_OI.double().square().sum().item()
        count += weight_OI.numel()
    return {"largest_in_steps": largest, "mean_in_steps": steps / count, "relative": math.sqrt(errors / squares)}


def models_of(folder: Path) -> dict[str, LanguageModel]:
    """One checkpoint in every form."""
    plain, mixed = load_model(folder, BRAIN), load_model(folder, SINGLE)
    with torch.no_grad():
        for weight_OI, values_OI in zip(matrices(mixed), matrices(plain), strict=True):
            weight_OI.copy_(written_out(Int8Matrix(values_OI)))
    both = load_model(folder, SINGLE), plain, load_model(folder, BRAIN, weights="int8"), mixed
    return dict(zip(FORMS, both, strict=True))


class Routing:
    """Remembers which experts a model's routers choose, as sets: (tokens, layers, experts of a token)."""

    def __init__(self, model: LanguageModel):
        self.chosen: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, MixtureOfExperts):
                module.router.register_forward_hook(self.hear(module.experts_per_token))

    def hear(self, count: int):
        def hook(router, inputs, scores_NX):
            self.chosen.append(scores_NX.float().topk(count).indices.sort().values)

        return hook

    def take(self, real_N: Tensor) -> Tensor | None:
        """What the last pass chose for the tokens that are no padding; None if there are no experts."""
        found, self.chosen = self.chosen, []
        return torch.stack([chosen_Nk[real_N] for chosen_Nk in found], dim=1) if found else None


@torch.inference_mode()
def predictions(model: LanguageModel, routing: Routing, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (N, V) in float64 for the token after each, text by text; and what the routers chose."""
    width = max(map(len, texts)) - 1
    # Padding on the right needs no mask: causal attention never lets a real token see it.
    ids_BT = torch.tensor([[*text[:-1], *[0] * (width - len(text) + 1)] for text in texts])
    real_BT = torch.tensor([[True] * (len(text) - 1) + [False] * (width - len(text) + 1) for text in texts])
    log_NV = model(ids_BT)[real_BT].double().log_softmax(dim=-1)
    return log_NV, routing.take(real_BT.flatten())


def compare(models: dict[str, LanguageModel], texts: Sequence[Sequence[int]]) -> dict[str, list[dict[str, Tensor]]]:
    """For every form and batch, token by token: the loss; by how much the likeliest token is less likely to float32
    than its own; the divergence from float32's prediction; whether the routers, layer by layer, chose other experts."""
    found: dict[str, list[dict[str, Tensor]]] = {form: [] for form in models}
    routings = {form: Routing(model) for form, model in models.items()}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        targets_N1 = torch.tensor([token for text in batch for token in text[1:]])[:, None]
        sure_NV, right = None, None
        for form, model in models.items():
            log_NV, chosen = predictions(model, routings[form], batch)
            if sure_NV is None:
                sure_NV, right = log_NV, chosen
            one = {"loss": -log_NV.gather(1, targets_N1)[:, 0]}
            first_N1 = log_NV.argmax(dim=-1, keepdim=True)
            one["behind"] = sure_NV.exp().amax(dim=-1) - sure_NV.exp().gather(1, first_N1)[:, 0]
            one["divergence"] = (sure_NV.exp() * (sure_NV - log_NV)).sum(dim=-1)
            if chosen is not None:
                one["flips"] = (chosen != right).any(dim=-1).double()  # (N, layers)
            found[form].append(one)
    return found


def figures(found: list[dict[str, Tensor]], sure: list[dict[str, Tensor]], lengths: Sequence[int]) -> dict:
    """The means over all tokens. The change of the loss is given with its standard error over the stories: a model may
    be better on some for no other reason than chance."""
    all_of = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    difference_N = all_of["loss"] - torch.cat([one["loss"] for one in sure])
    by_story = [part.sum().item() for part in difference_N.split([length - 1 for length in lengths])]
    loss, tokens = all_of["loss"].mean().item(), len(difference_N)
    error = statistics.stdev(by_story) * math.sqrt(len(by_story)) / tokens
    row = {"loss": loss, "perplexity": math.exp(loss), "loss_change": difference_N.mean().item(), "error": error}
    behind_N = all_of["behind"]
    row |= {"divergence": all_of["divergence"].mean().item(), "agrees": (behind_N == 0).double().mean().item()}
    row["behind"] = behind_N[behind_N > 0].mean().item() if (behind_N > 0).any() else 0.0
    if "flips" in all_of:
        flips_NL, flipped_N = all_of["flips"], all_of["flips"].any(dim=-1)
        row["other_experts"] = flips_NL.mean().item()
        for name, some_N in {"flipped": flipped_N, "not_flipped": ~flipped_N}.items():
            row[f"tokens_{name}"] = some_N.double().mean().item()
            row[f"divergence_{name}"] = all_of["divergence"][some_N].mean().item() if some_N.any() else None
    return row


def measure(name: str, stories: Sequence[str]) -> dict:
    """All figures of one bundled checkpoint."""
    folder = BUNDLED / name
    models, tokenizer = models_of(folder), load_tokenizer(folder)
    texts = [marked(tokenizer, story) for story in stories]
    found, lengths = compare(models, texts), [len(text) for text in texts]
    rows = {form: figures(found[form], found[FORMS[0]], lengths) for form in models}
    for form in FORMS[:3]:
        rows[form]["bytes"] = models[form].load_report.nbytes
    return {
        "checkpoint": name,
        "parameters": models[FORMS[0]].num_parameters(),
        "stored": short(load_model(folder).dtype),
        "tokens": sum(lengths) - len(lengths),
        "weights": weight_errors(models["bfloat16"]),
        "forms": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} stories instead of {STORIES}")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for int8.json and int8.md")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums depend on their number
    about = {name: value for name, value in machine().items() if name != "load_average"}
    stories = held_out(QUICK if chosen.quick else STORIES)
    checkpoints = []
    for name in (family.tiny for family in FAMILIES.values()):
        checkpoints.append(measure(name, stories))
        print(name, file=sys.stderr, flush=True)
    report = {"machine": about, "stories": len(stories), "checkpoints": checkpoints}
    write_json(chosen.output / "int8.json", report)
    write_text(chosen.output / "int8.md", text := table(report))
    print(text)


if __name__ == "__main__":
    main()
