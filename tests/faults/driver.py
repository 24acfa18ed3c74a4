"""Draws the faults of a seed, does them side by side, and prints a table: `driver.py FOLDER [options]`."""

import functools
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import NamedTuple

import jax

from experiments.benchmarks.rows import row_environment
from tests import compilation
from tests.faults.arguments import parse
from tests.faults.bench import Bench, prepare_bench
from tests.faults.fault import Fault
from tests.faults.jobs import run_jobs
from tests.faults.launches import import_everything
from tests.faults.registry import KINDS
from tests.faults.shim import Shim


class Drawn(NamedTuple):
    """A fault and its address, KIND:INDEX."""

    address: str
    fault: Fault


def main() -> int:
    """1 where a fault did more than it should, else 0."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell lets a program in the background ignore
    folder, options = Path(sys.argv[1]), parse(sys.argv[2:])
    library = os.environ.pop("LD_PRELOAD", None)
    shim = Shim(Path(library) if library else None)
    compilation.configure()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    import_everything()
    start = time.monotonic()
    for name in ("bench", "prepared", "faults", "outcomes"):
        (folder / name).mkdir()
    bench = prepare_bench(folder / "bench", shim)
    addresses = [options.only] if options.only else list_addresses(options.kinds, options.count)
    kinds = list(dict.fromkeys(address.partition(":")[0] for address in addresses))
    preparations = [functools.partial(KINDS[kind].prepare, bench) for kind in kinds]
    for prepared in run_jobs(preparations, folder / "prepared", at_once=options.jobs):
        if not prepared.ok:
            print(f"{kinds[prepared.number]} cannot be prepared: {prepared.outcome}")
            return 1
    drawn = [Drawn(address, draw(address, options.seed, bench)) for address in addresses]
    print(f"seed {options.seed}: {len(drawn)} faults; operations on files fail in {shim.level}; ", end="")
    print(f"{time.monotonic() - start:.0f} s until here\n", flush=True)
    return report(drawn, folder, options.seed, options.jobs, options.out, start)


def list_addresses(kinds: list[str], count: int | None) -> list[str]:
    """Of so many faults of some kinds."""
    return [f"{kind}:{index}" for kind in kinds for index in range(KINDS[kind].count if count is None else count)]


def draw(address: str, seed: int, bench: Bench) -> Fault:
    """The fault with an address. It depends on nothing but this, the seed and the unbroken runs."""
    kind, _, index = address.partition(":")
    return KINDS[kind].draw(int(index), Random(f"{seed} {address}"), bench)


def report(drawn: list[Drawn], folder: Path, seed: int, jobs: int, out: Path | None, start: float) -> int:
    """Does the faults and prints a row for each when it is done."""
    functions = [functools.partial(_check, one, folder / "faults") for one in drawn]
    failed, environment = [], row_environment("jax", "cpu")
    print("| fault | what | expected | seen | s | ok |\n|---|---|---|---|---|---|", flush=True)
    with open(out or os.devnull, "w") as rows:
        for done in run_jobs(functions, folder / "outcomes", at_once=jobs):
            address, fault = drawn[done.number]
            row = {
                "kind": address.partition(":")[0],
                "fault": address,
                "what": fault.what,
                "expected": fault.expected,
                "seen": " ".join(str(done.outcome).replace(f"{folder}/", "").split()),
                "seconds": round(done.seconds, 1),
                "ok": done.ok,
            }
            failed += [] if done.ok else [address]
            cells = [*list(row.values())[1:-1], "ok" if done.ok else "FAILED"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            rows.write(json.dumps(row | {"seed": seed} | environment) + "\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{len(drawn) - len(failed)} of {len(drawn)} faults ok in {time.monotonic() - start:.0f} s, ", end="")
    print(f"{used.ru_utime + used.ru_stime:.0f} s of the processors.")
    for name in failed:
        print(f"Repeat with: python -m tests.faults --seed {seed} --only {name}")
    return 1 if failed else 0


def _check(drawn: Drawn, faults: Path) -> str:
    folder = faults / drawn.address.replace(":", "-")
    folder.mkdir()
    return drawn.fault.check(folder)


if __name__ == "__main__":
    sys.exit(main())
