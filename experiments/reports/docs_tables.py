"""The tables of measurements that the documentation and the report show, made from rows."""

from collections.abc import Callable, Iterator

from experiments.benchmarks.scaling import exponents, note
from experiments.reports.numbers import located_rows, select
from experiments.reports.results import RESULTS
from experiments.reports.shown import Value, ratio, table, value

GPU = "gpu/rows.jsonl"
COPY_BANDWIDTH = 4.3e12  # bytes a second of a copy on an H200
NAMES = {"ddf_resnet50": "DDF-ResNet-50", "resnet50": "ResNet-50"}


def operator_cpu() -> str:
    """Times, memory and speed-up over PyTorch's unfold, by shape."""
    file = "operator_cpu.csv"

    def cells(shape: str) -> Iterator[str]:
        yield shape.replace("x", "×")
        for which in ("forward", "forward_backward"):
            own, unfold = (
                [
                    need(file, column, implementation=name, shape=shape, **{"pass": which})
                    for column in ("median_ms", "peak_bytes")
                ]
                for name in ("xla", "torch_unfold")
            )
            for ms, memory in (own, unfold):
                yield f"{ms.show()} ({(memory / 2**20).show('.0f')})"
            yield (unfold[0] / own[0]).show(ratio)

    shapes = dict.fromkeys(row["shape"] for row, _ in located_rows(file))
    heads = ["B×H×W×C", "forward", "PyTorch unfold", "", "forward + backward", "PyTorch unfold", ""]
    return table(heads, ([*cells(shape)] for shape in shapes))


def model_cpu() -> str:
    """Seconds of whole networks next to the PyTorch port."""
    file = "model_cpu.csv"

    def cells(model: str) -> Iterator[str]:
        yield NAMES[model]
        for which in ("forward", "training_step"):
            own, port = (
                need(file, "median_ms", implementation=name, model=model, **{"pass": which}) / 1e3
                for name in ("jax", "torch")
            )
            yield from (own.show(), port.show(), (port / own).show(ratio))

    heads = ["", "forward, s", "PyTorch", "", "training step, s", "PyTorch", ""]
    return table(heads, ([*cells(model)] for model in NAMES))


def layer_cpu() -> str:
    """Milliseconds of each layer, times longer than a depthwise convolution, and of the port's."""
    file = "layer_cpu.csv"

    def cells(layer: str) -> Iterator[str | None]:
        yield f"`{layer}`"
        yield need(file, "parameters", implementation="jax", layer=layer, **{"pass": "forward"}).show(",.0f")
        for which in ("forward", "forward_backward"):
            key = {"layer": layer, "pass": which}
            own = need(file, "median_ms", implementation="jax", **key)
            depthwise = need(file, "median_ms", implementation="jax", layer="depthwise3x3", **{"pass": which})
            port = value(file, "median_ms", implementation="torch", **key)
            yield from (own.show(), (own / depthwise).show(ratio), port and port.show())
        yield (
            need(file, "peak_bytes", implementation="jax", layer=layer, **{"pass": "forward_backward"}) / 2**20
        ).show(".0f")

    layers = dict.fromkeys(row["layer"] for row, _ in located_rows(file))
    heads = ["layer", "parameters", "forward, ms", "of depthwise", "torch, ms"]
    heads += ["forward + backward, ms", "of depthwise", "torch, ms", "MiB"]
    return table(heads, ([*cells(layer)] for layer in layers))


PARTS = {
    "proposals": "proposals",
    "roi_align_box": "RoIAlign of 1000 boxes",
    "box_head": "box head",
    "detections": "choice of detections",
    "roi_align_mask": "RoIAlign of 100 masks",
    "paste_masks": "100 masks into the image",
    "nms_4000": "non-maximum suppression of 4000",
    "forward": "forward pass",
    "training_step": "training step, two images of 400×608",
}


def detection_cpu() -> str:
    """Milliseconds of a detector and its parts next to the port and torchvision."""

    def cells(part: str) -> Iterator[str | None]:
        yield PARTS[part]
        own = need("detection_cpu.csv", "median_ms", implementation="jax", part=part)
        yield own.show()
        for peer in ("torch_port", "torchvision"):
            ms = value("detection_cpu.csv", "median_ms", implementation=peer, part=part)
            yield from (ms and ms.show(), ms and (ms / own).show(ratio))

    return table(["", "ours", "port", "", "torchvision", ""], ([*cells(part)] for part in PARTS))


def input_cpu() -> str:
    """Images per second of a core."""

    def cells(image: str) -> Iterator[str]:
        yield image.replace("x", "×")
        for name in ("bare", "pipeline", "pipeline_draft"):
            rate, of_bare = (
                need("input_cpu.csv", column, implementation=name, image=image)
                for column in ("images_per_core_second", "of_bare")
            )
            yield rate.show(".0f", "/s") + ("" if name == "bare" else f", {of_bare.show('.2f', '×')}")

    heads = ["images", "bare loop", "pipeline", "with `crop.draft`"]
    return table(heads, ([*cells(image)] for image in ("500x375", "2000x1500")))


