"""The results as pictures: a roofline, heat maps over kernel size and channels, bars for networks and their layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convext.benchmark.machine import Machine
from convext.benchmark.report import Result, Summary, geometric_mean, summaries, to_best_peer, to_torch
from convext.benchmark.suite import PASSES

COLORS = {"forward": "#3b6fb6", "grad_input": "#e08a2e", "grad_weight": "#4f9d69"}
GRIDS = {"grid_dense": "dense", "grid_depthwise": "depthwise"}


def draw_all(results: Sequence[Result], machine: Machine, folder: Path) -> list[Path]:
    """Writes every picture for which there are results, and returns their files."""
    files = [draw_roofline(results, machine, folder / "roofline.png"), draw_networks(results, folder / "networks.png")]
    for network, title in GRIDS.items():
        cells = [result for result in results if result.network == network]
        if cells:
            files.append(draw_heat_map(cells, title, folder / f"heat_map_{title}.png"))
    for network in dict.fromkeys(result.network for result in results):
        if network not in GRIDS:
            layers = [result for result in results if result.network == network]
            files.append(draw_layers(layers, network, folder / f"network_{network}.png"))
    return files


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, file: Path) -> Path:
    figure.savefig(file, dpi=100)
    return file


def draw_roofline(results: Sequence[Result], machine: Machine, file: Path) -> Path:
    """Rate over arithmetic intensity, with the roofs that were measured; a panel for each number of threads."""
    threads = sorted({result.threads for result in results})
    figure = _figure(7.5 * len(threads), 5.5)
    for axes, count in zip(figure.subplots(1, len(threads), squeeze=False)[0], threads, strict=True):
        shown = [result for result in results if result.threads == count and result.dtype in ("f32", "f16")]
        for pass_name in PASSES:
            points = [result for result in shown if result.pass_name == pass_name]
            axes.scatter(
                [result.flops / result.bytes for result in points],
                [result.gflops for result in points],
                s=9,
                alpha=0.5,
                linewidths=0,
                color=COLORS[pass_name],
                label=pass_name,
            )
        intensity = [2.0**exponent for exponent in range(-4, 14)]
        peak = machine.peak["f32", count] / 1e9
        rates = machine.bandwidth[count]
        for bytes_, style in ((max(rates), "-"), (max(rates, key=lambda bytes_: rates[bytes_]), "--")):
            size = f"{bytes_ // 2**20} MiB" if bytes_ >= 2**20 else f"{bytes_ // 2**10} KiB"
            axes.plot(
                intensity,
                [min(peak, rates[bytes_] / 1e9 * value) for value in intensity],
                style,
                color="#444444",
                linewidth=1.2,
                label=f"{peak:.0f} GF/s; {rates[bytes_] / 1e9:.0f} GB/s copying {size}",
            )
        axes.set(xscale="log", yscale="log", xlabel="operations per byte, each tensor moved once", ylabel="GF/s")
        axes.set_title(f"float32 and float16, {count} thread{'s' if count > 1 else ''}")
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        axes.legend(fontsize=8, loc="lower right")
    return _save(figure, file)


def draw_heat_map(cells: Sequence[Result], title: str, file: Path) -> Path:
    """The ratio to torch's better layout over kernel size and channels, for each pass; the worse of our layouts."""
    passes = [name for name in PASSES if any(cell.pass_name == name for cell in cells)]
    kernels = sorted({cell.kernel_size[0] for cell in cells})
    channels = sorted({cell.channels[0] for cell in cells})
    figure = _figure(0.9 + 4.2 * len(passes), 1.6 + 0.42 * len(kernels))
    image = None
    all_axes = figure.subplots(1, len(passes), squeeze=False, sharey=True)[0]
    for axes, pass_name in zip(all_axes, passes, strict=True):
        grid = [[math.nan] * len(channels) for _ in kernels]
        for cell in cells:
            if cell.pass_name == pass_name and cell.ratio_torch is not None:
                row, column = kernels.index(cell.kernel_size[0]), channels.index(cell.channels[0])
                old = grid[row][column]
                grid[row][column] = cell.ratio_torch if math.isnan(old) else min(old, cell.ratio_torch)
        image = axes.imshow(
            [[math.log2(value) for value in row] for row in grid], cmap="RdBu", vmin=-3, vmax=3, aspect="auto"
        )
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                if not math.isnan(value):
                    text = format(value, ".2f" if value < 1 else ".1f" if value < 10 else ".0f")
                    color = "white" if abs(math.log2(value)) > 2 else "black"
                    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(channels)), map(str, channels))
        axes.set_yticks(range(len(kernels)), [f"{kernel}x{kernel}" for kernel in kernels])
        axes.set_title(pass_name)
        axes.set_xlabel("channels")
    bar = figure.colorbar(image, ax=all_axes, ticks=range(-3, 4))
    bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    figure.suptitle(f"{title}: torch's time in its better layout / convext's in its worse", fontsize=11)
    return _save(figure, file)


