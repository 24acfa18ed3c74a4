"""The tables of measurements by the names that `<!-- table: NAME -->` has in a page of the documentation."""

from collections.abc import Callable

from experiments.reports import score_tables as scores
from experiments.reports import speed_tables as speed

TABLES: dict[str, Callable[[], str]] = {
    make.__name__: make
    for make in (
        *(speed.operator_cpu, speed.scaling, speed.layer_cpu, speed.model_cpu, speed.detection_cpu),
        *(speed.detection_torchvision, speed.input_cpu),
        *(speed.serving, speed.compilation, speed.operator_gpu, speed.steps_gpu, speed.predicted_kernels),
        *(scores.depth, scores.robustness, scores.detection, scores.digits, scores.parity, scores.published),
        scores.meshes,
    )
}
