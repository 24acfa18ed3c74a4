"""A recipe: everything that decides a training run, as one frozen value, and its form in `recipe.json`.

Durations are in epochs and learning rates per 256 examples, so that a recipe survives another batch size. A variant is
`dataclasses.replace` of a base; the command line overrides any field (`--optimizer.learning-rate 0.2`).
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import runpy
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ddf_jax.data.config import DataConfig
from ddf_jax.dataclass_json import decode, encode
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.mesh_config import MeshConfig
from ddf_jax.training.optimizer_config import OptimizerConfig
from ddf_jax.training.tasks import Task
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.tasks.detection import Detection
from ddf_jax.training.tasks.panoptic import Panoptic
from ddf_jax.training.trackers import TrackerName

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "depth_upsampling": DepthUpsampling,
    "detection": Detection,
    "panoptic": Panoptic,
}
"""The tasks that a recipe can have, by their `kind` in `recipe.json`."""

Scalar = int | float | str | bool | tuple[float, ...]
Option = Scalar | Mapping[str, Scalar | Mapping[str, Scalar]]
"""A field's value, or some of the fields of a group of them, such as `{"sampler": {"count": 64}, "hidden": 512}`."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A registered model, and the options that differ from its own."""

    name: str = "ddf_resnet50"
    """A name that `ddf models` lists."""
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    """Fields of the model's own configuration to replace, such as `{"stem": "small"}`."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    """Names the run's folder, `runs/<name>/`."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    task: Task = dataclasses.field(default_factory=Classification)
    """What the model learns, with the options of that task."""
    epochs: float = 120.0
    batch_size: int = 256
    """Examples per step over all devices."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Compute dtype; parameters and statistics are kept in float32. In float16 the loss is scaled, by a factor that
    follows the gradients."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    microbatches: int = 1
    """Parts of a batch that a step computes one after the other, adding up their gradients, to need less memory.
    BatchNorm takes its statistics from each part."""
    batch_norm_examples: int = 0
    """Examples of which BatchNorm takes its statistics in training, such as those of one device; 0: the whole batch."""
    ema_decay: float = 0.0
    """Also keeps averages of parameters and statistics, with this decay a step, such as 0.9999; 0: none."""
    seed: int = 0
    evaluate_every: float = 1.0
    """Epochs between two evaluations; 0: only at the end."""
    checkpoint_every: float = 1.0
    """Epochs between two checkpoints; 0: only at the end."""
    log_every: int = 10
    """Steps between two rows of `metrics.jsonl`."""
    trackers: tuple[TrackerName, ...] = ()
    """Services that the metrics go to as well, set up by their own environment variables."""
    checkpoint_minutes: float = 0.0
    """Minutes after which a checkpoint is made too, whatever the epoch; 0: never for that reason."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept."""
    keep_every: float = 0.0
    """Epochs of which each interval's first checkpoint is kept; 0: none."""
    keep_best: int = 1
    """Checkpoints that are kept as those with the best test score, of those that were evaluated at their own step."""
    init_from: Path | None = None
    """The folder of a run, or a file of weights (ours or PyTorch's), that a new run starts from instead of random."""
    init_step: int | None = None
    """The checkpoint of the run in `init_from`; default: the newest readable one."""
    init_head: Literal["loaded", "fresh"] = "loaded"
    """fresh: the head (`head.…`, of a detector all that depends on classes) starts at random, for other classes."""
    init_in_channels: Literal["repeat", "average"] | None = None
    """Adapts the first convolution of `init_from` to another number of input channels."""
    init_allow_missing: tuple[str, ...] = ()
    """Shell patterns of tensors that start at random where `init_from` lacks them."""
    init_allow_unexpected: tuple[str, ...] = ()
    """Shell patterns of tensors of `init_from` that are not used where the model lacks them."""
    freeze: tuple[str, ...] = ()
    """Shell patterns of parameters and BatchNorm statistics that training leaves as they are, such as `stem.*`."""

    def __post_init__(self) -> None:
        if self.init_from is not None:
            object.__setattr__(self, "init_from", Path(self.init_from))
        if self.name in ("", ".", "..") or "/" in self.name or "\\" in self.name:
            raise UserError(f"`name` must be the name of a folder, without separators, got {self.name!r}.")
        for field, least in _AT_LEAST.items():
            if not getattr(self, field) >= least:
                raise UserError(f"`{field}` must be at least {least}, got {getattr(self, field)}.")
        if not 0.0 < self.epochs < float("inf"):
            raise UserError(f"`epochs` must be a positive number, got {self.epochs}.")
        if not 0.0 <= self.ema_decay < 1.0:
            raise UserError(f"`ema_decay` must be in [0, 1), got {self.ema_decay}.")
        if self.batch_size % self.microbatches:
            raise UserError(
                f"`batch_size` must be a multiple of `microbatches`, got {self.batch_size} and {self.microbatches}."
            )
        self.task.check_batch_size(self.batch_size)
        if self.batch_norm_examples and (self.batch_size // self.microbatches) % self.batch_norm_examples:
            raise UserError(
                f"`batch_norm_examples` must divide the {self.batch_size // self.microbatches} examples of a batch, or "
                f"of a microbatch, got {self.batch_norm_examples}."
            )
        if self.mesh.height > 1 and not self.task.splits_height:
            raise UserError(f"`mesh.height` must be 1 for {type(self.task).__name__}, got {self.mesh.height}.")
        for field in ("init_allow_missing", "init_allow_unexpected", "freeze"):
            if isinstance(getattr(self, field), str):
                raise UserError(f"`{field}` must be a tuple of patterns, got the string {getattr(self, field)!r}.")
        for field in dataclasses.fields(self):
            if field.name.startswith("init_") and self.init_from is None and getattr(self, field.name) != field.default:
                raise UserError(f"`{field.name}` needs `init_from`, the run or the file that it applies to.")

    @property
    def batch_norm_groups(self) -> int:
        """Parts of a batch, or of a microbatch, with statistics of their own."""
        return self.batch_size // self.microbatches // self.batch_norm_examples if self.batch_norm_examples else 1


_AT_LEAST = {
    "batch_size": 1,
    "batch_norm_examples": 0,
    "microbatches": 1,
    "seed": 0,
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "checkpoint_minutes": 0,
    "log_every": 1,
    "keep_checkpoints": 1,
    "keep_every": 0,
    "keep_best": 0,
}

FREE_FIELDS = frozenset(
    {
        "checkpoint_every",
        "checkpoint_minutes",
        "data.allow_changed",
        "data.data_dir",
        "data.folder",
        "data.workers",
        "evaluate_every",
        "keep_best",
        "keep_checkpoints",
        "keep_every",
        "log_every",
        "mesh.data",
        "mesh.fsdp",
        "mesh.height",
        "mesh.tensor",
        "name",
        "trackers",
    }
)
"""Fields that do not change what a run computes, and so may change between two launches of it. Data may be moved: their
fingerprint is compared."""

MOVED_FIELDS = {
    "label_smoothing": "task.label_smoothing",
    "depth_loss": "task.loss",
    "data.target": "task.kind",
    "data.scale": "task.scale",
}
"""Fields of recipes that earlier versions wrote, and their present names."""


def read_recipe(file: Path) -> Recipe:
    """Runs a Python file, which may import its neighbours as a script may, and returns its `recipe`.

    Raises:
        UserError: there is no such file, it raises an error, or it does not define a recipe.
    """
    if not file.is_file():
        raise UserError(f"There is no recipe file {file}.")
    try:
        with _importing_from(file.parent):
            value = runpy.run_path(str(file)).get("recipe")
    except Exception as error:
        raise UserError(
            f"The recipe {file} cannot be read{_where(error, file)}: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(value, Recipe):
        found = "nothing of that name" if value is None else f"an object of type {type(value).__name__}"
        raise UserError(f"{file} must define `recipe`, a `ddf_jax.training.recipe.Recipe`, got {found}.")
    return value


def recipe_file_record(file: Path | str) -> dict[str, str]:
    """The absolute path of a recipe's file, without links, and the SHA-256 of its content."""
    path = Path(file).resolve()
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe as an indented JSON object, one key per field. `recipe_from_json` gives an equal recipe back."""
    return json.dumps(encode(recipe, {Task: TASKS}), indent=2, allow_nan=False) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """The recipe that `recipe_to_json` wrote; fields that it lacks have their defaults.

    Raises:
        RunError: the text is not a recipe; the message names the field and, for an unknown one, the nearest field or
            the new name that it has since an earlier version.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunError(f"The recipe is not JSON: {error}.") from None
    found = dict(_flat(value))
    if moved := [f"`{old}` is now `{new}`" for old, new in MOVED_FIELDS.items() if old in found]:
        raise RunError(
            f"The recipe was written by an earlier version: {', '.join(moved)}. Rename those that the task has in "
            f"recipe.json (`task.kind`: {' or '.join(TASKS)}) and delete the others to read the run, or train again."
        )
    return decode(Recipe, value, {Task: TASKS})


def changed_fields(old: Recipe, new: Recipe) -> list[str]:
    """`field: old -> new` for each field outside `FREE_FIELDS` that differs: what makes a run another run."""
    before, after = _computed(old), _computed(new)
    return [
        f"{field}: {before.get(field)} -> {after.get(field)}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    ]


def check_fields(names: Collection[str]) -> None:
    """Raises `RunError` where a name such as `optimizer.learning_rate` is of no field that decides what a run computes.

    The fields of a task and of a model's options depend on these, and are not checked.
    """
    known = _computed(Recipe(name="any")).keys()
    for name in names:
        if name not in known and name.partition(".")[0] not in ("task", "model"):
            [nearest] = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise RunError(
                f"A recipe has no field `{name}` that could be allowed to change. The nearest is `{nearest}`."
            )


def recipe_key(recipe: Recipe) -> str:
    """A text that two recipes share if none of their fields outside `FREE_FIELDS` differs."""
    return json.dumps(_computed(recipe), sort_keys=True)


def _computed(recipe: Recipe) -> dict[str, Any]:
    return {field: value for field, value in _flat(encode(recipe, {Task: TASKS})) if field not in FREE_FIELDS}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.pop(0)


def _where(error: Exception, file: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""
