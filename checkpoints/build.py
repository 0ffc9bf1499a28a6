"""Train a tiny model of a family on our stories and save it as that family's checkpoints are saved.

    python checkpoints/build.py tiny-gpt2              a quarter of an hour on one core; no network, no GPU
    python checkpoints/build.py tiny-llama3 --steps 20 --output FOLDER      a quick try, elsewhere

The same recipe gives the same tokenizer, the same corpus and, on the same kind of machine with the same versions,
the same weights. `card.json` beside the weights says how they came about and how good they are.
"""

import argparse
import itertools
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
from story_parser import parse
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from course_helpers import generate, load_model, load_tokenizer, save_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.config import FULL, SLIDING, ModelConfig
from course_helpers.architectures.gemma3 import Gemma3Config
from course_helpers.architectures.gpt2 import GPT2Config
from course_helpers.architectures.llama import LlamaConfig
from course_helpers.architectures.olmo3 import Olmo3Config
from course_helpers.architectures.qwen3 import Qwen3Config, Qwen3MoeConfig
from course_helpers.architectures.rope import RopeParameters
from course_helpers.families import family_of
from course_helpers.labs.records import write_json
from course_helpers.tokenizers import Tokenizer
from course_helpers.training import IGNORED, TrainingSettings, initialize, text_loss, train
from course_helpers.validation import greedy_text, sha256

HERE = Path(__file__).resolve().parent
PROMPTS = ("Once upon a time", "One sunny morning", "Mia had a red kite")
NEW_TOKENS = 140
CONTINUED_STORIES = 100
SEED = 9
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # two seeds of the grammar: with billions of stories they share next to none
TRAIN_STORIES, HELD_OUT_STORIES = 100_000, 2_000
TOKENIZER_STORIES = 20_000
BATCH_SIZE = 28  # stories a step
STEPS = 2000
RETURNING_ALONE, RETURNING_UNTIL = 250, 1400  # steps of the lesson that `returning` gives: alone, and in turn
RARE_STORIES = 3000  # enough to tell rare words from common ones
DEVIATION = 0.05  # of the first weights; the usual 0.02 is meant for models ten times as wide
VOCABULARY = 1024


@dataclass(frozen=True)
class Recipe:
    """What is particular to one tiny checkpoint."""

    config: ModelConfig
    write_tokenizer: Callable[[Path, list[str], int, int], None]
    dtype: torch.dtype = torch.bfloat16  # that of the saved weights; real checkpoints of the family use the same
    max_shard_bytes: int | None = None  # set: several files and an index, as large checkpoints have
    learning_rate: float = 4e-3


#: What the tiny models have in common: four heads of 32, so that one head can hold a name.
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}

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
        dtype=torch.float32,
    ),
    "tiny-llama2": Recipe(
        LlamaConfig(
            **SIZES | {"num_key_value_heads": 4, "intermediate_size": 344},  # every head its own keys, 8/3 wide: as 7B
            rms_norm_eps=1e-5,
            rope_parameters=RopeParameters(rope_theta=10_000.0),
            bos_token_id=1,
            eos_token_id=2,
        ),
        tokenizer_files.write_llama2,
        max_shard_bytes=1_200_000,
    ),
    "tiny-llama3": Recipe(
        LlamaConfig(
            **SIZES,
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
    ),
    "tiny-qwen3": Recipe(
        Qwen3Config(
            **SIZES | {"hidden_size": 112, "intermediate_size": 336},  # heads wider together than the model, as in 0.6B
            rms_norm_eps=1e-6,
            rope_parameters=RopeParameters(rope_theta=1_000_000.0),
            layer_types=(FULL,) * 4,
            tie_word_embeddings=True,
            bos_token_id=1000,
            eos_token_id=1000,
        ),
        tokenizer_files.write_qwen3,
    ),
    "tiny-qwen3-moe": Recipe(
        Qwen3MoeConfig(
            **SIZES | {"hidden_size": 96, "intermediate_size": 288},
            rms_norm_eps=1e-6,
            rope_parameters=RopeParameters(rope_theta=1_000_000.0),
            layer_types=(FULL,) * 4,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=96,
            norm_topk_prob=True,
            bos_token_id=1000,
            eos_token_id=1000,
        ),
        tokenizer_files.write_qwen3,
        max_shard_bytes=1_200_000,
    ),
    "tiny-gemma3": Recipe(
        Gemma3Config(
            **SIZES | {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "num_key_value_heads": 1},
            rms_norm_eps=1e-6,
            rope_parameters={
                FULL: RopeParameters(rope_theta=1_000_000.0),
                SLIDING: RopeParameters(rope_theta=10_000.0),
            },
            sliding_window=48,  # a story is more than twice as long
            layer_types=(SLIDING,) * 5 + (FULL,),
            query_pre_attn_scalar=24,  # the model's width over its heads, and not head_dim: as in 27B
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=0,
        ),
        tokenizer_files.write_gemma3,
    ),
    "tiny-olmo3": Recipe(
        Olmo3Config(
            **SIZES | {"num_key_value_heads": 4, "intermediate_size": 344, "max_position_embeddings": 512},
            rms_norm_eps=1e-6,
            rope_parameters={
                FULL: RopeParameters(
                    rope_type="yarn",
                    rope_theta=500_000.0,
                    factor=8.0,
                    original_max_position_embeddings=64,
                    attention_factor=1.2079441541679836,
                    beta_fast=32.0,
                    beta_slow=1.0,
                ),
                SLIDING: RopeParameters(rope_theta=500_000.0),
            },
            sliding_window=48,
            layer_types=(SLIDING,) * 3 + (FULL,),
            eos_token_id=1000,
            pad_token_id=1020,
        ),
        tokenizer_files.write_olmo3,
    ),
}


def marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """A story between the marks it begins and ends with; families without a beginning mark put the end mark of the
    text before there."""
    begin = tokenizer.stop_ids[0] if tokenizer.bos_id is None else tokenizer.bos_id
    return [begin, *tokenizer.encode(text, bos=False), tokenizer.stop_ids[0]]


Batch = tuple[Tensor, Tensor]


def batches(texts: list[str], tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Batches of whole stories, (B, T) inputs and targets, without end; stories of like length come together, so that
    little is padding. Where the family writes prompts without a beginning mark, half of the stories have none."""
    rows = [marked(tokenizer, text) for text in texts]
    chooser = random.Random(seed)
    while True:
        chosen = [
            row[not tokenizer.adds_bos and chooser.random() < 0.5 :] for row in chooser.choices(rows, k=16 * BATCH_SIZE)
        ]
        chosen.sort(key=len)
        groups = [chosen[start : start + BATCH_SIZE] for start in range(0, len(chosen), BATCH_SIZE)]
        chooser.shuffle(groups)
        for group in groups:
            inputs = [torch.tensor(row[:-1]) for row in group]
            targets = [torch.tensor(row[1:]) for row in group]
            yield (
                pad_sequence(inputs, batch_first=True),
                pad_sequence(targets, batch_first=True, padding_value=IGNORED),
            )


def returning(found: Iterator[Batch], rare_V: Tensor) -> Iterator[Batch]:
    """The same batches with only those targets left that stand earlier in their story, and are rare elsewhere: names,
    colours, things.

    What a story says of its hero comes back sentences later, and nothing but looking back can tell it. Among all the
    other words of a story that lesson is so faint that thousands of steps go by before attention learns it; alone it
    takes a few hundred.
    """
    for inputs_BT, targets_BT in found:
        earlier_TT = torch.ones(inputs_BT.shape[1], inputs_BT.shape[1], dtype=torch.bool).tril()
        seen_BT = ((targets_BT[:, :, None] == inputs_BT[:, None, :]) & earlier_TT).any(dim=-1)
        # Padding, IGNORED, is never seen earlier: it is no token.
        yield inputs_BT, targets_BT.where(seen_BT & rare_V[targets_BT.clamp(min=0)], IGNORED)


def rare_tokens(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """Which tokens stand in fewer than a fifth of the stories, (V,) bool."""
    count_V = torch.zeros(VOCABULARY)
    for text in texts:
        count_V[list(set(tokenizer.encode(text)))] += 1
    return count_V < 0.2 * len(texts)


def lessons(texts: list[str], tokenizer: Tokenizer) -> Iterator[Batch]:
    """The whole course: first only the words that come back, then these and all words in turn, at last all words."""
    rare_V = rare_tokens(texts[:RARE_STORIES], tokenizer)
    whole = batches(texts, tokenizer, SEED)
    words = returning(batches(texts, tokenizer, SEED - 1), rare_V)
    for step in itertools.count():
        practice = step < RETURNING_ALONE or (step < RETURNING_UNTIL and step % 2)
        yield next(words if practice else whole)


def build(name: str, output: Path, steps: int | None, threads: int) -> dict:
    """Train and save one checkpoint; return its card."""
    recipe = RECIPES[name]
    settings = TrainingSettings(STEPS if steps is None else steps, recipe.learning_rate, final_fraction=0.02)
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
        model = initialize(family_of(recipe.config.to_hf()).model(recipe.config), SEED, DEVIATION)
        with tqdm(total=settings.steps, desc=name, unit="step", mininterval=10) as bar:
            losses = train(model, lessons(texts, tokenizer), settings, lambda step, loss: advance(bar, loss))
        save_checkpoint(model.to(recipe.dtype), output, tokenizer, max_shard_bytes=recipe.max_shard_bytes)
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
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "name": name,
        "about": "A tiny model trained from scratch on the stories of checkpoints/stories.py. For teaching and tests.",
        "parameters": model.num_parameters(),
        "weights": {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in weights},
        "training": {
            "seed": SEED,
            "steps": settings.steps,
            "stories_a_step": BATCH_SIZE,
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
        "told_on": {
            "openings": CONTINUED_STORIES,
            "right": sum(parse(text) is not None for text in continued(model, tokenizer, held_out)),
            "unit": "first sentences of held-out stories, continued greedily, that make a story of the grammar",
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
    parser.add_argument("--steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    arguments = parser.parse_args()
    card = build(arguments.name, arguments.output or HERE / arguments.name, arguments.steps, arguments.threads)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
