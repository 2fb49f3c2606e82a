"""How much memory a step needs, counted without computing it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_KEPT = 3  # times the weights, besides themselves: Adam's two moments, and those of the best epoch


def count_step(
    network: nn.Module,
    inferer: Callable[..., Any],
    batch: Callable[[], tuple[Any, ...]],
    loss: Callable[[Any, Any], torch.Tensor] | None,
    device: str | torch.device,
    accumulate: bool = False,
) -> int:
    """Bytes of all tensors when most are alive: of a training step, the weights and what is kept between steps; of a
    prediction, the weights.

    The step runs on PyTorch's fake tensors, which have shapes and no memory. What kernels use inside, such as cuDNN's
    workspaces, and what the allocator can't reuse is not in it.

    Args:
        network: on any device, the meta device too; not changed.
        inferer: calls it.
        batch: makes image, label, arguments and keyword arguments, as `prepare_batch` gives them.
        loss: of output and label; None for a prediction.
        device: where the step would run.
        accumulate: whether gradients of earlier batches are there already, to which these are added.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    size = sum(tensor.nbytes for tensor in state.values())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device), torch.set_grad_enabled(loss is not None):
        fake = {name: _fake(tensor, device) for name, tensor in state.items()}

        with _Living(fake.values()) as living:
            for _ in range(1 + accumulate):
                functional_call(
                    _Step(network, inferer, loss), {f"network.{name}": fake[name] for name in fake}, batch()
                )
    return living.most + size * (1 if loss is None else 1 + _KEPT)


class _Step(nn.Module):
    """All of a step in one call of a module: fake tensors are in the network also in the backward pass."""

    def __init__(
        self,
        network: nn.Module,
        inferer: Callable[..., Any],
        loss: Callable[[Any, Any], torch.Tensor] | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.inferer = inferer
        self.loss = loss

    def forward(self, image: Any, label: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        output = self.inferer(image, lambda *given, **named: self.network(*given, **named), *args, **kwargs)
        if self.loss is not None:
            self.loss(output, label).backward()


def _fake(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    return made.requires_grad_(tensor.requires_grad)


class _Living(TorchDispatchMode):
    """Counts the bytes of the storages that live at the same time.

    Args:
        there: tensors that don't count.

    Attributes:
        most: the largest number so far.
    """

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._end, key, size)

    def _end(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
