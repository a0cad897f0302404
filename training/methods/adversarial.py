"""Adversarial teaching: discriminators learn to tell restored patches from originals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from runtime.errors import UserError
from training.losses.loss import Patches
from training.methods.discriminator import Discriminator
from training.methods.forms import FORMS, FormName
from training.methods.method import Collapse, Method

_PAST = 0.99
"""Share of the past in the discriminators' mean loss."""


class Adversarial(Method):
    """The network and discriminators learn against each other, one step each in turn.

    As in PCARN: each discriminator sees patches averaged over squares of another side and descends
    the loss of telling originals from restored ones. The network descends ``losses`` plus
    ``weight`` times the loss of its patches being taken for originals, summed over the
    discriminators. It should begin with a network that was taught by originals (``start``).

    ``cross-entropy`` is that of Goodfellow et al., 2014, with the loss that does not saturate;
    ``least-squares`` that of Mao et al., ICCV 2017; ``relativistic`` asks which of the two looks
    more like an original, on average (Jolicoeur-Martineau, ICLR 2019), as in ESRGAN.
    """

    kind: Literal["adversarial"] = "adversarial"
    weight: float = Field(
        default=5e-3, gt=0, description="factor of the discriminators' verdict beside the losses"
    )
    form: FormName = Field(default="cross-entropy", description="of the discriminators' loss")
    pools: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4),
        min_length=1,
        description="a discriminator for each side that is averaged",
    )
    slope: float = Field(
        default=0.01, ge=0, lt=1, description="of the discriminators' LeakyReLUs below zero"
    )
    learning_rate: float = Field(
        default=1e-4, gt=0, description="of the discriminators; Adam's, constant"
    )
    least_loss: float = Field(
        default=1e-3,
        ge=0,
        description="mean loss of a discriminator below which a run stops: it errs no more, and "
        "teaches nothing",
    )

    def opponent(self, device: torch.device) -> Discriminators:
        """Return the discriminators."""
        return Discriminators(self, device)


class Discriminators:
    """Discriminators at several sizes, with the optimizer that steps them all.

    Args:
        options: What the recipe says.
        device: Where they compute.
    """

    def __init__(self, options: Adversarial, device: torch.device) -> None:
        self._options, self._form = options, FORMS[options.form]
        networks = [Discriminator(pool, options.slope) for pool in options.pools]
        self._networks = nn.ModuleList(networks).to(device).train()
        self._parameters = dict(self._networks.named_parameters())
        self._adam = torch.optim.Adam(
            self._parameters.values(),
            options.learning_rate,
            fused=True,
            capturable=device.type == "cuda",
        )
        # That of discriminators that know nothing: an original or not at even odds.
        self._mean_loss = torch.tensor(math.log(2), device=device)

    def learn(self, patches: Sequence[Patches]) -> None:
        """Take one optimizer step on restored patches of some scales and their originals.

        Raises:
            UserError: If patches are too small to be judged.
        """
        self._networks.requires_grad_(True)
        for parameter in self._parameters.values():
            parameter.grad = None
        losses = []
        for network in self._each():
            for one in patches:
                _check_size(one, network)
                original, restored = network(one.original), network(one.restored.detach())
                losses.append(self._form.discriminator(original, restored))
        loss = torch.stack(losses).sum() / len(patches)
        torch.autograd.backward(loss)
        self._adam.step()
        with torch.no_grad():
            # What is kept is the mean of one discriminator's two halves.
            self._mean_loss.lerp_(loss.detach() / (2 * len(self._networks)), 1 - _PAST)

    def judge(self, patches: Patches) -> Tensor:
        """Return the weighted loss of restored patches being taken for originals."""
        self._networks.requires_grad_(False)
        verdicts = [
            self._form.network(
                one(patches.original) if self._form.compares else None, one(patches.restored)
            )
            for one in self._each()
        ]
        return self._options.weight * torch.stack(verdicts).sum()

    def check(self, step: int) -> float:
        """Return the mean loss of a discriminator over the last hundred steps or so.

        Raises:
            Collapse: If it is not finite, or so small that they have won.
        """
        loss = self._mean_loss.item()
        if math.isfinite(loss) and loss >= self._options.least_loss:
            return loss
        found = "is not finite" if not math.isfinite(loss) else f"has fallen to {loss:.1g}"
        raise Collapse(step, found)

    def state(self) -> dict[str, Tensor]:
        """Return networks, moments and the mean loss, by name."""
        tensors = {f"opponent.{name}": one for name, one in self._networks.state_dict().items()}
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                tensors[f"opponent.adam.{key}.{name}"] = value
        return {**tensors, "opponent.mean_loss": self._mean_loss}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors that ``state`` returned."""
        with torch.no_grad():
            for name, value in self._networks.state_dict().items():
                value.copy_(tensors[f"opponent.{name}"])
            self._mean_loss.copy_(tensors["opponent.mean_loss"])
            for name, parameter in self._parameters.items():
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if (saved := tensors.get(f"opponent.adam.{key}.{name}")) is not None:
                        moment = saved.to(parameter.device, copy=True)
                        self._adam.state[parameter][key] = moment

    def _each(self) -> list[Discriminator]:
        return [cast(Discriminator, one) for one in self._networks]


def _check_size(patches: Patches, network: Discriminator) -> None:
    side = min(patches.original.shape[2:])
    if side < network.least_side:
        raise UserError(
            f"method: a discriminator of pool {network.pool} needs patches of "
            f"{network.least_side} pixels or more of the original; found {side}: name smaller "
            "pools or larger patches"
        )
