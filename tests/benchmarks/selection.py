"""Time the choice of a strength beside other packages: ``python tests/benchmarks/selection.py [--venvs DIRECTORY]``.

Three cases: 50 strengths of Ridge by 5 folds on a logistic 5000 x 100, against scikit-learn's LogisticRegressionCV,
adelie's cross-validation with warm starts and GridSearchCV over NeMoS; GridSearchCV of 10 strengths by 5 folds on a
Poisson 500 x 7, over a model here and over NeMoS's, and what a loop over the same fits chooses; and a path of 100
strengths of Lasso on 2000 x 11983, against celer's and scikit-learn's. Every process runs on one core; times are
medians of runs after the first. Of paths, the largest relative distance of the objectives from the lowest that any
package reached is printed too, for several tolerances.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from jobs import THREADS
from venvs import DEFAULT_DIRECTORY, is_ready, python_of

GRID = np.geomspace(26.0, 26.0e-4, 50)
SMALL_GRID = np.logspace(-4, 0, 10)
TOLS = (1e-3, 1e-4, 1e-6)


def logistic():
    """Features and binary y."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 100))
    y = (rng.random(5000) < 1 / (1 + np.exp(-X @ rng.normal(size=100) * 0.2))).astype(float)
    return X, y


def counts():
    """Features and counts."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 7))
    return X, rng.poisson(np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1] + 0.1 * X[:, 2])).astype(float)


def neurons():
    """Correlated features, 2000 x 11983, and y; centered, since not every peer fits an intercept."""
    rng = np.random.default_rng(0)
    n, p = 2000, 11983
    common = rng.normal(size=(n, 100)) * np.arange(1, 101) ** -0.5
    X = common @ rng.normal(size=(100, p)) + rng.normal(size=(n, p))
    y = common[:, :10].sum(1) + rng.normal(size=n)
    return np.asfortranarray(X - X.mean(0)), y - y.mean()


def lasso_objectives(X, y, coef, grid):
    """Penalized mean losses (S,) of coefficients (S, p)."""
    return 0.5 * ((y[:, None] - X @ coef.T) ** 2).mean(0) + grid * np.abs(coef).sum(1)


def cv_bayesglm(X, y, tol):
    """Mean scores, and the fits to all samples."""
    from bayesglm import GLM, GLMCV

    model = GLM("Bernoulli", regularizer="Ridge", solver_kwargs={"tol": tol})
    search = GLMCV(model, list(GRID), progress_bar=False).fit(X, y)
    return {"best": search.best_index_}


def cv_scikit_learn(X, y, tol):
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    Cs = 1 / (GRID[::-1] * 0.8 * len(y))
    search = LogisticRegressionCV(
        Cs=Cs, cv=StratifiedKFold(5), scoring="neg_log_loss", tol=tol, max_iter=1000, use_legacy_attributes=False
    ).fit(X, y)
    return {"best": int(np.argmin(np.abs(np.log(Cs[::-1] / search.C_))))}


def cv_adelie(X, y, tol):
    import adelie as ad

    path = ad.cv.cv_grpnet(
        X=np.asfortranarray(X), glm=ad.glm.binomial(y), n_folds=5, alpha=1e-3, lmda_path_size=50, min_ratio=1e-4,
        tol=tol, irls_tol=tol, n_threads=1, progress_bar=False,
    )  # fmt: skip
    return {"best": int(np.argmin(path.avg_losses))}


def cv_nemos(X, y, tol):
    import nemos
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    model = nemos.glm.GLM("Bernoulli", regularizer="Ridge", solver_kwargs={"tol": tol, "maxiter": 10_000})
    grid = {"regularizer_strength": [float(strength) for strength in GRID]}
    return {"best": int(GridSearchCV(model, grid, cv=StratifiedKFold(5), refit=False).fit(X, y).best_index_)}


def grid_search(model, X, y):
    from sklearn.model_selection import GridSearchCV, KFold

    grid = {"regularizer_strength": [float(strength) for strength in SMALL_GRID]}
    return int(GridSearchCV(model, grid, cv=KFold(5)).fit(X, y).best_index_)


def grid_bayesglm(X, y, tol):
    from bayesglm import GLM

    return {"best": grid_search(GLM(regularizer="Ridge", solver_kwargs={"tol": tol}), X, y)}


def grid_nemos(X, y, tol):
    import nemos

    return {"best": grid_search(nemos.glm.GLM(regularizer="Ridge", solver_kwargs={"tol": tol}), X, y)}


def best_of_loop(X, y, tol):
    """The strength of the grid that the folds' fits, one by one, choose."""
    from sklearn.model_selection import KFold

    from bayesglm import GLM

    scores = np.zeros(len(SMALL_GRID))
    for train, test in KFold(5).split(X):
        for i, strength in enumerate(SMALL_GRID):
            model = GLM(regularizer="Ridge", regularizer_strength=strength, solver_kwargs={"tol": tol})
            scores[i] += model.fit(X[train], y[train]).score(X[test], y[test])
    return int(scores.argmax())


