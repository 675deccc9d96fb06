"""Which architectures can merge tokens, and how many; imports no torch."""

from __future__ import annotations

from vidcls.errors import UsageError

MAX_SHARE = 0.9

MERGEABLE = {
    "vivit-st": "encoder.blocks",
    "vivit-fe": "spatial.blocks",
    "timesformer-joint": "blocks",
    "timesformer-space": "blocks",
    "videomae": "blocks",
    "vit-frames": "backbone.blocks",
    "t2t-frames": "backbone.blocks",
}
"""Architecture → where its blocks of joint or spatial attention are, which merge tokens."""


def check_share(architecture: str, share: float) -> None:
    """Refuse what cannot be merged.

    Raises:
        UsageError: The share is out of range, or the architecture's attention needs its tokens where they are.
    """
    if not 0 <= share <= MAX_SHARE:
        raise UsageError("merge_tokens", f"{share} is not a share of the tokens", f"give 0 to {MAX_SHARE}")
    if share and architecture not in MERGEABLE:
        known = ", ".join(MERGEABLE)
        raise UsageError("merge_tokens", f"{architecture} cannot merge tokens", f"leave it out; {known} can")
