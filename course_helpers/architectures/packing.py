"""Weights in the form in which they run fastest, or are smallest: for a model that will only generate.

packed   the same numbers. Matrices that multiply the same vector (query, key and value; gate and up) become one, and on
         a CPU oneDNN lays each out as its kernels read it. In bfloat16 that nearly halves the time of a token, and not
         a bit of its logits changes. (A processor with AMX adds up the products of many rows in another order then: a
         long prompt may be rounded differently.)
int8     each row of a matrix in whole numbers from -127 to 127 and one scale. Half of bfloat16's bytes, so more tokens
         a second where memory is the limit; the numbers are no longer the same (see `Int8Matrix`).

Either replaces the model's own matrices one by one, so memory never holds two of a whole model. They are gone then:
what remains of them are parameters without memory, with names and shapes. Such a model cannot be trained, moved or
saved; it says so.

Shape suffixes: N rows, I inputs, O outputs of a matrix.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from .base import LanguageModel
from .experts import Experts, MixtureOfExperts
from .layers import Attention, GatedFeedForward, Linear
from .products import ONEDNN, has_onednn, linear, onednn_linear

WEIGHTS = ("plain", "packed", "int8")


class PackedMatrix:
    """A matrix in the order in which oneDNN's kernels want it; as it is where oneDNN has no better one."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None):
        self.is_packed = weight_OI.dtype in packable() and weight_OI.device.type == "cpu"
        self.shape, self.bias_O = weight_OI.shape, bias_O
        # The 1 says that it will mostly meet one row. oneDNN's order is its own: only its products can read it.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI, 1) if self.is_packed else weight_OI

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.weight.dtype.itemsize

    def __call__(self, x: Tensor) -> Tensor:
        return (onednn_linear if self.is_packed else linear)(x, self.weight, self.bias_O)


def packable() -> set[torch.dtype]:
    """The types that oneDNN reads faster in an order of its own, on this processor. float32 is as fast as it lies."""
    return {torch.bfloat16} if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()