def path_bayesglm(X, y, grid, tol):
    from bayesglm import GLM, strength_path
    from bayesglm.observation_models import GaussianObservations

    model = GLM(GaussianObservations(scale=1.0), regularizer="Lasso", solver_kwargs={"tol": tol})
    return np.stack([one.coef_ for one in strength_path(model, X, y, list(grid))])


def path_scikit_learn(X, y, grid, tol):
    from sklearn.linear_model import lasso_path

    return lasso_path(X, y, alphas=grid, tol=tol, max_iter=100_000)[1].T


def path_celer(X, y, grid, tol):
    from celer import celer_path

    return celer_path(X, y, "lasso", alphas=grid, tol=tol)[1].T


CASES = {
    "cv": {"bayesglm": cv_bayesglm, "scikit-learn": cv_scikit_learn, "adelie": cv_adelie, "nemos": cv_nemos},
    "grid": {"bayesglm": grid_bayesglm, "nemos": grid_nemos},
    "path": {"bayesglm": path_bayesglm, "scikit-learn": path_scikit_learn, "celer": path_celer},
}


def run(case, package, tol):
    """What one process measures."""
    function = CASES[case][package]
    X, y = {"cv": logistic, "grid": counts, "path": neurons}[case]()
    more = ()
    if case == "path":
        more = (np.abs(X.T @ y).max() / len(y) * np.geomspace(1.0, 1e-2, 100),)
    times = []
    # NeMoS takes minutes for 250 fits, of which compiling the first is a small part.
    for _ in range(1 if package == "nemos" else 2 if case == "path" else 4):
        start = time.perf_counter()
        found = function(X, y, *more, tol)
        times.append(time.perf_counter() - start)
    answer = {"first": times[0], "running": float(np.median(times[1:] or times))}
    if case == "path":
        return answer | {"values": lasso_objectives(X, y, found, *more).tolist()}
    if (case, package) == ("grid", "bayesglm"):
        answer["best of a loop"] = best_of_loop(X, y, tol)
    return answer | found


def ask(setup, case, package, tol):
    """Run one package in a new process."""
    python = sys.executable if package == "bayesglm" else python_of(setup.venvs, package)
    command = [python, "-W", "ignore", __file__, "--run", case, package, str(tol)]
    if setup.core is not None:
        command = ["taskset", "-c", str(setup.core), *map(str, command)]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=setup.timeout, check=True)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measure, and print one line for each package and tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)}; default all")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_DIRECTORY, help="folder of the environments")
    parser.add_argument("--core", type=int, help="core to run on")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a process")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    setup = parser.parse_args()
    if setup.run:
        case, package, tol = setup.run
        print(json.dumps(run(case, package, float(tol))))
        return
    for case in setup.cases or CASES:
        found = {}
        for package in CASES[case]:
            if package != "bayesglm" and not is_ready(setup.venvs, package):
                continue
            for tol in TOLS if case == "path" else TOLS[1:2]:
                answer = ask(setup, case, package, tol)
                if answer is None:
                    print(case, package, tol, f"not within {setup.timeout:g} s", flush=True)
                    break
                found[package, tol] = answer
                print(case, package, tol, {k: v for k, v in answer.items() if k != "values"}, flush=True)
        if case == "path":
            lowest = np.min([answer["values"] for answer in found.values()], 0)
            for (package, tol), answer in found.items():
                gap = (np.array(answer["values"]) / lowest - 1).max()
                print(case, package, tol, f"suboptimality {gap:.1e}", f"{answer['running']:.2f} s")


if __name__ == "__main__":
    main()
