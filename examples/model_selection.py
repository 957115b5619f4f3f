"""Model selection: decode running speed from many neurons, with several regularizers and strengths.

The exercises are those of the tutorial "Machine Learning II, Model Selection": a linear model without a regularizer,
Ridge, Lasso, their weights, and a choice by scores on validation data. What follows the choice here is what a posterior
adds: intervals of the weights and of new observations.

The tutorial's data are a recording of a mouse that behaves spontaneously, ``stringer_spontaneous.npy``: 11983 neurons
in 7018 time bins, and the running speed. The script reads that file if it lies in the current folder or where
``--data`` says, and otherwise simulates a recording of that shape; every title says which.

    python model_selection.py                       250 neurons, 150 bins to train on; about half a minute
    python model_selection.py --full                all neurons, 2000 bins; three minutes or so, 2.6 GB
    python model_selection.py --full --figures .    the same, and the figures as PNG files
"""

import argparse
import io
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.signal import lfilter
from sklearn import linear_model
from sklearn.model_selection import cross_validate

from bayesglm import GLM, strength_path
from bayesglm.observation_models import GaussianObservations

RECORDING = "stringer_spontaneous.npy"
N_NEURONS, N_BINS = 11983, 7018
# The tutorial's split, in bins of the recording.
TRAIN, VALIDATION, TEST = slice(5000, 7000), slice(2000, 2250), slice(2250, 2500)

# The tutorial's grids, in the units of scikit-learn: see `compare_with_sklearn`.
RIDGE_ALPHAS = [0.01, 0.1, 1, 10, 100]
LASSO_ALPHAS = [0.0005, 0.001, 0.005, 0.01, 0.1]
ELASTIC_NETS = [(strength, ratio) for ratio in (0.5, 0.9) for strength in (0.01, 0.005, 0.002)]

# A fit does not depend on the variance of the observations. With a given one, none is estimated, which fits that
# reproduce their data do not allow: they leave no residuals.
GAUSSIAN = GaussianObservations(scale=1.0)
# Optimal to a millionth, as a correlation, which leaves all digits of a score that matter; the default is 1e-10.
LOOSE = {"tol": 1e-6}


class Part(NamedTuple):
    """Activity, shape (bins, neurons), and running speed, shape (bins,)."""

    X: np.ndarray
    y: np.ndarray


class Data(NamedTuple):
    """The three parts, normalized, and a word for where they come from."""

    train: Part
    validation: Part
    test: Part
    origin: str


# --- Data ---------------------------------------------------------------------------------------------------------


def autoregressive(rng, n_bins, time_constants):
    """Gaussian processes of variance 1 that forget with the given time constants, in bins; (n_bins, processes)."""
    memory = np.exp(-1 / np.asarray(time_constants))
    burn_in = 1000
    noise = rng.normal(size=(burn_in + n_bins, len(memory)))
    columns = [lfilter([np.sqrt(1 - m**2)], [1, -m], column) for m, column in zip(memory, noise.T, strict=True)]
    return np.stack(columns, axis=1)[burn_in:]


def simulate(rows, n_neurons, seed=5):
    """Simulate a population that shares slow components, some of which drive running.

    - 200 components, the k-th with a variance proportional to 1 / k and a time constant of 12 / sqrt(k) bins, at least
      2. Each neuron holds all of them, with normal loadings: every neuron knows something of running.
    - Private noise of every neuron, in every bin, with four times the variance of its shared activity.
    - Speed is 6 max(d, 0): d sums the first 12 components, with weights +-1 / sqrt(k) scaled to a variance of 1, and
      noise of its own with a standard deviation of 0.3 and a time constant of 4.5 bins.

    Speed is hence never negative, comes in bouts, and is partly not in the neurons. Neurons outnumber bins, so that
    unregularized weights fit that part as well. The seed is one with which all three parts contain running.

    Parameters
    ----------
    rows : array of int
        Bins whose activity is returned; the components and the speed run through all 7018.
    n_neurons : int
    seed : int

    Returns
    -------
    activity : numpy.ndarray (rows, n_neurons)
    speed : numpy.ndarray (rows,)
    """
    rng = np.random.default_rng(seed)
    k = np.arange(1, 201)
    components = autoregressive(rng, N_BINS, np.maximum(2, 12 / np.sqrt(k)))
    weights = rng.choice([-1, 1], 12) / np.sqrt(k[:12])
    drive = components[:, :12] @ weights / np.linalg.norm(weights)
    drive += 0.3 * autoregressive(rng, N_BINS, [4.5])[:, 0]
    speed = 6 * np.maximum(drive, 0)

    deviations = np.sqrt(1 / k / np.sum(1 / k))
    activity = components[rows] @ (deviations[:, None] * rng.normal(size=(len(k), n_neurons)))
    # A row at a time: noise for all at once would take as much memory as the activity itself.
    for row in activity:
        row += 2 * rng.normal(size=n_neurons)
    return activity, speed[rows]


