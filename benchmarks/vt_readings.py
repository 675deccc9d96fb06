"""Which reading of the Visual Transformers paper has the sizes that its tables report?

    python benchmarks/vt_readings.py [--top 15]

First a search: every combination of what the equations leave open (widths, groups, which matrices exist, what is
counted), by arithmetic, against parameters and multiply-adds of VT-ResNet-18, 34, 50 and 101; those within 3 % of
all eight figures are ranked by these and by the ablations. Then the readings that `vidcls` builds, counted on real
modules (on the meta device, no weights are made). Takes ten seconds.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, fields

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidcls.models.resnet import ResNet
from vidcls.models.visual_transformer import VTConfig, VTFrames

TOKENS, PIXELS, TOKEN_DIM, CLASSES = 16, 14 * 14, 1024, 1000
M, G = 1e6, 1e9


@dataclass(frozen=True)
class Network:
    """A row of the paper's tables: published millions of parameters and giga-multiply-adds."""

    channels: int  # of stage 4
    modules: int
    params: float
    gmacs: float


# Default recipe for 18 and 34, advanced for 50 and 101, of which no other exists.
PUBLISHED = {
    "resnet18": Network(256, 2, 11.6, 1.579),
    "resnet34": Network(256, 3, 21.8, 3.299),
    "resnet50": Network(1024, 3, 21.4, 3.412),
    "resnet101": Network(1024, 3, 41.5, 7.129),
}
# Millions of parameters without any projector; parameters (10⁶) that recurrence adds and the transformers hold.
NO_PROJECTOR = {"resnet18": 9.3, "resnet34": 17.3}
RECURRENCE = {"resnet18": 0.5, "resnet34": 1.1}
TRANSFORMERS = {"resnet18": 3.1, "resnet34": 4.7}
MORE_TOKENS = {
    ("resnet18", 32): 1.711,
    ("resnet18", 64): 1.979,
    ("resnet34", 32): 3.514,
    ("resnet34", 64): 3.951,
}


@dataclass(frozen=True)
class Reading:
    """One way to fill in what equations (1) to (5) leave open; 0 and None stand for "there is none"."""

    map_dim: int = 1024  # C of ResNet-18 and 34; 50 and 101 keep their 1024
    attn_dim: int = 256  # width of K and Q
    token_value: bool = False  # a V in (3)
    groups: int = 1  # of K, Q and V
    hidden_dim: int | None = 512  # of (4); None: one matrix, no ReLU (pseudo-code of the first version)
    value_map: str = "first"  # W_V behind the tokenizer
    recurrent_groups: int = 1
    pixel_query: int | None = None  # groups of a W_Q on the pixels; None: on the tokens
    query: bool = True  # W_Q at all
    last_projector: bool = False
    attention_counted: bool = True


@dataclass
class Cost:
    """Parameters and multiply-adds, summed up matrix by matrix."""

    params: float = 0
    macs: float = 0

    def add(self, params: float, rows: float) -> None:
        """Count a matrix that is applied to ``rows`` vectors."""
        self.params += params
        self.macs += params * rows


def stage5(network: Network, reading: Reading, tokens: int = TOKENS, *, projector: bool = True) -> Cost:
    """Cost of all VT modules of one network."""
    dim = reading.map_dim if network.channels == 256 else 1024
    cost = Cost()
    attention = dim * tokens * PIXELS if reading.attention_counted else 0
    if dim != network.channels:
        cost.add(network.channels * dim, PIXELS)
    for index in range(network.modules):
        if index == 0:
            cost.add(dim * tokens, PIXELS)
        else:
            cost.add(TOKEN_DIM * dim / reading.recurrent_groups, tokens)
            cost.macs += attention
        cost.macs += attention
        values = {"needed": dim != TOKEN_DIM, "first": index == 0 or dim != TOKEN_DIM, "all": True}
        if values[reading.value_map]:
            cost.add(dim * TOKEN_DIM, tokens)
        cost.add(transformer(reading), tokens)
        if reading.attention_counted:
            cost.macs += tokens * tokens * (reading.attn_dim + TOKEN_DIM)
        if projector and (reading.last_projector or index < network.modules - 1):
            add_projector(cost, reading, dim, tokens)
            cost.macs += 2 * attention
    return cost


def transformer(reading: Reading) -> float:
    """Parameters of equations (3) and (4)."""
    attention = (2 * reading.attn_dim + reading.token_value * TOKEN_DIM) * TOKEN_DIM / reading.groups
    return attention + TOKEN_DIM * (TOKEN_DIM if reading.hidden_dim is None else 2 * reading.hidden_dim)


def add_projector(cost: Cost, reading: Reading, dim: int, tokens: int) -> None:
    """Add equation (5), without its attention."""
    cost.add(TOKEN_DIM * dim, tokens)
    if dim != TOKEN_DIM:
        cost.add(TOKEN_DIM * dim, tokens)
    if reading.query and reading.pixel_query is None:
        cost.add(dim * dim, tokens)
    elif reading.query:
        cost.add(dim * dim / (reading.pixel_query or 1), PIXELS)


def readings() -> list[Reading]:
    """Every combination that makes sense."""
    choices = {
        "map_dim": (256, 512, 1024),
        "attn_dim": (256, 512, 1024),
        "token_value": (False, True),
        "groups": (1, 2, 4, 8),
        "hidden_dim": (None, 256, 512, 1024),
        "value_map": ("needed", "first", "all"),
        "recurrent_groups": (1, 2),
        "pixel_query": (None, 1, 8, 16),
        "query": (True, False),
        "last_projector": (False, True),
        "attention_counted": (True, False),
    }
    assert list(choices) == [field.name for field in fields(Reading)]
    return [
        Reading(*values)
        for values in itertools.product(*choices.values())
        if values[8] or values[7] is None  # without W_Q it cannot stand anywhere
    ]


