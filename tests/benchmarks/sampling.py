"""Effective draws per second, side by side: ``python tests/benchmarks/sampling.py [CASE ...]``.

Writes docs/sampling-speed.md, anew after each case. Needs the environments that tests/benchmarks/venvs.py makes. A GPU
is used where JAX finds one (``--core`` then has no effect on it).
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jobs import HERE, THREADS
from speed import machine
from venvs import DEFAULT_DIRECTORY, is_ready, python_of

from bayesglm._diagnostics import convergence

PAGE = HERE.parents[1] / "docs" / "sampling-speed.md"
WARMUPS = (150, 300, 500, 1000)
OUTPUTS = 100

INTRODUCTION = """\
# Speed of sampling

Effective draws per second of `bayesglm` and of the samplers that a user would otherwise write: NumPyro's NUTS on a
plain model (chains vectorized) and BlackJAX's NUTS with its window adaptation on a hand-written density (chains
vectorized, everything in one jitted function). All take 4 chains of 1000 draws, if the table does not say otherwise.

- *effective*: the smallest bulk or tail effective sample size of any coefficient or square of one, at most the number
  of draws; for `laplace` that of its smoothed importance weights.
- *total*: effective draws by the time of the first call in a new process, imports of the package and compiling
  included (not the import of JAX).
- *running*: effective draws by the time of a second call with another seed, less what was compiled in it.
- *ratio*: *running* of `bayesglm` (its first row) by that of the row: above 1, `bayesglm` is faster. It fits the mode
  anew in every call; that is in its times.
- *warm-up*: draws before those that are kept; of those tried, the one with most effective draws per second of the
  first call. `bayesglm` runs with its default.