def read_recording(path, rows, n_neurons):
    """The same two arrays from the file of the recording; of fewer neurons than it has, the first."""
    # The file holds a pickled dict, and a pickle can run code: open only what you fetched from a source you trust.
    recording = np.load(path, allow_pickle=True).item()
    return recording["sresp"][:n_neurons, rows].T.astype(float), recording["run"][rows, 0].astype(float)


def normalize(train, *others):
    """Centre each column and divide it by its Euclidean norm.

    This is what ``normalize=True`` did, an option that scikit-learn no longer has. Means and norms are those of the
    training data, for the others too: a model may not look at what it is scored on. A constant column becomes 0.

    Parameters
    ----------
    train, *others : numpy.ndarray (bins, neurons)
        Overwritten, to save memory.

    Returns
    -------
    list of numpy.ndarray
    """
    mean = train.mean(axis=0)
    train -= mean
    norm = np.sqrt(np.einsum("ij,ij->j", train, train))
    norm[norm == 0] = 1
    train /= norm
    for other in others:
        other -= mean
        other /= norm
    return [train, *others]


def load(full, path=None):
    """Load the recording if there is one, otherwise simulate it; returns Data."""
    n_neurons = N_NEURONS if full else 250
    train = TRAIN if full else slice(TRAIN.start, TRAIN.start + 150)
    windows = [np.arange(window.start, window.stop) for window in (train, VALIDATION, TEST)]
    rows = np.concatenate(windows)
    if path is None and Path(RECORDING).exists():
        path = RECORDING
    activity, speed = simulate(rows, n_neurons) if path is None else read_recording(path, rows, n_neurons)
    ends = np.cumsum([len(window) for window in windows])[:-1]
    parts = normalize(*np.split(activity, ends))
    speeds = np.split(speed, ends)
    origin = "simulated recording" if path is None else "recording of spontaneous behaviour"
    return Data(*(Part(X, y) for X, y in zip(parts, speeds, strict=True)), origin)


# --- Exercises ----------------------------------------------------------------------------------------------------


