"""Mistakes in the code that runs a good checkpoint: those of tests/traps whose effect does not depend on rounding.

A mistake made for one family may fit others as well: all that it changes the results of.
"""

from tests.silent_faults.fault import ALL, GATED, ROTARY, WINDOWED, Fault
from tests.traps import TRAPS

BY_NAME = {trap.name: trap for trap in TRAPS}
LLAMA_QUERIES, QK_NORMS = ("llama3", "qwen3", "qwen3_moe"), ("qwen3", "qwen3_moe", "gemma3")
LLAMA = ("llama2", "llama3")

#: Trap -> the families whose bundled checkpoint it changes.
FITS: dict[str, tuple[str, ...]] = {
    "OLMo 3: YaRN in all layers": ("olmo3",),
    "YaRN: no attention factor": ("olmo3",),
    "YaRN: attention factor on cos only": ("olmo3",),
    "YaRN: ramp the wrong way round": ("olmo3",),
    "Llama 3.1: scaling ignored": ("llama3",),
    "Llama 3.1: low and high factor exchanged": ("llama3",),
    "Gemma 3: local and global base exchanged": ("gemma3",),
    "Llama: pairs side by side instead of in halves": ROTARY[:-1],  # in OLMo 3 types would not fit: an error
    "window one too wide: i - j <= W": WINDOWED,
    "window one too narrow: a token does not count itself": WINDOWED,
    "windows in the wrong layers: pattern shifted by one": WINDOWED,
    "ring cache: a new position in the wrong slot": WINDOWED,
    "decoding begins at position 0 again": ALL,
    "positions count the padding": ("gpt2",),
    "padding is seen": ALL,
    "Gemma 3: weight instead of 1 + weight": ("gemma3",),
    "epsilon outside of the root": LLAMA,  # with the others' 1e-6 it moves the loss of a text by 0.0001 nats at most
    "QK-norm left out": QK_NORMS,
    "QK-norm after the rotation": QK_NORMS,
    "Qwen3: QK-norm over all heads at once": ("qwen3", "qwen3_moe"),
    "OLMo 3: QK-norm over each head": ("olmo3",),
    "OLMo 3: norms before the sublayers, as in Llama": ("olmo3",),
    "key/value heads in the wrong order: repeat": LLAMA_QUERIES,
    "gate and up exchanged in the forward pass": GATED,
    "GPT-2: exact GELU instead of the tanh form": ("gpt2",),
    "Gemma 3: exact GELU instead of the tanh form": ("gemma3",),
    "Gemma 3: embedding not scaled": ("gemma3",),
    "Gemma 3: query_pre_attn_scalar ignored": ("gemma3",),
    "experts: gate and up exchanged in the forward pass": ("qwen3_moe",),
    "experts: weights not divided by their sum": ("qwen3_moe",),
    "GPT-2: the square matrix is not transposed": ("gpt2",),
    "prompts with two of them": ("llama2", "llama3", "gemma3"),
    "generation stops at the first stop id only": ALL,
}
TITLES = {"prompts with two of them": "prompts with two beginning-of-text tokens"}

FAULTS = tuple(
    Fault(
        f"code: {TITLES.get(name, name)}",
        BY_NAME[name].facts,
        families,
        lambda patient, change=BY_NAME[name].change: change(patient.patch),
        in_code=True,
    )
    for name, families in FITS.items()
)
