"""`convext.receptive_field`: published values, and agreement with gradients for every row of many networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import convext
from convext.receptive_field import Rectangle, Report


class Model(nn.Module):
    """A convolution, then a function: its calls have rows of their own."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def after_conv(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers)


def conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(8, 8, *args, **kwargs)


def assert_verified(report: Report) -> None:
    assert len(report)
    assert [row.name for row in report if not row.verified] == []


# Networks.


@pytest.mark.parametrize(
    ("model", "image", "layer", "size", "jump", "start"),
    [
        # Simonyan and Zisserman's conv5_3 and pool5. The image may be smaller than the field.
        (networks.vgg16, 64, "features.28", 196, 16, -90),
        (networks.vgg16, 64, "features.30", 212, 32, -90),
        (networks.vgg16, 224, "features.28", 196, 16, -90),
        # Araujo, Norris and Sim have 483 for TF-slim's ResNet-50; torchvision's strides are elsewhere.
        (lambda: networks.ResNet50(2, stride_in_last_block=True), 64, "layer4", 483, 32, -241),
        (lambda: networks.ResNet50(2), 64, "layer4", 427, 32, -213),
        (lambda: networks.ResNet50(2), 224, "layer4.2.conv2", 427, 32, -213),
        (lambda: networks.ResNet50(2), 64, "maxpool", 11, 4, -5),
        # 491 in the same table.
        (networks.mobilenet_v2, 64, "20", 491, 32, -245),
        # Ronneberger, Fischer and Brox' bottleneck with four poolings.
        (lambda: networks.UNet(2, depth=4), 32, "down.4", 140, 16, -62),
    ],
)
def test_published_values(
    model: Callable[[], nn.Module], image: int, layer: str, size: int, jump: int, start: int
) -> None:
    row = convext.receptive_field(model(), image)[layer]
    assert (row.size, row.jump, row.start) == ((size, size), (jump, jump), (start, start))
    assert row.padding == (-start, -start)
    assert row.center == (start + (size - 1) / 2,) * 2
    assert not row.global_view and not row.probed and not row.note


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "vgg16": (lambda: networks.vgg16(2), 32),
    "resnet50": (lambda: networks.ResNet50(2), 64),
    "resnet50_slim": (lambda: networks.ResNet50(2, stride_in_last_block=True), 64),
    "mobilenet_v2": (lambda: networks.mobilenet_v2(2), 64),
    "deeplab": (networks.DeepLabHead, 64),
    "unet": (lambda: networks.UNet(2), 32),
    "unet_bilinear": (lambda: networks.UNet(2, bilinear=True), 32),
    "unet_align_corners": (lambda: networks.UNet(2, bilinear=True, align_corners=True), 32),
    "inception": (networks.Inception, (47, 50)),
    "densenet": (networks.DenseBlock, 32),
    "squeeze_excitation": (networks.SqueezeExcitation, 32),
    "shufflenet": (networks.ShuffleUnit, 32),
    "window_attention": (networks.WindowAttention, 32),
    "window_attention_fused": (lambda: networks.WindowAttention(fused=True), 32),
    "shifted_window_attention": (lambda: networks.WindowAttention(shift=2), 32),
    "vision_transformer": (networks.VisionTransformer, 32),
    "convnext": (networks.ConvNeXtBlock, 64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_agree_at_every_row(name: str) -> None:
    build, size = NETWORKS[name]
    report = convext.receptive_field(build(), size, verify=True)
    assert_verified(report)
    assert not report.mismatches
    # Nothing in them is unknown.
    assert [row.name for row in report if row.probed or "assumed" in row.note] == []


def test_branches_of_deeplab() -> None:
    report = convext.receptive_field(networks.DeepLabHead(), 64)
    assert [report[f"atrous.{index}"].size for index in range(3)] == [(47, 47), (63, 63), (79, 79)]
    pooled, merged = report["image_pooling.0"], report["cat"]
    assert pooled.global_view and pooled.size == (64, 64) and pooled.jump == (0, 0)
    assert pooled.output_size == (1, 1) and "no local path" in pooled.note
    # The largest local branch; beside it one that sees everything.
    assert merged.global_view and merged.size == (79, 79) and merged.jump == (8, 8) and merged.note == ""
    assert report.unit("cat", (0, 0)).rectangle == Rectangle(0, 0, 64, 64)
    assert not report["atrous.2"].global_view


def test_squeeze_and_excitation_keeps_its_local_path() -> None:
    report = convext.receptive_field(networks.SqueezeExcitation(), 32)
    assert report["mul"].size == (3, 3) and report["mul"].global_view
    assert report["after"].size == (7, 7) and report["after"].jump == (2, 2)
    unit = report.unit("after", (0, 0))
    assert unit.rectangle == Rectangle(0, 0, 32, 32)
    assert unit.unclipped == Rectangle(-3, -3, 4, 4)


def test_sides_differ() -> None:
    report = convext.receptive_field(networks.Inception(), (47, 50))
    assert report["branch7x7.1"].size == (3, 15)
    assert report["branch_wide.2"].size == (15, 27)
    assert report["cat"].start == (-6, -12)
    assert report["cat#2"].size == (19, 31)


def test_windows_of_attention() -> None:
    report = convext.receptive_field(networks.WindowAttention(), 32)
    assert report["patches"].output_size == (16, 16)
    # A window is 4 x 4 patches of 2 x 2 pixels; a unit and its neighbour see the same or the next window.
    row = report["add"]
    assert (row.size, row.jump, row.output_size) == ((8, 8), (2, 2), (16, 16))
    assert [report.unit("add", (0, column)).rectangle.left for column in (0, 3, 4, 15)] == [0, 0, 8, 24]
    assert report["merge"].size == (16, 16)
    assert not report["merge"].global_view


@pytest.mark.parametrize("fused", [False, True])
def test_attention_over_everything_is_global(fused: bool) -> None:
    """As one window as large as the image."""
    report = convext.receptive_field(networks.WindowAttention(window=16, fused=fused), 32, verify=True)
    assert_verified(report)
    row = report["project"]
    assert row.global_view and row.size == (32, 32) and row.jump == (0, 0) and row.note == "no local path"
    assert row.output_size == (16, 16)
    assert (report["add"].size, report["add"].jump, report["add"].global_view) == ((2, 2), (2, 2), True)
    assert not report["qkv"].global_view


def test_windows_and_what_a_convolution_makes_of_them_meet() -> None:
    def meet(x: torch.Tensor) -> torch.Tensor:
        windows = x.unflatten(2, (4, 4)).amax(3, keepdim=True).expand(-1, -1, -1, 4, -1).flatten(2, 3)
        return windows + F.avg_pool2d(windows, 3, 1, 1)

    report = convext.receptive_field(Model(meet), 16, verify=True)
    assert_verified(report)
    # A window sees 4 rows and one more on each side, and so does the next one, which the average may reach.
    assert (report["add"].size, report["add"].jump, report["add"].note) == ((10, 5), (1, 1), "")


def test_attention_over_a_grid_is_global() -> None:
    """Every second token attends to every other second one: all of the image, at each of two offsets."""

    def attend(x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        grid = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 2, 4, 1)
        tokens = grid.reshape(batch * 4, height * width // 4, channels)
        seen = torch.softmax(tokens @ tokens.mT, -1) @ tokens
        grid = seen.view(batch, 2, 2, height // 2, width // 2, channels).permute(0, 5, 3, 1, 4, 2)
        return F.max_pool2d(grid.reshape(x.shape), 1)

    report = convext.receptive_field(Model(attend), 16, verify=True)
    assert_verified(report)
    row = report["max_pool2d"]
    assert row.global_view and row.note == "no local path" and row.jump == (0, 0) and row.size == (16, 16)
    assert report.unit("max_pool2d", (0, 1)).rectangle == Rectangle(0, 0, 16, 16)


def test_a_sum_over_what_came_before() -> None:
    report = convext.receptive_field(Model(lambda x: x.cumsum(3)), 16, verify=True)
    assert report["cumsum"].verified and report["cumsum"].global_view
    assert report.unit("cumsum", (8, 4)).rectangle == Rectangle(7, 0, 10, 6)


def test_a_class_token_and_attention() -> None:
    report = convext.receptive_field(networks.VisionTransformer(), 32)
    head = report["head"]
    assert head.global_view and head.size == (32, 32) and head.output_size == (1, 1)
    # A class token and 16 patches, in one line.
    assert report["cat"].output_size == (17, 1)
    assert report.unit("cat", (0, 0)).rectangle == Rectangle(0, 0, 0, 0)
    assert report.unit("cat", (6, 0)).rectangle == Rectangle(8, 8, 16, 16)


def test_convext_layers_give_the_same_report() -> None:
    plain, replaced = networks.ResNet50(2), networks.ResNet50(2)
    convext.replace_conv2d(replaced)
    assert isinstance(replaced.conv1, convext.Conv2D)
    expected = convext.receptive_field(plain, 64).to_records()
    found = convext.receptive_field(replaced, 64, verify=True)
    assert_verified(found)
    ignored = ("kind", "verified")
    assert [{k: v for k, v in record.items() if k not in ignored} for record in found.to_records()] == [
        {k: v for k, v in record.items() if k not in ignored} for record in expected
    ]


# Operators.


def _into_a_buffer(x: torch.Tensor) -> torch.Tensor:
    buffer = torch.zeros(len(x), 16, *x.shape[2:]).to(x)
    buffer[:, :8] = x
    buffer[:, 8:] = F.max_pool2d(x, 3, 1, 1)
    return F.avg_pool2d(buffer, 2)


def _rows_into_a_buffer(x: torch.Tensor) -> torch.Tensor:
    buffer = torch.zeros_like(x)
    buffer[:, :, 1:] = x[:, :, :-1]
    buffer[:, :, :, ::2].add_(x[:, :, :, 1::2])
    return F.avg_pool2d(buffer, 3)


def _into_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    half = y[:, :4]
    half += F.avg_pool2d(x, 3, 1, 1)[:, 4:]
    return F.max_pool2d(y, 2)


def _onto_what_a_layer_returned(x: torch.Tensor) -> torch.Tensor:
    wide = F.avg_pool2d(x * 1, 5, 1, 2)
    x += wide
    return x


def _inplace_residual(x: torch.Tensor) -> torch.Tensor:
    out = F.avg_pool2d(x, 5, 1, 2)
    out += x
    return F.relu_(out) + 1


OPERATORS: dict[str, tuple[nn.Module, tuple[int, int]]] = {
    # name: (model, size of the field behind it)
    "stride_beyond_kernel": (after_conv(conv(2, stride=3), conv(1, stride=2)), (4, 4)),
    "even_kernels": (after_conv(conv(4, padding="same"), conv(2, padding=1)), (7, 7)),
    "padding_beyond_kernel": (after_conv(conv(1, padding=3), conv(3, padding=2)), (5, 5)),
    "dilation": (after_conv(conv(3, dilation=(2, 3), padding=(2, 3))), (7, 9)),
    "groups": (after_conv(conv(3, groups=4)), (5, 5)),
    "groups_keep_branches_apart": (
        Model(
            lambda x: F.avg_pool2d(
                F.conv2d(torch.cat((x, F.avg_pool2d(x, 5, 1, 2)), 1), torch.ones(16, 8, 1, 1).to(x), groups=2)[:, :8], 2
            )
        ),
        (4, 4),
    ),
    "replicate": (after_conv(conv(3, padding=1, padding_mode="replicate"), conv(3)), (7, 7)),
    "reflect": (after_conv(conv(5, padding=2, padding_mode="reflect"), conv(3)), (9, 9)),
    "circular": (after_conv(conv(5, padding=2, padding_mode="circular"), conv(3)), (9, 9)),
    "crop": (after_conv(nn.ConstantPad2d((-1, 2, -3, 1), 0.0), conv(3)), (5, 5)),
    "avg_pool_ceil": (after_conv(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), conv(2)), (7, 7)),
    "max_pool_ceil": (after_conv(nn.MaxPool2d(3, 2, ceil_mode=True), conv(3, padding=1)), (9, 9)),
    "max_pool_dilated": (after_conv(nn.MaxPool2d(3, 1, 1, dilation=2)), (7, 7)),
    "max_pool_indices": (Model(lambda x: F.max_pool2d(x, 3, 2, return_indices=True)[0]), (5, 5)),
    "lp_pool": (after_conv(nn.LPPool2d(2, 3, stride=2)), (5, 5)),
    "adaptive_5": (after_conv(nn.AdaptiveAvgPool2d(5), conv(3, padding=1)), (18, 16)),
    "adaptive_max": (after_conv(nn.AdaptiveMaxPool2d((5, 7))), (8, 6)),
    "adaptive_rows": (after_conv(nn.AdaptiveAvgPool2d((1, None)), conv(1)), (24, 3)),
    "transposed": (after_conv(nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1)), (4, 4)),
    "transposed_even": (after_conv(nn.ConvTranspose2d(8, 4, 4, 2, 1)), (4, 4)),
    "transposed_groups": (after_conv(nn.ConvTranspose2d(8, 8, 3, 3, dilation=2, groups=2)), (3, 3)),
    "transposed_gaps": (after_conv(nn.ConvTranspose2d(8, 8, 2, 4), conv(3)), (3, 3)),
    "nearest_3": (after_conv(nn.Upsample(scale_factor=3), conv(3)), (4, 4)),
    "nearest_exact": (after_conv(nn.Upsample(size=(50, 41), mode="nearest-exact"), conv(3)), (4, 5)),
    "bilinear": (after_conv(nn.Upsample(scale_factor=2, mode="bilinear"), conv(3, padding=1)), (5, 5)),
    "bilinear_1.5": (after_conv(nn.Upsample(scale_factor=1.5, mode="bilinear"), conv(3)), (6, 6)),
    "bicubic": (after_conv(nn.Upsample(scale_factor=2, mode="bicubic"), conv(3, padding=1)), (7, 7)),
    "align_corners": (after_conv(nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True)), (6, 6)),
    "downsampled": (Model(lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear")), (4, 4)),
    "antialiased": (Model(lambda x: F.interpolate(x, (9, 9), mode="bilinear", antialias=True)), (8, 7)),
    "pixel_shuffle": (after_conv(nn.PixelShuffle(2), nn.Conv2d(2, 3, 3, padding=1)), (4, 4)),
    "pixel_unshuffle": (after_conv(nn.PixelUnshuffle(2), nn.Conv2d(32, 3, 3, padding=1)), (8, 8)),
    "channel_shuffle": (after_conv(nn.ChannelShuffle(2), conv(3, groups=4)), (5, 5)),
    "space_to_depth": (
        Model(lambda x: F.avg_pool2d(torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1), 3, 1, 1)),
        (8, 8),
    ),
    "unfold": (Model(lambda x: F.unfold(x, 3, dilation=2).sum(1)), (7, 7)),
    "unfold_fold": (Model(lambda x: F.fold(F.unfold(x, 3, 1, 1, 2), x.shape[2:], 3, 1, 1, 2) * x), (3, 3)),
    "tensor_unfold": (Model(lambda x: x.unfold(2, 3, 2).amax(-1)), (5, 3)),
    "flip": (Model(lambda x: F.max_pool2d(x.flip(3), 2)), (4, 4)),
    "roll": (Model(lambda x: x.roll(3, 3) + x), (3, 22)),
    "glu": (Model(lambda x: F.glu(x, 1) + 1, 8), (3, 3)),
    "local_response_norm": (after_conv(nn.LocalResponseNorm(3)), (3, 3)),
    "instance_norm": (after_conv(nn.InstanceNorm2d(8)), (24, 22)),
    "group_norm": (after_conv(nn.GroupNorm(2, 8)), (24, 22)),
    "batch_statistics": (after_conv(nn.BatchNorm2d(8, track_running_stats=False)), (24, 22)),
    "einsum": (Model(lambda x: torch.einsum("nchw,ck->nkhw", x, torch.ones(8, 5).to(x))), (3, 3)),
    "along_rows": (Model(lambda x: torch.ones(6, x.shape[2]).to(x) @ x), (24, 3)),
    "stack": (Model(lambda x: torch.stack([x, F.avg_pool2d(x, 3, 1, 1)], 2).flatten(1, 2)), (5, 5)),
    "unbind": (Model(lambda x: torch.stack(x.unbind(2)[::2], 2) + 1), (3, 3)),
    "split": (Model(lambda x: torch.cat(F.max_pool2d(x, 2).split([3, 5], 1)[::-1], 1)), (4, 4)),
    "where": (Model(lambda x: torch.where(x > 0, x, F.avg_pool2d(x, 3, 1, 1))), (5, 5)),
    "maximum": (Model(lambda x: torch.maximum(x, F.avg_pool2d(x, 3, 1, 1))), (5, 5)),
    "max_over_rows": (Model(lambda x: x.max(2)[0]), (24, 3)),
    "softmax_over_rows": (Model(lambda x: torch.softmax(x, 2)), (24, 3)),
    "cumulative": (Model(lambda x: x.cumsum(3)), (3, 22)),
    "cumulative_over_channels": (Model(lambda x: torch.cat((x, F.avg_pool2d(x, 3, 1, 1)), 1).cumsum(1)), (5, 5)),
    "recurrent": (
        Model(lambda x: F.avg_pool1d(nn.LSTM(8, 5, batch_first=True, bidirectional=True).to(x)(x.mean(2).mT)[0].mT, 2)),
        (24, 22),
    ),
    "strip_pooling": (Model(lambda x: x * x.mean(3, keepdim=True).sigmoid()), (3, 3)),
    "prelu": (after_conv(nn.PReLU(8), conv(3)), (5, 5)),
    "tokens": (
        Model(lambda x: (F.layer_norm(x.flatten(2).transpose(1, 2), (8,)) * 2).transpose(1, 2).reshape(x.shape) + x),
        (3, 3),
    ),
    "conv1d": (Model(lambda x: F.conv1d(x.mean(2), torch.ones(4, 8, 3).to(x))), (24, 5)),
    "conv3d": (Model(lambda x: F.conv3d(x[:, None], torch.ones(4, 1, 3, 3, 3).to(x))), (5, 5)),
    "repeated": (Model(lambda x: F.avg_pool2d(x.repeat_interleave(2, 3), 2)), (4, 3)),
    "buffer": (Model(_into_a_buffer), (6, 6)),
    "rows_into_a_buffer": (Model(_rows_into_a_buffer), (6, 6)),
    "view": (Model(_into_a_view), (6, 6)),
    "onto_what_a_layer_returned": (Model(_onto_what_a_layer_returned), (7, 7)),
    "inplace_residual": (Model(_inplace_residual), (7, 7)),
    "convext_sides": (after_conv(convext.Conv2D(8, 8, (5, 7), padding=((4, 0), (1, 3)))), (7, 9)),
    "convext": (
        after_conv(
            convext.Conv2D(8, 8, 4, stride=3, padding="same"),
            convext.Conv2D(8, 8, 3, padding=2, dilation=2, padding_mode="circular"),
            convext.Conv2D(8, 8, 3, padding=((2, 0), (1, 3))),
        ),
        (24, 24),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    model, size = OPERATORS[name]
    report = convext.receptive_field(model, (24, 22), verify=True)
    assert_verified(report)
    assert [row.name for row in report if row.probed or "assumed" in row.note] == []
    assert tuple(min(own, 24) for own in report[-1].size) == size


def test_jumps_of_upsampling() -> None:
    report = convext.receptive_field(after_conv(nn.Upsample(scale_factor=4), conv(3, stride=2, padding=1)), 16)
    assert report["1"].jump == (0.25, 0.25) and report["2"].jump == (0.5, 0.5)
    # Three pixels of an image four times as large lie in one or two pixels of the image.
    starts = [report.unit("2", (0, column)).unclipped.left for column in range(5)]
    assert starts == [-2, -1, -1, 0, 0]


def test_jump_is_an_int_where_it_can_be() -> None:
    report = convext.receptive_field(after_conv(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)), 16)
    assert [type(value) for row in report for value in row.jump] == [int, int, float, float, int, int]


def test_patterns_longer_than_the_tensor_do_not_arise() -> None:
    steps = [layer for _ in range(4) for layer in (nn.Upsample(scale_factor=2), conv(3, stride=2, padding=1))]
    report = convext.receptive_field(after_conv(*steps), 3)
    assert [(row.size[0], row.jump[0], row.start[0]) for row in list(report)[2::2]] == [
        (4, 1, -2),
        (5, 1, -3),
        (6, 1, -4),
        (7, 1, -5),
    ]


def test_a_dimension_that_was_split_and_merged_is_even_again() -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        windows = x.unflatten(2, (3, 8)).permute(0, 2, 1, 3, 4) + 0
        return F.max_pool2d(F.max_pool2d(windows.permute(0, 2, 1, 3, 4).flatten(2, 3), 3), 3, padding=1)

    report = convext.receptive_field(Model(lambda x: F.avg_pool2d(there_and_back(x), 3, 1, 1)), 24, verify=True)
    assert_verified(report)
    assert (report[-1].size, report[-1].jump, report[-1].start) == ((29, 29), (9, 9), (-13, -13))
    assert report[-1].note == ""


def test_what_does_not_move_evenly_is_called_irregular() -> None:
    report = convext.receptive_field(networks.UNet(2, bilinear=True, align_corners=True), 32)
    upsampled, merged = report["up.0.0"], report["cat"]
    # From 4 to 8 rows: 3 steps of 8 pixels become 7.
    assert upsampled.jump == pytest.approx((24 / 7, 24 / 7)) and upsampled.note == ""
    assert merged.note == report["head"].note == "irregular" and merged.size == (32, 32)
    report = convext.receptive_field(Model(lambda x: x + x[:, :, :1]), 32)
    assert report["add"].note == "irregular" and report["add"].size == (32, 3)


# Random models, and all of their units.


class RandomModel(nn.Module):
    """Linear layers with positive weights, in a row, with residuals and concatenations."""

    def __init__(self, plan: list[tuple[str, tuple[int, ...]]]) -> None:
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleList()
        for kind, numbers in plan:
            layer: nn.Module = nn.Identity()
            if kind == "conv":
                kernel, stride, padding, dilation = numbers
                layer = nn.Conv2d(2, 2, (kernel, 3), stride, (padding, 1), dilation, padding_mode="zeros")
            elif kind == "transposed":
                kernel, stride = numbers
                layer = nn.ConvTranspose2d(2, 2, kernel, stride, padding=1)
            elif kind == "pool":
                layer = nn.AvgPool2d(numbers[0], numbers[1], ceil_mode=bool(numbers[2]))
            elif kind == "upsample":
                layer = nn.Upsample(scale_factor=2, mode=("nearest", "bilinear")[numbers[0]])
            elif kind in ("add", "iadd", "cat"):
                layer = nn.Conv2d(2, 2, 3, padding=numbers[0], dilation=numbers[0])
            self.layers.append(layer)
        self.merge = nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for (kind, _), layer in zip(self.plan, self.layers, strict=True):
            if kind == "add":
                x = x + layer(x)
            elif kind == "iadd":
                out = layer(x)
                out += x
                x = out
            elif kind == "cat":
                x = self.merge(torch.cat((layer(x), x), 1))
            elif kind == "slice":
                x = x[:, :, 1:, ::2]
            else:
                x = layer(x)
        return x


STEPS = st.one_of(
    st.tuples(st.just("conv"), st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))),
    st.tuples(st.just("transposed"), st.tuples(st.integers(2, 4), st.integers(1, 3))),
    st.tuples(st.just("pool"), st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1))),
    st.tuples(st.just("upsample"), st.tuples(st.integers(0, 1))),
    st.tuples(st.sampled_from(["add", "iadd", "cat"]), st.tuples(st.integers(1, 3))),
    st.tuples(st.just("slice"), st.just(())),
)
PLANS = st.lists(STEPS, min_size=1, max_size=4)