def heading(text):
    """Print a title, underlined."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def scores(model, data):
    """R2 on the training and the validation data."""
    return model.score(*data.train), model.score(*data.validation)


def n_selected(model):
    """Number of weights that are not zero."""
    return np.count_nonzero(model.coef_)


def print_scores(models, data):
    """A line of R2 and of weights in use for each model, by label; returns the R2, shape (models, 2)."""
    width = max(map(len, models))
    print(f"{'':{width}}  train R2  validation R2  weights not 0")
    table = []
    for label, model in models.items():
        table.append(scores(model, data))
        print(f"{label:>{width}}{table[-1][0]:10.3f}{table[-1][1]:15.3f}{n_selected(model):15}", flush=True)
    return np.array(table)


def show_data(data):
    """What there is to fit."""
    heading(f"Data: {data.origin}")
    for name, part in zip(Data._fields[:3], data[:3], strict=True):
        running = np.mean(part.y > 0)
        print(f"{name:11}{len(part.y):5} bins x {part.X.shape[1]} neurons, running in {running:.0%} of the bins")


def compare_with_sklearn(data):
    """Fit one Ridge and one Lasso with both packages.

    scikit-learn's Ridge sums squared errors, without the factor 1/2 on either side, where the loss here is a mean over
    samples: its alpha is n times our strength. Its Lasso takes a mean: its alpha is our strength.
    """
    heading("The same fits in scikit-learn")
    n = len(data.train.y)
    ridge, lasso = 10, 0.01
    pairs = {
        f"Ridge(alpha={ridge}) is strength {ridge} / {n}": (
            linear_model.Ridge(alpha=ridge),
            GLM(GAUSSIAN, regularizer="Ridge", regularizer_strength=ridge / n),
        ),
        f"Lasso(alpha={lasso}) is strength {lasso}": (
            linear_model.Lasso(alpha=lasso, tol=1e-10, max_iter=100_000),
            GLM(GAUSSIAN, regularizer="Lasso", regularizer_strength=lasso),
        ),
    }
    spread = np.std(data.validation.y)
    for label, (theirs, ours) in pairs.items():
        predictions = [model.fit(*data.train).predict(data.validation.X) for model in (theirs, ours)]
        difference = np.max(np.abs(predictions[0] - predictions[1])) / spread
        print(f"{label}: predictions differ by at most {difference:.0e} standard deviations", flush=True)


def fit_without_regularizer(data):
    """Exercise 1: least squares.

    With more neurons than bins, many weights reproduce the training data exactly. Least squares then means those of the
    smallest norm, and these are the limit of Ridge for strengths towards 0.
    """
    heading("Exercise 1: no regularization")
    model = GLM(GAUSSIAN, regularizer="Ridge", regularizer_strength=1e-8).fit(*data.train)
    print_scores({"smallest norm": model}, data)
    folds = cross_validate(model, *data.train, cv=5, return_train_score=True)
    means = [folds[f"{part}_score"].mean() for part in ("train", "test")]
    print("five folds, blocks of time: train R2 {:.3f}, validation R2 {:.3f}".format(*means))
    # The formula, as a check. Columns are centred, so X X' is singular along the ones, where y - mean(y) has nothing;
    # any number added to all entries mends that.
    X, y = data.train
    weights = X.T @ np.linalg.solve(X @ X.T + 1, y - y.mean())
    difference = np.max(np.abs(model.coef_ - weights))
    print(f"largest weight {np.max(np.abs(weights)):.1f}; largest difference from X' (X X')^+ y {difference:.0e}")
    return model


def fit_ridges(data):
    """Exercise 2: Ridge on a grid; one matrix is factorized for all strengths."""
    heading("Exercise 2: Ridge")
    strengths = [alpha / len(data.train.y) for alpha in RIDGE_ALPHAS]
    fits = strength_path(GLM(GAUSSIAN, regularizer="Ridge"), *data.train, strengths)
    models = {f"alpha {alpha}": model for alpha, model in zip(RIDGE_ALPHAS, fits, strict=True)}
    return models, print_scores(models, data)


def fit_lassos(data):
    """Exercise 4: Lasso on a grid, from strong to weak, each from the fit before."""
    heading("Exercise 4: Lasso")
    fits = strength_path(GLM(GAUSSIAN, regularizer="Lasso", solver_kwargs=LOOSE), *data.train, LASSO_ALPHAS)
    models = {f"alpha {alpha}": model for alpha, model in zip(LASSO_ALPHAS, fits, strict=True)}
    return models, print_scores(models, data)


def fit_elastic_nets(data):
    """Fit both penalties at once, on a grid of two dimensions."""
    heading("Both penalties: ElasticNet")
    fits = strength_path(GLM(GAUSSIAN, regularizer="ElasticNet", solver_kwargs=LOOSE), *data.train, ELASTIC_NETS)
    models = {f"strength {s}, ratio {r}": model for (s, r), model in zip(ELASTIC_NETS, fits, strict=True)}
    return models, print_scores(models, data)


def show_weights(title, models):
    """Exercises 3 and 5: size and number of the weights."""
    heading(title)
    width = max(map(len, models))
    print(f"{'':{width}}    norm  largest  exactly 0  share of the largest 1% in the squared norm")
    for label, model in models.items():
        squares = np.sort(model.coef_**2)[::-1]
        total = squares.sum()
        share = f"{squares[: len(squares) // 100].sum() / total:10.0%}" if total else ""
        print(f"{label:>{width}}{np.sqrt(total):8.2f}{np.sqrt(squares[0]):9.3f}{np.mean(squares == 0):11.1%}{share}")


def best(models, table):
    """Label of the model with the highest validation R2, and that R2."""
    winner = int(np.argmax(table[:, 1]))
    return list(models)[winner], table[winner, 1]


def choose(data, families):
    """Exercise 6: choose by the validation data, and score the choice on data that no choice has seen.

    `families` has for each regularizer its models and their scores.
    """
    heading("Exercise 6: the choice")
    winners = {name: best(*fits) for name, fits in families.items()}
    for name, (label, score) in winners.items():
        print(f"{name:10} {label:27} validation R2 {score:.3f}")
    chosen = max(winners, key=lambda name: winners[name][1])
    model = families[chosen][0][winners[chosen][0]]
    print(f"chosen: {chosen}, {winners[chosen][0]}; test R2 {model.score(*data.test):.3f}")
    return {name: label for name, (label, _) in winners.items()}


def compare_halves(data, strength):
    """Fit the chosen Lasso to each half of the training bins: do both pick the same neurons?"""
    heading("Zeros are no evidence of absence")
    middle = len(data.train.y) // 2
    model = GLM(GAUSSIAN, regularizer="Lasso", solver_kwargs=LOOSE)
    fits = [
        strength_path(model, data.train.X[rows], data.train.y[rows], [strength])[0]
        for rows in (slice(None, middle), slice(middle, None))
    ]
    first, second = (fit.coef_ != 0 for fit in fits)
    chance = first.sum() * second.sum() / len(first)
    predictions = [fit.predict(data.test.X) for fit in fits]
    print(f"Lasso, strength {strength}: {first.sum()} neurons on the first half, {second.sum()} on the second")
    print(f"in both: {np.sum(first & second)}; picks at random would share {chance:.0f}")
    print(f"correlation of their predictions on the test bins: {np.corrcoef(predictions)[0, 1]:.2f}")
    if data.origin.startswith("simulated"):
        print(f"neurons that know something of running, in this simulation: all {len(first)}")


# --- The posterior ------------------------------------------------------------------------------------------------


def sample_ridge(data, strength):
    """Draw all weights from the posterior of a Ridge; the draws are exact and independent."""
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=strength)
    # One number for each draw and training bin in both of these groups, which nothing here needs.
    model.sample(
        *data.train, num_samples=250, seed=0, log_likelihood=False, posterior_predictive=False, progress_bar=False
    )
    return model


def show_posterior(data, ridge, lasso):
    """Intervals of the weights of a Ridge, also for the neurons that a Lasso picks."""
    heading(f"The posterior of Ridge, alpha {ridge.regularizer_strength * len(data.train.y):.4g}")
    draws = ridge.posterior_["posterior"]["coef"].to_numpy().reshape(-1, ridge.n_features_in_)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    clear = (low > 0) | (high < 0)
    picked = lasso.coef_ != 0
    prior = np.sqrt(ridge.scale_[0] / (len(data.train.y) * ridge.regularizer_strength))
    print(f"{len(draws)} exact draws of {draws.shape[1]} weights")
    print(f"standard deviation of the noise: {np.sqrt(ridge.scale_[0]):.2f}")
    print(f"prior of each weight: Normal(0, {prior:.3f})")
    print(f"posterior standard deviation, on average: {draws.std(axis=0).mean():.3f}")
    print(f"90% intervals without 0: {clear.sum()} of {len(clear)}; of the Lasso's neurons {clear[picked].sum()}")


def learn_strength(data):
    """Fit Ridge at the strength at which the training data are most likely, which no validation data chose."""
    heading("A strength learned from the training data")
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence")
    model.fit(*data.train)
    train, validation = scores(model, data)
    alpha = model.regularizer_strength_ * len(data.train.y)
    test = model.score(*data.test)
    print(f"alpha {alpha:.3g}: train R2 {train:.3f}, validation R2 {validation:.3f}, test R2 {test:.3f}")


def show_intervals(data, model):
    """Predictive intervals of the test bins and how many observations they hold."""
    heading("Where new observations fall")
    predictions = model.posterior_predictive(data.test.X, seed=1)["predictions"]
    quantiles = {}
    for name in ("mean", "y"):
        draws = predictions[name].to_numpy().reshape(-1, len(data.test.y))
        quantiles[name] = np.quantile(draws, [0.05, 0.95], axis=0)
        print(f"90% intervals of {name:4}: width {np.ptp(quantiles[name], axis=0).mean():.1f} on average")
    low, high = quantiles["y"]
    inside = (low <= data.test.y) & (data.test.y <= high)
    running = data.test.y > 0
    print(f"test bins inside the interval of y: {inside.mean():.1%}")
    print(f"at rest: {inside[~running].mean():.1%}; running: {inside[running].mean():.1%}")
    return quantiles


# --- Figures ------------------------------------------------------------------------------------------------------


def save(figure, data, title, path):
    """Title a figure with the origin of the data, and write it."""
    figure.suptitle(f"{title} ({data.origin})")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    plt.close(figure)
    # Lines need few colours; a palette takes a third of the bytes.
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)
    print(path)


def draw_scores(data, minimum_norm, families, path):
    """R2 against the strength, beside the level of no regularization."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    levels = scores(minimum_norm, data)
    for axis, (name, alphas) in zip(axes, {"Ridge": RIDGE_ALPHAS, "Lasso": LASSO_ALPHAS}.items(), strict=True):
        table = families[name][1]
        for column, (part, color) in enumerate({"train": "C0", "validation": "C1"}.items()):
            axis.axhline(levels[column], color=color, linestyle=":", label=f"{part}, no regularization")
            axis.plot(alphas, table[:, column], "o-", color=color, label=f"{part}, {name}")
        axis.set(xscale="log", xlabel="alpha", title=name, ylim=(min(0, table.min()) - 0.05, 1.05))
        axis.legend(fontsize=8)
    axes[0].set_ylabel("R2")
    save(figure, data, "Scores", path)


