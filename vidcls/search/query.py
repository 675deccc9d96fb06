"""What is searched for: a clip that the files have already, or one that is embedded as theirs were."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vidcls.engines.embedding import EmbeddingRequest
from vidcls.errors import UsageError, printable
from vidcls.inference.load import load_embedder
from vidcls.search.vectors import Floats, VectorFile, check_same
from vidcls.video.urls import is_url

VIEW = ("num_views", "num_crops", "num_frames", "stride")  # of a file's settings, that its query shares


def query_vector(query: str, files: Sequence[VectorFile], load: Mapping[str, Any]) -> Floats:
    """Return the vector (d,) of a clip: the files' own where one of them has it, else by the model that made theirs.

    Args:
        query: A path as the files have it, or a clip or picture on this machine.
        files: What is searched.
        load: Keywords of `vidcls.load`; the model and the views are the files' where nothing is said.

    Raises:
        UsageError: The model that is loaded is not theirs, or there is no such clip.
        VideoError: The clip cannot be read.
    """
    for file in files:
        stored = file.find(query)
        if stored is not None:
            return stored
    if not (is_url(query) or os.path.exists(query)):
        raise UsageError(printable(query), "is neither a file nor a clip in the vectors", "check its name")
    settings = files[0].settings
    keywords = {name: value for name, value in load.items() if value is not None}
    if "model" not in keywords and "weights" not in keywords:
        keywords["model"] = _known(settings["model"], files[0].name, keywords.get("registry"))
    views = {name: keywords.get(name, settings.get(name)) for name in VIEW}
    embedder = load_embedder(EmbeddingRequest(settings["layer"], "clip"), **{**keywords, **views, "clips": 1})
    try:
        made = {**embedder.settings(), "dimension": embedder.dimension}
        check_same(made, settings, files[0].name, "this model")
        return embedder.embed(query).vector
    finally:
        embedder.close()


def _known(model: str, file: str, registry: Any) -> str:
    """Return a model's name; a file of vectors may come from a stranger and lead to no checkpoint or address.

    Raises:
        UsageError: It is not a name of the registry.
    """
    from vidcls.config import load_registry

    if model not in load_registry(registry):
        problem = f"was made with {printable(model[:100])!r}, which is not a model of the registry"
        raise UsageError(file, problem, "pass model=NAME or weights=FILE, if you trust it")
    return model
