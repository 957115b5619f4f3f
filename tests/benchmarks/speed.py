"""Time bayesglm and its peers at equal accuracy: ``python tests/benchmarks/speed.py [WORKLOAD ...]``.

Writes docs/speed.md, anew after each workload, with the workloads asked for. Needs the environments that
tests/benchmarks/venvs.py makes. With ``--scale`` other than 1 the page is printed only, unless ``--page`` is given.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import ANSWER, CONTENDERS, largest_gap
from jobs import HERE, THREADS
from venvs import DEFAULT_DIRECTORY, is_ready, python_of
from workloads import WORKLOADS

PAGE = HERE.parents[1] / "docs" / "speed.md"
ACCURACIES = (1e-6, 1e-10)
LADDER = [float(f"1e-{digits}") for digits in range(1, 17)]
TIGHT = 1e-13  # tolerance of the first reference
SLACK = 1e-12  # how far, relatively, the reference may be above the lowest objective
LONG = 1.0  # seconds from which on a fit is repeated less often
REPEATS = (3, 5)
PATIENCE = 5  # time limits for all tolerances of a contender, for a reference, and for the first fit of a process

INTRODUCTION = """\
# Speed at equal accuracy

How long `bayesglm` and other packages take for the same penalized fit. A tolerance means something else in each
package, so none is compared by it: each package runs at 1e-1, 1e-2, ..., 1e-16, and counts with the loosest of these
at which its objective F is within a relative distance (F - F\\*) / |F\\*| of the lowest that any package reached,
F\\*. That distance is 1e-6 in one half of each table and 1e-10 in the other. F is computed by NumPy code that shares
nothing with any package (`tests/benchmarks/objective.py`).

- *running*: median of {repeats} fits that follow the first one in the same process and at the same tolerance; what a
  package compiles at every fit is in it.
- *ratio*: running time, relative to that of `bayesglm`; above 1 is slower than `bayesglm`, below 1 is faster.
- *first*: the first fit of a new process, compiling included, import not.
- *memory*: largest resident memory during that first fit, beyond that of the process before it; compiling included.
- *setting*: how the package was called; `s` is bayesglm's strength, `n` and `W` the number of samples, `p_g` the size
  of a group.

Every fit runs in double precision, on one core and one thread, from an array in C order: what a package needs to
convert is in its time. Where there are several strengths, times are those of all their fits together. They may take
{timeout:g} s at one tolerance of a package, and {budget:g} s at all its tolerances.

This page is written by `{command}`,
after `python tests/benchmarks/venvs.py` has made an environment for each package.
It was run on {date} on this machine: {machine}; Python {python}.
Load average before the run: {load}.

| package | version |
|---|---|
{versions}
"""
COLUMNS = ("accuracy", "package", "running, s", "ratio", "first, s", "memory, MB", "setting")
FRESH = """
In a new process that starts, imports the package, reads the data, fits, and then fits again at another strength:

"""
FRESH_COLUMNS = ("accuracy", "package", "start of the process to coefficients, s", "fit at another strength, s")


class Setup(NamedTuple):
    """What the command line says about every process.

    Attributes
    ----------
    venvs : path
    core : int or None
    timeout : float
        Seconds for a fit.
    load : str
        Load average before the run: what else the machine was doing.
    """

    venvs: Any
    core: Any
    timeout: float
    load: str


class Walk(NamedTuple):
    """How a contender fared on a task.

    Attributes
    ----------
    version : str or None
    steps : list of dict
        One per tolerance, as `contenders.walk` yields them.
    end : str
        Why it went no further; empty where it had no reason to.
    """

    version: Any
    steps: list
    end: str


class Row(NamedTuple):
    """One contender at one accuracy; `step` and `start` are None where it was not reached, for the reason `why`."""

    accuracy: float
    name: str
    step: Any
    start: Any
    why: str


def ask(setup, folder, name, job):
    """Run a job in a new process; return its lines and its exit status, with "timeout" for that of the alarm."""
    peer = CONTENDERS[name].peer
    python = sys.executable if peer == "bayesglm" else python_of(setup.venvs, peer)
    answer = folder / ANSWER
    answer.unlink(missing_ok=True)
    job = {"contender": name, "core": setup.core, "timeout": setup.timeout, "started": time.time()} | job
    (folder / "job.json").write_text(json.dumps(job))
    environment = os.environ | dict.fromkeys(THREADS, "1")
    status = subprocess.run([python, HERE / "contenders.py", folder], env=environment, check=False).returncode
    lines = [json.loads(line) for line in answer.read_text().splitlines()] if answer.exists() else []
    alarm = getattr(signal, "SIGALRM", None)
    return lines, "timeout" if alarm is not None and status == -alarm else status


def job_of(task, kind, **more):
    """What every job on a task says."""
    return {"task": kind, "case": task.case.as_dict(), "path": task.path, "another": task.another} | more


def walk(setup, folder, name, task, **more):
    """The Walk of a contender."""
    job = job_of(
        task,
        "walk",
        **{"ladder": LADDER, "accuracies": ACCURACIES, "repeats": REPEATS, "long": LONG}
        | {"budget": PATIENCE * setup.timeout, "reference": [np.inf] * len(task.path)}
        | more,
    )
    lines, status = ask(setup, folder, name, job)
    version = next((line["version"] for line in lines if "version" in line), None)
    errors = [line["error"] for line in lines if "error" in line]
    limit = more.get("timeout", setup.timeout)
    end = f"no fit within {limit:g} s" if status == "timeout" else f"exit status {status}" if status else ""
    return Walk(version, [line for line in lines if "tol" in line], errors[0] if errors else end)


def walk_all(setup, folder, task, names):
    """Walks by contender, and the lowest objectives that any of them reached."""
    tight = {"ladder": [TIGHT], "timeout": PATIENCE * setup.timeout}
    first = walk(setup, folder, "bayesglm", task, **tight)
    reference = first.steps[0]["objectives"] if first.steps else [np.inf] * len(task.path)
    walks = {}
    for name in names:
        print(f"  {name}", flush=True)
        walks[name] = walk(setup, folder, name, task, reference=reference)
    lowest = lowest_objectives(reference, walks)
    if largest_gap(reference, lowest) > SLACK:
        print("  the reference was not the lowest; again", flush=True)
        walks = {name: walk(setup, folder, name, task, reference=lowest) for name in names}
        lowest = lowest_objectives(lowest, walks)
    return walks, lowest


def lowest_objectives(reference, walks):
    """Lowest objective of each strength, of the reference and all steps."""
    return np.min([reference, *(step["objectives"] for walk in walks.values() for step in walk.steps)], axis=0).tolist()


def judge(walk, accuracy, lowest):
    """The loosest step that reaches the accuracy and was timed, and otherwise None and the reason."""
    gaps = [largest_gap(step["objectives"], lowest) for step in walk.steps]
    for step, gap in zip(walk.steps, gaps, strict=True):
        if gap <= accuracy and step["times"]:
            return step, ""
    best = min(gaps, default=float("inf"))
    reached = f"not reached; closest {best:.0e}" if np.isfinite(best) else "not reached"
    return None, f"{reached}; {walk.end}" if walk.end else reached


def rows_of(setup, folder, task, walks, lowest):
    """Rows of a task: all contenders at the first accuracy, then at the next."""
    starts, rows = {}, []
    for accuracy in ACCURACIES:
        for name, walked in walks.items():
            step, why = judge(walked, accuracy, lowest)
            key = step and (name, step["tol"])
            if step and key not in starts:
                first = job_of(task, "start", tol=step["tol"], timeout=PATIENCE * setup.timeout)
                starts[key] = ask(setup, folder, name, first)[0]
            rows.append(Row(accuracy, name, step, starts[key][0] if step and starts[key] else None, why))
    return rows


def time_workload(setup, workload, scale, only):
    """Sections of the page, one per task, and versions of the packages."""
    sections, versions = [], {}
    for task in workload.make(scale):
        print(f"{workload.title}, {task.title}", flush=True)
        mirrored = workload.mirrored if task.case.data else ()
        names = ["bayesglm", *(name for name in workload.contenders + mirrored if not only or name in only)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(folder / "data.npz", **{key: array for key, array in task.data.items() if array is not None})
            walks, lowest = walk_all(setup, folder, task, names)
            rows = rows_of(setup, folder, task, walks, lowest)
        versions |= {CONTENDERS[name].peer: walk.version for name, walk in walks.items()}
        sections.append(section(workload, task, rows))
        print(sections[-1], flush=True)
    return sections, versions


def section(workload, task, rows):
    """Text of a task."""
    best = next((row.step for row in rows[::-1] if row.step), None)
    title = f"## {workload.title}: {task.title}\n"
    lines = [title]
    if best and task.case.prior != "Ridge":
        lines.append(f"Coefficients that are not zero: {best['active']}.\n")
    lines += [*header(COLUMNS), *(row_line(row, rows) for row in rows)]
    if task.another is not None:
        lines += [FRESH, *header(FRESH_COLUMNS), *(fresh_line(row) for row in rows if row.start)]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def row_line(row, rows):
    """Line of the table of a task."""
    if not row.step:
        return cells(f"{row.accuracy:g}", row.name, row.why, "", "", "", "")
    ours = next(other for other in rows if (other.accuracy, other.name) == (row.accuracy, "bayesglm"))
    running = np.median(row.step["times"])
    ratio = digits(running / np.median(ours.step["times"])) if ours.step else ""
    first, memory = (digits(row.start[key]) if row.start else "" for key in ("first_s", "memory_mb"))
    setting = f"`{row.step['setting']}`"
    return cells(f"{row.accuracy:g}", row.name, digits(running), ratio, first, memory, setting)


def fresh_line(row):
    """Line of the table on new processes."""
    seconds = [digits(row.start[key]) for key in ("start_s", "another_s")]
    return cells(f"{row.accuracy:g}", row.name, *seconds)


def digits(number):
    """Two significant digits without an exponent; nothing for None."""
    if number is None:
        return ""
    rounded = float(f"{number:.1e}")
    return f"{rounded:.0f}" if abs(rounded) >= 10 else f"{rounded:.10f}".rstrip("0").rstrip(".")


def header(names):
    """First two lines of a table."""
    return [cells(*names), "|" + "---|" * len(names)]


def cells(*values):
    """Line of a Markdown table."""
    return "| " + " | ".join(str(value).replace("|", "/") for value in values) + " |"


def page(setup, sections, versions):
    """The page of the documentation."""
    arguments = [word for word in sys.argv[1:] if word in WORKLOADS]
    introduction = INTRODUCTION.format(
        repeats=f"{min(REPEATS)} to {max(REPEATS)}",
        timeout=setup.timeout,
        budget=PATIENCE * setup.timeout,
        command=shlex.join(["python", "tests/benchmarks/speed.py", *arguments]),
        date=datetime.date.today().isoformat(),
        machine=machine(),
        load=setup.load,
        python=platform.python_version(),
        versions="\n".join(cells(*pair) for pair in versions.items()),
    )
    return "\n".join([introduction, *("\n".join([text, ""]) for text in sections)]).rstrip() + "\n"


def machine():
    """Processor, cores and memory, for people to read."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    words = f"{model} ({platform.machine()}), {os.cpu_count()} cores"
    if not hasattr(os, "sysconf"):
        return words
    return f"{words}, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"