def draw_weights(data, models, path):
    """A line for each weight, from 0."""
    figure, axes = plt.subplots(len(models), 1, figsize=(9, 1.9 * len(models)), layout="constrained", sharex=True)
    for axis, (label, model) in zip(axes, models.items(), strict=True):
        neurons = np.flatnonzero(model.coef_)
        # Thin lines where there are thousands, thick ones where there are few.
        width = np.clip(600 / len(neurons), 0.25, 1.0)
        axis.vlines(neurons, 0, model.coef_[neurons], color="0.2", linewidth=width)
        axis.axhline(0, color="C3", linewidth=0.8)
        limit = 1.1 * np.max(np.abs(model.coef_))
        axis.set(title=f"{label}: {len(neurons)} weights are not 0", ylabel="weight", ylim=(-limit, limit))
        axis.margins(x=0.01)
    axes[-1].set_xlabel("neuron")
    save(figure, data, "Weights", path)


def draw_predictions(data, models, path):
    """True and predicted speed, on a stretch of the training data and on the validation data."""
    figure, axes = plt.subplots(len(models), 2, figsize=(9, 1.9 * len(models)), layout="constrained", sharey=True)
    for row, (label, model) in zip(axes, models.items(), strict=True):
        for axis, part, name in zip(row, data, ("training data", "validation data"), strict=False):
            shown = slice(None, 250)
            axis.plot(part.y[shown], color="0.2", linewidth=1.2, label="true")
            axis.plot(model.predict(part.X[shown]), color="C2", linewidth=1, label="predicted")
            axis.set_title(f"{label}, {name}: R2 {model.score(*part):.2f}", fontsize=10)
            axis.margins(x=0.01)
        row[0].set_ylabel("speed")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("bin")
    save(figure, data, "Running speed", path)


