"""Small forms of well-known networks. Receptive fields do not depend on the number of channels, so these have few.

All take the number of channels as `width` where the original has 64 (or its first layer's), and can be made as wide as
the original.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def vgg16(width: int = 4, classes: int = 10) -> nn.Module:
    """Simonyan and Zisserman, arXiv:1409.1556, configuration D; ``features`` in the order of torchvision."""
    features: list[nn.Module] = []
    channels = 3
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        outputs = width * min(2**stage, 8)
        for _ in range(depth):
            features += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            channels = outputs
        features.append(nn.MaxPool2d(2, 2))
    head = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(channels * 49, 2 * width), nn.ReLU(True), nn.Dropout()]
    return _Vgg(features, head, 2 * width, classes)


class _Vgg(nn.Module):
    def __init__(self, features: list[nn.Module], head: list[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*head, nn.Linear(width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


class Bottleneck(nn.Module):
    """He et al., arXiv:1512.03385; the stride is that of the 3x3 convolution."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class ResNet50(nn.Module):
    """Stride in the first block of a stage, as torchvision has it, or in the last one, as TF-slim has it."""

    def __init__(self, width: int = 4, classes: int = 10, stride_in_last_block: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, depth in enumerate((3, 4, 6, 3)):
            blocks = []
            for index in range(depth):
                if stride_in_last_block:
                    stride = 2 if stage < 3 and index == depth - 1 else 1
                else:
                    stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Bottleneck(channels, width * 2**stage, stride))
                channels = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and channels == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


