"""Everything that only a GPU can show, by one command: are the kernels right there, and how fast are they.

    python -m experiments.gpu_suite --out DIR [--quick] [--parts NAME ...] [--shapes NAME ...]
    python -m experiments.gpu_suite --out DIR --dry-run

Parts, the most important first: `checks` (values and cotangents of every kernel against float64), `timings` (kernels
and peers in JAX, copy bandwidth), `steps` (training steps of whole networks, and every kernel of one, in
DIR/NAME.kernels.json), `torch` (peers in PyTorch), `tune` (search for faster kernel configs). `--quick` takes the most
important cases of each and ends after six minutes. Each row is appended to DIR/rows.jsonl as soon as it is measured; a
later call with the same DIR measures what is missing or failed. Exit status 1: a check failed.
`python -m experiments.gpu_report DIR` makes tables of the rows.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.benchmarks.gpu_cases import TIMED, Options
from experiments.benchmarks.gpu_parts import BY_NAME, OUT_OF_TIME, PARTS, Part, identity
from experiments.benchmarks.rows import Row, append_row, drop_torn_line, read_rows

QUICK_SECONDS = 350.0  # six minutes, and a process's time to end
GRACE = 5.0  # seconds between a part's deadline and its process being killed
PATIENCE = 2.0  # a part's time limit while other parts wait, as a multiple of its estimate


def main(argv: Sequence[str] | None = None) -> int:
    started = time.time()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of rows.jsonl")
    parser.add_argument("--quick", action="store_true", help="the most important cases, at most six minutes")
    parser.add_argument("--parts", nargs="+", default=list(BY_NAME), choices=list(BY_NAME), metavar="NAME")
    parser.add_argument("--shapes", nargs="+", default=(), choices=list(TIMED), metavar="NAME", help="calls to time")
    parser.add_argument("--implementations", nargs="+", default=(), metavar="NAME", help="what to check and to time")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes and interpreted kernels, on the CPU")
    chosen = parser.parse_args(argv)
    options = Options(
        tuple(chosen.shapes), tuple(chosen.implementations), chosen.quick, chosen.dry_run, folder=str(chosen.out)
    )
    if chosen.quick:
        options = dataclasses.replace(options, deadline=started + QUICK_SECONDS)
    chosen.out.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PARTS if part.name in chosen.parts]
    suite = Suite(chosen.out / "rows.jsonl", options)
    print(schedule(parts, suite.rows, options), flush=True)
    suite.run(parts)
    failed = suite.failed_checks()
    print(f"{time.time() - started:.0f} s, {len(failed)} checks failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


def schedule(parts: Sequence[Part], rows: Sequence[Row], options: Options) -> str:
    """The parts with their estimated times, and the rows that earlier calls measured."""
    lines, start = [f"{'part':<10}{'starts':>8}{'takes':>8}{'measured before':>17}"], 0.0
    for part in parts:
        takes = f"{part.seconds:.0f} s" if options.quick else ""
        starts = f"{start:.0f} s" if options.quick else ""
        before = sum(row.get("part") == part.name and "error" not in row for row in rows)
        lines.append(f"{part.name:<10}{starts:>8}{takes:>8}{before:>17}")
        start += part.seconds
    return "\n".join(lines)


class Suite:
    """Runs parts and keeps their rows in a file."""

    def __init__(self, file: Path, options: Options):
        drop_torn_line(file)
        self.file, self.options = file, options
        self.rows = read_rows(file)
        self.tried = len(self.rows)

    def run(self, parts: Sequence[Part]) -> None:
        """Each part in turn; then once more, without a limit of its own, those that ran out of time."""
        waiting = list(parts)
        for patience in (PATIENCE, math.inf):
            waiting = [part for part in waiting if not self._run_part(part, patience)]
        if waiting:
            print(f"{', '.join(part.name for part in waiting)}: not all cases were reached", flush=True)

    def failed_checks(self) -> list[str]:
        """Names of the checks that failed in this call or an earlier one and have not passed since."""
        newest = {identity(row): row for row in self.rows if row.get("part") == "checks"}
        return [
            " ".join(row[name] for name in ("implementation", "shape", "dtype") if name in row) or row["error"]
            for row in newest.values()
            if not row.get("passed", False)
        ]

    def _run_part(self, part: Part, patience: float) -> bool:
        """Whether all its cases were tried. A process that crashes is started again as long as that adds rows."""
        deadline = self.options.deadline
        if math.isfinite(deadline):
            deadline = min(deadline, time.time() + patience * part.seconds)
        while not self.options.out_of_time():
            before = len(self.rows)
            status = self._run_process(part, dataclasses.replace(self.options, deadline=deadline))
            if status in (0, OUT_OF_TIME):
                return status == 0
            if len(self.rows) == before:
                self._add({"part": part.name, "error": f"its process ended with {status}"})
                return True
        return False

    def _run_process(self, part: Part, options: Options) -> int:
        """Its exit status; `OUT_OF_TIME` also where it had to be killed."""
        encoded = json.dumps(dataclasses.asdict(options))
        command = (sys.executable, "-m", "experiments.benchmarks.gpu_parts", part.name, self.file, self.tried, encoded)
        on_cpu = options.dry_run or part.framework != "jax"
        environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if on_cpu else {})
        with subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE, text=True) as process:
            seconds = max(0.0, options.deadline - time.time()) + GRACE
            timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), process.kill)
            timer.start()
            announced = self._add_rows(process.stdout or ())
            status = process.wait()
            timer.cancel()
        if status != 0 and options.out_of_time():
            return OUT_OF_TIME
        if status not in (0, OUT_OF_TIME) and announced:
            self._add(announced | {"error": f"its process ended with {status}"})
        return status

    def _add_rows(self, lines: Iterable[str]) -> Row | None:
        """Keeps what a part prints, and returns the key of the case that it had started when it ended."""
        announced = None
        for line in lines:
            if not line.startswith("{"):  # a compiler's
                print(line, end="", file=sys.stderr)
                continue
            row = json.loads(line)
            announced = row.get("started")
            if "part" in row:
                self._add(row)
        return announced

    def _add(self, row: Row) -> None:
        append_row(self.file, row)
        self.rows.append(row)
        print(json.dumps(row), flush=True)
