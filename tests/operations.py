"""What torch really does, operation by operation."""

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Keeps the names of all operations while it is entered."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def count(self, part: str) -> int:
        """How many had this in their name."""
        return sum(part in name for name in self.names)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **kwargs or {})