def mobilenet_v2(width: int = 4) -> nn.Module:
    """Sandler et al., arXiv:1801.04381."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(True)]
    channels = width
    settings = ((1, 1, 1, 1), (6, 1, 2, 2), (6, 1, 3, 2), (6, 2, 4, 2), (6, 3, 3, 1), (6, 5, 3, 2), (6, 10, 1, 1))
    for expansion, factor, depth, stride in settings:
        for index in range(depth):
            outputs = max(factor * width // 2, 2)
            layers.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(*layers, nn.Conv2d(channels, 8 * width, 1))


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling, Chen et al., arXiv:1706.05587, on a backbone of stride 8."""

    def __init__(self, width: int = 4, rates: tuple[int, ...] = (2, 3, 4)) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.MaxPool2d(3, 2, 1)
        )
        self.pointwise = nn.Conv2d(width, width, 1)
        self.atrous = nn.ModuleList(nn.Conv2d(width, width, 3, padding=rate, dilation=rate) for rate in rates)
        self.image_pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.ReLU())
        self.project = nn.Conv2d(width * (len(rates) + 2), width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-2:]
        x = self.backbone(x)
        pooled = F.interpolate(self.image_pooling(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([self.pointwise(x), *(conv(x) for conv in self.atrous), pooled], dim=1)
        return F.interpolate(self.project(x), size=size, mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox, arXiv:1505.04597, with padding; transposed convolutions or bilinear upsampling."""

    def __init__(self, width: int = 4, depth: int = 3, bilinear: bool = False, align_corners: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        channels = 3
        for level in range(depth + 1):
            self.down.append(self._double(channels, width * 2**level))
            channels = width * 2**level
        for level in reversed(range(depth)):
            outputs = width * 2**level
            if bilinear:
                upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
                self.up.append(nn.Sequential(upsample, nn.Conv2d(channels, outputs, 1)))
            else:
                self.up.append(nn.ConvTranspose2d(channels, outputs, 2, 2))
            self.merge.append(self._double(2 * outputs, outputs))
            channels = outputs
        self.head = nn.Conv2d(channels, 2, 1)

    @staticmethod
    def _double(channels: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for index, down in enumerate(self.down):
            x = down(x if index == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


class Inception(nn.Module):
    """A block with factorised 7x7 convolutions, Szegedy et al., arXiv:1512.00567, behind a strided stem."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.branch1x1 = nn.Conv2d(width, width, 1)
        self.branch7x7 = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.Conv2d(width, width, (1, 7), padding=(0, 3)),
            nn.Conv2d(width, width, (7, 1), padding=(3, 0)),
        )
        self.branch_wide = nn.Sequential(
            nn.Conv2d(width, width, (7, 1), padding=(3, 0)),
            nn.Conv2d(width, width, (1, 7), padding=(0, 3)),
            nn.Conv2d(width, width, (1, 7), padding=(0, 3)),
        )
        self.branch_pool = nn.Conv2d(width, width, 1)
        self.reduction = nn.Conv2d(4 * width, width, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        branches = [self.branch1x1(x), self.branch7x7(x), self.branch_wide(x), self.branch_pool(pooled)]
        x = torch.cat(branches, 1)
        return torch.cat([self.reduction(x), F.max_pool2d(x, 3, stride=2)], 1)


class DenseBlock(nn.Module):
    """Huang et al., arXiv:1608.06993: every layer sees the outputs of all layers before it; then a transition."""

    def __init__(self, width: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width * (index + 1)),
                nn.ReLU(),
                nn.Conv2d(width * (index + 1), width, 3, padding=1),
            )
            for index in range(depth)
        )
        self.transition = nn.Sequential(nn.Conv2d(width * (depth + 1), width, 1), nn.AvgPool2d(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.transition(torch.cat(features, 1))


class SqueezeExcitation(nn.Module):
    """Hu et al., arXiv:1709.01507: channels are scaled by gates that see everything."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2, 1)
        self.fc1 = nn.Linear(width, 2)
        self.fc2 = nn.Linear(2, width)
        self.after = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return self.after(x * gate[:, :, None, None])


class ShuffleUnit(nn.Module):
    """Ma et al., arXiv:1807.11164: half of the channels pass, then they are shuffled."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1), nn.Conv2d(half, half, 3, padding=1, groups=half), nn.Conv2d(half, half, 1)
        )
        self.branch2 = nn.Sequential(nn.Conv2d(half, half, 5, padding=2, groups=half))
        self.head = nn.Conv2d(width, width, 1, groups=2)

    @staticmethod
    def shuffle(x: torch.Tensor, groups: int = 2) -> torch.Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, groups, channels // groups, height, width)
        return x.transpose(1, 2).contiguous().view(batch, channels, height, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for branch in (self.branch, self.branch2):
            first, second = x.chunk(2, dim=1)
            x = self.shuffle(torch.cat((first, branch(second)), dim=1))
        return self.head(x)


class WindowAttention(nn.Module):
    """Liu et al., arXiv:2103.14030: tokens see the tokens of their window; shifted windows with ``shift``."""

    def __init__(self, width: int = 8, window: int = 4, patch: int = 2, shift: int = 0, fused: bool = False) -> None:
        super().__init__()
        self.window, self.shift, self.fused = window, shift, fused
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.merge = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        size = self.window
        shifted = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        windows = self.norm(shifted).view(batch, height // size, size, width // size, size, channels)
        windows = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)
        query, key, value = self.qkv(windows).chunk(3, dim=-1)
        if self.fused:
            # With a dimension for heads, since only then torch takes its fused kernels.
            seen = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        else:
            seen = torch.softmax(query @ key.transpose(-2, -1) / channels**0.5, dim=-1) @ value
        windows = self.project(seen)
        windows = windows.view(batch, height // size, width // size, size, size, channels).permute(0, 1, 3, 2, 4, 5)
        shifted = windows.reshape(batch, height, width, channels)
        x = x + (torch.roll(shifted, (self.shift, self.shift), (1, 2)) if self.shift else shifted)
        return self.merge(x.permute(0, 3, 1, 2))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., arXiv:2010.11929, one block: patches, a class token, attention over everything."""

    def __init__(self, width: int = 8, patch: int = 8, size: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, dropout=0.0)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1) + self.position
        return self.head(self.block(x)[:, 0])


class ConvNeXtBlock(nn.Module):
    """Liu et al., arXiv:2201.03545: depthwise 7x7, norm and linear layers over the channels of a permuted tensor."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.reduce = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.reduce(F.gelu(self.expand(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)
