"""The optimizers: Adam for everything, or Muon for the kernels and Adam for the rest.

Weight decay is decoupled in both (Loshchilov and Hutter, ICLR 2019): it shrinks the parameters and
does not enter the moments.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) steps by the
momentum of a matrix with all its singular values set to one. A kernel is one matrix for each group
of its convolution, outputs × (inputs · k²). Adam steps the first and the last convolution, biases
and coefficients, which have no such structure.

All matrices of one shape are iterated together, in the precision of the recipe, which is faster
than torch's Muon with its loop over matrices in bfloat16. The large matrices of CARN's upsamplers
are nine tenths of the arithmetic; the option ``large_kernels_every`` lets them take turns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.configuration import Configuration

_MOMENTUM = 0.95
_ITERATIONS = 5
_LARGE = 256
"""Rows and columns from which on a matrix is large: time grows with columns · rows²."""
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration, steep at zero: small values approach one fast."""

_Moment = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(Configuration):
    """Adam or Muon, with a linear warm-up and then the schedule over all steps.

    ``muon`` steps kernels by Muon at ``learning_rate`` and everything else by Adam at
    ``adam_learning_rate``; ``adam`` steps everything by Adam at ``learning_rate``.

    ``trapezoid`` stays at the learning rate and falls linearly to ``final_fraction`` of it over the
    last ``decay`` steps, so that the number of steps can change until the fall begins. ``cosine``
    falls from the start; ``halving`` halves at the steps of ``halvings``, as the papers do.
    """

    kind: Literal["adam", "muon"] = Field(default="adam", description="see above")
    learning_rate: float = Field(gt=0, description="of kernels, or of everything")
    adam_learning_rate: float | None = Field(
        default=None, gt=0, description="of what Muon does not step; learning_rate if none"
    )
    betas: tuple[_Moment, _Moment] = Field(default=(0.9, 0.999), description="Adam's")
    weight_decay: float = Field(
        default=0.0, ge=0, description="fraction of a parameter subtracted by a step at rate 1"
    )
    warmup: int = Field(default=500, ge=0, description="steps from 0 to the learning rate")
    schedule: Literal["trapezoid", "cosine", "halving"] = Field(
        default="trapezoid", description="see above"
    )
    decay: int = Field(default=5000, gt=0, description="steps of the trapezoid's fall")
    final_fraction: float = Field(
        default=0.01, ge=0, le=1, description="of the learning rate, at the end"
    )
    large_kernels_every: int = Field(
        default=1,
        ge=1,
        description="kernels with at least 256 rows and columns are updated by Muon every N-th "
        "step, with an N times larger step",
    )
    halvings: tuple[int, ...] = Field(
        default=(200_000, 400_000), description="steps at which the rate halves"
    )
    clip_norm: float = Field(gt=0, description="longest gradient, of all parameters together")
    ema: float = Field(
        default=0.999, ge=0, lt=1, description="share of the past in the averaged weights"
    )


