"""The page on agreement with other packages, and the NumPy code that judges there."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmarks(monkeypatch):
    """Import a module of tests/benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    return import_module


@pytest.fixture(scope="module")
def tables():
    """Cells of the lines of the page's two tables, without headers."""
    page = (ROOT / "docs" / "agreement.md").read_text()
    parts = [re.findall(r"^\| .*\|$", part, re.M)[1:] for part in page.split("\n## ")[1:]]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in part] for part in parts]


def test_differences_are_within_the_bar(tables):
    assert len(tables[1]) > 100
    for row in tables[1]:
        difference, remark = float(row[4]), row[5]
        assert difference <= 1e-6 or (difference <= 1e-5 and "its objective is higher" in remark), row


def test_summary_is_that_of_the_fits(tables, benchmarks):
    summary, fits = tables
    assert [row[0] for row in summary] == list(benchmarks("agreement").TIGHT)
    for package, version, count, largest, above in summary:
        own = [float(row[4]) for row in fits if row[2] == f"{package} {version}"]
        assert (int(count), float(largest)) == (len(own), max(own))
        assert int(above) == sum(difference > 1e-6 for difference in own)


def test_every_fit_of_the_page_is_a_case(tables, benchmarks):
    problems = benchmarks("problems")
    cases = problems.make_cases(problems.make_data())
    names = {(case.family, f"{case.prior}, {case.title}".removesuffix(", ")) for case in cases}
    assert {(row[0].split(",")[0], row[1]) for row in tables[1]} <= names


def test_the_judge_knows_the_slopes_of_its_losses(benchmarks, rng):
    objective, problems = benchmarks("objective"), benchmarks("problems")
    data = problems.make_data()
    pairs = {(case.family, case.link): case for case in problems.make_cases(data)}
    eta, step = rng.uniform(0.5, 2, 500), 1e-5
    for (family, link), case in pairs.items():
        y = np.reshape(data[case.data]["y"], (len(data[case.data]["y"]), -1))[:500, 0]
        above, below = (objective.nll(family, link, y, eta + h, 0.5) for h in (step, -step))
        slope = objective.slope(family, link, y, eta, 0.5)
        np.testing.assert_allclose((above - below) / (2 * step), slope, atol=1e-7 * (1 + np.abs(y).max()))


def test_a_fit_is_timed_and_optimal_for_the_judge(benchmarks):
    jobs, objective, problems = benchmarks("jobs"), benchmarks("objective"), benchmarks("problems")
    data = problems.make_data()
    case = next(case for case in problems.make_cases(data) if case.prior == "GroupLasso")
    problem = problems.make_problem(case, data[case.data])
    answer = jobs.measure(benchmarks("ours").fit_bayesglm, problem, None, 2)
    coef, intercept = np.array(answer["coef"]), np.array(answer["intercept"])
    assert objective.kkt_residual(problem, coef, intercept) < 1e-8
    assert 0 < (coef == 0).sum() < coef.size
    assert 0 < answer["median_s"] < answer["first_s"]
    assert answer["warnings"] == []
