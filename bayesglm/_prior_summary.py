"""Which prior each strength is, as a table."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bayesglm._numpyro import dist, own_dist
from bayesglm._problem import is_grouped

__all__ = ["priors_as_text", "summarize_priors"]

# Lines of a text beyond which the others are counted only.
MOST_LINES = 20
TEXT = ["feature", "output", "class", "group", "strength", "ratio"]


def summarize_priors(matrix, spec):
    """Table of the priors of a fit, one row per set of coefficients of a leaf that share a prior.

    Parameters
    ----------
    matrix : (n, p) or None
        Features, for the effect that a coefficient of one prior standard deviation has; without them, there is no
        column for it.
    spec : Spec

    Returns
    -------
    pandas.DataFrame
    """
    # pandas comes with ArviZ; a fit does not need it.
    import pandas as pd

    rows = [row for leaf in range(len(spec.layout.widths)) for row in _rows_of_leaf(leaf, matrix, spec)]
    flat = spec.intercept_prior is None
    if spec.form.fit_intercept:
        rows.append({"variable": "intercept", "prior": "flat" if flat else describe(spec.intercept_prior)})
    table = pd.DataFrame(rows + _rows_of_scale(spec)).set_index("variable")
    text = [column for column in TEXT if column in table]
    table[text] = table[text].astype(object).where(table[text].notna(), "")
    return table[[*text, "prior", "sd", *(["sd_of_effect"] if matrix is not None else [])]]


def priors_as_text(spec):
    """A line for each row of the table: ``coef.history[0]: strength 0.02 -> Laplace(loc=0, scale=0.125)``."""
    lines = [_line(variable, row) for variable, row in summarize_priors(None, spec).iterrows()]
    more = [f"... and {len(lines) - MOST_LINES} more: see prior_summary()"] if len(lines) > MOST_LINES else []
    return "\n".join(f"  {line}" for line in lines[:MOST_LINES] + more)


def _line(variable, row):
    """A row in words."""
    facts = {name: row[name] for name in TEXT if name in row and row[name] != ""}
    where = f"[{facts['feature']}]" if facts.get("feature", "all") != "all" else ""
    of = "".join(f", {name} {facts[name]}" for name in ("output", "group") if facts.get(name, "all") != "all")
    sizes = [
        f"{name} {facts[name] if isinstance(facts[name], str) else _digits(facts[name])}"
        for name in ("strength", "ratio")
        if name in facts
    ]
    return f"{variable}{where}{of}: {', '.join(sizes)}{' -> ' if sizes else ''}{row['prior']}"


def describe(distribution):
    """A distribution as one would write it: its name and its parameters, to three digits."""
    if isinstance(distribution, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        return describe(distribution.base_dist)
    if isinstance(distribution, own_dist.Folded):
        return _describe_folded(distribution.base_dist)
    if type(distribution) is dist.TransformedDistribution:
        steps = ", ".join(type(step).__name__ for step in distribution.transforms)
        return f"{describe(distribution.base_dist)} by {steps}"
    parameters = {name: np.ravel(getattr(distribution, name)) for name in distribution.arg_constraints}
    written = [
        f"{name}={_digits(value[0]) if len(value) == 1 else '[' + ', '.join(map(_digits, value)) + ']'}"
        for name, value in parameters.items()
        if name != "groups"
    ]
    return f"{type(distribution).__name__}({', '.join(written)})"


def _describe_folded(base):
    """The absolute value of a distribution that is symmetric."""
    if isinstance(base, dist.MaskedDistribution | dist.Independent):
        return _describe_folded(base.base_dist)
    if isinstance(base, dist.Normal):
        return describe(dist.HalfNormal(base.scale))
    return describe(dist.Exponential(1 / base.scale)) if isinstance(base, dist.Laplace) else f"abs {describe(base)}"


def _digits(number):
    return f"{number:.3g}"


def _rows_of_leaf(leaf, matrix, spec):
    layout = spec.layout
    rows, name, columns = layout.slices[leaf], layout.names[leaf], layout.columns[leaf]
    spread = np.full(layout.widths[leaf], np.nan) if matrix is None else matrix[:, rows].std(0)
    facts = {fact: values[rows] for fact, values in _facts(spec).items()}
    for features, outputs in _alike(facts, spec.free[rows]):
        fact = {name: values[features[0], outputs[0]] for name, values in facts.items()}
        prior, sd = ("0, by feature_mask", 0.0) if not spec.free[rows][features[0], outputs[0]] else _prior(fact, spec)
        shown = {name: fact[name] for name in fact if name in TEXT and prior[0] != "0"}
        if fact.get("random", -1) >= 0:
            of = describe(_distribution_of(int(fact["random"]), spec.hyper.distributions))
            shown["strength"] = f"{_digits(shown['strength'])}, the median of draws; a priori {of}"
        if "group" in shown:
            shown = {} if shown["group"] < 0 else shown | {"group": str(int(shown["group"]))}
        yield {
            "variable": f"coef.{name}" if name else "coef",
            "feature": _listed(features, len(spread), columns),
            **_output(outputs, spec),
            **shown,
            "prior": prior,
            "sd": sd,
            "sd_of_effect": sd * np.sqrt(np.mean(spread[list(features)] ** 2)),
        }


def _facts(spec):
    """What decides the prior of each coefficient: arrays of shape (p, outputs)."""
    k = np.broadcast_to(spec.k, spec.free.shape)
    if spec.positive is not None:
        return _facts(replace(spec, positive=None)) | {"positive": spec.positive.astype(float)}
    if spec.hyper is not None:
        index = spec.hyper.index
        if is_grouped(spec.strength):
            index = np.append(index, -1)[np.minimum(spec.strength[1], len(index))]
        without = _facts(replace(spec, hyper=None))
        return without | {"random": index}
    if is_grouped(spec.strength):
        rate, groups = spec.strength
        size = np.bincount(groups.ravel(), minlength=len(rate) + 1)
        padded = np.append(rate, 0.0) / np.sqrt(np.maximum(size, 1))
        group = np.where(groups < len(rate), groups, -1)
        return {"group": group, "strength": padded[groups], "size": size[groups], "k": k}
    if isinstance(spec.strength, tuple):
        return {"strength": spec.strength[0], "ratio": spec.strength[1], "k": k}
    return {"strength": spec.strength, "k": k}


def _distribution_of(label, distributions):
    """Distribution of a random strength."""
    ends = np.cumsum([math.prod(prior.batch_shape) for prior in distributions])
    return distributions[int(np.searchsorted(ends, label, side="right"))]


def _alike(facts, free):
    """Pairs (features, outputs) of a leaf that cover all coefficients, each with one prior."""
    keys = np.nan_to_num(np.stack([np.where(free, values, -2.0) for values in facts.values()], axis=-1), nan=-1.0)
    found: dict[tuple, list] = {}
    for output in range(free.shape[1]):
        features_of: dict[tuple, list] = {}
        for feature, key in enumerate(map(tuple, keys[:, output].tolist())):
            features_of.setdefault(key, []).append(feature)
        for key, features in features_of.items():
            found.setdefault((key, tuple(features)), []).append(output)
    return [(features, tuple(outputs)) for (_, features), outputs in found.items()]


def _prior(fact, spec):
    """Prior of a coefficient in words, and its standard deviation."""
    strength: Any = np.float64(fact["strength"])
    positive = fact.get("positive", 0.0) > 0
    if strength == 0:
        return "flat on [0, inf)" if positive else "flat", np.inf
    if np.isnan(fact["k"]):
        return "unknown, like the dispersion", np.nan
    if "group" in fact:
        size = int(fact["size"])
        strength = np.array([strength * np.sqrt(size)]), np.zeros(size, int)
    elif "ratio" in fact:
        strength = strength, np.float64(fact["ratio"])
    prior = spec.form.prior.inner if spec.form.prior.has_bounds else spec.form.prior
    distribution = prior.distribution(strength, np.float64(fact["k"]))
    if positive:
        distribution = own_dist.Folded(distribution, np.ones(distribution.event_shape, bool))
    return describe(distribution), float(np.sqrt(np.ravel(distribution.variance)[0]))


def _rows_of_scale(spec):
    if not spec.form.samples_scale:
        return []
    if spec.scale_prior is not None:
        return [{"variable": "dispersion", "prior": describe(spec.scale_prior)}]
    rows = []
    for block in spec.blocks:
        prior = spec.form.family.scale_prior(spec.y_spread[block[0]])
        assert isinstance(prior, dist.TransformedDistribution)  # of the square root
        variable = "sigma" if spec.form.family.reports_sigma else "sqrt(dispersion)"
        rows.append({"variable": variable, "prior": describe(prior.base_dist)})
        if spec.outputs.several:
            rows[-1]["output"] = _listed(tuple(block.tolist()), len(spec.k), spec.outputs.names)
    return rows


def _output(outputs, spec):
    """Columns that tell the outputs."""
    if spec.outputs.classes is None:
        return {"output": _listed(outputs, len(spec.k), spec.outputs.names)} if spec.outputs.several else {}
    return {"class": _listed(outputs, len(spec.k), spec.outputs.labels())}


def _listed(indices, length, names):
    """Indices as text: "all", the names if there are, or ranges such as "0-2, 5"."""
    if len(indices) == length:
        return "all"
    if names is not None:
        return ", ".join(names[i] for i in indices)
    starts = [i for i in indices if i - 1 not in indices]
    ends = [i for i in indices if i + 1 not in indices]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
