"""`python -m tests.loaders.damage`: observe every kind of damage and write the table."""

import torch

from tests.loaders.damage.table import README, table

torch.set_num_threads(1)
README.write_text(table(), encoding="utf-8")
print(README)
