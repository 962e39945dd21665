"""Recipes that add to the base what each parent learnt beyond it, its task vector."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from foundry.recipe.fusing import Fusing, Input, Weighted
from foundry.recipe.stream import Formula


class Sparse(Weighted):
    """A parent of which only some of the change stays.

    Attributes:
        density: The share of its changes that stays (0 to 1]; the recipe's own where it is left out.
    """

    density: float | None = Field(None, gt=0, le=1)


class Summed(Fusing, ABC):
    """The base plus a weighted sum of task vectors.

    Attributes:
        normalize: Whether the sum is divided by the weights that went into it.
        scale: What the sum is multiplied with before it is added; mergekit's lambda.
    """

    normalize: bool = False
    scale: float = Field(1.0, gt=0, le=10)

    @property
    @abstractmethod
    def inputs(self) -> Sequence[Weighted]:
        """The parents, in their order."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What mergekit calls the method."""

    def counting(self) -> Sequence[int]:
        """Those whose weight is not 0: the others add nothing."""
        return [number for number, parent in enumerate(self.inputs) if parent.weight != 0]

    def formula(self, kept: Sequence[int]) -> Formula:
        """The weights, and what the method has beside them."""
        weights = [self.inputs[number].weight for number in kept]
        shared: dict[str, Any] = {"weight": weights, "normalize": self.normalize, "lambda": self.scale}
        return Formula(
            self.kind, {**shared, **self.own(kept)}, model_is_input=True, base_index=0, whole=False, seed=self.seed
        )

    def own(self, kept: Sequence[int]) -> Mapping[str, Any]:  # noqa: ARG002
        """The method's further parameters."""
        return {}


class TaskArithmetic(Summed):
    """Task vectors weighted and added (Ilharco et al. 2022, arXiv:2212.04089).

    Attributes:
        adapters: The parents.
    """

    adapters: tuple[Weighted, ...]

    @property
    def inputs(self) -> Sequence[Weighted]:
        """The parents."""
        return self.adapters

    @property
    def kind(self) -> str:
        """Its name in mergekit."""
        return "task_arithmetic"


class Thinned(Summed, ABC):
    """Task vectors of which a share stays.

    Attributes:
        adapters: The parents.
        density: The share of a parent's changes that stays (0 to 1].
        rescale: Whether what stays is enlarged to the l1 norm that all of it had.
    """

    adapters: tuple[Sparse, ...]
    density: float = Field(0.5, gt=0, le=1)
    rescale: bool = False

    @property
    def inputs(self) -> Sequence[Sparse]:
        """The parents."""
        return self.adapters

    def densities(self) -> list[float]:
        """Each parent's own density, or the recipe's."""
        return [self.density if parent.density is None else parent.density for parent in self.adapters]

    def told(self, number: int) -> Mapping[str, Any]:
        """Its weight and its density."""
        return {"weight": self.adapters[number].weight, "density": self.densities()[number]}

    def own(self, kept: Sequence[int]) -> Mapping[str, Any]:
        """Density and rescaling."""
        densities = self.densities()
        return {"density": [densities[number] for number in kept], "rescale": self.rescale}


class Trimmed(Thinned):
    """TIES keeps the largest changes, DARE random ones; `_ties` lets the parents vote on each sign.

    Sources: Yadav et al. 2023, arXiv:2306.01708; Yu et al. 2023, arXiv:2311.03099.

    Attributes:
        method: What mergekit calls it.
    """

    method: Literal["ties", "dare_ties", "dare_linear"]

    @property
    def kind(self) -> str:
        """Its name in mergekit."""
        return self.method


class Breadcrumbs(Thinned):
    """The largest changes are dropped as well as the smallest (Davari & Belilovsky 2023, arXiv:2312.06795).

    Attributes:
        method: What mergekit calls it.
        gamma: The share of a parent's changes, the largest ones, that is dropped.
    """

    method: Literal["breadcrumbs", "breadcrumbs_ties"]
    gamma: float = Field(0.01, ge=0, lt=1)

    @property
    def kind(self) -> str:
        """Its name in mergekit."""
        return self.method

    def own(self, kept: Sequence[int]) -> Mapping[str, Any]:
        """Density, rescaling and gamma."""
        return {**super().own(kept), "gamma": [self.gamma] * len(kept)}


class Della(Thinned):
    """Changes are dropped at random, small ones more often (Deep et al. 2024, arXiv:2406.11617).

    Attributes:
        method: What mergekit calls it.
        epsilon: How far the chance to stay lies around the density, for the smallest and the largest change.
    """

    method: Literal["della", "della_linear"]
    epsilon: float = Field(0.15, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _chances_lie_between_0_and_1(self) -> Self:
        for density in self.densities():
            if density < 1 and not 0 < density - self.epsilon <= density + self.epsilon < 1:
                expected = "expected their sum and difference between 0 and 1"
                raise ValueError(f"epsilon: found {self.epsilon} beside density {density}; {expected}")
        return self

    @property
    def kind(self) -> str:
        """Its name in mergekit."""
        return self.method

    def own(self, kept: Sequence[int]) -> Mapping[str, Any]:
        """Density, rescaling and epsilon."""
        return {**super().own(kept), "epsilon": [self.epsilon] * len(kept)}


class Unweighted(Fusing, ABC):
    """Task vectors that the method itself weighs.

    Attributes:
        adapters: The parents.
    """

    adapters: tuple[Input, ...]

    @property
    def inputs(self) -> Sequence[Input]:
        """The parents."""
        return self.adapters

    def around_base(self, method: str, **arguments: Any) -> Formula:
        """The method with the base as an input."""
        return Formula(method, arguments, model_is_input=True, base_index=0, whole=False, seed=self.seed)


class Sce(Unweighted):
    """Select, calculate, erase: weights from how much a parent changed (Wan et al. 2024, arXiv:2408.07990).

    Attributes:
        select_topk: The share of numbers, those on which the parents differ most, that changes at all.
    """

    select_topk: float = Field(0.1, gt=0, le=1)

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """SCE."""
        return self.around_base("sce", select_topk=self.select_topk)


class ModelStock(Unweighted):
    """As far from the base as the angles between the parents say (Jang et al. 2024, arXiv:2403.19522).

    Attributes:
        filter_wise: Whether each row of a weight has its own angle.
    """

    least: ClassVar[int] = 2

    filter_wise: bool = False

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """Model Stock."""
        return self.around_base("model_stock", filter_wise=self.filter_wise)


class Ram(Unweighted):
    """Changes that one parent alone made stay whole, shared ones are averaged (arXiv:2601.13572).

    Attributes:
        epsilon: The least change that counts as one.
    """

    epsilon: float = Field(1e-5, gt=0, le=1)

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """RAM."""
        return self.around_base("ram", epsilon=self.epsilon)


class RamPlus(Unweighted):
    """RAM with the changes of one parent alone enlarged, weight by weight (arXiv:2601.13572).

    Attributes:
        r: How strongly.
        alpha: The ratio of shared to own changes from which on it grows no further.
        epsilon: The least change that counts as one.
    """

    r: float = Field(0.1, ge=0, le=10)
    alpha: float = Field(0.2, ge=0, le=10)
    epsilon: float = Field(1e-5, gt=0, le=1)

    def formula(self, kept: Sequence[int]) -> Formula:  # noqa: ARG002
        """RAM+ (tensor-local)."""
        return self.around_base("ramplus_tl", r=self.r, alpha=self.alpha, epsilon=self.epsilon)