def operator_gpu() -> str:
    """Microseconds on a GPU next to two formulations by unfold."""

    def cells(shape: str, title: str) -> Iterator[str | None]:
        yield title
        for which in ("forward", "forward_backward"):
            own, *peers = (
                value(GPU, "median_ms", implementation=name, shape=shape, **{"pass": which})
                for name in ("triton", "xla_unfold", "torch_compiled_unfold")
            )
            assert own is not None
            yield (own * 1e3).show()
            for peer in peers:
                yield peer and f"{(peer * 1e3).show()} ({(peer / own).show(ratio)})"

    shapes = {
        f"resnet50_{size}": f"128×{size.replace('x', '×')}"
        for size in ("56x56x64", "28x28x128", "14x14x256", "7x7x512")
    }
    shapes |= {"resnet50_56x56x128_stride2": "128×56×56×128, stride 2", "fpn_p2": "2×200×300×256"}
    heads = ["B×H×W×C", "forward", "unfold, JAX", "unfold, torch.compile"]
    heads += ["forward + backward", "unfold, JAX", "unfold, torch.compile"]
    return table(heads, ([*cells(shape, title)] for shape, title in shapes.items()))


CALLS = {
    "resnet50_56x56x64": "56×56×64",
    "resnet50_56x56x128_stride2": "56×56×128, stride 2",
    "resnet50_28x28x128": "28×28×128",
    "resnet50_14x14x256": "14×14×256",
    "resnet50_7x7x512": "7×7×512",
    **{
        f"rednet50_{size}": f"RedNet, K = 7, {size.replace('x', '×')}"
        for size in ("56x56x64", "28x28x128", "14x14x256", "7x7x512")
    },
}


def predicted_kernels() -> str:
    """Microseconds of the kernels as predicted for an H200, next to every byte once at the bandwidth of a copy."""
    file = "kernels/kernels.json"

    def cells(call: str) -> Iterator[str | None]:
        yield CALLS[call]
        for kernel in ("forward", "input", "filters"):
            floor = select(file, {"call": call, "kernel": kernel})
            least = Value(float(floor[0].row["minimum_bytes"]), file, (floor[0].line,)) if floor else None
            yield least and (least / COPY_BANDWIDTH * 1e6).show(".1f")
            for implementation in ("mosaic_gpu", "triton"):
                predicted = value(file, "predicted_us", call=call, kernel=kernel, implementation=implementation)
                yield predicted and predicted.show(lambda us: f"{us:.1f}" if us < 100 else f"{us:.0f}")

    heads = ["H×W×C", "forward: floor", "`mosaic_gpu`", "`triton`", "x: floor", "`mosaic_gpu`", "`triton`"]
    heads += ["both filters: floor", "`mosaic_gpu`", "`triton`"]
    return table(heads, ([*cells(call)] for call in CALLS))


def meshes() -> str:
    """A sharded training step as compiled, by network and mesh."""
    file = "plan/meshes.json"
    heads = ["network", "mesh", "arguments", "temporaries", "all-reduces", "all-gathers", "reduce-scatters", "kernels"]

    def cells(index: int) -> Iterator[str]:
        row, line = located_rows(file)[index]

        def number(*path: str) -> Value:
            found = row
            for name in path:
                found = found[name]
            return Value(float(found), file, (line,))  # pyright: ignore[reportArgumentType]

        options = "".join(f", {name}" for name, given in row.get("model_options", {}).items() if given)
        yield row["recipe"].removeprefix("imagenet_") + options
        axis, size = max(row["mesh"].items(), key=lambda item: item[1])
        yield f"{axis} {size}"
        for name in ("arguments", "temporaries"):
            yield (number("bytes_per_device", name) / 2**30).show(".2f")
        for name in ("all_reduce", "all_gather", "reduce_scatter"):
            yield number("collectives", name).show(".0f")
        yield number("launches", "total", "launches").show(",.0f")
        yield (number("launches", "total", "roofline_us") / 1e3).show(".1f")

    return table([*heads, "lower bound, ms"], ([*cells(index)] for index in range(len(located_rows(file)))), left=2)


METHODS = {
    "bicubic": ("bicubic", (8.16, 14.22, 22.32)),
    "Markov random field": ("Markov random field", (7.84, 13.98, 22.20)),
    "guided filter": ("guided filter", (7.32, 13.62, 22.03)),
    "static/dynamic filter": ("static/dynamic filter", (5.27, 12.31, 19.24)),
    "fast bilateral solver": ("fast bilateral solver", (4.29, 8.94, 14.59)),
    "joint bilateral": ("joint bilateral", (4.07, 8.29, 13.35)),
    "dmsg": ("DMSG", (3.78, 6.37, 11.16)),
    "djf": ("DJF", (3.54, 6.20, 10.21)),
    "djf_plus": ("DJF+", (3.38, 5.86, 10.11)),
    "pac_net": ("PAC-Net", (2.39, 4.59, 8.09)),
    "ddf_up_net": ("DDF-Up-Net", (2.16, 4.40, 7.72)),
}
"""Titles, and RMSE in centimetres as Zhou et al., CVPR 2021, Table 7 prints it for NYU Depth v2 by 4, 8 and 16."""


def depth() -> str:
    """RMSE by method and scale: published, and of the rows."""

    def cells(method: str) -> Iterator[str]:
        title, published = METHODS[method]
        yield title
        yield ", ".join(f"{rmse:.2f}" for rmse in published)
        files = (f"depth/depth{suffix}.json" for suffix in ("", "_8x", "_16x"))
        found = [value(file, "rmse_cm", method=method) for file in files]
        cells = [rmse.show(".2f") if rmse else "not yet run" for rmse in found]
        yield ", ".join(cells) if any(found) else "not yet run"

    heads = ["method", "NYU by 4, 8, 16, published", "rooms by 4, 8, 16"]
    return table(heads, ([*cells(method)] for method in METHODS))


def robustness() -> str:
    """Errors in percent by family of corruptions."""
    file = "robustness/furniture.json"

    def cells(run: str, row: dict, line: int) -> Iterator[str]:
        yield run
        errors = [1 - row["test_accuracy"], *row["families"].values(), row["mean_corruption_error"]]
        yield from (Value(100 * error, file, (line,)).show(".1f") for error in errors)

    rows = located_rows(file)
    heads = ["run", "clean", *rows[0].row["families"], "mean corruption error"]
    return table(heads, ([*cells(row["name"], row, line)] for row, line in rows))


def detection() -> str:
    """Scores in percent of the detectors that are trained on rendered rooms."""
    file = "detection/rooms_panoptic.json"
    columns = {"box AP": "test_box_ap", "box AP50": "test_box_ap50", "mask AP": "test_mask_ap"}
    columns |= {"mask AP50": "test_mask_ap50", "PQ": "test_pq"}

    def cells(run: str) -> Iterator[str | None]:
        yield run
        for column in columns.values():
            score = value(file, column, run=run)
            yield score and (score * 100).show(".1f")
        yield need(file, "seconds", run=run).show(".0f")

    return table(["run", *columns, "seconds"], ([*cells(row["run"])] for row, _ in located_rows(file)))


def digits() -> str:
    """The small networks on digits: accuracy and speed of training."""
    files = sorted(path.name for path in RESULTS.glob("digits*.json"))

    def cells(file: str) -> Iterator[str]:
        row, _ = located_rows(file)[0]
        yield from (row["name"], row["model"])
        yield need(file, "parameters").show(",.0f")
        yield (need(file, "test_accuracy") * 100).show(".2f", " %")
        yield need(file, "images_per_second").show(",.0f")
        yield need(file, "seconds").show(".0f")

    heads = ["run", "model", "parameters", "test accuracy", "images/s in training", "seconds"]
    return table(heads, ([*cells(file)] for file in files), left=2)


def scaling() -> str:
    """Exponents of the operator's cost next to those of theory."""
    file = "scaling_cpu.csv"
    rows = located_rows(file)

    def cells() -> Iterator[list[str]]:
        for found in exponents([row for row, _ in rows]):
            key = (found.which, found.axis, "best")
            lines = tuple(line for row, line in rows if (row["pass"], row["axis"], row["implementation"]) == key)

            def show(number: float, lines: tuple[int, ...] = lines) -> str:
                return Value(number, file, lines).show(".2f")

            which = found.which.replace("_", " + ")
            size = f"{found.low:g} to {found.high:g}"
            time = f"{show(found.time)} ± {found.error:.2f}"
            yield [
                found.axis,
                which,
                size,
                f"{found.theory:g}",
                time,
                show(found.operations),
                show(found.memory),
                note(found),
            ]

    heads = ["size", "pass", "range", "theory", "time", "operations", "memory", "where time differs from theory"]
    return table(heads, cells(), left=2)


def compilation() -> str:
    """Seconds of lowering and compilation, and sizes of programs."""
    file = "compile_cpu.csv"

    def cells(row: dict, line: int) -> Iterator[str]:
        yield f"`{row['name']}`, {row['pass'].replace('_', ' ')}"
        for column, form in (("lower_s", ".2f"), ("compile_s", ".2f"), ("instructions", ",.0f")):
            yield Value(float(row[column]), file, (line,)).show(form)
        yield (Value(float(row["program_bytes"]), file, (line,)) / 2**20).show(".2f")

    heads = ["program", "lowering, s", "compilation, s", "instructions", "program, MiB"]
    return table(heads, ([*cells(row, line)] for row, line in located_rows(file)))


def need(file: str, column: str, **selected: str) -> Value:
    """`value`, where the row must be there.

    Raises:
        ValueError: there is no such row.
    """
    found = value(file, column, **selected)
    if found is None:
        raise ValueError(f"no row of experiments/results/{file} has {column} and {selected}")
    return found


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        *(operator_cpu, model_cpu, layer_cpu, detection_cpu, input_cpu, operator_gpu, predicted_kernels, meshes),
        *(depth, robustness, detection, digits, scaling, compilation),
    )
}
"""The tables by the names that `<!-- table: NAME -->` in a page has."""
