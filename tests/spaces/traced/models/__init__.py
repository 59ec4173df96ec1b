"""Small models of the families that users bring, untrained but for statistics that are not those of a fresh module."""

from tests.spaces.traced.models.convolutional import (
    DenseNet,
    DigitsNet,
    MobileNetV2,
    ResNet,
    Shuffled,
    ShuffleNet,
    UNet,
)
from tests.spaces.traced.models.parts import CLASSES, SHAPE, settled
from tests.spaces.traced.models.tokens import ConvNeXt, Pooled, VisionTransformer
from tests.spaces.traced.models.unusual import Awkward, Fixed, Perceptron, Vectors

__all__ = ["CLASSES", "MODELS", "SHAPE", "DigitsNet", "ResNet", "VisionTransformer", "settled"]

MODELS = {
    "awkward": Awkward,
    "fixed": Fixed,
    "vectors": Vectors,
    "perceptron": Perceptron,
    "pooled": Pooled,
    "shufflenetv2": ShuffleNet,
    "resnet": ResNet,
    "resnet_projection": lambda: ResNet(projection=True),
    "mobilenetv2": MobileNetV2,
    "squeeze_excite": lambda: MobileNetV2(gated=True),
    "densenet": DenseNet,
    "unet": UNet,
    "vision_transformer": VisionTransformer,
    "convnext": ConvNeXt,
    "shuffled": Shuffled,
}
