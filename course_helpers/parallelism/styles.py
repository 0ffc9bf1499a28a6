"""What each style does to a module: torch's own tensor parallelism, and three styles that it has no class for.

Between modules go ordinary tensors, so the architectures need not know that they run on several processes: attention
sees fewer heads, a feed-forward a narrower hidden layer, and that is all. A style wraps them where processes must
speak with each other: torch's DTensor then knows what a sum over the processes is, and calls the collectives.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, PrepareModuleOutput, RowwiseParallel

from .plans import STYLES


def cut_parameters(module: nn.Module, mesh: DeviceMesh, cut: Mapping[str, int]) -> None:
    """Make DTensors of a module's parameters, as the style's table says. No process hears of another's values."""
    for name, dim in cut.items():
        owner, _, attribute = name.rpartition(".")
        parameter = distribute_tensor(module.get_parameter(name), mesh, [Shard(dim)], src_data_rank=None)
        module.get_submodule(owner).register_parameter(attribute, nn.Parameter(parameter))


class NormOverAllHeads(ParallelStyle):
    """A norm whose mean runs over values that lie on several processes: seen as one DTensor, its own code is right as
    it stands, and the mean becomes a sum over the processes."""

    def _apply(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        cut_parameters(module, mesh, {"weight": 0})
        return distribute_module(
            module,
            mesh,
            input_fn=lambda _, inputs, on: DTensor.from_local(inputs[0], on, [Shard(-1)], run_check=False),
            output_fn=lambda _, output, on: output.redistribute(on, [Shard(-1)]).to_local(),
        )


class ShareOfExperts(ParallelStyle):
    """Each process answers for its experts, with zeros for all others, and the answers are added up.

    It is the mixture's output that is summed, after each token's few answers were mixed into one: summing the experts'
    own output would send as many times more as each token has experts.
    """

    def _apply(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        cut_parameters(module, mesh, STYLES["experts"].cut)
        experts = module.experts
        experts.forward = only_own(experts, mesh)
        return PrepareModuleOutput(output_layouts=Partial(), desired_output_layouts=Replicate())._apply(module, mesh)


def only_own(experts: nn.Module, mesh: DeviceMesh) -> Callable[[Tensor, Tensor], Tensor]:
    """`Experts.forward` for a process that has some of the experts: the same code on its own rows."""
    whole = type(experts).forward

    def forward(x_PE: Tensor, ends_X: Tensor) -> Tensor:
        count = experts.gate_up.to_local().shape[0]
        first = mesh.get_local_rank() * count
        # Rows are sorted by expert, so those of neighbouring experts are neighbours. The one wait for the device.
        start, end = torch.cat((ends_X.new_zeros(1), ends_X))[[first, first + count]].tolist()
        answer_PE = torch.zeros_like(x_PE)
        if start < end:
            own_ends_X = ends_X[first : first + count] - start
            answer_PE[start:end] = whole(LocalExperts(experts), x_PE[start:end], own_ends_X)
        return answer_PE

    return forward


class LocalExperts:
    """The matrices of a process's own experts, as ordinary tensors."""

    forms = None

    def __init__(self, experts: nn.Module):
        self.gate_up, self.down = experts.gate_up.to_local(), experts.down.to_local()


class HeadMatrix(ParallelStyle):
    """A head that is cut by tokens. The model multiplies with its matrix itself, so it has no hooks of its own."""

    def _apply(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        cut_parameters(module, mesh, {"weight": 0})
        return module


#: Style -> torch's object that does it. None: nothing is to be done.
MAKERS: Mapping[str, Callable[[], ParallelStyle] | None] = {
    "copy": None,
    "columns": ColwiseParallel,
    "rows": RowwiseParallel,
    "query heads": ColwiseParallel,
    "key/value heads": ColwiseParallel,
    "norm over query heads": NormOverAllHeads,
    "norm over key/value heads": NormOverAllHeads,
    "experts": ShareOfExperts,
    "vocabulary": lambda: RowwiseParallel(input_layouts=Replicate()),
    "head": HeadMatrix,
    "copy, before the head": lambda: PrepareModuleOutput(
        output_layouts=Replicate(), desired_output_layouts=Replicate(), use_local_output=False
    ),
}
