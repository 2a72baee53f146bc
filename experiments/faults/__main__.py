"""Does a training survive anything, and is anything wrong taken for right?

Command:   python experiments/faults                (about forty minutes on two CPU cores)
           python experiments/faults --only arrays  (one section; see --help)
           python experiments/faults --short        (a few trials of each kind)
Writes:    runs/faults/<section>.json, with the first failures in words; what the runs left is in runs/faults/work
Expected:  every row "holds"; what this machine does not allow is "skipped", with the reason.

**Faults.** One tiny VAE of the digits is trained, each time in a process of its own (`child.py`) that says on its
standard output what it is doing and which checkpoints `Store.save` has acknowledged. It is killed, interrupted, starved
of disk or fed NaN; then its directory is looked at, and the same command is started again. The outcome of a run is its
weights, the losses of all steps, its log and its results, and must be, to the bit, that of a run that nobody disturbed.
A kill is the end of a process, not of a machine: what a loss of power leaves on a disk is not tried here.

**Hostile inputs.** Every file of a run and of every data format is damaged, exchanged, replaced or forged, some
thousand times, and read (`trials.py`). What is read must be what was read before, or be refused in one line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this folder is the package `faults`

from aevae_jax.cli import console  # noqa: E402

if __name__ == "__main__":
    with console.one_line_errors():
        if sys.argv[1:2] == ["child"]:
            from faults.child import Child

            Child(json.loads(sys.argv[2])).run()
        elif sys.argv[1:2] == ["worker"]:
            from faults import workers

            workers.serve(json.loads(sys.argv[2]))
        else:
            from faults import table

            console.parse_arguments(table.faults, sys.argv[1:], prog="python experiments/faults")()
