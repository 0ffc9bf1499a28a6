"""The number types that models are run in, by the names that config files and command lines have for them."""

import torch


def short(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


DTYPES = {short(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
