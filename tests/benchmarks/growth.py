"""How the time of a fit grows with samples, features and outputs.

``python tests/benchmarks/growth.py [--core CORE] [--page FILE]`` fits the same model to data of growing size, prints
the median time of each size (after compiling) and the exponent of growth, which is the slope of the logarithm of the
time over that of the size, and writes all of it to docs/growth.md.
"""

import argparse
import datetime
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jobs import keep_to_core
from problems import Case, largest_strength
from speed import cells, digits, header, load_average, machine
from workloads import make_data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "growth.md"
REPEATS = 5
INTRODUCTION = """# How the time of a fit grows

Medians of {repeats} fits after compiling, in seconds, in double precision. The last column is the slope of log(time)
over log(size) between the smallest and the largest size, and next to it what the arithmetic suggests: a step costs n p
for a pass over X and, for Ridge, n p^2 for a Hessian of all samples; outputs of a population are independent. Lasso's
strength is {fraction:g} of the one at which all coefficients vanish.

This page is written by `python tests/benchmarks/growth.py`. It was run on {date} on this machine: {machine}; load
average before the run: {load}.

"""
FRACTION = 0.3


class Growth(NamedTuple):
    """One line of the table: sizes (n, p, outputs) of which one grows."""

    title: str
    family: str
    prior: str
    sizes: Any
    suggested: float


GROWTHS = (
    Growth(
        "Poisson Ridge, samples", "Poisson", "Ridge", [(n, 50, 1) for n in (10**4, 2 * 10**4, 4 * 10**4, 8 * 10**4)], 1
    ),
    Growth("Poisson Ridge, features", "Poisson", "Ridge", [(20_000, p, 1) for p in (50, 100, 200, 400)], 2),
    Growth("Poisson Ridge, outputs", "Poisson", "Ridge", [(5000, 50, m) for m in (10, 20, 40, 80)], 1),
    Growth("Bernoulli Lasso, samples", "Bernoulli", "Lasso", [(n, 2000, 1) for n in (1000, 2000, 4000, 8000)], 1),
    Growth("Bernoulli Lasso, features", "Bernoulli", "Lasso", [(2000, p, 1) for p in (2000, 4000, 8000, 16_000)], 1),
    Growth("Bernoulli Lasso, outputs", "Bernoulli", "Lasso", [(2000, 100, m) for m in (5, 10, 20, 40)], 1),
)


def seconds(growth, size):
    """Median time of a fit."""
    from bayesglm import PopulationGLM

    n, p, m = size
    data = make_data(growth.family, n, p, 0.5, max(1, p // 20), m)
    strength = 1e-3
    if growth.prior == "Lasso":
        case = Case("", growth.family, "logistic", growth.prior)
        first = {"X": data["X"], "y": data["y"][:, 0]}
        strength = FRACTION * largest_strength(case, first)
    model = PopulationGLM(growth.family, regularizer=growth.prior, regularizer_strength=strength)
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        model.fit(data["X"], data["y"])
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def line(growth):
    """Line of the table."""
    times = [seconds(growth, size) for size in growth.sizes]
    varied = np.array(growth.sizes, float).prod(1)
    slope = np.log(times[-1] / times[0]) / np.log(varied[-1] / varied[0])
    shown = [f"{' x '.join(map(str, size))}: {digits(each)}" for size, each in zip(growth.sizes, times, strict=True)]
    text = cells(growth.title, *shown, f"{slope:.1f}", f"{growth.suggested:g}")
    print(text, flush=True)
    return text


def main():
    """Read the command line; time; write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    parser.add_argument("--core", type=int, help="core to run on")
    options = parser.parse_args()
    load = load_average()
    keep_to_core(options.core)
    names = ("growing", *(f"size {i + 1}" for i in range(4)), "exponent", "suggested")
    words = {"date": datetime.date.today().isoformat(), "machine": machine(), "load": load}
    text = INTRODUCTION.format(repeats=REPEATS, fraction=FRACTION, **words)
    options.page.write_text("\n".join([text + header(names)[0], header(names)[1], *map(line, GROWTHS)]) + "\n")


if __name__ == "__main__":
    main()