def _bars(axes: Any, table: dict[Any, Summary], names: Sequence[str], *, horizontal: bool) -> None:
    """Geometric means as bars that begin at 1, a mark at the worst; passes side by side."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    width = 0.26
    for index, pass_name in enumerate(PASSES):
        found = [(place, table.get((name, pass_name))) for place, name in enumerate(names)]
        places = [place + (index - 1) * width for place, summary in found if summary]
        lengths = [summary.mean - 1 for _, summary in found if summary]
        lows = [summary.worst for _, summary in found if summary]
        if horizontal:
            axes.barh(places, lengths, width, left=1, color=COLORS[pass_name], label=pass_name)
            axes.scatter(lows, places, marker="|", s=45, color="black", zorder=3)
        else:
            axes.bar(places, lengths, width, bottom=1, color=COLORS[pass_name], label=pass_name)
            axes.scatter(places, lows, marker="_", s=45, color="black", zorder=3)
    if horizontal:
        axes.set_xscale("log")
        axes.axvline(1, color="#aa2222", linewidth=1)
    else:
        axes.set_yscale("log")
        axes.axhline(1, color="#aa2222", linewidth=1)
    axis = axes.xaxis if horizontal else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, linewidth=0.5, axis="x" if horizontal else "y")
    axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def draw_networks(results: Sequence[Result], file: Path) -> Path:
    """Geometric mean and worst ratio of every network, to torch and, if there were others, to the best peer."""
    networks = list(dict.fromkeys(result.network for result in results))
    ratios: list[tuple[str, Callable[[Result], float | None]]] = [("torch's better layout", to_torch)]
    if any(to_best_peer(result) != to_torch(result) for result in results):
        ratios.append(("the best peer", to_best_peer))
    figure = _figure(max(7.0, 2 + 0.9 * len(networks)), 1 + 3.25 * len(ratios))
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, ratio) in zip(panels, ratios, strict=True):
        table = summaries(results, lambda result: (result.network, result.pass_name), ratio)
        _bars(axes, table, networks, horizontal=False)
        mean = geometric_mean(value for value in map(ratio, results) if value is not None)
        axes.set_title(f"time of {title} / convext's ({mean:.2f} over all)", pad=22)
        axes.set_xticks(range(len(networks)), networks, rotation=30, ha="right")
    figure.supxlabel("bars: geometric mean; marks: worst case", fontsize=9)
    return _save(figure, file)


def draw_layers(results: Sequence[Result], network: str, file: Path) -> Path:
    """A network's layers, one below the other."""
    layers = list(dict.fromkeys(result.layer for result in results))
    figure = _figure(8, 1.8 + 0.36 * len(layers))
    axes = figure.subplots()
    _bars(axes, summaries(results, lambda result: (result.layer, result.pass_name)), layers, horizontal=True)
    shapes = {result.layer: result.shape for result in results}
    axes.set_yticks(range(len(layers)), [f"{layer}\n{shapes[layer]}" for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_title(f"{network}: time of torch's better layout / convext's", fontsize=11, pad=22)
    axes.set_xlabel("bars: geometric mean; marks: worst case")
    return _save(figure, file)
