"""Operations on the files of a run that fail: a full disk, a lost file system, a limit of the user."""

import errno
import os
from pathlib import Path
from random import Random

from tests.faults.bench import Bench
from tests.faults.checks import check_end, check_finished, check_kept, check_resumes
from tests.faults.fault import Fault

_ERRORS = {
    "open": ("ENOSPC", "EIO", "EDQUOT", "EROFS", "ESTALE"),
    "write": ("ENOSPC", "EIO", "EDQUOT", "ESTALE"),
    "fsync": ("ENOSPC", "EIO", "EDQUOT", "ESTALE"),
    "rename": ("ENOSPC", "EIO", "EROFS", "ESTALE"),
    "mkdir": ("ENOSPC", "EIO", "EDQUOT", "EROFS", "ESTALE"),
    "unlink": ("EIO", "EROFS", "ESTALE"),
}


def draw_failure(index: int, random: Random, bench: Bench) -> Fault:
    """An operation that fails, once or from then on."""
    operations = list(bench.operations)
    operation = operations[index % len(operations)]
    name = random.choice(_ERRORS[operation])
    number = random.randint(1, max(1, round(0.95 * bench.operations[operation])))
    lasting = random.random() < 0.5

    def check(folder: Path) -> str:
        workdir = folder / "run"

        def prepare() -> None:
            bench.shim.fail(workdir, operation, number, getattr(errno, name), lasting=lasting)

        ended = bench.train(folder, prepare=prepare).wait(bench.limit)
        seen = check_end(ended, {0, 1, 2})
        whole = check_kept(bench, folder)
        if ended.status == 0:  # without what a run can do without, and perhaps with an older checkpoint half removed
            check_finished(bench, workdir)
        else:
            assert os.strerror(getattr(errno, name)) in ended.error, ended.error
            check_resumes(bench, folder)
        return f"{seen}; {whole} are whole, {'resumed to ' if ended.status else ''}the same bits"

    how = "and all after it" if lasting else "once"
    what = f"{operation} {number} of {bench.operations[operation]} fails {how} with {name}"
    return Fault(what, "one line with the cause, or ended as if nothing had failed; resumed to the same bits", check)
