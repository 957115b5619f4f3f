"""The other side of speed.py: a process that fits for one contender, runs out of time, or tells how it went.

``python contenders.py FOLDER`` reads the data and the job from the folder and appends lines of JSON to a file there. A
fit that takes too long ends the process; the lines until then remain. Runs in the peers' environments.
"""

import json
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jobs import Fit, keep_to_core, peak_rss_mb, timed
from problems import Case, make_problem

ANSWER = "answer.jsonl"


class Contender(NamedTuple):
    """A peer and how it is asked.

    Attributes
    ----------
    peer : str
        Its environment.
    module : str
        Where its adapter is.
    options : dict
        Further arguments of the adapter.
    loop : bool
        Whether several outputs are fitted one after the other.
    """

    peer: str
    module: str = "peers"
    options: dict = {}
    loop: bool = False


CONTENDERS = {
    "bayesglm": Contender("bayesglm", "ours"),
    "scikit-learn": Contender("scikit-learn"),
    "scikit-learn lbfgs": Contender("scikit-learn", options={"solver": "lbfgs"}, loop=True),
    "scikit-learn newton-cholesky": Contender("scikit-learn", options={"solver": "newton-cholesky"}, loop=True),
    "glum": Contender("glum", loop=True),
    "nemos": Contender("nemos"),
    "skglm": Contender("skglm"),
    "celer": Contender("celer"),
    "adelie": Contender("adelie"),
}


def main():
    """Do the job of the folder that is the only argument of this process."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    keep_to_core(job["core"])
    warnings.simplefilter("ignore")
    with np.load(folder / "data.npz") as arrays:
        data = dict(arrays)
    problems = problems_of(job, data)
    with (folder / ANSWER).open("a") as file:
        try:
            for line in {"walk": walk, "start": start}[job["task"]](job, problems):
                print(json.dumps(line), file=file, flush=True)
        except Exception as error:  # a peer's failure is a result
            traceback.print_exc()
            print(json.dumps({"error": type(error).__name__}), file=file, flush=True)


def problems_of(job, data):
    """The problems at all strengths of the path."""
    return [make_problem(replace(Case(**job["case"]), strength=strength), data) for strength in job["path"]]


def open_contender(name):
    """Import the package; return fit(problems, tol), for problems that differ in the strength, and its version."""
    contender = CONTENDERS[name]
    adapter = import_module(contender.module).ADAPTERS[contender.peer]
    for module in adapter.modules:
        import_module(module)
    version = metadata.version(adapter.package)
    fit = partial(adapter.fit, **contender.options)
    fit = partial(fit_outputs, fit) if contender.loop else fit

    def fit_all(problems, tol):
        if len(problems) > 1 and adapter.path:
            return adapter.path(problems, tol)
        return [fit(problem, tol) for problem in problems]

    return fit_all, version


def fit_outputs(fit, problem, tol):
    """Fit the outputs one after the other if there are several."""
    if problem.y.ndim == 1:
        return fit(problem, tol)
    strengths = np.broadcast_to(problem.strength, (1, problem.y.shape[1]))[0]
    fits = [
        fit(replace(problem, y=np.ascontiguousarray(y), strength=float(strength)), tol)
        for y, strength in zip(problem.y.T, strengths, strict=True)
    ]
    intercept = np.concatenate([np.ravel(one.intercept) for one in fits])
    return Fit(np.stack([one.coef for one in fits], axis=1), intercept, f"loop of {fits[0].setting}")


def walk(job, problems):
    """Fit at tighter and tighter tolerances until the tightest accuracy is reached; yield one line for each.

    A line that reaches an accuracy that none before it reached holds the times of further fits.
    """
    fit, version = open_contender(job["contender"])
    yield {"version": version}
    remaining, begin = set(job["accuracies"]), time.perf_counter()
    for tol in job["ladder"]:
        fits, seconds = limited(job["timeout"], fit, problems, tol)
        values = objectives(problems, fits)
        gap = largest_gap(values, job["reference"])
        reached = {accuracy for accuracy in remaining if gap <= accuracy}
        count = 0 if not reached else job["repeats"][0] if seconds > job["long"] else job["repeats"][1]
        times = [limited(job["timeout"], fit, problems, tol)[1] for _ in range(count)]
        yield {"tol": tol, "objectives": values, "times": times, "setting": fits[0].setting, "active": active(fits)}
        remaining -= reached
        if not remaining or time.perf_counter() - begin > job["budget"]:
            return


def start(job, problems):
    """Fit for the first time in this process, and at another strength; yield one line with times and memory."""
    fit, _ = open_contender(job["contender"])
    before = start_of_peak()
    _, first = limited(job["timeout"], fit, problems, job["tol"])
    line = {"start_s": time.time() - job["started"], "first_s": first}
    peak = peak_rss_mb()
    line["memory_mb"] = None if before is None or peak is None else peak - before
    if job["another"] is not None:
        other = problems_of(job | {"path": [job["another"]]}, vars(problems[0]))
        line["another_s"] = limited(job["timeout"], fit, other, job["tol"])[1]
    yield line


def limited(seconds, fit, problems, tol):
    """Fits and how long they took; ends the process after so many seconds, also inside compiled code."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    result = timed(fit, problems, tol)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    return result


def start_of_peak():
    """Forget the peak of this process's memory; return its present size in MB, None where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak_rss_mb()


def objectives(problems, fits):
    """Objective of each fit."""
    from objective import objective  # loads SciPy, which no timed import should find loaded

    shaped = [(np.asarray(fit.coef, float), np.ravel(np.asarray(fit.intercept, float))) for fit in fits]
    return [objective(problem, *pair) for problem, pair in zip(problems, shaped, strict=True)]


def largest_gap(values, reference):
    """Largest relative suboptimality; infinite where an objective or its reference is not finite."""
    gaps = [(value - best) / abs(best) for value, best in zip(values, reference, strict=True)]
    return max(gap if np.isfinite(gap) else float("inf") for gap in gaps)


def active(fits):
    """Number of coefficients that are not zero in the last fit."""
    return int(np.count_nonzero(np.asarray(fits[-1].coef)))


if __name__ == "__main__":
    main()
