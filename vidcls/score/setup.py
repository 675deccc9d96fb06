"""What a process needs to know to score clips, and what their scores depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vidcls.video.reader import VideoReader

if TYPE_CHECKING:
    from vidcls.engines.embedding import EmbeddingRequest
    from vidcls.inference.classifier import Classifier
    from vidcls.score.pipeline import Pipeline


@dataclass(frozen=True)
class Setup:
    """All that makes a pipeline; plain values, so that it can be sent to another process or machine.

    Attributes:
        load: Keywords for ``vidcls.load``.
        top_k: Predictions of a row.
        all_scores: Whether rows get the scores of all classes.
        workers: Decoders of one process at most; None: by the machine.
        batch: Views that go through the model together; None: by the machine.
        max_bytes: Of decoded views that wait; None: by the machine.
        embedding: Vectors that rows get in place of labels; None for labels.
        keep_outputs: Whether rows get `vidcls.score.pipeline.OUTPUTS`, what each view gave.
    """

    load: Mapping[str, Any] = field(default_factory=dict)
    top_k: int = 5
    all_scores: bool = False
    workers: int | None = None
    batch: int | None = None
    max_bytes: int | None = None
    embedding: EmbeddingRequest | None = None
    keep_outputs: bool = False

    def reader(self) -> VideoReader:
        """Make one decoder; as there are several, each decodes in one thread."""
        return VideoReader(self.load.get("decoder", "auto"), self.load.get("decode_timeout", 60.0), threads=1)

    def pipeline(self, device: str | None = None, processes: int = 1) -> Pipeline:
        """Load the model and make it ready to score.

        Args:
            device: Where the model runs; None: as ``load`` says.
            processes: How many of these share the machine.
        """
        from vidcls.doctor.machine import cores
        from vidcls.score.pipeline import Pipeline

        if processes > 1:
            import torch

            torch.set_num_threads(max(1, cores() // processes))
        keywords = {**self.load, **({} if device is None else {"device": device})}
        if self.embedding is not None:
            from vidcls.inference.load import load_embedder

            embedder = load_embedder(self.embedding, **keywords)
            settings = {**embedder.settings(), "decoder": self.load.get("decoder", "auto")}
            dimension = {"dimension": embedder.dimension, "precision": embedder.engine.precision}
            return Pipeline(embedder, self, {**settings, **dimension}, processes)
        from vidcls.inference.load import load

        classifier = load(**keywords)
        return Pipeline(classifier, self, self.describe(classifier), processes)

    def describe(self, classifier: Classifier) -> dict[str, Any]:
        """Return all that a row's content depends on beside the clip, ready for JSON."""
        from vidcls.inference.load import weights_file
        from vidcls.zoo.weights import checksum

        names = ("model", "weights", "registry", "random_weights", "offline")
        wanted = {name: self.load[name] for name in names if name in self.load}
        path = weights_file(wanted.pop("model", None), **wanted)
        return {
            "model": classifier.spec.name,
            "architecture": classifier.spec.architecture,
            "weights_sha256": "random" if path is None else checksum(path),
            **classifier.spec.input.model_dump(mode="json"),
            "fps_option": classifier.fps,
            "average": classifier.average,
            "precision": classifier.engine.precision,
            "decoder": self.load.get("decoder", "auto"),
            "labels_sha256": hashlib.sha256("\n".join(classifier.labels).encode()).hexdigest(),
            "top_k": min(self.top_k, len(classifier.labels)),
            "all_scores": self.all_scores,
            **({"merge_tokens": classifier.merge_tokens} if classifier.merge_tokens else {}),
            **({} if classifier.stop_rule is None else {"auto_views": asdict(classifier.stop_rule)}),
        }
