"""How fits are timed at equal accuracy."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def benchmarks(monkeypatch):
    """Import a module of tests/benchmarks."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return import_module


def test_contenders_are_known_and_have_adapters(benchmarks):
    contenders = benchmarks("contenders").CONTENDERS
    for workload in benchmarks("workloads").WORKLOADS.values():
        assert set(workload.contenders + workload.mirrored) <= set(contenders)
    for contender in contenders.values():
        assert contender.peer in benchmarks(contender.module).ADAPTERS


def test_a_package_counts_with_its_loosest_tolerance_that_is_accurate(benchmarks):
    speed = benchmarks("speed")
    gaps = {1e-1: 1e-2, 1e-2: 1e-7, 1e-3: 1e-8}
    steps = [{"tol": tol, "objectives": [2 + 2 * gap], "times": [1.0]} for tol, gap in gaps.items()]
    walk = speed.Walk("1.0", steps, "no fit within 60 s")
    assert speed.judge(walk, 1e-6, [2.0]) == (steps[1], "")
    assert speed.judge(walk, 1e-10, [2.0]) == (None, "not reached; closest 1e-08; no fit within 60 s")


def test_the_largest_gap_is_that_of_the_worst_strength(benchmarks):
    largest_gap = benchmarks("contenders").largest_gap
    assert largest_gap([-1.0, 2.2], [-1.0, 2.0]) == pytest.approx(0.1)
    assert largest_gap([np.nan, 2.0], [1.0, 2.0]) == np.inf
    assert largest_gap([1.0], [np.inf]) == np.inf


@pytest.mark.parametrize("name", ["gaussian-lasso", "population-ridge"])
def test_a_walk_ends_where_the_tightest_accuracy_is_reached(benchmarks, name):
    contenders, speed, workloads = benchmarks("contenders"), benchmarks("speed"), benchmarks("workloads")
    task = next(iter(workloads.WORKLOADS[name].make(0.001)))
    job = speed.job_of(task, "walk", contender="bayesglm", repeats=(1, 2), long=10, timeout=1000, budget=1000)
    problems = contenders.problems_of(job, task.data)
    reference, steps = [np.inf], []
    for ladder in ([1e-13], [1e-1, 1e-3, 1e-6, 1e-12]):
        lines = contenders.walk(job | {"ladder": ladder, "reference": reference, "accuracies": [1e-6, 1e-10]}, problems)
        steps = [line for line in lines if "tol" in line]
        reference = np.minimum(reference, steps[0]["objectives"]).tolist()
    gaps = [contenders.largest_gap(step["objectives"], reference) for step in steps]
    assert gaps[-1] <= 1e-10 < max(gaps[:-1])
    assert len(steps[-1]["times"]) == 2