Every run is a process of its own on one core, and on one thread. Written by `{command}` on {date}: {machine}; Python
{python}, {versions}. Load average before the run: {load}.
"""
COLUMNS = (
    "sampler",
    "warm-up",
    "steps a draw",
    "effective",
    "first, s",
    "total, 1/s",
    "again, s",
    "running, 1/s",
    "ratio",
)


class Case(NamedTuple):
    """One table: title, data of `sampling_jobs.make`, precision and contenders.

    `contenders` are triples: sampler of `sampling_jobs`, warm-ups to try, draws. `bayesglm` comes first.
    """

    title: str
    data: str
    dtype: str
    contenders: tuple
    words: str = ""


OURS = ("bayesglm", ("default",), 1000)
LAPLACE = ("bayesglm laplace", ("default",), 1000)
NUTS = ("bayesglm nuts", ("default",), 1000)
PEERS = (("numpyro", WARMUPS, 1000), ("blackjax", WARMUPS, 1000))
QUICK = (("numpyro", (300,), 1000), ("blackjax", (300,), 1000))
SHORT = (("numpyro", (300,), 50), ("blackjax", (300,), 50))
CASES = {
    "logistic-32": Case(
        "Logistic, 10000 x 50, Ridge, float32", "logistic", "float32", (OURS, LAPLACE, NUTS, *PEERS)
    ),
    "logistic": Case("Logistic, 10000 x 50, Ridge, float64", "logistic", "float64", (OURS, LAPLACE, NUTS, *QUICK)),
    "poisson-lasso-32": Case(
        "Poisson, 5000 x 40, Lasso, float32", "poisson-lasso", "float32", (OURS, LAPLACE, NUTS, *PEERS)
    ),
    "poisson-lasso": Case(
        "Poisson, 5000 x 40, Lasso, float64", "poisson-lasso", "float64", (OURS, LAPLACE, NUTS, *QUICK)
    ),
    "bumps": Case(
        "Poisson, 20000 x 60 raised cosines, Ridge", "bumps", "float64", (OURS, LAPLACE, NUTS, *SHORT),
        "The condition number of the features is {condition:.0e}. The peers draw 50 per chain.",
    ),
    "gaussian-square": Case(
        "Gaussian, 2000 x 2000, Ridge, variance unknown", "gaussian-square", "float64",
        (OURS, ("numpyro", (300,), 50)), "The peer draws 50 per chain.",
    ),
    "gaussian-wide": Case(
        "Gaussian, 2000 x 11983, Ridge, variance unknown", "gaussian-wide", "float64", (OURS,),
        "NUTS would need a state of 11984 numbers and a mass matrix adapted to it; no peer was run.",
    ),
    "logistic-wide": Case(
        "Logistic, 60 x 100, Lasso", "logistic-wide", "float64", (OURS, NUTS, ("numpyro", WARMUPS, 1000))
    ),
    "population": Case(
        "Poisson, 5000 x 30, 100 outputs, Ridge with a strength each", "population", "float64",
        (OURS, ("bayesglm-loop", ("default",), 1000), ("numpyro-loop", (300, 500), 1000)),
        "The loops are timed on the first output and multiplied; effective draws are those of one output, as for "
        "`bayesglm`. A loop over NumPyro compiles each time: 'again' is what it takes otherwise.",
    ),
}  # fmt: skip


def run(options, case, sampler, warmup, draws):
    """Facts of one run, or the reason why there are none."""
    package = sampler.split("-")[0].split()[0]
    python = sys.executable if package == "bayesglm" else python_of(options.venvs, package)
    if package == "numpyro":
        python = sys.executable
    elif package != "bayesglm" and not is_ready(options.venvs, package):
        return "no environment"
    environment = (
        os.environ | dict.fromkeys(THREADS, "1") | ({} if options.core is None else {"CORE": str(options.core)})
    )
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.npz"
        words = [case.data, sampler, str(warmup), str(draws), case.dtype, str(answer)]
        command = [python, "-W", "ignore", HERE / "sampling_jobs.py", *words]
        try:
            done = subprocess.run(command, env=environment, check=False, timeout=options.timeout).returncode
        except subprocess.TimeoutExpired:
            return f"not within {options.timeout:g} s"
        if done:
            return f"ended with status {done}"
        with np.load(answer) as content:
            coef, facts = content["coef"], json.loads(str(content["facts"]))
    flat = coef.reshape(*coef.shape[:2], -1)
    sizes = [size.min() for values in (flat, flat**2) for size in convergence(values)[1:]]
    effective = facts.get("importance_ess", min(flat.shape[0] * flat.shape[1], *sizes))
    times = OUTPUTS if "loop" in sampler else 1
    running = facts["running"] * times
    # Only bayesglm's loop compiles once.
    first = facts["first"] + (times - 1) * (facts["running"] if package == "bayesglm" else facts["first"])
    return facts | {
        "warmup": warmup, "effective": effective, "first": first, "again": running,
        "total_rate": effective / first, "running_rate": effective / running,
    }  # fmt: skip


def best(options, case, contender):
    """Facts of the best warm-up of a contender."""
    sampler, warmups, draws = contender
    found = []
    for warmup in warmups:
        facts = run(options, case, sampler, warmup, draws)
        print(f"  {sampler}, {warmup}: {facts}", flush=True)
        found.append(facts)
    good = [facts for facts in found if isinstance(facts, dict)]
    return max(good, key=lambda facts: facts["total_rate"]) if good else found[-1]


def line(sampler, facts, ours):
    """One row of a table."""
    name = f"`{sampler}`" if " " not in sampler else f"`bayesglm`, method {sampler.split()[1]}"
    if isinstance(facts, str):
        return f"| {name} | {facts} |" + " |" * (len(COLUMNS) - 2)
    name += f" ({facts['sampler']})" if sampler == "bayesglm" else ""
    name += f", k-hat {facts['pareto_khat']:.2f}" if "pareto_khat" in facts else ""
    name += f", {facts['divergences']} divergences" if facts.get("divergences") else ""
    cells = [facts["warmup"], f"{facts['steps']:.1f}" if "steps" in facts else ""]
    names = ("effective", "first", "total_rate", "again", "running_rate")
    cells += [f"{facts[key]:.0f}" if facts[key] >= 100 else f"{facts[key]:.2g}" for key in names]
    ratio = ours["running_rate"] / facts["running_rate"]
    return f"| {name} | " + " | ".join(map(str, cells)) + f" | {ratio:.2g} |"


def section(options, case):
    """The table of a case."""
    print(case.title, flush=True)
    found = [(contender[0], best(options, case, contender)) for contender in case.contenders]
    ours = found[0][1]
    words = case.words
    if "{condition" in words:
        from sampling_jobs import make

        words = words.format(condition=np.linalg.cond(make(case.data)[3]))
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    memory = f"Memory of `bayesglm`, both calls: {ours['memory']:.0f} MB beyond the data."
    return "\n".join(
        [f"## {case.title}\n", *([words, ""] if words else []), *head, *(line(*f, ours) for f in found)]
    ) + (f"\n\n{memory}\n")


def main():
    """Time the cases asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)}; default all")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_DIRECTORY, help="folder of the environments")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    parser.add_argument("--core", type=int, default=0, help="core to run on")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one run")
    options = parser.parse_args()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "numpyro", "numpy"))
    command = "python tests/benchmarks/sampling.py" + "".join(f" {case}" for case in options.cases)
    text = INTRODUCTION.format(
        command=command, date=datetime.datetime.now(tz=datetime.UTC).date(), machine=machine(),
        python=platform.python_version(), versions=versions, load=load,
    )  # fmt: skip
    for name in options.cases or CASES:
        text += "\n" + section(options, CASES[name])
        options.page.write_text(text)


if __name__ == "__main__":
    main()
