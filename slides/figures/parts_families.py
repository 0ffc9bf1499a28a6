"""Families by the names that the deck uses, and in its order: the names on cells, rows and labels of figures."""

from course_helpers.families import FAMILIES

#: where the deck says less than the package's own title, or spells it otherwise
SHORTER = {"llama3": "Llama 3", "qwen3_moe": "Qwen3 MoE", "gemma3": "Gemma 3", "olmo3": "Olmo 3"}


def deck_name(family: str) -> str:
    """A key of FAMILIES as the deck writes the family's name."""
    return SHORTER.get(family, FAMILIES[family].title)
