"""Features in a container: a dict, a list or any other tree of arrays, and what it makes easy.

A simulated animal runs along a track. Its position, its speed and the direction of its head are each cut into
bins, and a bin is a column of zeros and ones. The counts depend on position and head direction, not on speed.
The three arrays of columns are the leaves of a tree (JAX calls such a tree a pytree). The features stay in it,
and the coefficients, the strengths and the posterior come in the same container, by the same names.

The sections follow NeMoS' background page on pytrees; the posterior at the end is an addition. Run it with
``python pytrees.py [output directory]``; it prints its results and writes ``pytrees_tuning.png``. It takes
about half a minute.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from bayesglm import GLM

BINS = {"position": 10, "speed": 6, "head_direction": 8}
LABELS = {"position": "position (cm)", "speed": "speed (cm per step)", "head_direction": "head direction (rad)"}
# With 1000 samples of Poisson counts, k is 1000: Ridge with strength 0.001 is the prior Normal(0, 1).
STRENGTH = 0.001


def title(text):
    """Print the heading of a section."""
    print(f"\n{text}\n{'-' * len(text)}")


def move(rng, n=1000):
    """What the animal does: position, speed and head direction, each of shape (n,)."""
    walked = 50 + np.cumsum(rng.normal(scale=6.0, size=n))
    position = 100 - np.abs(walked % 200 - 100)  # a walk that turns around at both ends of the track
    speed = np.abs(np.diff(position, prepend=position[0]))
    turned = np.cumsum(rng.normal(scale=0.4, size=n))
    return {"position": position, "speed": speed, "head_direction": turned % (2 * np.pi)}


def edges_of(values, n_bins):
    """Edges of bins of equal width that cover the values."""
    return np.linspace(values.min(), values.max(), n_bins + 1)


def one_hot(values, edges):
    """One column per bin: 1 where the value lies in it, else 0."""
    place = np.searchsorted(edges[1:-1], values, side="right")
    return (place[:, None] == np.arange(len(edges) - 1)).astype(float)


def make_data():
    """Features as a dict of arrays; counts; the true curves, log(mean count) by bin; the middle of each bin."""
    rng = np.random.default_rng(42)
    behaviour = move(rng)
    edges = {name: edges_of(values, BINS[name]) for name, values in behaviour.items()}
    X = {name: one_hot(values, edges[name]) for name, values in behaviour.items()}
    middle = {name: (e[1:] + e[:-1]) / 2 for name, e in edges.items()}
    truth = {
        "position": 1.5 * np.exp(-0.5 * ((middle["position"] - 35) / 12) ** 2),
        "speed": np.zeros(BINS["speed"]),
        "head_direction": np.cos(middle["head_direction"] - 2),
    }
    counts = rng.poisson(np.exp(sum(X[name] @ truth[name] for name in X) - 1.0))
    return X, counts, truth, middle


def show_tree(X):
    """A function of JAX sees the leaves and gives the container back."""
    title("A tree of arrays")
    print("shapes:", jax.tree.map(np.shape, X))
    print("samples in each bin of speed:", jax.tree.map(lambda leaf: leaf.sum(0).astype(int), X)["speed"])


def fit_dict(X, counts):
    """A dict of features gives a dict of coefficients."""
    model = GLM(regularizer="Ridge", regularizer_strength=STRENGTH).fit(X, counts)
    title("A dict")
    print("coef_ is a", type(model.coef_).__name__)
    for name, coef in model.coef_.items():
        print(f"  {name:15}{coef.shape!s:7}{coef.round(2)}")
    print("The keys come in JAX's order, which sorts them; this is also the order of the columns below.")
    return model


def compare_containers(X, counts, model):
    """The container does not change the fit, but a list has an order of its own and one array has no names."""
    title("A list, one array, a nested dict")
    ordered = ["position", "speed", "head_direction"]
    as_list = GLM(regularizer="Ridge", regularizer_strength=STRENGTH).fit([X[name] for name in ordered], counts)
    print("coef_ is a", type(as_list.coef_).__name__, "of shapes", [coef.shape for coef in as_list.coef_])
    for name, coef in zip(ordered, as_list.coef_, strict=True):
        print(f"  {name} as in the dict, within 1e-6: {np.abs(coef - model.coef_[name]).max() < 1e-6}")
    same = np.allclose(as_list.predict([X[name] for name in ordered]), model.predict(X), rtol=0, atol=1e-6)
    print("  same predictions:", same)

    # One array is what most packages ask for. Which columns are whose is then up to the user.
    columns = np.hstack([X[name] for name in ordered])
    as_array = GLM(regularizer="Ridge", regularizer_strength=STRENGTH).fit(columns, counts)
    print("one array: coef_ has shape", as_array.coef_.shape)
    same = np.abs(as_array.coef_[16:24] - model.coef_["head_direction"]).max() < 1e-6
    print("  head direction is in columns 16 to 23, with the same coefficients:", same)

    # One number stands for a whole branch: here position and speed share a strength.
    nested = {"body": {"position": X["position"], "speed": X["speed"]}, "head": X["head_direction"]}
    deep = GLM(regularizer="Ridge", regularizer_strength={"body": 0.001, "head": 0.01}).fit(nested, counts)
    print("nested dict: coef_ has shapes", jax.tree.map(np.shape, deep.coef_))


def fit_strengths(X, counts):
    """Strengths by name: the higher, the flatter the curve."""
    title("One strength per leaf")
    strengths = {"position": 0.1, "speed": 1.0, "head_direction": 10.0}
    model = GLM(regularizer="Ridge", regularizer_strength=strengths).fit(X, counts)
    for name, strength in strengths.items():
        sd = 1 / np.sqrt(len(counts) * strength)
        low, high = model.coef_[name].min(), model.coef_[name].max()
        print(f"  {name:15}strength {strength:<5} Normal(0, {sd:.3f})   coefficients {low:.3f} to {high:.3f}")


def fit_groups(X, counts):
    """Without a mask each leaf is a group of GroupLasso, which keeps all of its bins or none."""
    title("GroupLasso: each leaf is a group")
    print(f"  {'strength':10}{'deviance explained':>20}   dropped")
    for strength in (0.003, 0.01, 0.03, 0.1):
        model = GLM(regularizer="GroupLasso", regularizer_strength=strength).fit(X, counts)
        dropped = [name for name, coef in model.coef_.items() if not coef.any()]
        print(f"  {strength:<10}{model.score(X, counts):20.3f}   {', '.join(dropped) or '-'}")


def centre(curves, leaf):
    """Shift curves, bins last, to an average of 0 over the samples.

    Every sample is in one bin of each leaf, so that a constant added to a leaf and taken from the intercept
    changes nothing. Only differences within a curve have a meaning that the data can tell.
    """
    return curves - (curves @ leaf.mean(0))[..., None]


def sample_curves(X, counts, truth):
    """Draw from the posterior; returns by leaf the centred draws, and prints the curve of position."""
    model = GLM(regularizer="Ridge", regularizer_strength=STRENGTH)
    idata = model.sample(
        X, counts, num_samples=500, num_warmup=300, seed=1,
        log_likelihood=False, posterior_predictive=False, progress_bar=False,
    )  # fmt: skip
    title("The posterior: the curve of position, with intervals of 89%")
    print("variables:", ", ".join(idata["posterior"].data_vars))
    curves = {}
    for name, leaf in X.items():
        draws = idata["posterior"][f"coef.{name}"].to_numpy()
        curves[name] = centre(draws.reshape(-1, BINS[name]), leaf)
    mean, (low, high) = curves["position"].mean(0), interval(curves["position"])
    print(f"  {'bin':>3}{'samples':>9}{'truth':>8}{'mean':>8}{'89% interval':>18}")
    rows = zip(X["position"].sum(0), centre(truth["position"], X["position"]), mean, low, high, strict=True)
    for i, (samples, true, m, a, b) in enumerate(rows):
        print(f"  {i:3}{samples:9.0f}{true:8.2f}{m:8.2f}{a:9.2f} to{b:6.2f}")
    width = np.ptp(interval(idata["posterior"]["coef.speed"].to_numpy()[..., -1].ravel()))
    print(
        f"The last bin of speed holds {X['speed'][:, -1].sum():.0f} of the samples. Its coefficient has an interval "
        f"{width:.1f} wide;\nthe prior alone, Normal(0, 1), has one 3.2 wide."
    )
    return curves


def interval(draws):
    """The two ends of the 89% interval with equal tails, by bin."""
    return np.quantile(draws, [0.055, 0.945], axis=0)


def save_curves(X, curves, truth, middle, path):
    """Curves with their intervals beside the truth, as a picture."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, name in zip(axes, X, strict=True):
        mean, (low, high) = curves[name].mean(0), interval(curves[name])
        around = [mean - low, high - mean]
        axis.axhline(0, color="0.85", linewidth=1, zorder=0)
        axis.plot(middle[name], centre(truth[name], X[name]), color="0.5", label="truth")
        axis.errorbar(middle[name], mean, around, fmt="o", color="C0", markersize=4, label="mean and 89% interval")
        axis.set_xlabel(LABELS[name])
    axes[0].set_ylabel("change of log(mean count)")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    print(f"\nAll three curves in {path.name}")


def main(output=Path(".")):
    """Run every section, and write the picture into the directory `output`."""
    X, counts, truth, middle = make_data()
    print(f"{len(counts)} counts, {counts.sum()} in total; features: {', '.join(X)}")
    show_tree(X)
    model = fit_dict(X, counts)
    compare_containers(X, counts, model)
    fit_strengths(X, counts)
    fit_groups(X, counts)
    curves = sample_curves(X, counts, truth)
    save_curves(X, curves, truth, middle, Path(output) / "pytrees_tuning.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
