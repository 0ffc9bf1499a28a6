"""Train a tiny model of a family on our stories and save it as that family's checkpoints are saved.

    python checkpoints/build.py tiny-gpt2              a quarter of an hour on one core; no network, no GPU
    python checkpoints/build.py tiny-llama3 --steps 20 --output FOLDER      a quick try, elsewhere
    python checkpoints/build.py tiny-llama3 --first FOLDER                  only the second course, on what is there
    python checkpoints/build.py tiny-llama3 --card                          only the card, of the model that is there

The same recipe gives the same tokenizer, the same corpus and, on the same kind of machine with the same versions,
the same weights. `card.json` beside the weights says how they came about and how good they are.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import stories
import torch
from lessons import BATCH_SIZE, SEED, Batch, SecondCourse, lessons, marked
from recipes import RECIPES
from story_parser import parse
from tqdm import tqdm

from course_helpers import generate, load_model, load_tokenizer, save_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.families import family_of
from course_helpers.labs.records import write_json
from course_helpers.loaders.manifest_files import MANIFEST, sha256
from course_helpers.tokenizers import Tokenizer
from course_helpers.training import TrainingSettings, initialize, text_loss, train
from course_helpers.validation_layers import baseline
from course_helpers.validation_layers.baseline import greedy_text

HERE = Path(__file__).resolve().parent
PROMPTS = ("Once upon a time", "One sunny morning", "Mia had a red kite")
NEW_TOKENS = 140
CONTINUED_STORIES, BASELINE_STORIES = 100, 8
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # two seeds of the grammar: with billions of stories they share next to none
TRAIN_STORIES, HELD_OUT_STORIES = 100_000, 2_000
TOKENIZER_STORIES = 20_000
SECOND_RATE = 1e-3
DEVIATION = 0.05  # of the first weights; the usual 0.02 is meant for models ten times as wide


def build(name: str, output: Path, steps: int | None = None, threads: int = 1, first: Path | None = None) -> dict:
    """Train and save one checkpoint; return its card. `first`: a folder with the first course done, to go on from.

    The second course begins with the weights as the first one saved them, in the type of the recipe. So going on from
    a saved checkpoint and doing both courses at once give the same bytes.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    texts = [story.text for story in stories.stories(TRAIN_STORIES, TRAIN_SEED)]
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / name
        one, two = courses(name, steps)
        if first is None:
            first_course(name, draft, texts, one)
        model, tokenizer = load_model(first or draft, dtype=torch.float32), load_tokenizer(first or draft)
        course = SecondCourse(texts, tokenizer, two.steps)
        run(name, model, course, two, course.heard)
        save(name, model, output, tokenizer)
    return write_card(name, output, steps)


def write_card(name: str, folder: Path, steps: int | None = None) -> dict:
    """Measure a saved checkpoint and write its card beside it."""
    torch.set_num_threads(1)
    card = describe(name, folder, courses(name, steps))
    write_json(folder / MANIFEST, card)
    return card


def courses(name: str, steps: int | None = None) -> tuple[TrainingSettings, TrainingSettings]:
    """The settings of both courses; `steps`: so many in each, instead of the recipe's."""
    counts = RECIPES[name].steps if steps is None else (steps, steps)
    one = TrainingSettings(counts[0], RECIPES[name].learning_rate, final_fraction=0.02)
    return one, TrainingSettings(counts[1], SECOND_RATE, warmup_steps=20, final_fraction=0.02)


def first_course(name: str, folder: Path, texts: list[str], settings: TrainingSettings) -> None:
    """Tokenizer and weights from nothing, saved."""
    recipe = RECIPES[name]
    folder.mkdir()
    write_json(folder / "config.json", recipe.config.to_hf())
    recipe.write_tokenizer(
        folder, texts[:TOKENIZER_STORIES], recipe.config.vocab_size, recipe.config.max_position_embeddings
    )
    tokenizer = load_tokenizer(folder)
    model = initialize(family_of(recipe.config.to_hf()).model(recipe.config), SEED, DEVIATION)
    run(name, model, lessons(texts, tokenizer), settings)
    save(name, model, folder, tokenizer)


