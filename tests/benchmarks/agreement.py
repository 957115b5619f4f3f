"""Compare the fits of bayesglm with those of its peers: ``python tests/benchmarks/agreement.py``.

Writes docs/agreement.md. Needs the environments that tests/benchmarks/venvs.py makes. Exit status 1 if a difference
is above the bar and not explained by where the peer stopped.
"""

import argparse
import datetime
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jobs import run
from objective import kkt_residual, objective
from problems import DEFAULT_LINKS, make_cases, make_data, make_problem
from venvs import DEFAULT_DIRECTORY, is_ready, python_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agreement.md"
BAR = 1e-6
LOOSE_BAR = 1e-5  # where the peer's own solver stops there
TIGHT = {  # what each peer's own tolerance has to be
    "scikit-learn": 1e-12,
    "glum": 1e-12,
    "skglm": 1e-12,
    "celer": 1e-14,
    "statsmodels": 1e-12,
    "nemos": 1e-12,
    "adelie": 1e-18,
}
TIMEOUT = 3600

INTRODUCTION = """\
# Agreement with other packages

With the strength translated as the setting in the table says, `bayesglm` and the packages below give the same fit. For
each family and regularizer that another package has as well, this page holds the largest absolute difference between
its coefficients and those of `bayesglm`, intercepts and learned overdispersion included.

`bayesglm` runs at its default tolerance in float64, the others at a tolerance so tight that some never reach it. The
problems are synthetic, {n} samples by {p} features in {groups} groups of unequal size; features are correlated, have
means that are not zero and standard deviations between 0.3 and 3, and the coefficients are compared as they are, not
standardized. Strengths are such that some coefficients are zero and others are not. For packages that fit no
intercept, there is one problem whose intercept is zero by symmetry.

The bar is 1e-6, or 1e-5 where the other package's solver stops before it gets there. In that case the remark
judges both fits by NumPy code that shares nothing with either package: how much higher the penalized objective is at
the other package's fit, and the largest violation of the optimality conditions at either.

This page is written by `python tests/benchmarks/agreement.py`, after `python tests/benchmarks/venvs.py` has made an
environment for each package. It was run on {date} with bayesglm {version} and Python {python}.

## Summary

| package | version | fits compared | largest difference | fits above 1e-6 |
|---|---|---|---|---|
{summary}

## All fits

In the settings, `s` is bayesglm's strength, `r` the ElasticNet's ratio, `n` the number of samples, `W` the sum of the
weights, `m` the number of outputs, `p_g` the size of a group and `a` the overdispersion. scikit-learn's Ridge and
LogisticRegression sum over samples where bayesglm takes the mean, hence `W`; the squared error of NeMoS has no factor
1/2, hence `2 s`. Where a link is not named, it is the family's default in bayesglm.

| family | regularizer | package | its setting | difference | remark |
|---|---|---|---|---|---|
{rows}
"""


class Row(NamedTuple):
    """One fit of one peer, compared."""

    case: Any
    peer: str
    version: str
    setting: str
    difference: float
    remark: str
    fine: bool


def compare(case, data, peer, version, ours, theirs):
    """The Row of two answers."""
    if "error" in ours or "error" in theirs:
        message = "; ".join(answer["error"] for answer in (ours, theirs) if "error" in answer)
        return Row(case, peer, version, theirs.get("setting", ""), float("nan"), message, False)
    difference = largest_difference(ours, theirs)
    remarks, fine = judge(make_problem(case, data), ours, theirs) if difference > BAR else ([], True)
    if any("converge" in warning.lower() for warning in theirs["warnings"]):
        remarks.append("it warns that its tolerance is not reached")
    return Row(case, peer, version, theirs["setting"], difference, "; ".join(remarks), fine)


def largest_difference(ours, theirs):
    """Largest absolute difference between coefficients, intercepts and learned overdispersion."""
    pairs = [(ours[name], theirs[name]) for name in ("coef", "intercept")]
    if ours["scale"] is not None:
        pairs.append((ours["scale"], theirs["scale"]))
    return float(max(np.max(np.abs(a - b)) for a, b in pairs))