class Optimizer:
    """Steps the parameters of a network as the options of a recipe say.

    Args:
        network: Its parameters are stepped in place.
        options: The recipe's options of the optimizer.
        dtype: Precision of Muon's iteration; momenta and parameters are float32.
    """

    def __init__(
        self,
        network: nn.Module,
        options: OptimizerOptions,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._parameters = dict(network.named_parameters())
        self._parts = dict(muon_kernels(network)) if options.kind == "muon" else {}
        self._momenta: dict[str, Tensor] = {}
        large = [
            name
            for name, parts in self._parts.items()
            if min(matrices_of(self._parameters[name], parts).shape[1:]) >= _LARGE
        ]
        self._turns = {name: turn for turn, name in enumerate(large)}
        self._turn_length = options.large_kernels_every
        rest = [one for name, one in self._parameters.items() if name not in self._parts]
        self._adam = torch.optim.AdamW(
            rest,
            0.0,
            options.betas,
            weight_decay=options.weight_decay,
            fused=True,
            capturable=rest[0].is_cuda,
        )
        self._rate = self._adam_rate = options.learning_rate
        if options.kind == "muon" and options.adam_learning_rate is not None:
            self._adam_rate = options.adam_learning_rate
        self._weight_decay = options.weight_decay
        self._dtype = dtype

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def step(self, fraction: float | Tensor, turn: int = 0) -> None:
        """Step along the gradients at a ``fraction`` of the recipe's learning rates.

        A CUDA graph needs the fraction as a tensor on the parameters' device, which is read when
        the graph is replayed. ``turn`` is the number of the step modulo the recipe's
        ``large_kernels_every``; it selects the large kernels to update.

        Parameters without a gradient, such as the upsamplers of other scales, and their moments
        are unchanged.
        """
        for group in self._adam.param_groups:
            group["lr"] = fraction * self._adam_rate
        self._adam.step()
        with torch.no_grad():
            self._step_kernels(fraction * self._rate, turn)

    def state(self) -> dict[str, Tensor]:
        """Return the momenta of Muon and the state of Adam, by name, for a resumed run."""
        tensors = {f"muon.momentum.{name}": value for name, value in self._momenta.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors that ``state`` returned."""
        for name, parameter in self._parameters.items():
            if name in self._parts:
                if (momentum := tensors.get(f"muon.momentum.{name}")) is not None:
                    self._momenta[name] = momentum.to(parameter.device, copy=True)
                continue
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if (saved := tensors.get(f"adam.{key}.{name}")) is not None:
                    like = parameter if saved.ndim else saved
                    kept = torch.empty_like(like, device=parameter.device)
                    self._adam.state[parameter][key] = kept.copy_(saved)

    def _step_kernels(self, rate: float | Tensor, turn: int) -> None:
        gradients = {
            name: matrices_of(gradient, parts)
            for name, parts in self._parts.items()
            if (gradient := self._parameters[name].grad) is not None
        }
        if not gradients:
            return
        for name, gradient in gradients.items():
            if name not in self._momenta:
                self._momenta[name] = torch.zeros_like(gradient)
        momenta = [self._momenta[name] for name in gradients]
        torch._foreach_lerp_(momenta, list(gradients.values()), 1 - _MOMENTUM)
        if self._weight_decay:
            kernels: list[Tensor] = [self._parameters[name] for name in gradients]
            torch._foreach_mul_(kernels, 1 - rate * self._weight_decay)
        by_shape: dict[torch.Size, list[str]] = defaultdict(list)
        for name, gradient in gradients.items():
            if self._strides(name, turn):
                by_shape[gradient.shape[1:]].append(name)
        for shape, names in by_shape.items():
            updates = torch._foreach_lerp(
                [gradients[name] for name in names],
                [self._momenta[name] for name in names],
                _MOMENTUM,
            )
            steps = orthogonalized(torch.cat(updates).to(self._dtype)).float()
            steps *= rate * (0.2 * math.sqrt(max(shape)))  # matches the RMS of Adam's steps
            counts = [len(update) for update in updates]
            for name, step in zip(names, torch.split(steps, counts), strict=True):
                kernel = self._parameters[name]
                kernel.sub_(step.reshape(kernel.shape), alpha=self._strides(name, turn))

    def _strides(self, name: str, turn: int) -> int:
        """Return the factor of a kernel's step at this turn; 0 if it is another kernel's turn."""
        if name not in self._turns:
            return 1
        return 0 if (turn + self._turns[name]) % self._turn_length else self._turn_length


def orthogonalized(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices, N × rows × columns, near one (about 0.7 to 1.2).

    Five Newton-Schulz iterations with the coefficients of Jordan et al.
    """
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if rows > columns else x


def muon_kernels(network: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the names of the kernels that Muon steps, and the number of matrices in each.

    Parameters of three dimensions are banks of matrices.
    """
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            from_or_to_pixels = parameter.ndim == 4 and 3 in parameter.shape[:2]
            if parameter.ndim < 3 or from_or_to_pixels:
                continue
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            yield f"{prefix}.{name}", len(parameter) if parameter.ndim == 3 else groups


def matrices_of(kernel: Tensor, parts: int) -> Tensor:
    """Return a kernel as its matrices, parts × outputs × (inputs · k²)."""
    outputs = kernel.shape[1] if kernel.ndim == 3 else kernel.shape[0] // parts
    return kernel.reshape(parts, outputs, -1)
