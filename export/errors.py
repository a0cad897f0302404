"""The errors of capturing, rewriting and writing a network."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.errors import UserError


class CannotLower(UserError):
    """A graph holds an operator or attribute that a rewrite or a writer cannot express."""


class InvalidGraph(CannotLower):
    """A graph contradicts itself; the message names node and value."""


class UnsupportedOperators(CannotLower):
    """A network uses operators outside the vocabulary.

    Attributes:
        operators: All unsupported (module, operator) pairs, in the order of execution.
    """

    def __init__(self, operators: Sequence[tuple[str, str]], known: Sequence[str]) -> None:
        self.operators = tuple(operators)
        modules: dict[str, list[str]] = {}
        for module, operator in self.operators:
            modules.setdefault(operator, []).append(module)
        found = (f"{operator} in {_shortened(names)}" for operator, names in modules.items())
        super().__init__(
            f"these operators are outside the vocabulary: {'; '.join(found)}. Rewrite the modules "
            f"with {', '.join(sorted(known))}"
        )


def _shortened(names: Sequence[str], most: int = 3) -> str:
    """Return up to ``most`` distinct names and the number of further ones."""
    distinct = list(dict.fromkeys(names))
    more = [f"{len(distinct) - most} more"] if len(distinct) > most else []
    return ", ".join([*distinct[:most], *more])
