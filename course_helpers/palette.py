"""The course's colours and fonts: the one source for the labs' figures, the slides and the films.

Pearl White, Soft Grey, Charcoal, Navy and Gold are the deck's design system. The others are derived from them so that
text and thin lines can be read (WCAG 2.1, level AA, on every surface they are used on; `tests/test_palette.py` computes
it): gold itself has a contrast of 2.3 to 1 on white, enough for a filled area beside a label, never for text.
"""

PEARL, SOFT_GREY, CHARCOAL, NAVY, GOLD = "#FAFAFA", "#F0F4F8", "#2D3748", "#1A365D", "#C9A227"
WHITE = "#FFFFFF"
#: Fills and thick lines beside navy and gold.
SLATE, SKY = "#718096", "#5B8DB8"
#: Text: second rank, gold as ink, blue as ink, what fails, what holds.
MUTED, GOLD_INK, SKY_INK, ALARM, SOUND = "#4A5B73", "#7A5F0E", "#2F6690", "#92400E", "#23613F"
#: Pale fills behind text, and hairlines.
GOLD_TINT, NAVY_TINT, SKY_TINT, ALARM_TINT, SOUND_TINT, HAIRLINE = (
    "#FFF9E8",
    "#E6ECF4",
    "#E3EEF6",
    "#FBEDE3",
    "#E6F2EB",
    "#D5DDE8",
)
#: For bars and bands that stand side by side, in order.
SERIES = (NAVY, GOLD, SKY, SLATE)

#: Titles and wisdom; text and diagrams; code and names of tensors.
SERIF, SANS, MONO = "Source Serif 4", "Inter", "JetBrains Mono"


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours `#RRGGBB`, 1 to 21, by WCAG 2.1's definition of relative luminance."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
