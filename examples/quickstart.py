"""Visits to a doctor: a penalized Poisson GLM, and then the posterior that the penalty implies.

The data are the RAND health insurance experiment, as bundled with statsmodels: one row per person and
year, 20190 rows. `mdvis` counts the visits in that year. The features come in two groups:

    plan    lncoins, idp, lpi, fmde                the insurance plan that the family was assigned to
    health  physlm, disea, hlthg, hlthf, hlthp     the person's own health

Run it with ``python quickstart.py [output directory]``; it prints its results and writes
``quickstart_forest.png``. It takes about half a minute on two cores.
"""

import sys
from pathlib import Path

import arviz as az
import matplotlib
import numpy as np
import pandas as pd
import statsmodels.api as sm

from bayesglm import GLM

GROUPS = {
    "plan": ["lncoins", "idp", "lpi", "fmde"],
    "health": ["physlm", "disea", "hlthg", "hlthf", "hlthp"],
}
# One strength per group. They count per row: see `show_priors` for what they amount to with 20190 rows.
STRENGTHS = {"plan": 0.005, "health": 0.025}


def load():
    """Features as a dict of data frames, and the counts.

    Every column is shifted to mean 0 and scaled to standard deviation 1: a penalty compares coefficients
    with each other, so they need a common unit. A coefficient is then the change of log(visits per year)
    for a change of one standard deviation.
    """
    data = sm.datasets.randhie.load_pandas()
    scaled = (data.exog - data.exog.mean()) / data.exog.std(ddof=0)
    return {group: scaled[columns] for group, columns in GROUPS.items()}, data.endog.to_numpy()


def show_fit(model, X, y):
    """Coefficients in the container of X, and the share of the deviance that they explain."""
    print("The fit, which is the mode of the posterior")
    for group, coef in model.coef_.items():
        print(f"  coef_[{group!r}]")
        for name, value in zip(X[group].columns, coef, strict=True):
            print(f"    {name:8}{value:8.4f}")
    print(f"  intercept_ {model.intercept_[0]:.4f}, that is {np.exp(model.intercept_[0]):.2f} visits per year")
    print(f"  deviance explained on the same rows: {model.score(X, y):.3f}")


def show_priors(n):
    """The priors that the strengths are."""
    print(f"\nThe same strengths as priors (Lasso, Poisson: k = n = {n})")
    for group, strength in STRENGTHS.items():
        print(f"  {group:8}strength {strength:<6} Laplace(0, 1 / (k s)) = Laplace(0, {1 / (n * strength):.4f})")


def show_modes_and_means(model, idata):
    """Beside each other: the mode, which may be exactly 0, and the posterior, which never is."""
    posterior = idata["posterior"]
    tables = []
    for group, columns in GROUPS.items():
        draws = posterior[f"coef.{group}"]
        mean, sd = (moment.to_numpy() for moment in (draws.mean(("chain", "draw")), draws.std(("chain", "draw"))))
        tables.append(pd.DataFrame({"mode": model.coef_[group], "mean": mean, "sd": sd}, index=columns))
    print("\nMode, posterior mean and standard deviation")
    print(pd.concat(tables, keys=GROUPS).round(4).to_string())


def show_overdispersion(model, X, y):
    """What the Poisson model misses, and hence how far the intervals can be trusted."""
    mean = model.predict(X)
    ratio = float(np.sum((y - mean) ** 2 / mean) / model.dof_resid_[0])
    print(
        f"\nTwo reasons to read these intervals as too narrow:\n"
        f"  - Visits vary {ratio:.1f} times as much around their mean as Poisson counts do. That alone asks\n"
        f"    for intervals {np.sqrt(ratio):.1f} times as wide.\n"
        f"  - The {len(y)} rows are person-years, and a person has several of them. The rows of one person\n"
        "    resemble each other, but the model counts each as independent evidence."
    )


def save_forest(idata, path):
    """All coefficients with their 89% intervals, as a picture."""
    matplotlib.use("Agg")
    plot = az.plot_forest(
        idata,
        var_names=["coef.plan", "coef.health"],
        combined=True,
        backend="matplotlib",
        visuals={"point_estimate": {"size": 12, "facecolor": "C0"}},
        figure_kwargs={"figsize": (9, 4.5)},
    )
    axis = plot.get_target("coef.plan", {"column": "forest"})
    axis.axvline(0, color="0.7", linewidth=1, zorder=0)
    axis.set_xlabel("change of log(visits per year) for one standard deviation")
    plot.savefig(path, dpi=110, bbox_inches="tight")
    print(f"\nForest plot (points: posterior means; lines: 50% and 89% intervals) in {path.name}")


def main(output=Path(".")):
    """Fit, sample, print, and write the picture into the directory `output`."""
    X, y = load()

    model = GLM(observation_model="Poisson", regularizer="Lasso", regularizer_strength=STRENGTHS)
    model.fit(X, y)
    show_fit(model, X, y)
    show_priors(len(y))

    # 4 chains of 500 draws. log_likelihood and posterior_predictive hold one number per draw and row, here
    # 40 million each; this script needs neither. az.loo wants the first, az.plot_ppc_dist the second.
    idata = model.sample(
        X, y, num_samples=500, num_warmup=200, seed=1,
        log_likelihood=False, posterior_predictive=False, progress_bar=False,
    )  # fmt: skip
    print("\nThe posterior (intervals of 89%, equal tails)")
    print(az.summary(idata).to_string())
    show_modes_and_means(model, idata)
    show_overdispersion(model, X, y)
    save_forest(idata, Path(output) / "quickstart_forest.png")
    return idata


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
