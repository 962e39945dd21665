"""Recipes that take a point between the parents' own weights: on a line, on a sphere, or one parent's as they are."""

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry.recipe.fusing import Fusing, Input, Weighted
from foundry.recipe.stream import Formula


class Linear(Fusing):
    """The weighted mean of the parents (Wortsman et al. 2022, arXiv:2203.05482).

    Attributes:
        adapters: The parents.
        normalize: Whether the weighted sum is divided by the sum of the weights.
    """

    adapters: tuple[Weighted, ...]
    normalize: bool = True

    @model_validator(mode="after")
    def _weights_add_up_to_something(self) -> Self:
        if self.normalize and abs(sum(parent.weight for parent in self.adapters)) < 1e-6:
            raise ValueError(
                "adapters: the weights sum to 0, by which a mean cannot be divided; set recipe.normalize=false"
            )
        return self

    @property
    def inputs(self) -> Sequence[Weighted]:
        """The parents."""
        return self.adapters

    def formula(self, kept: Sequence[int]) -> Formula:
        """The mean; without normalisation, weights that no parent changed are scaled too."""
        weights = [self.adapters[number].weight for number in kept]
        arguments = {"weight": weights, "normalize": self.normalize}
        whole = not self.normalize and sum(weights) != 1
        return Formula("linear", arguments, model_is_input=False, base_index=None, whole=whole, seed=self.seed)


class Between(Fusing, ABC):
    """Two parents, the first of which is where one starts from.

    Attributes:
        adapters: The two.
    """

    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    adapters: tuple[Input, ...]

    @property
    def inputs(self) -> Sequence[Input]:
        """The two."""
        return self.adapters

    def from_first(self, method: str, **arguments: Any) -> Formula:
        """The method with the first parent as its base."""
        return Formula(method, arguments, model_is_input=False, base_index=0, whole=False, seed=self.seed)


class Slerp(Between):
    """A point on the arc between two parents (Shoemake 1985, doi:10.1145/325165.325242).

    Attributes:
        t: Where: 0 is the first parent, 1 the second.
    """

    t: float = Field(0.5, ge=0, le=1)

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """SLERP."""
        return self.from_first("slerp", t=self.t)


class NearSwap(Between):
    """The first parent, drawn to the second where the two are near already.

    Attributes:
        t: The distance up to which a number becomes the second parent's.
    """

    t: float = Field(0.0001, gt=0, le=1)

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """NearSwap."""
        return self.from_first("nearswap", t=self.t)


class ArceeFusion(Between):
    """The first parent, with those changes of the second that matter most."""

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """Arcee Fusion."""
        return self.from_first("arcee_fusion")


class Spherical(Fusing, ABC):
    """Weighted parents on a sphere.

    Attributes:
        adapters: The parents.
        task_vectors: Whether the sphere is around the base, so that what parents learnt is turned, not all they know.
    """

    least: ClassVar[int] = 2

    adapters: tuple[Weighted, ...]
    task_vectors: bool = True

    @property
    def inputs(self) -> Sequence[Weighted]:
        """The parents."""
        return self.adapters

    def on_sphere(self, method: str, kept: Sequence[int], **arguments: Any) -> Formula:
        """The method with the parents' weights, around the base or around zero."""
        weights = [self.adapters[number].weight for number in kept]
        centre = 0 if self.task_vectors else None
        return Formula(
            method,
            {"weight": weights, **arguments},
            model_is_input=self.task_vectors,
            base_index=centre,
            whole=False,
            seed=self.seed,
        )


class NuSlerp(Spherical):
    """SLERP of two parents with a weight for each.

    Attributes:
        row_wise: Whether rows are turned one by one instead of columns, where `flatten` is off.
        flatten: Whether a weight is turned as one long vector.
    """

    most: ClassVar[int | None] = 2

    row_wise: bool = False
    flatten: bool = True

    @model_validator(mode="after")
    def _one_way_to_turn(self) -> Self:
        if self.row_wise and self.flatten:
            raise ValueError("row_wise: has no effect while flatten is true; set recipe.flatten=false")
        return self

    def formula(self, kept: Sequence[int]) -> Formula:
        """NuSLERP."""
        return self.on_sphere("nuslerp", kept, nuslerp_row_wise=self.row_wise, nuslerp_flatten=self.flatten)


class MultiSlerp(Spherical):
    """SLERP of any number of parents.

    Attributes:
        normalize: Whether the weights are divided by their sum.
    """

    normalize: bool = True

    @model_validator(mode="after")
    def _weights_add_up_to_something(self) -> Self:
        if self.normalize and abs(sum(parent.weight for parent in self.adapters)) < 1e-6:
            raise ValueError("adapters: the weights sum to 0, by which they cannot be divided")
        return self

    def formula(self, kept: Sequence[int]) -> Formula:
        """Multi-SLERP."""
        return self.on_sphere("multislerp", kept, normalize_weights=self.normalize)


class Karcher(Fusing):
    """The point of a sphere whose squared distances to all parents are least (arXiv:2603.04972).

    Attributes:
        adapters: The parents.
        max_iter: Steps at most.
        tol: The length of a step from which on it is near enough.
    """

    least: ClassVar[int] = 2

    adapters: tuple[Input, ...]
    max_iter: int = Field(10, ge=1, le=1000)
    tol: float = Field(1e-5, gt=0, lt=1)

    @property
    def inputs(self) -> Sequence[Input]:
        """The parents."""
        return self.adapters

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """The Karcher mean."""
        arguments = {"max_iter": self.max_iter, "tol": self.tol}
        return Formula("karcher", arguments, model_is_input=False, base_index=None, whole=False, seed=self.seed)


class Passthrough(Fusing):
    """One parent as it is: an adapter is made part of the base.

    Attributes:
        adapters: The one.
        scale: What all its weights are multiplied with; null leaves them alone.
    """

    most: ClassVar[int | None] = 1

    adapters: tuple[Input, ...]
    scale: float | None = Field(None, ge=-10, le=10)

    @property
    def inputs(self) -> Sequence[Input]:
        """The one."""
        return self.adapters

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """Passthrough."""
        arguments = {"scale": [self.scale]}
        whole = self.scale not in {None, 1.0}
        return Formula("passthrough", arguments, model_is_input=False, base_index=None, whole=whole, seed=self.seed)
