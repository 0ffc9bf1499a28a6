"""Train a tiny model of a family on our stories and save it as that family's checkpoints are saved.

    python checkpoints/build.py tiny-gpt2              half an hour on one core; no network, no GPU
    python checkpoints/build.py tiny-llama3 --steps 20 --output FOLDER      a quick try, elsewhere

The same recipe gives the same tokenizer, the same corpus and, on the same kind of machine with the same versions,
the same weights. `card.json` beside the weights says how they came about and how good they are.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import stories
import tokenizer_files
import torch
from torch import Tensor
from tqdm import tqdm

from course_helpers import load_model, load_tokenizer, save_checkpoint
from course_helpers.architectures.config import ModelConfig
from course_helpers.architectures.gpt2 import GPT2Config
from course_helpers.architectures.llama import LlamaConfig
from course_helpers.architectures.rope import RopeParameters
from course_helpers.families import family_of
from course_helpers.labs.records import write_json
from course_helpers.tokenizers import Tokenizer
from course_helpers.training import TrainingSettings, initialize, text_loss, train
from course_helpers.validation import greedy_text, sha256

HERE = Path(__file__).resolve().parent
PROMPTS = ("Once upon a time", "One sunny morning", "Mia had a red kite")
NEW_TOKENS = 140
SEED = 9
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # two seeds of the grammar: with billions of stories they share next to none
TRAIN_STORIES, HELD_OUT_STORIES = 100_000, 2_000
TOKENIZER_STORIES = 20_000
CONTEXT, BATCH_SIZE = 192, 16  # about two stories a row
VOCABULARY = 1024


@dataclass(frozen=True)
class Recipe:
    """What is particular to one tiny checkpoint."""

    config: ModelConfig
    write_tokenizer: Callable[[Path, list[str], int, int], None]
    dtype: torch.dtype  # that of the saved weights; real checkpoints of the family use the same
    settings: TrainingSettings


RECIPES = {
    "tiny-gpt2": Recipe(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=256,
            n_embd=128,
            n_layer=4,
            n_head=4,
            n_inner=512,
            layer_norm_epsilon=1e-5,
            bos_token_id=VOCABULARY - 1,
            eos_token_id=VOCABULARY - 1,
        ),
        tokenizer_files.write_gpt2,
        torch.float32,
        TrainingSettings(steps=5000, learning_rate=3e-3),
    ),
    "tiny-llama3": Recipe(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=1024,
            rms_norm_eps=1e-5,
            # As in Llama 3.2, with the original context as small as the model: half of the pairs are slowed down.
            rope_parameters=RopeParameters(
                rope_type="llama3",
                rope_theta=500_000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=128,
            ),
            tie_word_embeddings=True,
            bos_token_id=VOCABULARY - 16,
            eos_token_id=VOCABULARY - 15,
        ),
        tokenizer_files.write_llama3,
        torch.bfloat16,
        TrainingSettings(steps=5000, learning_rate=3e-3),
    ),
}


def marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """A story between the marks it begins and ends with."""
    return [*tokenizer.encode(text, bos=True), tokenizer.stop_ids[0]]


def batches(texts: list[str], tokenizer: Tokenizer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of consecutive stories, each row starting with a story, without end.

    Where the family writes prompts without a beginning mark, half of the rows start without it, too.
    """
    rows = [marked(tokenizer, text) for text in texts]
    if tokenizer.bos_id == tokenizer.stop_ids[0]:  # GPT-2: one mark stands between two stories
        rows = [row[:-1] for row in rows]
    starts, stream = [0], []
    for row in rows:
        stream += row
        starts.append(len(stream))
    stream_N = torch.tensor(stream)
    chooser = random.Random(seed)
    usable = [start for start in starts if start + CONTEXT + 2 <= len(stream)]
    while True:
        chosen = [
            chooser.choice(usable) + (not tokenizer.adds_bos and chooser.random() < 0.5) for _ in range(BATCH_SIZE)
        ]
        rows_BT = torch.stack([stream_N[start : start + CONTEXT + 1] for start in chosen])
        yield rows_BT[:, :-1], rows_BT[:, 1:]


def build(name: str, output: Path, steps: int | None, threads: int) -> dict:
    """Train and save one checkpoint; return its card."""
    recipe = RECIPES[name]
    settings = recipe.settings if steps is None else TrainingSettings(steps, recipe.settings.learning_rate)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    texts = [story.text for story in stories.stories(TRAIN_STORIES, TRAIN_SEED)]
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary)
        write_json(draft / "config.json", recipe.config.to_hf())
        recipe.write_tokenizer(
            draft, texts[:TOKENIZER_STORIES], recipe.config.vocab_size, recipe.config.max_position_embeddings
        )
        tokenizer = load_tokenizer(draft)
        model = initialize(family_of(recipe.config.to_hf()).model(recipe.config), SEED)
        with tqdm(total=settings.steps, desc=name, unit="step") as bar:
            losses = train(model, batches(texts, tokenizer, SEED), settings, lambda step, loss: advance(bar, loss))
        save_checkpoint(model.to(recipe.dtype), output, tokenizer)
    card = describe(name, output, settings, losses)
    write_json(output / "card.json", card)
    return card


def advance(bar: tqdm, loss: float) -> None:
    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    bar.update()


def describe(name: str, folder: Path, settings: TrainingSettings, losses: list[float]) -> dict:
    """The card of a saved checkpoint: measured on what was written, not on what was in memory."""
    model, tokenizer = load_model(folder, dtype=torch.float32), load_tokenizer(folder)
    held_out = [story.text for story in stories.stories(HELD_OUT_STORIES, HELD_OUT_SEED)]
    nats, tokens = text_loss(model, [marked(tokenizer, text) for text in held_out])
    entropy = stories.entropy_per_story()
    weights = folder / "model.safetensors"
    return {
        "name": name,
        "about": "A tiny model trained from scratch on the stories of checkpoints/stories.py. For teaching and tests.",
        "parameters": model.num_parameters(),
        "weights": {"bytes": weights.stat().st_size, "sha256": sha256(weights)},
        "training": {
            "seed": SEED,
            "steps": settings.steps,
            "tokens": settings.steps * BATCH_SIZE * CONTEXT,
            "learning_rate": settings.learning_rate,
            "stories": TRAIN_STORIES,
            "corpus_sha256": stories.corpus_hash(TRAIN_STORIES, TRAIN_SEED),
            "last_loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--output", type=Path, help="folder to write; the bundled one unless given")
    parser.add_argument("--steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    arguments = parser.parse_args()
    card = build(arguments.name, arguments.output or HERE / arguments.name, arguments.steps, arguments.threads)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
