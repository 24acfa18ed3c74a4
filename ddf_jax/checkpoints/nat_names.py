"""Names of neighbourhood attention transformers, those of SHI-Labs/Neighborhood-Attention-Transformer and ours."""

from ddf_jax.checkpoints.layouts import CONV, LINEAR, Rule, conv


def _linear(official: str, own: str) -> list[Rule]:
    return [Rule(f"{official}.weight", f"{own}.kernel", LINEAR), Rule(f"{official}.bias", f"{own}.bias")]


def _norm(official: str, own: str) -> list[Rule]:
    return [Rule(f"{official}.weight", f"{own}.scale"), Rule(f"{official}.bias", f"{own}.bias")]


_OFFICIAL_BLOCK, _OWN_BLOCK = "levels.{n}.blocks.{m}", "stages.{n}.{m}"
_OFFICIAL_DOWNSAMPLE, _OWN_DOWNSAMPLE = "levels.{n}.downsample", "downsamples.{n}"

NAT = (
    *conv("patch_embed.proj.{n}", "embedding.convs.{n}"),
    *_norm("patch_embed.norm", "embedding.norm"),
    *_norm(f"{_OFFICIAL_BLOCK}.norm1", f"{_OWN_BLOCK}.attention_norm"),
    *_linear(f"{_OFFICIAL_BLOCK}.attn.qkv", f"{_OWN_BLOCK}.attention.qkv"),
    Rule(f"{_OFFICIAL_BLOCK}.attn.rpb", f"{_OWN_BLOCK}.attention.bias"),
    *_linear(f"{_OFFICIAL_BLOCK}.attn.proj", f"{_OWN_BLOCK}.attention.project"),
    *_norm(f"{_OFFICIAL_BLOCK}.norm2", f"{_OWN_BLOCK}.mlp_norm"),
    *_linear(f"{_OFFICIAL_BLOCK}.mlp.fc1", f"{_OWN_BLOCK}.mlp.expand"),
    *_linear(f"{_OFFICIAL_BLOCK}.mlp.fc2", f"{_OWN_BLOCK}.mlp.reduce"),
    Rule(f"{_OFFICIAL_DOWNSAMPLE}.reduction.weight", f"{_OWN_DOWNSAMPLE}.conv.kernel", CONV),
    *_norm(f"{_OFFICIAL_DOWNSAMPLE}.norm", f"{_OWN_DOWNSAMPLE}.norm"),
    *_norm("norm", "norm"),
    *_linear("head", "head.linear"),
)
