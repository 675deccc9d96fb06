"""A model as a module that gives vectors in place of logits, for `vidcls.engines.embedding`."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from vidcls.errors import ConfigError, UsageError
from vidcls.models.tokens import Tokens, all_tokens, last_tokens, read_tokens


def classifier_layer(model: nn.Module) -> nn.Linear:
    """The last linear layer of a model, whose outputs are the logits (or their mean over frames).

    Raises:
        ConfigError: Its head does not end in one.
    """
    head = model.get_submodule("head")
    last = head[-1] if isinstance(head, nn.Sequential) else head
    if not isinstance(last, nn.Linear):
        raise ConfigError(
            type(model).__name__, "its head does not end in a linear layer", "use another layer or model"
        )
    return last


def without_classifier(model: nn.Module) -> nn.Module:
    """A model that shares all parameters with ``model`` and gives what its last layer reads, (b, d).

    Models that average logits over frames then give the mean of the frames' vectors: the linear layer of the mean is
    the mean of the linear layers.

    Raises:
        ConfigError: Its head does not end in a linear layer.
    """
    classifier_layer(model)
    bare, head = _twin(model), model.get_submodule("head")
    if isinstance(head, nn.Sequential):
        bare.head = nn.Sequential(*head[:-1])
    else:
        bare.head = nn.Identity()
    return bare


def _twin(model: nn.Module) -> nn.Module:
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    return twin


def reader_of(model: nn.Module, layer: str, per: str) -> Any:
    """Return a module of vectors, (b, n · d), with its ``dimension`` d; see `vidcls.engines.embedding`.

    Raises:
        UsageError: The model has no such vectors.
    """
    if layer == "tokens":
        return AllTokensReader(model)
    if layer == "head":
        return FrameReader(model) if per == "frame" else HeadReader(model)
    tokens, name = last_tokens(model), _name(model)
    if tokens is None:
        raise UsageError("layer", f"{name} has no tokens of patches", "use layer=head")
    if layer == "cls" and not tokens.prefix:
        raise UsageError("layer", f"{name} has no class token", "use layer=head or layer=mean")
    if layer == "cls" and per == "frame" and tokens.folded != "t":
        raise UsageError("per", f"{name} has one class token for all frames", "use layer=mean, or per=view")
    kind = {"encode_frames": EncodedReader, "classify": ClassifiedReader, "forward": TokenReader}[
        tokens.stage
    ]
    return kind(model, tokens, layer, per)


def _name(model: nn.Module) -> str:
    return str(getattr(model, "architecture", type(model).__name__))


class HeadReader(nn.Module):
    """What the classifier's last layer reads of each view."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.dimension = classifier_layer(model).in_features
        self.model: Any = without_classifier(model)
        self.config = model.config
        if hasattr(model, "encode_frames"):
            self.encode_frames, self.classify = self.model.encode_frames, self.model.classify

    def forward(self, views: Tensor, **more: Tensor) -> Tensor:
        return self.model(views, **more)


