"""An attentive pooler and a head, trained on the tokens of a frozen model, which are computed once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidcls.inference.embed import Embedder
from vidcls.output.progress import ProgressBar
from vidcls.training import optim
from vidcls.training.losses import balanced_positives, balanced_weights, class_loss, multi_label_loss
from vidcls.training.pooler import attend
from vidcls.training.probe.fit import Floats, folds
from vidcls.training.probe.tokens import Half, TokenSet
from vidcls.training.recipe import Recipe
from vidcls.training.runtime import TrainingError

FOLDS = 3
"""Of the cross-validation: each trains anew."""

State = dict[str, Tensor]
"""Weights of pooler and head."""


class AttentiveLearner:
    """Trains pooler and head; each training starts from the same weights.

    Args:
        recipe: Its ``optimizer``, ``schedule``, ``batch_size``, ``clip_grad``, ``label_smoothing``, ``ema``,
            ``class_weights``, ``folds`` and ``seed`` count.
        embedder: The frozen model.
        num_classes: Classes, k.
        quiet: No bars.
    """

    def __init__(self, recipe: Recipe, embedder: Embedder, num_classes: int, quiet: bool) -> None:
        torch.manual_seed(recipe.seed)
        module: Any = embedder.module()
        if module.architecture == "attentive":  # a new pooler: the old one may know clips of the test
            module = module.backbone
        self.model: Any = attend(module, num_classes)
        parts = {name: self.model.get_submodule(name) for name in ("pooler", "head")}
        self.recipe, self.num_classes, self.quiet = recipe, num_classes, quiet
        self.device = embedder.engine.device
        self.trained = nn.ModuleDict(parts).to(self.device)
        self._first = copy.deepcopy(self.trained.state_dict())

    def fit(self, clips: TokenSet, what: str = "training on all clips") -> State:
        """Train on clips, and return the weights.

        Raises:
            TrainingError: The loss is not finite any more.
        """
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        self.trained.load_state_dict(self._first)
        self.trained.train()
        optimizer = optim.make_optimizer(self.trained, recipe.optimizer)
        mean = optim.running_mean(self.trained, recipe.ema) if recipe.ema else None
        weights, rng = self._class_weights(clips), np.random.default_rng([recipe.seed, 65_539])
        steps, step = -(-len(clips) // recipe.batch_size), 0
        with ProgressBar(what, recipe.schedule.epochs, unit="epochs", shown=not self.quiet) as bar:
            for epoch in range(recipe.schedule.epochs):
                for chosen in np.array_split(rng.permutation(len(clips)), steps):
                    optim.set_rate(optimizer, recipe.optimizer.lr * recipe.schedule.factor(step, steps))
                    optimizer.zero_grad(set_to_none=True)
                    self._backward(clips.drawn(chosen, rng), clips.ids[chosen], weights, step)
                    optimizer.step()
                    if mean is not None:
                        mean.update_parameters(self.trained)
                    step += 1
                bar.update(epoch + 1)
        found = self.trained if mean is None else mean.module
        return copy.deepcopy(found.state_dict())

    def _class_weights(self, clips: TokenSet) -> Tensor | None:
        if self.recipe.class_weights is None:
            return None
        if clips.several:
            shown = [np.flatnonzero(row).tolist() for row in clips.ids]
            return balanced_positives(shown, self.num_classes).to(self.device)
        return balanced_weights(clips.ids[:, None].tolist(), [self.num_classes])[0].to(self.device)

    def _backward(self, tokens: Half, ids: NDArray[Any], weights: Tensor | None, step: int) -> None:
        """Gradients of a batch, bounded where the recipe says so."""
        logits, smoothing = self._logits(tokens), self.recipe.label_smoothing
        labels = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        if ids.ndim == 2:
            loss, _ = multi_label_loss(logits, labels, smoothing, weights=weights)
        else:
            each = None if weights is None else [weights]
            loss, _ = class_loss(logits, labels[:, None], [self.num_classes], smoothing, weights=each)
        if not torch.isfinite(loss):
            raise TrainingError(f"step {step}", f"the loss is {float(loss)}", "lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip_grad)

    def _logits(self, tokens: Half) -> Tensor:
        return self.model.classify_tokens(torch.from_numpy(tokens).to(self.device).float())

    @torch.no_grad()
    def logits(self, state: State, clips: TokenSet) -> Floats:
        """Logits (n, k) of clips, averaged over their views."""
        self.trained.load_state_dict(state)
        self.trained.eval()
        found = [
            self._logits(clips.views(index)).mean(0).double().cpu().numpy() for index in range(len(clips))
        ]
        return np.stack(found)

    def cross_validated(self, clips: TokenSet) -> tuple[Floats, int] | None:
        """Logits (n, k) of each clip by a probe that saw neither it nor its group, and how many folds there were.

        None where there can be no folds; zero where a clip is not `vidcls.training.probe.fit.measurable`.
        """
        parts = folds(clips, self.recipe.seed, self.recipe.folds or FOLDS)
        if not parts:
            return None
        logits = np.zeros((len(clips), self.num_classes))
        for number, (train, test) in enumerate(parts, 1):
            state = self.fit(clips.take(train), f"training, fold {number} of {len(parts)}")
            logits[test] = self.logits(state, clips.take(test))
        return logits, len(parts)

    def curve(self, state: State, clips: TokenSet) -> list[tuple[float, float]]:
        """There is no learning curve: it would take several times as long as all the rest."""
        return []

    def checkpoint(self, state: State) -> nn.Module:
        """The whole model."""
        self.trained.load_state_dict(state)
        model: nn.Module = self.model
        return model.cpu().eval()

    def about(self, state: State) -> dict[str, Any]:
        """What is known of a trained probe, for the checkpoint."""
        return {"kind": "attentive", "epochs": self.recipe.schedule.epochs}
