"""What candidates cost: estimates with stated error."""

from hwnas.predictors.cost import CostModel

__all__ = ["CostModel"]
