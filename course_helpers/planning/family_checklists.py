"""What to look at before a checkpoint of a family is downloaded: one row a family, as data.

The planner reads which types are safe and how a size's base and chat versions are called, the doctor prints the rest.
A family without a row is planned for with the cautious defaults of `Checklist`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch

from ..architectures.config import ModelConfig
from ..families import FAMILIES, Family

SAME = {"(.+)": r"\1"}  # the preset's own hub id


@dataclass(frozen=True)
class Checklist:
    """What is particular to the checkpoints of one family."""

    stored: torch.dtype = torch.bfloat16  # the type of the tensors on the hub
    tokenizer_files: tuple[str, ...] = ("tokenizer.json", "tokenizer_config.json")
    #: Types in which the model must not be run, each with the reason.
    unsafe: Mapping[torch.dtype, str] = field(default_factory=dict)
    #: How the hub id of a size's base (or chat) version follows from the preset's: a pattern for the whole id -> what
    #: takes its place. The first that matches counts; a size that none matches has no such version.
    base: Mapping[str, str] = field(default_factory=lambda: SAME)
    chat: Mapping[str, str] = field(default_factory=dict)
    traps: tuple[str, ...] = ()


CHECKLISTS: dict[str, Checklist] = {
    "gpt2": Checklist(
        stored=torch.float32,
        tokenizer_files=("vocab.json", "merges.txt", "or tokenizer.json"),
        traps=(
            "matrices are stored transposed (Conv1D); attn.c_proj is square, so no shape betrays a forgotten transpose",
            "the head is the token embedding itself: a copy of it would drift in training",
            "1024 positions were learned, and there is nothing beyond: prompt and answer must fit together",
            "there are no chat versions: it continues texts and follows no instructions",
        ),
    ),
    "llama2": Checklist(
        stored=torch.float16,
        tokenizer_files=("tokenizer.model (SentencePiece)", "or tokenizer.json"),
        chat={r"(.+)-hf": r"\1-chat-hf"},
        traps=(
            "Meta's own files order the rows of q and k in pairs: unpermuted, the text is fluent for some 20 tokens",
            "a prompt begins with <s> (id 1): once, and not twice",
            "w1 is the gate, w3 the up projection, w2 the down projection",
            "the chat versions expect [INST] ... [/INST]",
        ),
    ),
    "llama3": Checklist(
        tokenizer_files=("tokenizer.json", "or original/tokenizer.model (tiktoken)"),
        chat={"(.+)": r"\1-Instruct"},
        traps=(
            "3.1 scales its slow rotary pairs by 8, 3.2 by 32, 3 not at all: a wrong factor shows in long texts only",
            "3.2 ties its head to the embedding, 3 and 3.1 do not",
            "the chat versions end with one of several ids (128001, 128008, 128009): one alone runs on",
            "a prompt begins with <|begin_of_text|> (id 128000): once, and not twice",
        ),
    ),
    "qwen3": Checklist(
        base={r"(.+-(?:0\.6|1\.7|4|8|14)B)": r"\1-Base"},
        chat=SAME,
        traps=(
            "head_dim is 128 whatever the width: it does not follow from hidden_size / heads",
            "queries and keys are normalised head by head, before the rotation",
            "texts do not begin with a special token; the chat ends with <|im_end|>, the base text with <|endoftext|>",
            "0.6B, 1.7B and 4B tie their heads, 8B and above do not",
        ),
    ),
    "qwen3_moe": Checklist(
        base={r"(.+/Qwen3-30B-A3B)": r"\1-Base"},
        chat=SAME,
        traps=(
            "the chosen experts' scores must be scaled to sum to 1 (norm_topk_prob): transformers' default is not to",
            "all experts are in memory, though a token uses 8 of 128: plan for every parameter",
            "rope_theta is 1e6 in the first release and 1e7 in 2507 and Coder",
            "transformers 5 fuses the experts in its state dict; files on the hub hold one tensor an expert",
        ),
    ),
    "gemma3": Checklist(
        unsafe={torch.float16: "activations of Gemma 3 grow beyond what float16 can hold (65,504)"},
        chat={r"(.+?)(?:-pt)?": r"\1-it"},
        traps=(
            "norms scale by 1 + weight, and a checkpoint holds the weight without the 1",
            "embeddings are multiplied by sqrt(width), rounded to the weights' type first",
            "rotary base 10,000 in the sliding layers, 1,000,000 in the full ones; from 4B up, these are slowed by 8",
            "the chat template writes <bos> itself: tokenising its text must not add another",
        ),
    ),
    "olmo3": Checklist(
        chat={r"(.+)-\d{4}(-7B)": r"\1\2-Instruct", r"(.+)-\d{4}(-32B)": r"\1\2-Think"},
        traps=(
            "YaRN belongs into the full layers only: in the sliding ones it breaks the model without an error",
            "norms come after attention and feed-forward, and none comes before",
            "queries and keys are normalised over all heads at once, before they are cut apart",
            "transformers' class defaults (eps 1e-5, 2048 positions) are not those of the released models",
        ),
    ),
}


def checklist_of(family: Family) -> Checklist:
    """The family's row, or the defaults where it has none."""
    return next(
        (CHECKLISTS[name] for name, one in FAMILIES.items() if one is family and name in CHECKLISTS), Checklist()
    )


def version_of(family: Family, hub_id: str, chat: bool | None) -> str | None:
    """The hub id of a preset's chat (True) or base (False) version, None where there is none; None asks for either,
    which is the preset itself."""
    checklist = checklist_of(family)
    rules = SAME if chat is None else checklist.chat if chat else checklist.base
    matches = ((re.fullmatch(pattern, hub_id), new) for pattern, new in rules.items())
    return next((match.expand(new) for match, new in matches if match), None)


def needed_fields(config: type[ModelConfig]) -> tuple[str, ...]:
    """The fields that must stand in a family's config.json: those without a default that do not follow from others."""
    example = {"num_hidden_layers": 1, "hidden_size": 1, "num_attention_heads": 1, "n_embd": 1}
    derived = config.derived(example)
    return tuple(one.name for one in fields(config) if one.default is one.default_factory and one.name not in derived)
