"""Parts in processes of their own: the questions, turns between processes, and the end of a child."""

import sys
import textwrap
from pathlib import Path

import pytest

from experiments.benchmarks.turns import VERBS, Child
from pallas_kernels.tuning.timing import Program, time_programs

# Every run of a part adds a line to the file.
PROGRAM = """
    import sys
    from experiments.benchmarks.turns import Part, serve

    file, name = sys.argv[1:]
    kept = []

    def run():
        with open(file, "a") as log:
            log.write(name)
        print("noise")
        kept.append(b"x" * 20_000_000)

    def fail():
        raise ValueError("no such part")

    serve({"work": lambda: Part(run, lambda: 7, 0.5), "broken": fail}, "one 1.0")
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def child(log: Path, name: str = "a") -> Child:
    return Child([sys.executable, "-c", textwrap.dedent(PROGRAM), str(log), name])


def test_a_child_answers_each_question_with_a_number(log, capfd):
    with child(log) as asked:
        assert (asked.versions, asked.parts) == ("one 1.0", ["work", "broken"])
        assert not log.exists(), "a part was made before its first use"
        answers = {verb: asked.ask(verb, "work") for verb in VERBS}
    assert answers["run"] == 0
    assert 0 < answers["seconds"] < 10
    assert (answers["bytes"], answers["compile"]) == (7, 0.5)
    assert log.read_text() == "aaaa"  # run, seconds and twice for the growth
    assert "noise" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_the_growth_is_the_memory_that_a_process_takes_for_a_part(log):
    with child(log) as asked:
        assert 3.9e7 < asked.ask("growth", "work") < 6e7  # two runs keep 20 MB each, in whole pages


def test_processes_take_turns(log):
    with child(log, "a") as one, child(log, "b") as other:
        programs = {
            name: Program(lambda c=c: c.ask("run", "work"), lambda c=c: c.ask("seconds", "work"), "host", 0)
            for name, c in (("a", one), ("b", other))
        }
        seconds = time_programs(programs, rounds=4)
    turns = [log.read_text()[i : i + 4] for i in range(0, 16, 4)]
    assert set(turns) == {"aabb", "bbaa"}
    assert [len(of_one) for of_one in seconds.values()] == [4, 4]


def test_a_child_that_fails_is_an_error_with_its_command(log):
    message = r"(?s)expected an answer of .*python.* with the status 1"
    with child(log) as asked, pytest.raises(RuntimeError, match=message):
        asked.ask("run", "broken")