def draw_intervals(data, model, quantiles, path):
    """The test bins in their predictive intervals."""
    figure, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
    bins = np.arange(len(data.test.y))
    axis.fill_between(bins, *quantiles["y"], color="C0", alpha=0.2, linewidth=0, label="90% interval of y")
    axis.fill_between(bins, *quantiles["mean"], color="C0", alpha=0.5, linewidth=0, label="90% interval of the mean")
    axis.plot(model.predict(data.test.X), color="C0", linewidth=1, label="predicted at the mode")
    axis.plot(data.test.y, color="0.1", linewidth=1.2, label="true")
    axis.set(xlabel="test bin", ylabel="speed")
    axis.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    save(figure, data, "Predictive intervals of the chosen Ridge", path)


# --- All of it ----------------------------------------------------------------------------------------------------


def read_arguments(arguments=None):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all neurons and training bins; some minutes")
    parser.add_argument("--data", type=Path, help=f"file of the recording; {RECORDING} by default, if it is there")
    parser.add_argument("--figures", type=Path, help="folder to save the figures in; none by default")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run every exercise."""
    options = read_arguments(arguments)
    start = time.perf_counter()
    data = load(options.full, options.data)
    show_data(data)
    compare_with_sklearn(data)

    minimum_norm = fit_without_regularizer(data)
    ridges, lassos = fit_ridges(data), fit_lassos(data)
    show_weights("Exercise 3: the weights of Ridge", {"none": minimum_norm, **ridges[0]})
    show_weights("Exercise 5: the weights of Lasso", {"none": minimum_norm, **lassos[0]})
    families = {"Ridge": ridges, "Lasso": lassos, "ElasticNet": fit_elastic_nets(data)}
    chosen = choose(data, families)
    lasso = lassos[0][chosen["Lasso"]]
    compare_halves(data, lasso.regularizer_strength)

    learn_strength(data)
    ridge = sample_ridge(data, ridges[0][chosen["Ridge"]].regularizer_strength)
    show_posterior(data, ridge, lasso)
    quantiles = show_intervals(data, ridge)

    if options.figures is not None:
        heading("Figures")
        options.figures.mkdir(parents=True, exist_ok=True)
        models = {
            "No regularization": minimum_norm,
            f"Ridge, {chosen['Ridge']}": ridge,
            f"Lasso, {chosen['Lasso']}": lasso,
        }
        draw_scores(data, minimum_norm, families, options.figures / "model_selection_scores.png")
        draw_weights(data, models, options.figures / "model_selection_weights.png")
        draw_predictions(data, models, options.figures / "model_selection_predictions.png")
        draw_intervals(data, ridge, quantiles, options.figures / "model_selection_intervals.png")
    print(f"\n{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
