"""A recipe made ready to train: data checked, model started, optimizer and devices set up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidcls.config import load_registry
from vidcls.engines.torch import cpu_has_bf16
from vidcls.errors import ConfigError, UsageError
from vidcls.training import logs, lora, optim, setup, synthetic
from vidcls.training.camera_motion import motion_start
from vidcls.training.data.augment import without_wrong_flips
from vidcls.training.data.sets import load_data, make_loaders, worker_count
from vidcls.training.losses import balanced_positives, balanced_weights
from vidcls.training.pooler import attend
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import with_absolute_paths
from vidcls.training.runtime import make_accelerator, seed_all
from vidcls.training.validate import check_figures


class Prepared:
    """What a recipe comes to; making one checks the recipe, the data and the model, and writes nothing.

    Args:
        recipe: The whole run.
        device: ``auto`` (accelerate's choice) or ``cpu``.
        quiet: Print nothing but warnings.
        fresh: Fill the weights as the recipe says; False where a saved state follows.
        run: Folder of the run, which may hold the list of its validation clips.

    Raises:
        UsageError: The data has mistakes, or a name of the recipe matches nothing.
        ConfigError: The recipe does not make a model.
        CheckpointError: The weights to start from do not fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str = "auto",
        quiet: bool = False,
        fresh: bool = True,
        run: Path | None = None,
    ) -> None:
        self.recipe, self.quiet, self.run = with_absolute_paths(recipe), quiet, run
        self.accelerator = make_accelerator(recipe.precision, device)
        self.main: bool = self.accelerator.is_main_process
        self._make_data()
        self._make_optimizer(self._make_model(fresh))

    def _make_data(self) -> None:
        """Find the model's input, check the data, and make the loaders."""
        recipe, accelerator = self.recipe, self.accelerator
        self.spec = setup.find_model(recipe, load_registry(recipe.registry))
        self.data = load_data(recipe, self.spec, self.run)
        self.message(*self.data.notes)
        recipe = self._without_wrong_flips()
        activation = "sigmoid" if self.data.several else "softmax"
        view = self.spec.input.model_copy(update={"activation": activation})
        self.spec = self.spec.model_copy(update={"input": view})
        if accelerator.device.type == "cpu" and recipe.precision == "bf16" and not cpu_has_bf16():
            self.message("this CPU has no bfloat16 arithmetic: fp32 is many times as fast here")
        self.class_weights, self.workers = self._class_weights(), worker_count(recipe)
        self.loader, self.val = make_loaders(
            recipe,
            self.spec,
            self.data,
            pin=accelerator.device.type == "cuda",
            rank=self.rank,
            world_size=accelerator.num_processes,
        )
        check_figures(recipe, self.data.several, self.val is not None)

    def _without_wrong_flips(self) -> Recipe:
        """Switch flips off where class names speak of directions and the recipe does not decide it."""
        augment, note = without_wrong_flips(self.recipe.augment, self.data.labels)
        if note is not None:
            self.message(note)
            self.recipe = self.recipe.model_copy(update={"augment": augment})
        return self.recipe

    def _class_weights(self) -> list[Tensor] | None:
        """Weights of the classes in the loss, or None."""
        if self.recipe.class_weights is None or self.data.train is None:
            return None
        ids, sizes = self.data.train[1], [len(names) for names in self.data.classes]
        weights = [balanced_positives(ids, *sizes)] if self.data.several else balanced_weights(ids, sizes)
        return [weight.to(self.accelerator.device) for weight in weights]

    def _make_model(self, fresh: bool) -> nn.Module:
        """Build the model, fill its weights where the run is new, and freeze what the recipe freezes."""
        seed_all(self.recipe.seed)
        model = setup.build_model(self.spec, len(self.data.labels))
        if fresh:
            self._start(model)
        if self.recipe.attentive:
            if self.recipe.lora is not None or self.recipe.freeze:
                name = "freeze" if self.recipe.freeze else "lora"
                raise UsageError(name, "an attentive probe freezes the whole model", "leave it out")
            model = attend(model, len(self.data.labels))
        if self.recipe.lora is not None:
            self.frozen = lora.add_adapters(model, self.recipe.lora)
        else:
            self.frozen = optim.freeze(model, ("backbone",) if self.recipe.attentive else self.recipe.freeze)
        self.uses_indices = bool(getattr(model, "uses_frame_indices", False))
        return model

    def _make_optimizer(self, model: nn.Module) -> None:
        """Make the running mean, the extra loss and the optimizer, and bring all to the device."""
        recipe = self.recipe
        # Before the extra loss, whose hooks would be copied with the model.
        self.mean = optim.running_mean(model, recipe.ema) if recipe.ema else None
        self.extra_loss = self._make_extra_loss(model)
        optimizer = optim.make_optimizer(model, recipe.optimizer, self.extra_loss)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        for part in (self.mean, self.extra_loss):
            if part is not None:
                part.to(self.accelerator.device)

    def _make_extra_loss(self, model: nn.Module) -> nn.Module | None:
        """A loss on what is known of synthetic clips besides their labels, or None."""
        recipe = self.recipe
        if not recipe.synthetic.motion_loss:
            return None
        if (
            recipe.data is None
            or not synthetic.is_synthetic(recipe.data)
            or self.accelerator.num_processes > 1
        ):
            raise ConfigError("synthetic.motion_loss", "needs synthetic data and one device", "set it to 0")
        return synthetic.load_task(recipe.data).make_loss(model, recipe)

    @property
    def rank(self) -> int:
        """The number of this process."""
        return int(self.accelerator.process_index)

    @property
    def plain(self) -> nn.Module:
        """The model without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def finished(self) -> nn.Module:
        """The weights that count: the running mean where there is one."""
        return self.mean.module if self.mean is not None else self.plain

    @property
    def ordinary(self) -> nn.Module:
        """The weights that count as a checkpoint holds them: adapters are merged."""
        return self.finished if self.recipe.lora is None else lora.merged(self.finished)

    def message(self, *lines: str) -> None:
        """Print on stderr, once however many processes there are."""
        if self.main and not self.quiet:
            for line in lines:
                logs.message(line)

    def _start(self, model: nn.Module) -> None:
        """Fill the weights as the recipe says, and say so."""
        report = setup.start_weights(model, self.spec, self.recipe)
        self.message(
            f"starting from {report}" if report else f"{self.spec.name}: starting from random weights"
        )
        if report and any(name.startswith("head") for name in report.fresh):
            self.message(f"new head for {len(self.data.labels)} classes: {', '.join(self.data.labels[:8])}"
                     + (" …" if len(self.data.labels) > 8 else ""))  # fmt: skip
        epochs = self.recipe.schedule.epochs
        motion_start.set_start(model, self.recipe.init, self.loader, self.spec.input, unused_epoch=epochs)
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.recipe.init.zero:
            for name in optim.matching(names, pattern, "init.zero"):
                nn.init.zeros_(model.get_parameter(name))

    def states(self) -> dict[str, Any]:
        """All that has a state, by its name in ``state.pt``; None where the run has no such part."""
        return {
            "model": self.plain,
            "mean": self.mean,
            "extra_loss": self.extra_loss,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,
        }