def all_rectangles(model: nn.Module, height: int, width: int) -> dict[tuple[int, int], Rectangle]:
    """For each unit of the output the rectangle of pixels with a gradient."""
    model = model.double()
    found = {}
    image = torch.ones(1, 2, height, width, dtype=torch.float64, requires_grad=True)
    output = model(image)
    for row in range(output.shape[2]):
        for column in range(output.shape[3]):
            (gradient,) = torch.autograd.grad(output[..., row, column].sum(), image, retain_graph=True)
            seen = gradient[0].abs().sum(0) > 0
            rows, columns = seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()
            box = Rectangle(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else Rectangle(0, 0, 0, 0)
            found[row, column] = box
    return found


def _runs(model: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            output = model(torch.zeros(shape))
    except RuntimeError:
        return False
    return 0 < output.shape[-1] * output.shape[-2] <= 400


@settings(max_examples=60, deadline=None, derandomize=True)
@given(plan=PLANS, height=st.integers(4, 9), width=st.integers(4, 9))
def test_every_unit_of_random_models(plan: list[Any], height: int, width: int) -> None:
    model = RandomModel(plan)
    if not _runs(model, (1, 2, height, width)):
        return
    report = convext.receptive_field(model, (2, height, width))
    found = {index: report.unit("", index).rectangle for index in all_rectangles(model, height, width)}
    assert found == all_rectangles(model, height, width)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(plan=PLANS, height=st.integers(6, 9), width=st.integers(6, 9))
def test_unclipped_fields_are_those_within_a_larger_image(plan: list[Any], height: int, width: int) -> None:
    model = RandomModel(plan)
    if not _runs(model, (1, 2, height, width)):
        return
    small = convext.receptive_field(model, (2, height, width))
    if small[""].note:
        return
    # Shifted by a multiple of all strides, every layer does the same elsewhere.
    step = math.prod(_stride(kind, numbers) for kind, numbers in plan)
    ends = [small.unit("", (index, index)).unclipped for index in (0, -1)]
    needed = max(max(-end.top, -end.left, end.bottom - height, end.right - width, 0) for end in ends) + 12
    margin = -(-needed // step) * step
    if margin > 150:
        return
    shift = [round(margin / jump) for jump in small[""].jump]
    large = convext.receptive_field(model, (2, height + 2 * margin, width + 2 * margin))
    for row in range(small[""].output_size[0]):
        for column in range(small[""].output_size[1]):
            inside = large.unit("", (row + shift[0], column + shift[1])).rectangle
            own = small.unit("", (row, column)).unclipped
            if own.size == (0, 0):
                assert inside.size == (0, 0)
            else:
                assert inside == Rectangle(*(edge + margin for edge in (own.top, own.left, own.bottom, own.right)))


def _stride(kind: str, numbers: tuple[int, ...]) -> int:
    return {"conv": numbers[1:2], "pool": numbers[1:2], "slice": (2,)}.get(kind, (1,))[0]
