"""What a detector's training leaves as it is; light, for recipes."""

FROZEN = ("backbone.stem.*", "backbone.stages.0.*", "backbone.*.mean", "backbone.*.var")
"""What the papers freeze of a pretrained backbone: the stem, the first stage, and the statistics of all BatchNorms."""