class Int8Matrix:
    """A matrix as `scale_O * whole_OI`: every row's largest value becomes 127 or -127, the others are rounded.

    A value is off by at most half a scale, 0.4 % of its row's largest. Products are computed in bfloat16, with sums in
    float32. benchmarks/results/int8.md has what it costs in quality.
    """

    FEW = 8  # rows up to which torch's kernel for int8 is faster than one product with the matrix written out again
    STEP = 16  # inputs that the kernel takes at once; of a row that is no whole number of steps it reads beyond the end

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None):
        self.shape, self.bias_O = weight_OI.shape, bias_O
        largest_O = weight_OI.abs().amax(dim=1).float().clamp(min=torch.finfo(torch.bfloat16).tiny * 127)
        # Rounded to its type first: the whole numbers then make up for it.
        self.scale_O = (largest_O / 127).to(weight_OI.dtype)
        whole_OI = (weight_OI.float() / self.scale_O[:, None].float()).round_().clamp_(-127, 127)
        self.whole_OI = whole_OI.to(torch.int8)

    @property
    def nbytes(self) -> int:
        return self.whole_OI.nbytes + self.scale_O.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        x_NI = x.flatten(0, -2)
        if x_NI.shape[0] <= self.FEW and x_NI.shape[1] % self.STEP == 0 and has_onednn(x):
            product_NO = torch.ops.aten._weight_int8pack_mm(x_NI, self.whole_OI, self.scale_O)
        else:
            product_NO = F.linear(x_NI, self.whole_OI.to(x.dtype)) * self.scale_O
        product_NO = product_NO if self.bias_O is None else product_NO + self.bias_O
        return product_NO.unflatten(0, x.shape[:-1])

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of these numbers, as an embedding looks them up."""
        return self.whole_OI[ids].to(self.scale_O.dtype) * self.scale_O[ids][..., None]


FORMS = {"packed": PackedMatrix, "int8": Int8Matrix}


def check_form(weights: str, dtype: torch.dtype | None) -> None:
    """Raises ValueError for a form of weights that there is not, or not for this type (None: not known yet)."""
    if weights not in WEIGHTS:
        raise ValueError(f"unknown form of weights {weights!r}; there are: {', '.join(WEIGHTS)}")
    if weights == "int8" and dtype not in (torch.bfloat16, None):
        raise ValueError(
            f"int8 weights are computed with in bfloat16, and this model is {dtype}: load it with dtype=torch.bfloat16"
        )


@torch.no_grad()
def pack(model: LanguageModel, weights: str) -> LanguageModel:
    """Change a model's matrices, in place, to the form `weights`; "plain" changes nothing.

    The model gives up its plain matrices on the way. Raises ValueError for a form that cannot be, and CheckpointError
    for a model that is packed already.
    """
    check_form(weights, model.dtype)
    check_plain(model, "be packed again")
    if weights == "plain":
        return model
    form = FORMS[weights]
    model.requires_grad_(False)
    routers = set()
    for module in model.modules():
        if isinstance(module, Attention):
            module.joined = joined(form, (module.query, module.key, module.value))
        elif isinstance(module, GatedFeedForward):
            module.joined = joined(form, (module.gate, module.up))
        elif isinstance(module, Experts):
            module.forms = tuple([form(matrix) for matrix in give_up(module, name)] for name in ("gate_up", "down"))
        elif isinstance(module, MixtureOfExperts):
            routers.add(module.router)  # small, and all depends on what it decides: it stays as it is
    pack_head(model, form)
    for module in model.modules():
        if isinstance(module, Linear) and not module.weight.is_meta and module not in routers:
            module.form = joined(form, (module,))
    model.weights = weights
    model.register_state_dict_pre_hook(lambda model, *_: check_plain(model, "give its weights away"))
    return model


def pack_head(model: LanguageModel, form: type) -> None:
    """The head, and in int8 the token embedding, which may be the same matrix. A packed matrix cannot be looked up in
    row by row: there the embedding stays as it is, also beside a head that is tied to it."""
    embedding, tied = model.token_embedding, model.output_head is None
    model.head_form = form(model.head_weight if tied else give_up(model.output_head, "weight"))
    if hasattr(form, "rows"):
        values = give_up(embedding, "weight")
        embedding.form = model.head_form if tied else form(values)


def nbytes(model: LanguageModel) -> int:
    """Bytes of a model's weights, in whatever form."""
    forms: dict[int, PackedMatrix | Int8Matrix] = {}
    for module in model.modules():
        held = [getattr(module, name, None) for name in ("form", "joined", "head_form")]
        held += [one for some in getattr(module, "forms", None) or () for one in some]
        forms |= {id(one): one for one in held if one is not None}
    plain = sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
    return plain + sum(one.nbytes for one in forms.values())


def joined(form: type, layers: Sequence[nn.Linear]) -> PackedMatrix | Int8Matrix:
    """One matrix in place of several that multiply the same vector."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    bias_O = torch.cat(biases) if biases else None
    return form(torch.cat([give_up(layer, "weight") for layer in layers]), bias_O)


def give_up(module: nn.Module, name: str) -> Tensor:
    """A parameter's values; the module keeps only its shape."""
    values = getattr(module, name).detach()
    setattr(module, name, nn.Parameter(values.to("meta"), requires_grad=False))
    return values


def check_plain(model: LanguageModel, wish: str) -> None:
    """Raises CheckpointError for a model that has given up its matrices."""
    if model.weights != "plain":
        raise CheckpointError(
            f"a model whose weights are {model.weights} cannot {wish}",
            expected='a model with plain weights: load_model(..., weights="plain")',
            found=f"weights={model.weights!r}",
            cause="it was loaded to generate only; its own matrices were given up for the faster form",
            next_step="load the checkpoint again without the weights option",
        )
