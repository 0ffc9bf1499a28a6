"""From a model without memory to one whose parameters are shared out: every style of the plan put in its place."""

from collections.abc import Mapping

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import parallelize_module

from ..architectures.base import LanguageModel
from ..families import family_of
from .model import share_class
from .ranks import Ranks
from .shares import Share, share_out, shared_parts
from .styles import MAKERS


def shares_of(model: LanguageModel, size: int) -> dict[str, Share]:
    """How the parameters of a whole model are shared out among `size` processes. Raises CheckpointError."""
    family = family_of(model.config.to_hf())
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return share_out(family.parallel, model.config, shapes, size)


def parallelize(model: LanguageModel, shares: Mapping[str, Share], ranks: Ranks) -> LanguageModel:
    """Share a model's parameters out among the processes, by the family's plan. The model must be without memory: this
    decides who holds what, and reads nothing."""
    everyone, heads = meshes(model, ranks)
    styles = {share.module: share for share in shares.values()}
    for module, share in styles.items():
        if make := MAKERS[share.style_name]:
            mesh = heads if share.style.shared else everyone
            parallelize_module(model, mesh, {module: make()}, src_data_rank=None)
    share_class(model, ranks, model.config.num_key_value_heads // heads.size())
    return model


def meshes(model: LanguageModel, ranks: Ranks) -> tuple[DeviceMesh, DeviceMesh]:
    """All ranks in a row; and, this one among them, those that have different key/value heads."""
    parts = shared_parts(model.config, ranks.size)
    copies, kind = ranks.size // parts, ranks.device.type
    everyone = DeviceMesh.from_group(dist.group.WORLD, kind)
    if copies == 1:
        return everyone, everyone
    # Groups of one's own, not those that a mesh would make: these would wait half an hour for a rank that hangs.
    rows = [range(copy, ranks.size, copies) for copy in range(copies)]
    groups = ranks.meet(lambda: [dist.new_group(row, timeout=ranks.timeout) for row in rows])
    return everyone, DeviceMesh.from_group(groups[ranks.rank % copies], kind)


def is_cut(parameter: nn.Parameter) -> bool:
    """Whether a process holds a part of this parameter only."""
    return hasattr(parameter, "device_mesh")
