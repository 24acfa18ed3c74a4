"""The kinds of faults, those first whose single faults take longest; `arguments.py` lists their names too."""

from tests.faults.changes import draw_change, prepare_changes
from tests.faults.damage import draw_damage
from tests.faults.fault import Kind
from tests.faults.file_operations import draw_failure
from tests.faults.kills import draw_kill, draw_signal
from tests.faults.launch_pairs import draw_pair
from tests.faults.power import draw_power, prepare_power
from tests.faults.process_loss import draw_loss, prepare_pairs
from tests.faults.readers import draw_reader

KINDS = {
    "process": Kind(5, draw_loss, prepare_pairs),
    "reader": Kind(5, draw_reader),
    "lock": Kind(6, draw_pair),
    "kill": Kind(20, draw_kill),
    "signal": Kind(12, draw_signal),
    "file": Kind(12, draw_failure),
    "damage": Kind(12, draw_damage),
    "change": Kind(12, draw_change, prepare_changes),
    "power": Kind(12, draw_power, prepare_power),
}