def resnet_costs(stages: int, name: str) -> Cost:
    """Cost of a ResNet up to stage 1 + ``stages``, counted on the module."""
    with torch.device("meta"):
        model, images = ResNet(name, stages).eval(), torch.empty(1, 3, 224, 224)
    return counted(model, images)


def counted(model: torch.nn.Module, inputs: torch.Tensor) -> Cost:
    """Parameters of a module and the multiply-adds of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2)


def errors(reading: Reading, below: dict[str, Cost]) -> tuple[list[float], list[float]]:
    """Relative errors of the eight main figures, and of the ablations."""
    main, side = [], []
    head = TOKEN_DIM * CLASSES
    for name, network in PUBLISHED.items():
        cost = stage5(network, reading)
        params = below[name].params + cost.params + head + CLASSES
        main += [
            params / M / network.params - 1,
            (below[name].macs + cost.macs + head) / G / network.gmacs - 1,
        ]
        if abs(main[-1]) > 0.03 or abs(main[-2]) > 0.03:
            return main, [float("inf")]
        if name in NO_PROJECTOR:
            without = params - cost.params + stage5(network, reading, projector=False).params
            recurrence = (network.modules - 1) * TOKEN_DIM * (reading.map_dim / reading.recurrent_groups) / M
            side += [
                without / M / NO_PROJECTOR[name] - 1,
                (recurrence - RECURRENCE[name]) / network.params,
                (network.modules * transformer(reading) / M - TRANSFORMERS[name]) / network.params,
            ]
    for (name, tokens), gmacs in MORE_TOKENS.items():
        macs = below[name].macs + stage5(PUBLISHED[name], reading, tokens).macs + head
        side.append(macs / G / gmacs - 1)
    return main, side


def search(below: dict[str, Cost], top: int) -> None:
    """Print the readings within 3 % of all main figures, best first."""
    tried = readings()
    found = []
    for reading in tried:
        main, side = errors(reading, below)
        if max(map(abs, main)) <= 0.03:
            found.append((sum(map(abs, main)) + sum(map(abs, side)), reading, main, side))
    found.sort(key=lambda row: row[0])
    print(f"{len(found)} of {len(tried)} readings are within 3 % of all eight figures. Errors in %:")
    print(
        "params|GMACs 18 34 50 101; ablations: no projector, recurrence, transformer (18, 34), 32|64 tokens"
    )
    for _, reading, main, side in found[:top]:
        print(" ".join(f"{100 * x:+.1f}" for x in main), ";", " ".join(f"{100 * x:+.1f}" for x in side))
        print("   ", ", ".join(f"{field.name}={getattr(reading, field.name)}" for field in fields(reading)))
    widths = {dim: sum(row[1].map_dim == dim for row in found) for dim in (256, 512, 1024)}
    print("map_dim of those:", widths)


def built(below: dict[str, Cost]) -> None:
    """Print what `vidcls` builds beside the tables."""
    print("\nbuilt by vidcls                      params (M)  published    GMACs  published  stage 5 saves")
    rows = [(name, "table", {}, figures.params, figures.gmacs) for name, figures in PUBLISHED.items()]
    rows += [(name, "printed", {}, figures.params, figures.gmacs) for name, figures in PUBLISHED.items()]
    rows.append(("resnet34", "table", {"map_dim": 512}, 19.2, 3.236))  # the advanced recipe's VT-ResNet-34
    rows += [
        (name, "table", {"num_tokens": tokens}, None, gmacs) for (name, tokens), gmacs in MORE_TOKENS.items()
    ]
    for name, reading, config, params, gmacs in rows:
        with torch.device("meta"):
            model = VTFrames(VTConfig(f"vt-{name}", reading, **config)).eval()
            frames = torch.empty(1, 3, 1, 224, 224)
        cost = counted(model, frames)
        stage = cost.macs - below[name].macs - model.head.weight.numel()
        saved = (resnet_costs(4, name).macs - below[name].macs) / stage
        label = f"{name} {reading} " + " ".join(f"{key}={value}" for key, value in config.items())
        ours = cost.params / M
        theirs = "" if params is None else f"{params:6.1f} {ours_over(ours, params)}"
        print(f"{label:36} {ours:9.2f} {theirs:>15} {cost.macs / G:8.3f} {gmacs:6.3f} ", end="")
        print(f"{ours_over(cost.macs / G, gmacs)} {saved:5.1f}x")
    for height, width, published in ((800, 1216, 8.5), (473, 473, 2.0)):
        with torch.device("meta"):
            fpn = VTFrames(VTConfig("vt-fpn-resnet50")).eval()
            resnet, frames = ResNet("resnet50").eval(), torch.empty(1, 3, 1, height, width)
        macs = counted(fpn, frames).macs - counted(resnet, frames[:, :, 0]).macs
        print(f"VT-FPN alone, ResNet-50, {height} x {width}: {macs / G:.2f} GMACs, published {published}")


def ours_over(ours: float, published: float) -> str:
    """Relative difference in per cent."""
    return f"{100 * (ours / published - 1):+5.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Readings of the Visual Transformers paper beside its tables"
    )
    parser.add_argument("--top", type=int, default=15, help="how many fitting readings to print")
    arguments = parser.parse_args()
    below = {name: resnet_costs(3, name) for name in PUBLISHED}
    search(below, arguments.top)
    built(below)


if __name__ == "__main__":
    main()
