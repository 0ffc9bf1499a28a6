"""All kinds of damage, in one table."""

from tests.loaders.damage import (
    kinds_config,
    kinds_families,
    kinds_files,
    kinds_header,
    kinds_index,
    kinds_pickle,
    kinds_tensors,
)
from tests.loaders.damage.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for module in (kinds_files, kinds_header, kinds_pickle, kinds_index, kinds_tensors, kinds_families, kinds_config)
    for kind in module.KINDS
}
