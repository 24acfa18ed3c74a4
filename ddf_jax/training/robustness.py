"""Robustness: the errors of a classifier on corrupted pictures (Hendrycks and Dietterich, ICLR 2019)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.evaluate import make_scorer
from ddf_jax.training.processes import ending_together
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.workdir import environment

_ALL = (1, 2, 3, 4, 5)


@ending_together()
def robustness(
    run: Run,
    names: Collection[str] = ("all",),
    severities: Collection[int] = _ALL,
    *,
    data: DataConfig | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Scores a classifier on the evaluation split as it is and under each corruption; writes nothing.

    The pictures are corrupted as the evaluation has cropped and resized them, as 8 bits a sample, before they are
    normalised (`ddf_jax.data.corruptions`). One compiled program evaluates them all. An error is 1 - top-1 accuracy;
    that of a corruption is the mean over the severities, that of a family the mean over its corruptions, and the mean
    corruption error the mean over all corruptions, not divided by those of another network.

    Args:
        run: from `load_run`, of a classifier.
        names: corruptions, families (noise, blur, weather, digital), `benchmark` for the fifteen that mean corruption
            errors are published for, or `all` for nineteen.
        severities: of 1 to 5.
        data: other data of the same classes, such as `DataConfig(dataset="imagenet_v2", eval_split="test")`.
        seed: of what is random in the corruptions.
        report: called with a line about each corruption.

    Returns:
        `{"name", "model", "step", "test_accuracy", "severities", "corruptions", "families", "mean_corruption_error",
        …}`: `corruptions` has for each name its `family`, the `errors` in the order of the severities and their
        `mean_error`; `families` has a mean error for each.

    Raises:
        UserError: an unknown name or severity, or data that cannot be opened or do not fit.
        RunError: the run is not one of classification.
    """
    from ddf_jax.data.corrupted import CorruptedImages
    from ddf_jax.data.corruptions import FAMILIES

    chosen, levels = select_corruptions(names), _severities(severities)
    task = run.recipe.task
    if not isinstance(task, Classification):
        raise RunError(f"Corruptions need a run of classification, got {run.recipe.name}, of {type(task).__name__}.")
    score = make_scorer(run, data)
    examples = task.examples()
    clean = score(examples)
    family = {name: family for family, names in FAMILIES.items() for name in names}
    corruptions: dict[str, Any] = {}
    for name in chosen:
        errors = [1 - score(CorruptedImages(examples, name, level, seed))["test_accuracy"] for level in levels]
        corruptions[name] = {"family": family[name], "errors": errors, "mean_error": _mean(errors)}
        report(f"{name}: error {corruptions[name]['mean_error']:.2%}")
    means = {name: row["mean_error"] for name, row in corruptions.items()}
    return {
        "name": run.recipe.name,
        "model": run.recipe.model.name,
        "step": run.step,
        "dataset": str((data or run.recipe.data).folder or (data or run.recipe.data).dataset),
        **clean,
        "seed": seed,
        "severities": list(levels),
        "corruptions": corruptions,
        "families": {
            name: _mean([means[each] for each in members if each in means])
            for name, members in FAMILIES.items()
            if not means.keys().isdisjoint(members)
        },
        "mean_corruption_error": _mean(list(means.values())),
        **environment(run.mesh),
    }


def select_corruptions(words: Collection[str]) -> tuple[str, ...]:
    """The corruptions that names of corruptions and of groups of them mean, each once, in the order of the families.

    Raises:
        UserError: a word is none of these, or there is no word.

    >>> select_corruptions(["snow", "noise"])
    ('gaussian_noise', 'shot_noise', 'impulse_noise', 'speckle_noise', 'snow')
    """
    from ddf_jax.data.corruptions import EXTRA, FAMILIES

    every = [name for names in FAMILIES.values() for name in names]
    groups = {"all": every, "benchmark": [name for name in every if name not in EXTRA], **FAMILIES}
    if unknown := [word for word in words if word not in groups and word not in every]:
        raise UserError(f"A corruption must be one of {', '.join([*groups, *every])}, got {', '.join(unknown)}.")
    if not words:
        raise UserError("There must be a corruption to evaluate under, got none. `all` takes all of them.")
    wanted = {name for word in words for name in groups.get(word, [word])}
    return tuple(name for name in every if name in wanted)


def robustness_table(found: Mapping[str, Any]) -> str:
    """The errors that `robustness` has found, in percent, in lines for people."""
    levels = found["severities"]
    heads = ["corruption", "family", *(f"{level}" for level in levels), "mean"]
    rows = [
        [name, row["family"], *map(_percent, row["errors"]), _percent(row["mean_error"])]
        for name, row in found["corruptions"].items()
    ]
    rows += [
        [f"all of {name}", name, *[""] * len(levels), _percent(error)] for name, error in found["families"].items()
    ]
    rows.append(["mean corruption error", "", *[""] * len(levels), _percent(found["mean_corruption_error"])])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in (heads, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def _severities(severities: Collection[int]) -> tuple[int, ...]:
    if not severities or not set(severities) <= set(_ALL):
        raise UserError(
            f"Severities must be some of 1, 2, 3, 4 and 5, got {', '.join(map(str, severities)) or 'none'}."
        )
    return tuple(sorted(set(severities)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(error: float) -> str:
    return f"{100 * error:.1f}"
