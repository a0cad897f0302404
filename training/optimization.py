"""The optimizers: Adam for everything, or Muon for the kernels and Adam for the rest.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) steps by the
momentum of a matrix with all its singular values set to one. A kernel is one matrix for each group
of its convolution, outputs × (inputs · k²). The first and the last convolution, biases and
coefficients have no such structure to gain from and go to Adam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from training.recipe import OptimizerOptions


class Optimizer:
    """Steps the parameters of a network as the options of a recipe say.

    Args:
        network: Its parameters are stepped in place.
        options: Of the recipe.
    """

    def __init__(self, network: nn.Module, options: OptimizerOptions) -> None:
        self._parameters = dict(network.named_parameters())
        self._matrices: dict[str, list[nn.Parameter]] = {}
        if options.kind == "muon":
            self._matrices = {
                name: [nn.Parameter(matrix) for matrix in _matrices(parameter, groups)]
                for name, parameter, groups in _kernels(network)
            }
        rest = [one for name, one in self._parameters.items() if name not in self._matrices]
        self._adam = torch.optim.Adam(
            rest, 0.0, options.betas, weight_decay=options.weight_decay, fused=True
        )
        self._adam_rate = options.adam_learning_rate or options.learning_rate
        self._rate = options.learning_rate
        # torch's Muon takes matrices only: it steps copies, which are written back.
        self._muon = (
            torch.optim.Muon(
                [matrix for matrices in self._matrices.values() for matrix in matrices],
                0.0,
                weight_decay=options.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            if self._matrices
            else None
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def step(self, fraction: float) -> None:
        """Step along the gradients at a ``fraction`` of the recipe's learning rates.

        Parameters without a gradient, such as the upsamplers of other scales, and their moments
        stay as they are.
        """
        for group in self._adam.param_groups:
            group["lr"] = fraction * self._adam_rate
        self._adam.step()
        if self._muon is None:
            return
        for group in self._muon.param_groups:
            group["lr"] = fraction * self._rate
        for name, matrices in self._matrices.items():
            gradient = self._parameters[name].grad
            parts = [None] * len(matrices) if gradient is None else _matrices(gradient, matrices)
            for matrix, part in zip(matrices, parts, strict=True):
                matrix.grad = part
        self._muon.step()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, matrices in self._matrices.items():
                parameter = self._parameters[name]
                if parameter.grad is not None:
                    parameter.copy_(torch.stack(list(matrices)).view(parameter.shape))

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs besides the parameters, by name."""
        tensors = {}
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        for name, matrices in self._matrices.items():
            assert self._muon is not None
            buffers = [self._muon.state.get(m, {}).get("momentum_buffer") for m in matrices]
            if buffers[0] is not None:
                tensors[f"muon.momentum.{name}"] = torch.stack(buffers)
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` returned, and the parameters as they are now."""
        for name, parameter in self._parameters.items():
            if name in self._matrices:
                continue
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if (saved := tensors.get(f"adam.{key}.{name}")) is not None:
                    like = parameter if saved.ndim else saved
                    self._adam.state[parameter][key] = torch.empty_like(like).copy_(saved)
        for name, matrices in self._matrices.items():
            assert self._muon is not None
            current = _matrices(self._parameters[name].detach(), matrices)
            saved = tensors.get(f"muon.momentum.{name}")
            for index, matrix in enumerate(matrices):
                matrix.data.copy_(current[index])
                if saved is not None:
                    momentum = saved[index].to(matrix.device)
                    self._muon.state[matrix]["momentum_buffer"] = momentum.clone()


def _kernels(network: nn.Module) -> Iterator[tuple[str, nn.Parameter, int]]:
    """Yield the kernels that Muon steps: name, parameter and how many matrices it is made of.

    Parameters of three dimensions are banks of matrices already.
    """
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            from_or_to_pixels = parameter.ndim == 4 and 3 in parameter.shape[:2]
            if parameter.ndim < 3 or from_or_to_pixels:
                continue
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            yield f"{prefix}.{name}", parameter, len(parameter) if parameter.ndim == 3 else groups


def _matrices(kernel: Tensor, parts: int | list[nn.Parameter]) -> Tensor:
    """Return copies of a kernel's matrices, parts × outputs × (inputs · k²)."""
    count = parts if isinstance(parts, int) else len(parts)
    outputs = kernel.shape[1] if kernel.ndim == 3 else kernel.shape[0] // count
    return kernel.detach().reshape(count, outputs, -1).clone()