def load_average():
    """Processes that ran on average in the last minute, for people to read."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def missing_environments(setup, names, only):
    """Peers that are needed and have no environment."""
    wanted = {contender for name in names for contender in WORKLOADS[name].contenders + WORKLOADS[name].mirrored}
    peers = {CONTENDERS[name].peer for name in wanted if not only or name in only}
    return sorted(peer for peer in peers if not is_ready(setup.venvs, peer))


def main():
    """Time the workloads asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"any of {', '.join(WORKLOADS)}; default all")
    parser.add_argument("--against", nargs="+", metavar="PACKAGE", help=f"only these of {', '.join(CONTENDERS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all sizes, for quick tries")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that a fit may take")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_DIRECTORY, help="folder of the environments")
    parser.add_argument("--page", type=Path, help="file to write")
    parser.add_argument("--core", type=int, help="core to run on")
    options = parser.parse_args()
    names = options.workloads or list(WORKLOADS)
    if unknown := set(names) - set(WORKLOADS) | set(options.against or ()) - set(CONTENDERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    setup = Setup(options.venvs, options.core, options.timeout, load_average())
    if missing := missing_environments(setup, names, options.against):
        parser.error(f"no environment for {', '.join(missing)}; make it with tests/benchmarks/venvs.py")
    target = options.page or (PAGE if options.scale == 1 else None)
    sections, versions = [], {}
    for name in names:
        new, seen = time_workload(setup, WORKLOADS[name], options.scale, options.against)
        sections, versions = sections + new, versions | seen
        if target:
            target.write_text(page(setup, sections, versions))


if __name__ == "__main__":
    main()
