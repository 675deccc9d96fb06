"""Which keywords each architecture takes, for the registry's checks. Imports nothing."""

from __future__ import annotations

_TIMESFORMER = (
    "image_size num_frames patch_size in_channels num_classes embed_dim depth num_heads "
    "mlp_ratio qkv_bias norm_eps activation drop_path_rate dropout attn_dropout any_size"
)

# The model files hold the same as dataclasses, but importing those costs torch; a test keeps the two equal.
ARCHITECTURE_KEYS: dict[str, frozenset[str]] = {
    name: frozenset(keys.split())
    for name, keys in {
        "vivit-st": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads "
            "mlp_ratio pool representation_size qkv_bias norm_eps activation dropout attn_dropout "
            "drop_path_rate"
        ),
        "vivit-fe": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads "
            "mlp_ratio pool representation_size qkv_bias norm_eps activation dropout attn_dropout "
            "temporal_depth temporal_num_heads temporal_mlp_ratio drop_path_rate"
        ),
        "vivit-fsa": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads "
            "mlp_ratio pool representation_size qkv_bias norm_eps activation dropout attn_dropout "
            "attention_order"
        ),
        "vivit-fdp": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads "
            "mlp_ratio pool representation_size qkv_bias norm_eps activation dropout attn_dropout "
            "drop_path_rate"
        ),
        "timesformer-divided": _TIMESFORMER,
        "timesformer-joint": _TIMESFORMER,
        "timesformer-space": _TIMESFORMER,
        "timesformer-local-global": _TIMESFORMER,
        "timesformer-axial": _TIMESFORMER,
        "videomae": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads mlp_ratio qv_bias "
            "pool activation norm_eps head_norm_eps dropout attn_dropout head_dropout drop_path_rate "
            "any_size"
        ),
        "vjepa2": (
            "image_size num_frames tubelet_size in_channels num_classes embed_dim depth num_heads mlp_ratio qkv_bias "
            "activation norm_eps pooler_depth pooler_num_heads pooler_mlp_ratio pooler_norm_eps attn_dropout "
            "drop_path_rate"
        ),
        "vtn": (
            "backbone image_size in_channels num_classes num_frames temporal_depth "
            "temporal_num_heads temporal_mlp_dim attention_window max_positions mlp_dim dropout "
            "attn_dropout head_dropout"
        ),
        "vit-frames": (
            "image_size patch_size in_channels embed_dim depth num_heads mlp_ratio qkv_bias pool "
            "activation norm_eps dropout attn_dropout drop_path_rate num_classes "
            "representation_size num_frames"
        ),
        "vt-frames": (
            "variant reading image_size in_channels num_classes num_frames num_tokens map_dim "
            "token_dim attn_dim hidden_dim value_map width dropout"
        ),
    }.items()
}