def judge(problem, ours, theirs):
    """Remarks on which of two fits is off, and whether it is the peer's, within the bar."""
    points = [(answer["coef"], answer["intercept"], answer["scale"]) for answer in (ours, theirs)]
    values = [objective(problem, *point) for point in points]
    residuals = [kkt_residual(problem, *point) for point in points]
    higher = values[1] - values[0]
    remark = (
        f"its objective is higher by {higher:.0e}, optimality violated by {residuals[1]:.0e} (ours {residuals[0]:.0e})"
    )
    within = largest_difference(ours, theirs) <= LOOSE_BAR
    return [remark], within and residuals[0] < residuals[1] and higher > -1e-14 * max(1, abs(values[0]))


def compare_all(venvs, peers, core):
    """Rows of all peers, and bayesglm's version."""
    data = make_data()
    cases = make_cases(data)
    print(f"bayesglm: {len(cases)} fits")
    ours = run(sys.executable, "ours.py", "bayesglm", cases, data, core=core, timeout=TIMEOUT)
    rows = []
    for peer in peers:
        python = python_of(venvs, peer)
        answer = run(python, "peers.py", peer, cases, data, tol=TIGHT[peer], core=core, timeout=TIMEOUT)
        new = [
            compare(case, data[case.data], peer, answer["version"], mine, theirs)
            for case, mine, theirs in zip(cases, ours["fits"], answer["fits"], strict=True)
            if theirs is not None
        ]
        print(f"{peer} {answer['version']}: {len(new)} fits, largest difference {worst(new):.1e}")
        rows += new
    return rows, ours["version"]


def worst(rows):
    """Largest difference of some rows; NaN if a fit failed."""
    return float(np.max([row.difference for row in rows]))


def write_page(path, rows, version):
    """Write the page of the documentation."""
    data = make_data()["gaussian"]
    page = INTRODUCTION.format(
        n=len(data["X"]),
        p=data["X"].shape[1],
        groups=len(np.unique(data["groups"])),
        date=datetime.date.today().isoformat(),
        version=version,
        python=platform.python_version(),
        summary="\n".join(summary_line(peer, rows) for peer in dict.fromkeys(row.peer for row in rows)),
        rows="\n".join(line(row) for row in rows),
    )
    path.write_text(page)


def summary_line(peer, rows):
    """Line of a peer in the summary."""
    own = [row for row in rows if row.peer == peer]
    above = sum(not row.difference <= BAR for row in own)
    return cells(peer, own[0].version, len(own), f"{worst(own):.0e}", above)


def line(row):
    """Line of the table."""
    case = row.case
    family = case.family if case.link == DEFAULT_LINKS[case.family] else f"{case.family}, {case.link}"
    prior = f"{case.prior}, {case.title}" if case.title else case.prior
    peer = f"{row.peer} {row.version}"
    return cells(family, prior, peer, f"`{row.setting}`" if row.setting else "", f"{row.difference:.0e}", row.remark)


def cells(*values):
    """Line of a Markdown table."""
    return "| " + " | ".join(str(value).replace("|", "/") for value in values) + " |"


def main():
    """Compare and write; the exit status says whether all fits agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"any of {', '.join(TIGHT)}; default all")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_DIRECTORY, help="folder of the environments")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    parser.add_argument("--core", type=int, help="core to run on")
    options = parser.parse_args()
    peers = options.peers or list(TIGHT)
    missing = [peer for peer in peers if peer not in TIGHT or not is_ready(options.venvs, peer)]
    if missing:
        parser.error(f"no environment for {', '.join(missing)}; make it with tests/benchmarks/venvs.py")
    rows, version = compare_all(options.venvs, peers, options.core)
    write_page(options.page, rows, version)
    bad = [row for row in rows if not row.fine]
    for row in bad:
        print(line(row))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
