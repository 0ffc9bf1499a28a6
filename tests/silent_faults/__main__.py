"""`python -m tests.silent_faults`: put every fault into every family that it fits and write the table."""

import torch
from tqdm import tqdm

from tests.silent_faults.observe import observe
from tests.silent_faults.table import README, cases, table

torch.set_num_threads(1)
for name, family in tqdm(cases(), unit="case"):
    observe(name, family)
README.write_text(table(), encoding="utf-8")
print(README)