class FrameReader(nn.Module):
    """What a model's spatial encoder makes of each frame or tubelet by itself.

    Raises:
        UsageError: The model sees all frames together, or keeps all tokens of each.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name = _name(model)
        if not hasattr(model, "encode_frames") or name == "videoprism":
            raise UsageError("per", f"{name} has no vector for each frame before its head", "use layer=mean")
        self.model: Any = model
        self.config: Any = model.config
        width = getattr(model, "num_features", None) or getattr(self.config, "embed_dim", None)
        self.dimension = int(width or classifier_layer(model).in_features)
        if name.endswith("-frames"):
            self.dimension = classifier_layer(model).in_features

    def encode_frames(self, views: Tensor) -> Tensor:
        """(b, c, t, h, w) → (b, t', d)."""
        return self.model.encode_frames(views)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """(b, t', d) → (b, t' · d); nothing is left to do."""
        return features.flatten(1)

    def forward(self, views: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        return self.classify(self.encode_frames(views))


class TokenReader(nn.Module):
    """The class token, or the mean of the others, after the last block of a model.

    Args:
        model: All its frames meet in one encoder.
        tokens: Where its last tokens are.
        layer: ``cls`` or ``mean``.
        per: A key of `vidcls.engines.embedding.PER`.
    """

    def __init__(self, model: nn.Module, tokens: Tokens, layer: str, per: str) -> None:
        super().__init__()
        self.model: Any = model
        self.config: Any = model.config
        self._tokens, self._layer, self._per_frame = tokens, layer, per == "frame"
        config = getattr(model, "backbone", model)
        width = getattr(config, "num_features", None) or getattr(self.config, "embed_dim", None)
        self.dimension = int(getattr(model, "num_features", None) or width or 0)

    def forward(self, views: Tensor, **more: Tensor) -> Tensor:
        return self.over_time(self.read(self.model, views, frames=views.shape[2], **more))

    def read(self, run: Any, *inputs: Tensor, frames: int, **more: Tensor) -> Tensor:
        """Run a part of the model → vectors (b, t', d)."""
        front, placed = read_tokens(self.model, self._tokens, run, *inputs, frames=frames, **more)
        return front[:, :, 0] if self._layer == "cls" else placed.mean((2, 3))

    def over_time(self, vectors: Tensor) -> Tensor:
        """Vectors of time steps (b, t', d) → one for each view (b, d), or all side by side."""
        return vectors.flatten(1) if self._per_frame else vectors.mean(1)


def check_attentive(model: Any) -> Tokens:
    """The tokens that an attentive probe of a model attends to.

    Raises:
        UsageError: It has no tokens, or several clips in a view.
    """
    tokens, config = last_tokens(model), model.config
    several = getattr(config, "clips_per_view", 1) > 1 or getattr(config, "out_layers", ())
    if several or tokens is None:
        what = "pools tokens of several clips or layers" if several else "has no tokens of patches"
        raise UsageError("probe_kind=attentive", f"{_name(model)} {what}", "use probe_kind=linear")
    return tokens


class AllTokensReader(nn.Module):
    """All tokens after the last block of a model, side by side: what `vidcls.models.attentive` attends to.

    Raises:
        UsageError: An attentive probe cannot have this model as its backbone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self._tokens = check_attentive(model)
        self.config = self.model.config
        self.dimension = TokenReader(model, self._tokens, "mean", "view").dimension

    def forward(self, views: Tensor, **more: Tensor) -> Tensor:
        return all_tokens(self.model, self._tokens, views, **more).flatten(1)


class EncodedReader(TokenReader):
    """`TokenReader` for models that look at each frame by itself."""

    def encode_frames(self, views: Tensor) -> Tensor:
        """(b, c, t, h, w) → (b, t, d)."""
        return self.read(self.model.encode_frames, views, frames=views.shape[2])

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """(b, t, d) → (b, n · d)."""
        return self.over_time(features)

    def forward(self, views: Tensor, **more: Tensor) -> Tensor:
        return self.classify(self.encode_frames(views))


class ClassifiedReader(TokenReader):
    """`TokenReader` for models whose temporal encoder sees features of frames or tubelets."""

    def encode_frames(self, views: Tensor) -> Tensor:
        """(b, c, t, h, w) → features (b, t', d)."""
        return self.model.encode_frames(views)

    def classify(self, features: Tensor, **more: Tensor) -> Tensor:
        """Features (b, t', d) → (b, n · d)."""
        tubelet = getattr(self.config, "tubelet_size", (1,))
        step = tubelet if isinstance(tubelet, int) else tubelet[0]
        return self.over_time(
            self.read(self.model.classify, features, frames=features.shape[1] * step, **more)
        )

    def forward(self, views: Tensor, **more: Tensor) -> Tensor:
        return self.classify(self.encode_frames(views), **more)
