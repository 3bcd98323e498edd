"""A page for each network: its figure, the output shape of every layer, its parameters; all read from the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

OF_PACKAGES = ("hf", "smp", "timm_unet")
CONF = Path(__file__).resolve().parents[2] / "conf"


@dataclass(frozen=True)
class Layer:
    """The output of a layer.

    Attributes:
        name: in the network.
        kind: its class.
        channels: of its output.
        height: of its output.
        width: of its output.
        parameters: of this layer.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    parameters: int


def network_pages() -> dict[str, str]:
    """Markdown by path, the overview first; figures are next to the pages."""
    import hydra

    pages: dict[str, str] = {}
    rows = []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for path in sorted((CONF / "model").glob("*.yaml")):
            if path.stem.startswith("_"):
                continue
            comment = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
            head = " ".join(line.lstrip("# ") for line in comment)
            if path.stem in OF_PACKAGES:
                # Each stands for hundreds of networks, of packages that the site is built without.
                rows.append(f"| [`model={path.stem}`](../networks_of_today.md) | {head} | by its arguments |")
                continue
            layers, total, shapes = trace(path.stem)
            rows.append(f"| [`model={path.stem}`]({path.stem}.md) | {head} | {total:,} |")
            pages[f"networks/{path.stem}.md"] = page(path.stem, head, layers, total, shapes)
            pages[f"networks/{path.stem}.svg"] = figure(layers)
    overview = "# Networks\n\n| network | | parameters |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    return {"networks/index.md": overview} | pages


def trace(name: str) -> tuple[list[Layer], int, tuple[str, str]]:
    """Layers in the order in which they run, the number of parameters, and both shapes; nothing is computed."""
    import hydra
    import torch
    from omegaconf import OmegaConf

    from segbench.config.record import Component
    from segbench.experiment.build import make
    from segbench.inference.forward import geometry_of

    composed = hydra.compose(f"model/{name}")
    config: Any = composed.get("model", composed)
    plain: Any = OmegaConf.to_container(config)
    late = config.get("fusion") == "late"
    membranes = name.startswith(("unet", "sliding_window"))
    grey = membranes and "vgg" not in name
    channels: Any = {"rgb": 3, "hha": 3} if late else 1 if grey else 3
    classes = 2 if membranes else 21
    with torch.device("meta"):
        model = make(Component.model_validate(plain), in_channels=channels, num_classes=classes).eval()
        side = _side(geometry_of(model))
        inputs = (
            {key: torch.empty(1, 3, side, side) for key in channels} if late else torch.empty(1, channels, side, side)
        )
        layers: list[Layer] = []
        for layer_name, module in model.named_modules():
            if layer_name and not any(True for _ in module.children()):
                module.register_forward_hook(_recorder(layer_name, layers))
        with torch.no_grad():
            logits = model(inputs)
    given = " and ".join(f"{key} 3 x {side} x {side}" for key in channels) if late else f"{channels} x {side} x {side}"
    made = " x ".join(str(size) for size in logits.shape[1:])
    return layers, sum(p.numel() for p in model.parameters()), (given, made)


def _side(geometry: Any) -> int:
    """The papers' input sides: 572 for U-Net, 500 for FCN, a window; a padded U-Net takes 512."""
    if geometry.margin and geometry.step == 1:
        return int(geometry.input_for(1))
    if geometry.margin:
        return int(geometry.nearest(572)[1])
    return 500 if geometry.is_valid(500) and geometry.step == 1 else int(geometry.nearest(512)[1])


def _recorder(name: str, layers: list[Layer]) -> Any:
    def record(module: Any, _: Any, output: Any) -> None:
        if type(module).__name__ != "Dropout" and getattr(output, "ndim", 0) == 4:
            own = sum(p.numel() for p in module.parameters())
            layers.append(Layer(name, type(module).__name__, *output.shape[1:], own))

    return record


def page(name: str, head: str, layers: list[Layer], total: int, shapes: tuple[str, str]) -> str:
    """Markdown: the figure, the configuration and a table of the layers."""
    rows = "\n".join(
        f"| `{layer.name}` | {layer.kind} | {layer.channels} x {layer.height} x {layer.width} | {layer.parameters:,} |"
        for layer in layers
    )
    yaml = (CONF / "model" / f"{name}.yaml").read_text()
    return f"""# {name}

{head}

{total:,} parameters; {shapes[0]} in, {shapes[1]} out (channels or classes x height x width).

![Layers of {name}: height is the side in pixels, width the number of channels, both logarithmic]({name}.svg)

*Each bar is the output of a layer: its height shows the side in pixels, its width the number of channels, both
logarithmic. Blue: convolutions; orange: upsampling; green: scores.*

```yaml
{yaml}```

| layer | kind | output | parameters |
| --- | --- | --- | --- |
{rows}
"""


def figure(layers: list[Layer]) -> str:
    """An SVG for light and dark pages: one bar per layer; the branches of an inception block are one bar."""
    drawn: list[Layer] = []
    for layer in layers:
        block = layer.name.split("/")[0]
        if layer.kind in ("BatchNorm2d", "GroupNorm", "ReLU"):
            continue
        if "/" in layer.name and drawn and drawn[-1].name == block:
            merged = drawn[-1].channels + (0 if layer.name.endswith("reduce") else layer.channels)
            drawn[-1] = Layer(block, layer.kind, merged, layer.height, layer.width, 0)
        else:
            drawn.append(Layer(block, layer.kind, layer.channels, layer.height, layer.width, 0))
    heights = [26 * max(math.log2(layer.height) - 1, 0.5) for layer in drawn]
    middle_y = max(heights) / 2 + 20
    # One line for all names: below the highest bar, so that no name crosses another bar's number.
    foot = middle_y + max(heights) / 2 + 28
    bars, x = [], 20.0
    for layer, height in zip(drawn, heights, strict=True):
        width = 6 + 1.8 * math.log2(layer.channels)
        kind = "score" if "score" in layer.name and "up" not in layer.name else "up" if _is_up(layer) else "conv"
        middle, top = x + width / 2, middle_y - height / 2
        bars.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2">'
            f"<title>{layer.name}: {layer.channels} x {layer.height} x {layer.width}</title></rect>"
            f'<text x="{middle:.1f}" y="{top - 5:.1f}">{layer.channels}</text>'
            f'<text x="{middle:.1f}" y="{top + height + 13:.1f}">{layer.height}</text>'
            f'<text class="name" transform="translate({middle - 4:.1f},{foot:.1f}) rotate(50)">'
            f"{layer.name}</text>"
        )
        # Wide enough for the numbers of neighbours.
        x += max(width + 8, 29)
    style = (
        "text{font:12px sans-serif;text-anchor:middle;fill:#444}.name{text-anchor:start}"
        ".conv{fill:#5b8fd6}.up{fill:#e39a3b}.score{fill:#58a66a}"
        "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
    )
    below = 8 + 6 * max(len(layer.name) for layer in drawn)
    size = f'width="{x + 60:.0f}" height="{foot + below:.0f}" viewBox="0 0 {x + 60:.0f} {foot + below:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(bars)}</svg>'


def _is_up(layer: Layer) -> bool:
    return "Upsampling" in layer.kind or "Transpose" in layer.kind
