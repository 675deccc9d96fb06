"""The ResNets that Visual Transformers stand on.

He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.1 and table 1, with
the stride of a bottleneck at its 3×3 convolution, as torchvision and timm publish them. Parameter names are those
of both libraries (``layer1.0.conv1.weight``), so that their weights load as they are.

The papers count stages from 1, the stem; the code counts layers after it: stage 5 is ``layer4``.
"""

from __future__ import annotations

from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.visual_transformer_config import RESNETS


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; (n, c, h, w) → (n, width, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution around a shortcut; (n, c, h, w) → (n, 4 width, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A ResNet without its classifier; images (n, c, h, w) of any size → one feature map for each layer.

    Args:
        name: A key of `RESNETS`.
        layers: How many of the four layers to build.
        in_channels: Channels of an image.
        width: Channels of the stem; 64 in every published network.

    Attributes:
        channels: Channels of each layer's map; their strides are 4, 8, 16 and 32 pixels.

    Raises:
        ConfigError: No network is called so.
    """

    def __init__(self, name: str, layers: int = 4, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if name not in RESNETS:
            raise ConfigError("resnet", f"none is called {name!r}", f"choose one of {', '.join(RESNETS)}")
        bottleneck, depths = RESNETS[name]
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = tuple(width * 2**layer * block.expansion for layer in range(layers))
        inputs = (width, *self.channels)
        self.layer_names = tuple(f"layer{layer + 1}" for layer in range(layers))
        for layer, layer_name in enumerate(self.layer_names):
            blocks = [
                block(
                    self.channels[layer] if index else inputs[layer],
                    width * 2**layer,
                    1 if index or layer == 0 else 2,
                )
                for index in range(depths[layer])
            ]
            self.add_module(layer_name, nn.Sequential(*blocks))
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (n, c, h, w) to the layers' maps, finest first: (n, channels[i], h / 4·2^i, w / 4·2^i)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for name in self.layer_names:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps
