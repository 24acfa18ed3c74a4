"""The tables of speed that the documentation and the report show, made from rows."""

from collections.abc import Iterator

from experiments.benchmarks.scaling import exponents, note
from experiments.reports.numbers import located_rows, select
from experiments.reports.shown import Value, need, ratio, table, value

GPU = "gpu/rows.jsonl"
COPY_BANDWIDTH = 4.3e12  # bytes a second of a copy on an H200
NAMES = {"ddf_resnet50": "DDF-ResNet-50", "resnet50": "ResNet-50"}
SIZES = ("56x56x64", "28x28x128", "14x14x256", "7x7x512")


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
    "roi_align_box": "RoIAlign of proposals",
    "box_head": "box head",
    "detections": "choice of detections",
    "roi_align_mask": "RoIAlign of 100 masks",
    "paste_masks": "100 masks into the image",
    "nms_4000": "non-maximum suppression of 4000",
    "forward": "forward pass",
    "training_step": "training step, two smaller images",
}


def detection_cpu() -> str:
    """Milliseconds of a detector and its parts next to the port's."""
    return _detection("detection_cpu.csv", {"torch_port": "port"})


def detection_torchvision() -> str:
    """The same next to the port's and torchvision's."""
    return _detection("detection_torchvision.csv", {"torch_port": "port", "torchvision": "torchvision"})


def _detection(file: str, peers: dict[str, str]) -> str:
    def cells(part: str) -> Iterator[str | None]:
        yield PARTS[part]
        own = need(file, "median_ms", implementation="jax", part=part)
        yield own.show()
        for peer in peers:
            ms = need(file, "median_ms", implementation=peer, part=part)
            yield from (ms.show(), (ms / own).show(ratio))

    heads = [head for title in peers.values() for head in (title, "")]
    return table(["", "ours", *heads], ([*cells(part)] for part in PARTS))


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


def steps_gpu() -> str:
    """Training steps of whole networks on a GPU."""

    def cells(model: str) -> Iterator[str]:
        yield NAMES[model]
        for column, factor, form in (
            ("median_ms", 1, ".1f"),
            ("images_per_second", 1, ".0f"),
            ("peak_bytes", 2**30, ".2f"),
        ):
            yield (need(GPU, column, implementation=model, **{"pass": "training_step"}) / factor).show(form)

    return table(["", "ms", "images/s", "GiB"], ([*cells(model)] for model in NAMES))


def serving() -> str:
    """Answers of a server under load."""
    file = "serving.csv"

    def cells(kind: str) -> Iterator[str]:
        yield kind.replace("_", " ")
        for column in ("clients", "requests", "per_second", "wrong", "median_ms", "p99_ms"):
            yield need(file, column, kind=kind).show(",.0f")

    heads = ["images", "clients", "requests", "per second", "wrong answers", "median, ms", "99th percentile, ms"]
    return table(heads, ([*cells(row["kind"])] for row, _ in located_rows(file)))


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
