"""Measurements against peers, side by side in one run. Figures are ratios: no two machines have the same seconds."""
