"""Detectors: boxes, anchors, assignment, RoIAlign, heads and post-processing, with static shapes."""
