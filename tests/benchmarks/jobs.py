"""Fits in processes of their own: what is asked of one, and what it answers.

The driver writes the data and the cases, starts ``python ADAPTERS JOB`` with the interpreter of a peer's environment,
and reads the answers. The process keeps to one core and one thread. For each case it makes a first fit, which may
compile, then as many more as asked for, each timed; nothing but the fit itself is inside the timer.

This module runs on both sides: it needs NumPy only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from problems import Case, make_problem

HERE = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Absent(Exception):
    """Raised by an adapter whose package has no such model."""


class Fit(NamedTuple):
    """What an adapter returns.

    Attributes
    ----------
    coef : array, shape (p,) or (p, outputs)
    intercept : array, shape (1,) or (outputs,)
    setting : str
        The call that was made, for people to read.
    scale : float, optional
        The overdispersion where it was learned.
    """

    coef: Any
    intercept: Any
    setting: str
    scale: float | None = None


class Adapter(NamedTuple):
    """How to fit with a package.

    Attributes
    ----------
    fit : callable
        fit(problem, tol) -> Fit, or raises Absent; None for `tol` means the package's default.
    package : str
        Name of the distribution, for its version.
    modules : tuple of str
        What to import before the first fit is timed.
    path : callable, optional
        path(problems, tol) -> list of Fit, for problems that differ in the strength alone; by default they are fitted
        one after the other.
    """

    fit: Any
    package: str
    modules: tuple
    path: Any = None


def run(python, script, peer, cases, data, *, tol=None, repeats=0, core=None, timeout=None):
    """Fit cases in a new process.

    Parameters
    ----------
    python : path
        Interpreter of the peer's environment.
    script : str
        Module of this folder with the adapters.
    peer : str
    cases : list of Case
    data : dict
        Name to dict of arrays, as from `problems.make_data`.
    tol : float, optional
        Tolerance, in the peer's own sense; None is its default.
    repeats : int
        Timed fits after the first of each case.
    core : int, optional
        Core to keep to; by default the last that this process may use.
    timeout : float, optional
        Seconds for the whole job.

    Returns
    -------
    dict
        ``version``, ``import_s`` and ``fits``, one dict per case: None if the peer has no such model, otherwise
        ``coef``, ``intercept``, ``scale``, ``setting``, ``warnings``, ``first_s``, ``median_s``, ``peak_rss_mb`` (of
        the process until then: ask for one case if it matters), or ``error``.
    """
    used = {case.data for case in cases}
    arrays = {f"{name}|{key}": array for name in used for key, array in data[name].items()}
    job = {"peer": peer, "tol": tol, "repeats": repeats, "core": core, "cases": [case.as_dict() for case in cases]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.savez(path / "data.npz", **arrays)
        (path / "job.json").write_text(json.dumps(job))
        environment = os.environ | dict.fromkeys(THREADS, "1")
        subprocess.run([python, HERE / script, folder], env=environment, timeout=timeout, check=True)
        answer = json.loads((path / "answer.json").read_text())
    for fit in answer["fits"]:
        if fit and "coef" in fit:
            fit["coef"], fit["intercept"] = np.array(fit["coef"]), np.array(fit["intercept"])
    return answer


def serve(adapters):
    """Do the job whose folder is the only argument of this process."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    keep_to_core(job["core"])
    adapter = adapters[job["peer"]]
    start = time.perf_counter()
    for module in adapter.modules:
        import_module(module)
    import_s = time.perf_counter() - start
    data = read_data(folder / "data.npz")
    fits = []
    for case in (Case(**fields) for fields in job["cases"]):
        fits.append(measure(adapter.fit, make_problem(case, data[case.data]), job["tol"], job["repeats"]))
    answer = {"version": metadata.version(adapter.package), "import_s": import_s, "fits": fits}
    (folder / "answer.json").write_text(json.dumps(answer))


def keep_to_core(core):
    """Let this process, and the threads that it will start, run on one core only."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})


def read_data(path):
    """Data sets by name, each a dict of arrays."""
    data = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            data_set, key = name.split("|")
            data.setdefault(data_set, {})[key] = arrays[name]
    return data


def measure(fit, problem, tol, repeats):
    """Fit once and then `repeats` times; the answer as JSON has it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, first = timed(fit, problem, tol)
            further = [timed(fit, problem, tol)[1] for _ in range(repeats)]
        except Absent:
            return None
        except Exception as error:  # a peer's failure is a result
            return {"error": f"{type(error).__name__}: {error}"}
    return {
        "coef": np.asarray(result.coef, float).tolist(),
        "intercept": np.asarray(result.intercept, float).ravel().tolist(),
        "scale": None if result.scale is None else float(result.scale),
        "setting": result.setting,
        "warnings": sorted({f"{warning.category.__name__}: {warning.message}" for warning in caught}),
        "first_s": first,
        "median_s": float(np.median(further)) if further else None,
        "peak_rss_mb": peak_rss_mb(),
    }


def timed(fit, problem, tol):
    """Result of the fit, and seconds."""
    start = time.perf_counter()
    result = fit(problem, tol)
    return result, time.perf_counter() - start


def peak_rss_mb():
    """Largest resident memory of this process in MB; None where the system does not tell.

    `resource.getrusage` would count the driver's memory, from before this process replaced its copy.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