def run(
    name: str,
    model: LanguageModel,
    course: Iterator[Batch],
    settings: TrainingSettings,
    heard: Callable[[float], None] = lambda loss: None,
) -> None:
    """Train with a progress bar; `heard` is told the loss of every step."""
    with tqdm(total=settings.steps, desc=name, unit="step", mininterval=10) as bar:

        def on_step(step: int, loss: float) -> None:
            heard(loss)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        train(model, course, settings, on_step)


def save(name: str, model: LanguageModel, folder: Path, tokenizer: Tokenizer) -> None:
    recipe = RECIPES[name]
    save_checkpoint(model.to(recipe.dtype), folder, tokenizer, max_shard_bytes=recipe.max_shard_bytes)


def hashes(folder: Path, *patterns: str) -> dict[str, dict]:
    """Size and SHA-256 of the files that match."""
    paths = sorted({path for pattern in patterns for path in folder.rglob(pattern)} - {folder / MANIFEST})
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    }


def describe(name: str, folder: Path, courses: tuple[TrainingSettings, ...]) -> dict:
    """The card of a saved checkpoint: measured on what was written, not on what was in memory."""
    model, tokenizer = load_model(folder, dtype=torch.float32), load_tokenizer(folder)
    held_out = [story.text for story in stories.stories(HELD_OUT_STORIES, HELD_OUT_SEED)]
    nats, tokens = text_loss(model, [marked(tokenizer, text) for text in held_out])
    entropy = stories.entropy_per_story()
    return {
        "name": name,
        "about": "A tiny model trained from scratch on the stories of checkpoints/stories.py. For teaching and tests.",
        "parameters": model.num_parameters(),
        "weights": hashes(folder, "*.safetensors"),
        "files": hashes(folder, "*.json", "*.txt", "*.jinja", "tokenizer.model"),
        "training": {
            "seed": SEED,
            "courses": [{"steps": course.steps, "learning_rate": course.learning_rate} for course in courses],
            "stories_a_step": BATCH_SIZE,
            "stories": TRAIN_STORIES,
            "corpus_sha256": stories.corpus_hash(TRAIN_STORIES, TRAIN_SEED),
        },
        "held_out": {
            "stories": HELD_OUT_STORIES,
            "corpus_sha256": stories.corpus_hash(HELD_OUT_STORIES, HELD_OUT_SEED),
            "tokens_per_story": round(tokens / HELD_OUT_STORIES, 2),
            "loss_per_token": round(nats / tokens, 4),
            "loss_per_story": round(nats / HELD_OUT_STORIES, 3),
            "entropy_per_token": round(entropy * HELD_OUT_STORIES / tokens, 4),
            "entropy_per_story": round(entropy, 3),
            "perplexity": round(math.exp(nats / tokens), 4),
            "unit": "nats; no model can be below the entropy on average",
        },
        "told_on": {
            "openings": CONTINUED_STORIES,
            "right": sum(parse(text) is not None for text in continued(model, tokenizer, held_out)),
            "unit": "first sentences of held-out stories, continued greedily, that make a story of the grammar",
        },
        "baseline": baseline.describe(model, tokenizer, held_out[:BASELINE_STORIES]),
        "greedy": [
            {
                "prompt": prompt,
                "max_new_tokens": NEW_TOKENS,
                "text": greedy_text(model, tokenizer, prompt, NEW_TOKENS),
            }
            for prompt in PROMPTS
        ],
        "torch": torch.__version__.split("+")[0],
    }


def continued(model: LanguageModel, tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """Stories that begin with the first sentence of a given one and go on with the model's likeliest words."""
    openings = [text.split(". ")[0] + "." for text in texts[:CONTINUED_STORIES]]
    prompts = [marked(tokenizer, opening)[:-1] for opening in openings]
    rows = generate(model, prompts, max_new_tokens=200, stop_ids=tokenizer.stop_ids)
    return [tokenizer.decode(row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--output", type=Path, help="folder to write; the bundled one unless given")
    parser.add_argument("--steps", type=int, help="so many steps in each course, for a try")
    parser.add_argument("--first", type=Path, help="a folder that holds the model after the first course")
    parser.add_argument("--card", action="store_true", help="measure what is there and write its card, no more")
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    arguments = parser.parse_args()
    output = arguments.output or HERE / arguments.name
    if arguments.card:
        card = write_card(arguments.name, output)
    else:
        card = build(arguments.name, output, arguments.steps, arguments.threads, arguments.first)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
