"""The cost model against closed forms, the page that shows it, and recipes whose shell lines are run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aevae_jax.runs import processes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import scaling  # noqa: E402

LAUNCH = ROOT / "experiments" / "launch"
LINK = scaling.Link(1e9, 1e-3)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 0.0), (2, 1 + 2e-3), (4, 1.5 + 4e-3), (1024, 2 * 1023 / 1024 + 0.02)]
)
def test_a_ring_sends_nearly_twice_the_bytes(count, seconds):
    assert scaling.all_reduce(1e9, count, LINK) == pytest.approx(seconds)


def test_machines_exchange_what_each_of_their_devices_has_added():
    free = scaling.Link(1e30, 0.0)
    alone = scaling.communication(1e9, 8, machine=8, inside=LINK, between=free)
    assert alone == pytest.approx(4 * 2 * 7 / 8 + 6e-3)
    assert scaling.communication(1e9, 64, machine=8, inside=LINK, between=free) == pytest.approx(alone)
    between = scaling.communication(1e9, 64, machine=8, inside=free, between=LINK)
    assert between == pytest.approx(4 / 8 * 2 * 7 / 8 + 6e-3)


def test_half_is_lost_where_the_last_column_says():
    [*_, row] = scaling.table((scaling.Network("a", 1e6, 1e-3, 128),), machine=8, inside=LINK, between=LINK)
    least = int(row.split("|")[-2].split()[0].replace(",", ""))
    wait = scaling.communication(1e6, scaling.COUNTS[-1], machine=8, inside=LINK, between=LINK)
    assert wait <= 1e-3 / 128 * least < wait + 1e-3 / 128


def test_the_page_shows_what_its_command_prints(capsys):
    scaling.scaling()
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- scaling -->\n\n")[2].partition("\n<!-- end of scaling -->")[0]
    assert shown == capsys.readouterr().out


def run_in_shell(tmp_path, command, code=0, **variables):
    """Standard output and exit code of shell lines, where programs that are not here only say what they were told."""
    for name in ("aevae", "scontrol"):
        end = f"exit {code}" if name == "aevae" else ""
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s " {name} "$@"; echo\n{end}\n')
    (tmp_path / "srun").write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n')
    for name in ("aevae", "scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.stdout.splitlines(), done.returncode


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, "0", False), (2, "0", False), (75, "", True), (75, "99", True), (75, "100", False)],
)
def test_slurm_requeues_what_was_saved(tmp_path, code, restarts, requeued):
    counted = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    command = ["bash", str(LAUNCH / "slurm.sbatch"), "runs/a b", "--epochs", "2"]
    lines, found = run_in_shell(tmp_path, command, code, SLURM_JOB_ID="17", **counted)
    assert lines[0] == "aevae train runs/a b --epochs 2 --processes cluster "
    assert (found, lines[1:]) == (code, ["scontrol requeue 17 "] if requeued else [])


def place_in(line):
    return processes.place(line.split("--processes ")[1].strip())


def test_a_job_set_says_which_process_a_pod_is(tmp_path):
    recipe = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    [job] = recipe["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert spec["completions"] == spec["parallelism"] == 2
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    [line], _ = run_in_shell(tmp_path, [*container["command"], *container["args"]], JOB_COMPLETION_INDEX="1")
    name = recipe["metadata"]["name"]
    assert place_in(line) == processes.Place(1, 2, f"{name}-{job['name']}-0-0.{name}:12345")


def test_skypilot_says_which_process_a_node_is(tmp_path):
    recipe = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert recipe["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    [line], code = run_in_shell(tmp_path, ["bash", "-c", recipe["run"]], 75, **nodes, **recipe["envs"])
    assert (place_in(line), code) == (processes.Place(1, 2, "10.0.0.1:12345"), 75)
    assert subprocess.run(["bash", "-n", "-c", recipe["setup"]], check=False).returncode == 0
