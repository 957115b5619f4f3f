"""Every bad input is one clear error before any computing: it names the argument, what came, what was expected."""

from collections import deque
from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from sklearn.exceptions import DataConversionWarning, NotFittedError

from bayesglm import GLM, PopulationGLM, _options, links
from bayesglm.observation_models import GaussianObservations, PoissonObservations
from bayesglm.priors import GroupLasso, Ridge

N = 7
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 3))
M = np.hstack([A, B])
X = {"a": A, "b": B}
Y = RNG.poisson(2.0, size=N)
MANY = np.stack([Y, Y, Y], axis=1)
COMPILATIONS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILATIONS.append(event) if "backend_compile" in event else None
)


class Pair(NamedTuple):
    a: object
    b: object


def but(array, value, *where):
    """A copy with one entry replaced."""
    array = np.array(array, float if isinstance(value, float) else None)
    array[where] = value
    return array


def check(call, pattern, error=ValueError):
    """One error whose message matches, and nothing compiled on the way."""
    before = len(COMPILATIONS)
    with pytest.raises(error, match=pattern) as caught:
        call()
    assert type(caught.value) is error
    assert len(COMPILATIONS) == before
    assert "tree_map" not in str(caught.value)
    assert len(str(caught.value)) < 500


def by_name(cases):
    return [pytest.param(*case[1:], id=case[0]) for case in cases]


BAD_X = [
    ("number", 3.0, r"X must have two dimensions.*\(\)"),
    ("one dimension", M[0], r"X must have two dimensions.*\(5,\)"),
    ("three dimensions", M[None], r"X must have two dimensions.*\(1, 7, 5\)"),
    ("series", pd.Series(M[:, 0]), r"X must have two dimensions.*\(7,\)"),
    ("leaf of one dimension", {"a": A[:, 0], "b": B}, r"X\['a'\] must have two dimensions.*\(7,\)"),
    ("vector in a list", [A, B[:, 0]], r"X\[1\] must have two dimensions.*\(7,\)"),
    ("lengths", {"a": A, "b": B[:6]}, r"X.*same number of samples.*X\['a'\] has 7.*X\['b'\] has 6"),
    ("lengths in a tuple", Pair(A, B[:6]), r"X.*same number of samples.*7.*6"),
    ("no rows", np.empty((0, 2)), r"X has no samples.*\(0, 2\)"),
    ("no columns", np.empty((7, 0)), r"X has no features.*\(7, 0\)"),
    ("empty list", [], r"X .*(two dimensions|no features|empty)"),
    ("empty rows", [[], []], r"X has no features"),
    ("empty dict", {}, r"X has no features.*empty dict"),
    ("nested empty dict", {"a": {}}, r"X has no features"),
    ("frame without columns", pd.DataFrame(index=range(7)), r"X has no features"),
    ("None", None, r"X is None"),
    ("None leaf", {"a": A, "b": None}, r"X\['b'\] is None"),
    ("None in a list", [A, None], r"X\[1\] is None"),
    ("None in a row", [[1.0, None]] * 7, r"X must hold real numbers.*object"),
    ("string", "data.csv", r"X must hold real numbers.*str"),
    ("strings", M.astype(str), r"X must hold real numbers.*<U"),
    ("leaf of strings", {"a": A.astype(str), "b": B}, r"X\['a'\] must hold real numbers.*<U"),
    ("objects", np.where(M > 0, M.astype(object), "low"), r"X must hold real numbers.*object"),
    ("complex", M + 0j, r"X must hold real numbers.*complex128"),
    ("dates", np.zeros((7, 2), "M8[s]"), r"X must hold real numbers.*datetime64"),
    ("ragged", [[1.0, 2.0], [3.0]], r"X cannot be read as an array of numbers"),
    ("ragged leaf", {"a": [[1.0, 2.0], [3.0]], "b": B}, r"X\['a'\] cannot be read"),
    ("generator", (row for row in M), r"X must hold real numbers.*generator"),
    ("deque of arrays", deque([A, B]), r"X cannot be read"),
    ("deque in a list", [deque([A, B]), A], r"X must be an array or a dict, list or tuple"),
    ("repeated names", pd.DataFrame(A, columns=["v", "v"]), r"X.*column names \['v'\] occur more than once"),
    ("frame of strings", pd.DataFrame({"u": list("abcdefg")}), r"X.*'u'.*(object|str)"),
    ("frame leaf of strings", {"a": pd.DataFrame({"u": list("abcdefg")})}, r"X\['a'\].*'u'.*(object|str)"),
    ("frame with a gap", pd.DataFrame({"u": pd.array([1, None, 3], "Int64")}), r"X has 1 NaN.*\(1, 0\)"),
    ("masked", np.ma.masked_array(M, mask=M > 1), r"(?i)X.*mask"),
    ("NaN", but(M, np.nan, 3, 1), r"X has 1 NaN or infinite entry, the first at \(3, 1\)"),
    ("infinite", but(M, np.inf, 2), r"X has 5 NaN or infinite entries, the first at \(2, 0\)"),
    ("both infinities", but(but(M, np.inf, 0, 0), -np.inf, 0, 1), r"X has 2 NaN or infinite entries"),
    ("NaN leaf", {"a": A, "b": but(B, np.nan, 5, 2)}, r"X\['b'\] has 1 NaN or infinite entry, the first at \(5, 2\)"),
    ("NaN deep", {"k": [A, {"q": but(B, np.nan, 0, 0)}]}, r"X\['k'\]\[1\]\['q'\] has 1 NaN"),
    ("keys of two types", {1: A, "b": B}, r"X.*keys.*sort"),
    ("same dotted name", {"a.b": A, "a": {"b": B}}, r"X.*same dotted name.*'a\.b'"),
    ("same name, slash", {"a/b": A, "a": {"b": B}}, r"X.*same dotted name.*'a\.b'"),
]


@pytest.mark.parametrize(("design", "pattern"), by_name(BAD_X))
def test_bad_X(design, pattern):
    check(lambda: GLM(regularizer="Ridge").fit(design, Y), pattern)


BAD_Y = [
    ("length", "Poisson", Y[:6], r"X and y.*same number of samples.*7.*6"),
    ("number", "Poisson", 3, r"y must have shape \(samples,\).*\(\)"),
    ("several outputs", "Poisson", MANY, r"y must have shape \(samples,\).*\(7, 3\).*PopulationGLM"),
    ("three dimensions", "Poisson", MANY[None], r"y must have shape.*\(1, 7, 3\)"),
    ("None", "Poisson", None, r"y must hold real numbers.*None"),
    ("strings", "Bernoulli", ["yes", "no"] * 3 + ["no"], r"y must hold real numbers.*<U"),
    ("objects", "Poisson", np.where(Y > 0, Y.astype(object), "none"), r"y must hold real numbers.*object"),
    ("complex", "Gaussian", Y + 0j, r"y must hold real numbers.*complex"),
    ("dict", "Poisson", {"y": Y}, r"y must hold real numbers.*dict"),
    ("ragged", "Poisson", [[1], [2, 3]], r"y cannot be read"),
    ("masked", "Poisson", np.ma.masked_array(Y, mask=Y > 1), r"(?i)y.*mask"),
    ("NaN", "Gaussian", but(Y, np.nan, 4), r"y has 1 NaN or infinite entry, the first at 4"),
    ("infinite", "Poisson", but(Y, np.inf, [1, 2]), r"y has 2 NaN or infinite entries, the first at 1"),
    ("gap", "Poisson", pd.Series([None, *Y[1:]], dtype="Int64"), r"y has 1 NaN or infinite entry, the first at 0"),
    ("negative count", "Poisson", but(Y, -1, 2), r"y must hold numbers >= 0.*Poisson.*1 of 7.*-1 at 2"),
    ("not binary", "Bernoulli", [0, 1, 2, 0, 3, 1, 0], r"y must hold zeros and ones.*Bernoulli.*2 of 7.*2 at 2"),
    ("signs", "Bernoulli", [-1, 1, 1, -1, 1, 1, 1], r"y must hold zeros and ones.*2 of 7.*-1 at 0"),
    ("probabilities", "Bernoulli", np.full(7, 0.5), r"y must hold zeros and ones.*7 of 7.*0\.5 at 0"),
]
BAD_POPULATION_Y = [
    ("one output", Y, r"y must have shape \(samples, outputs\).*\(7,\).*GLM"),
    ("three dimensions", MANY[None], r"y must have shape \(samples, outputs\).*\(1, 7, 3\)"),
    ("length", MANY[:6], r"X and y.*same number of samples.*7.*6"),
    ("transposed", MANY.T, r"X and y.*same number of samples.*7.*3"),
    ("no outputs", np.empty((7, 0)), r"y has no outputs.*\(7, 0\)"),
    ("negative", but(MANY, -2, 3, 1), r"y must hold numbers >= 0.*1 of 21.*-2 at \(3, 1\)"),
    ("NaN", but(MANY, np.nan, 3, 1), r"y has 1 NaN or infinite entry, the first at \(3, 1\)"),
]


@pytest.mark.parametrize(("family", "y", "pattern"), by_name(BAD_Y))
def test_bad_y(family, y, pattern):
    check(lambda: GLM(family, regularizer="Ridge").fit(X, y), pattern)


@pytest.mark.parametrize(("y", "pattern"), by_name(BAD_POPULATION_Y))
def test_bad_y_of_a_population(y, pattern):
    check(lambda: PopulationGLM(regularizer="Ridge").fit(X, y), pattern)


BAD_REST = [
    ("short weights", {"sample_weight": np.ones(6)}, r"sample_weight must have shape \(7,\).*\(6,\)"),
    ("weights in a column", {"sample_weight": np.ones((7, 1))}, r"sample_weight must have shape \(7,\).*\(7, 1\)"),
    ("one weight", {"sample_weight": 2.0}, r"sample_weight must have shape \(7,\).*\(\)"),
    ("negative weight", {"sample_weight": but(np.ones(7), -0.5, 2)}, r"sample_weight must not be negative.*-0\.5"),
    ("NaN weight", {"sample_weight": but(np.ones(7), np.nan, 2)}, r"sample_weight has 1 NaN.*at 2"),
    ("infinite weight", {"sample_weight": but(np.ones(7), np.inf, 2)}, r"sample_weight has 1 NaN or infinite.*at 2"),
    ("no weight", {"sample_weight": np.zeros(7)}, r"sample_weight is zero everywhere"),
    ("named weights", {"sample_weight": "balanced"}, r"sample_weight must hold real numbers.*str"),
    ("weights by key", {"sample_weight": {"a": 1}}, r"sample_weight must hold real numbers.*dict"),
    ("overflowing weights", {"sample_weight": np.full(7, 1e308)}, r"sample_weight.*sum"),
    ("short offset", {"offset": np.zeros(6)}, r"offset must have shape \(7,\).*\(6,\)"),
    ("one offset", {"offset": 1.0}, r"offset must have shape \(7,\).*\(\)"),
    ("offset of outputs", {"offset": np.zeros((7, 3))}, r"offset must have shape \(7,\).*\(7, 3\)"),
    ("NaN offset", {"offset": but(np.zeros(7), np.nan, 6)}, r"offset has 1 NaN or infinite entry, the first at 6"),
    ("log of no exposure", {"offset": but(np.zeros(7), -np.inf, 6)}, r"offset has 1 NaN or infinite entry"),
    ("offset of strings", {"offset": ["a"] * 7}, r"offset must hold real numbers.*<U"),
]


@pytest.mark.parametrize(("rest", "pattern"), by_name(BAD_REST))
def test_bad_weights_and_offsets(rest, pattern):
    check(lambda: GLM(regularizer="Ridge").fit(X, Y, **rest), pattern)


@pytest.mark.parametrize("offset", [np.zeros((7, 2)), np.zeros((1, 3)), np.zeros(3)])
def test_bad_offset_of_a_population(offset):
    check(lambda: PopulationGLM().fit(X, MANY, offset=offset), r"offset must have shape \(7,\) or \(7, 3\); got")


S = r"regularizer_strength"
# (name, X, strength, pattern): refused for Ridge, Lasso and ElasticNet alike
BAD_STRENGTH = [
    ("negative", X, -0.1, S + r".*negative.*-0\.1"),
    ("NaN", X, np.nan, S + r".*finite.*nan"),
    ("infinite", X, np.inf, S + r".*finite.*inf"),
    ("complex", X, 1j, S + r".*real numbers.*complex"),
    ("string", X, "1", S + r".*'1'"),
    ("bytes", X, b"1", S + r".*bytes"),
    ("too large an integer", X, 10**400, S + r".*int"),
    ("an object", X, object(), S + r".*object"),
    ("a distribution", X, dist.HalfNormal(1.0), S + r".*distribution.*HalfNormal.*fit"),
    ("a distribution at a leaf", X, {"a": dist.HalfNormal(1.0), "b": 1}, S + r"\['a'\].*distribution.*HalfNormal"),
    ("dict for an array", M, {"a": 0.1}, S + r".*\{'a': 0\.1\}"),
    ("longer than p", M, [0.1] * 6, S + r".*\(5,\).*got.*\(6,\)"),
    ("shorter than p", M, [0.1], S + r".*\(5,\).*got.*\(1,\)"),
    ("column", M, np.ones((5, 1)), S + r".*\(5,\).*got.*\(5, 1\)"),
    ("row", M, np.ones((1, 5)), S + r".*\(5,\).*got.*\(1, 5\)"),
    ("empty", M, [], S + r".*\(5,\).*got.*\(0,\)"),
    ("strings in a list", M, ["1"] * 5, S + r".*an array of numbers, 'evidence', 'learn' or a distribution; got '1'"),
    ("objects in an array", M, np.full(5, None), S + r".*real numbers.*object"),
    ("None in a list", M, [1, 1, 1, 1, None], S + r".*real numbers.*object"),
    ("ragged", M, [[1], [1, 2]], S + r".*cannot be read"),
    ("one negative", M, [1, 1, -3, 1, 1], S + r".*negative.*-3"),
    ("one NaN", M, but(np.ones(5), np.nan, 2), S + r".*finite.*nan"),
    ("missing key", X, {"a": 0.1}, S + r".*'a', 'b'.*missing \['b'\]"),
    ("extra key", X, {"a": 0.1, "b": 0.1, "c": 0.1}, S + r".*'a', 'b'.*unknown \['c'\]"),
    ("misspelled key", X, {"a": 0.1, "B": 0.1}, S + r".*missing \['b'\].*unknown \['B'\]"),
    ("empty dict", X, {}, S + r".*missing \['a', 'b'\]"),
    ("list for a dict", X, [0.1, 0.2], S + r".*X\['b'\].*\(3,\).*got.*\(2,\)"),
    ("list of lists for a dict", X, [[0.1, 0.2], 0.3], S),
    ("negative leaf", X, {"a": 0.1, "b": -2}, S + r"\['b'\].*negative.*-2"),
    ("NaN leaf", X, {"a": 0.1, "b": [1, 1, np.nan]}, S + r"\['b'\].*finite.*nan"),
    ("None leaf", X, {"a": 0.1, "b": None}, S + r"\['b'\].*None"),
    ("string leaf", X, {"a": "x", "b": 1}, S + r"\['a'\].*'x'"),
    ("dict at a leaf", X, {"a": {"q": 1}, "b": 1}, S + r"\['a'\].*\{'q': 1\}"),
    ("wrong length at a leaf", X, {"a": 0.1, "b": [0.1, 0.2]}, S + r"\['b'\].*\(3,\).*got.*\(2,\)"),
    ("dict for a list", [A, B], {"a": 1, "b": 1}, S + r".*list.*'a': 1"),
    ("dict for a NamedTuple", Pair(A, B), {"a": 1, "b": 1}, S + r".*'a': 1"),
    ("short list", [A, B], [0.1], S + r".*2.*got 1"),
    ("long list", (A, B), [0.1, 0.2, 0.3], S + r".*2.*got 3"),
    ("None in a tree list", [A, B], [0.1, None], S + r"\[1\].*None"),
    ("array for a list", [A, B], np.array([0.1, 0.2]), S + r".*X\[1\].*\(3,\).*got.*\(2,\)"),
    ("misspelled deep", {"k": [A, {"q": B}]}, {"k": [0.1, {"Q": 0.1}]}, S + r"\['k'\]\[1\].*missing \['q'\]"),
    ("negative deep", {"k": [A, {"q": B}]}, {"k": [0.1, {"q": -1}]}, S + r"\['k'\]\[1\]\['q'\].*negative"),
    ("dict for a list deep", {"k": [A, {"q": B}]}, {"k": {"q": 1}}, S + r"\['k'\].*list.*'q': 1"),
]


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso", "ElasticNet", "ElasticNet pair"])
@pytest.mark.parametrize(("design", "strength", "pattern"), by_name(BAD_STRENGTH))
def test_bad_strength(regularizer, design, strength, pattern):
    regularizer, _, pair = regularizer.partition(" ")
    strength = (strength, 0.5) if pair else strength
    check(lambda: GLM(regularizer=regularizer, regularizer_strength=strength).fit(design, Y), pattern)


BAD_PAIRS = [
    ("empty", (), r"pair.*0"),
    ("one", (0.1,), r"pair.*1"),
    ("three", (0.1, 0.2, 0.3), r"pair.*3"),
    ("ratio 0", (0.1, 0), r"ratio.*above 0.*got 0"),
    ("ratio above 1", (0.1, 1.5), r"ratio.*at most 1.*got 1\.5"),
    ("negative ratio", (0.1, -0.5), r"ratio.*-0\.5"),
    ("NaN ratio", (0.1, np.nan), r"ratio.*nan"),
    ("string ratio", (0.1, "half"), r"ratio.*'half'"),
    ("no ratio", (0.1, None), r"ratio.*None"),
    ("no strength", (None, 0.5), r"None"),
    ("random ratio", (0.1, dist.Beta(1.0, 1.0)), r"ratio.*Beta"),
    ("one ratio of 0", (0.1, {"a": [0.5, 0.0], "b": 0.5}), r"ratio.*above 0.*got 0"),
    ("misspelled ratio", (0.1, {"a": 0.5, "c": 0.5}), r"ratio.*missing \['b'\]"),
    ("long ratio", (0.1, {"a": 0.5, "b": [0.5] * 4}), r"ratio.*\['b'\].*\(3,\).*got.*\(4,\)"),
]


@pytest.mark.parametrize(("strength", "pattern"), by_name(BAD_PAIRS))
def test_bad_pair_of_elastic_net(strength, pattern):
    check(lambda: GLM(regularizer="ElasticNet", regularizer_strength=strength).fit(X, Y), rf"(?=.*{S}).*{pattern}")


BAD_POPULATION_STRENGTH = [
    ("per output in 1-D", M[:, :2], [0.1, 0.2, 0.3], r"\(1, 3\).*got.*\(3,\)"),
    ("per output in 1-D at a leaf", X, {"a": [0.1, 0.2, 0.3], "b": 1}, r"\['a'\].*\(1, 3\).*got.*\(3,\)"),
    ("transposed", M, np.ones((3, 5)), r"\(5, 3\).*got.*\(3, 5\)"),
    ("wrong outputs", M, np.ones((1, 2)), r"\(1, 3\).*got.*\(1, 2\)"),
    ("one by one", M, np.ones((1, 1)), r"\(5, 3\).*got.*\(1, 1\)"),
    ("three dimensions", M, np.ones((1, 5, 3)), r"\(5, 3\).*got.*\(1, 5, 3\)"),
    ("negative", X, {"a": -np.ones((1, 3)), "b": 1}, r"\['a'\].*negative.*-1"),
]


@pytest.mark.parametrize(("design", "strength", "pattern"), by_name(BAD_POPULATION_STRENGTH))
def test_bad_strength_of_a_population(design, strength, pattern):
    model = PopulationGLM(regularizer="Lasso", regularizer_strength=strength)
    check(lambda: model.fit(design, MANY), S + ".*" + pattern)


EYE = np.eye(2)
TREE = {"a": EYE, "b": [[1, 0, 0], [0, 1, 1]]}
BAD_GROUP_STRENGTH = [
    ("negative", X, None, -1, r"negative.*-1"),
    ("NaN", X, None, [0.1, np.nan], r"finite.*nan"),
    ("string", X, None, "x", r"'x'"),
    ("one per feature", X, None, {"a": [0.1, 0.2], "b": 1}, r"\['a'\].*got shape \(2,\)"),
    ("too few", X, None, [0.1], r"got"),
    ("too many", X, None, np.ones(3), r"got.*\(3,\)"),
    ("missing key", X, None, {"a": 0.1}, r"missing \['b'\]"),
    ("misspelled key", X, None, {"a": 0.1, "B": 1}, r"missing \['b'\].*unknown \['B'\]"),
    ("None leaf", X, None, {"a": 0.1, "b": None}, r"\['b'\].*None"),
    ("negative leaf", X, None, {"a": 0.1, "b": -1}, r"\['b'\].*negative"),
    ("short list", [A, B], None, [0.1], r"2.*got 1"),
    ("dict for a list", [A, B], None, {"a": 1, "b": 1}, r"list.*'a': 1"),
    ("dict for an array", M, None, {"a": 1}, r"'a': 1"),
    ("two for one group", M, None, [0.1, 0.2], r"\(1,\).*got"),
    ("distribution", X, None, {"a": dist.HalfNormal(1.0), "b": 1}, r"\['a'\].*distribution"),
    ("tree with a mask", X, TREE, {"a": 0.1, "b": 0.2}, r"per group.*\(2,\).*got.*'a': 0\.1"),
    ("too few for a mask", X, TREE, [0.1], r"per group.*\(2,\).*got.*0\.1"),
    ("row for a mask", X, TREE, [[0.1, 0.2]], r"per group.*\(2,\).*got"),
    ("negative for a mask", X, TREE, [0.1, -2], r"negative.*-2"),
]


@pytest.mark.parametrize(("design", "mask", "strength", "pattern"), by_name(BAD_GROUP_STRENGTH))
def test_bad_strength_of_group_lasso(design, mask, strength, pattern):
    model = GLM(regularizer=GroupLasso(mask), regularizer_strength=strength)
    check(lambda: model.fit(design, Y), S + ".*" + pattern)


BAD_MASK = [
    ("number", A, 1, r"mask.*\(n_groups, 2\).*got \(\)"),
    ("string", A, "leaves", r"mask must hold real numbers.*str"),
    ("one dimension", A, [1, 1], r"mask.*\(n_groups, 2\).*got \(2,\)"),
    ("too wide", A, np.ones((1, 3)), r"mask.*\(n_groups, 2\).*got \(1, 3\)"),
    ("output axis", A, np.ones((1, 2, 1)), r"mask.*\(n_groups, 2\).*got \(1, 2, 1\)"),
    ("no groups", A, np.ones((0, 2)), r"mask has no groups"),
    ("empty group", A, [[1, 1], [0, 0]], r"mask has groups without a member.*1"),
    ("overlap", A, [[1, 1], [0, 1]], r"mask puts coefficient \(1,\) into more than one group"),
    ("two", A, EYE * 2, r"mask must hold zeros and ones.*2"),
    ("half", A, EYE / 2, r"mask must hold zeros and ones.*0\.5"),
    ("negative", A, -EYE, r"mask must hold zeros and ones.*-1"),
    ("NaN", A, EYE * np.nan, r"mask must hold zeros and ones.*nan"),
    ("None entry", A, [[None, 1]], r"mask must hold real numbers.*object"),
    ("ragged", A, [[1, 0], [1]], r"mask cannot be read"),
    ("dict for an array", A, {"a": EYE}, r"mask.*dict"),
    ("missing key", X, {"a": EYE}, r"mask.*missing.*'b'"),
    ("extra key", X, {**TREE, "c": EYE}, r"mask.*unknown.*'c'"),
    ("misspelled key", X, {"a": EYE, "B": TREE["b"]}, r"mask.*missing.*'b'.*unknown.*'B'"),
    ("list for a dict", X, [EYE, TREE["b"]], r"mask.*dict"),
    ("None leaf", X, {"a": EYE, "b": None}, r"mask\['b'\].*None"),
    ("string leaf", X, {"a": EYE, "b": "x"}, r"mask\['b'\] must hold real numbers.*str"),
    ("dict at a leaf", X, {"a": {"q": EYE}, "b": TREE["b"]}, r"mask\['a'\].*dict"),
    ("wrong width at a leaf", X, {"a": EYE, "b": EYE}, r"mask\['b'\].*\(n_groups, 3\).*got \(2, 2\)"),
    (
        "different groups",
        X,
        {"a": EYE, "b": np.eye(3)},
        r"mask.*number of groups.*mask\['a'\] has 2.*mask\['b'\] has 3",
    ),
    ("wrong concatenation", X, np.ones((1, 4)), r"mask.*\(n_groups, 5\).*got \(1, 4\)"),
    ("short list", [A, B], [EYE], r"mask.*2.*1"),
    ("dict for a list", [A, B], TREE, r"mask.*list"),
]


@pytest.mark.parametrize(("design", "mask", "pattern"), by_name(BAD_MASK))
def test_bad_mask(design, mask, pattern):
    check(lambda: GLM(regularizer=GroupLasso(mask)).fit(design, Y), pattern)


@pytest.mark.parametrize("mask", [np.ones((1, 2)), np.ones((1, 2, 2)), np.ones((1, 3, 2)), np.ones((2, 3))])
def test_bad_mask_of_a_population(mask):
    check(
        lambda: PopulationGLM(regularizer=GroupLasso(mask)).fit(A, MANY),
        r"mask must have shape \(n_groups, 2, 3\); got",
    )


FAMILIES, PRIORS, LINKS, SOLVERS = (
    ".*".join(f"'{name}'" for name in known)
    for known in (_options.FAMILIES, _options.REGULARIZERS, links.LINKS, _options.SOLVERS)
)
BAD_OPTIONS = [
    ("family", {"observation_model": "poisson"}, rf"observation_model.*{FAMILIES}.*'poisson'"),
    ("no family", {"observation_model": None}, rf"observation_model.*{FAMILIES}.*None"),
    ("family class", {"observation_model": PoissonObservations}, r"observation_model.*PoissonObservations"),
    ("regularizer", {"regularizer": "ridge"}, rf"regularizer must.*{PRIORS}.*'ridge'"),
    ("regularizer class", {"regularizer": Ridge}, r"regularizer must.*Ridge"),
    ("regularizer number", {"regularizer": 0.1}, rf"regularizer must.*{PRIORS}.*0\.1"),
    ("link", {"inverse_link_function": "log"}, rf"inverse_link_function.*{LINKS}.*'log'"),
    ("link list", {"inverse_link_function": ["exp"]}, r"inverse_link_function.*\['exp'\]"),
    ("link number", {"inverse_link_function": 2}, r"inverse_link_function.*2"),
    ("solver", {"solver_name": "LBFGS"}, rf"solver_name.*{SOLVERS}.*'LBFGS'"),
    ("solver list", {"solver_name": ["Newton"]}, r"solver_name.*\['Newton'\]"),
    ("solver array", {"solver_name": np.array(["Newton", "LBFGS"])}, r"solver_name.*LBFGS"),
    ("solver of a kink", {"regularizer": "Lasso", "solver_name": "Newton"}, r"solver_name.*'Newton'.*smooth"),
    ("solver option", {"solver_kwargs": {"stepsize": 1}}, r"solver_kwargs.*'tol'.*'maxiter'.*'stepsize'"),
    ("solver pairs", {"solver_kwargs": [("tol", 1e-3)]}, r"solver_kwargs.*dict.*\[\('tol'"),
    ("solver number", {"solver_kwargs": 3}, r"solver_kwargs.*dict.*3"),
    ("tol 0", {"solver_kwargs": {"tol": 0}}, r"solver_kwargs\['tol'\].*got 0"),
    ("tol NaN", {"solver_kwargs": {"tol": np.nan}}, r"solver_kwargs\['tol'\].*got nan"),
    ("tol string", {"solver_kwargs": {"tol": "small"}}, r"solver_kwargs\['tol'\].*'small'"),
    ("tol array", {"solver_kwargs": {"tol": np.array([1e-3, 1e-2])}}, r"solver_kwargs\['tol'\].*array"),
    ("maxiter 0", {"solver_kwargs": {"maxiter": 0}}, r"solver_kwargs\['maxiter'\].*got 0"),
    ("maxiter 1.5", {"solver_kwargs": {"maxiter": 1.5}}, r"solver_kwargs\['maxiter'\].*got 1\.5"),
    ("maxiter None", {"solver_kwargs": {"maxiter": None}}, r"solver_kwargs\['maxiter'\].*got None"),
    ("intercept_prior", {"intercept_prior": 1.0}, r"intercept_prior.*distribution.*got 1\.0"),
    ("scale 0", {"observation_model": GaussianObservations(scale=0)}, r"scale.*positive.*got 0"),
    ("scale NaN", {"observation_model": GaussianObservations(scale=np.nan)}, r"scale.*positive.*got nan"),
    ("scale string", {"observation_model": GaussianObservations(scale="1")}, r"scale.*positive.*got '1'"),
    (
        "strength alone",
        {"regularizer": None, "regularizer_strength": 0.1},
        r"regularizer_strength.*0\.1.*no regularizer",
    ),
    ("strength 0 alone", {"regularizer": None, "regularizer_strength": 0}, r"regularizer_strength.*0.*no regularizer"),
    (
        "strength of UnRegularized",
        {"regularizer": "UnRegularized", "regularizer_strength": [1, 2]},
        r"regularizer_strength.*\[1, 2\].*no regularizer",
    ),
]


@pytest.mark.parametrize(("options", "pattern"), by_name(BAD_OPTIONS))
def test_bad_options(options, pattern):
    model = GLM(**{"regularizer": "Ridge", **options})  # stored untouched, whatever it is
    for method in (model.fit, lambda *data: model.sample(*data, progress_bar=False)):
        check(lambda method=method: method(X, Y), pattern)


def test_what_is_misspelled_in_the_constructor_is_a_type_error():
    with pytest.raises(TypeError, match="regulariser"):
        GLM(regulariser="Ridge")


BAD_RUNS = [
    ("method", {"method": "advi"}, r"method must.*'nuts'.*'advi'"),
    ("method-type", {"method": None}, r"method must.*'nuts'.*None"),
    ("parametrization", {"parametrization": "centered"}, r"parametrization must.*'mixture'.*'centered'"),
    ("exact", {"method": "exact"}, r"method 'exact' needs Gaussian"),
    ("num_samples", {"num_samples": 0}, r"num_samples.*at least 1.*0"),
    ("float num_samples", {"num_samples": 10.5}, r"num_samples.*integer.*10\.5"),
    ("num_warmup", {"num_warmup": -1}, r"num_warmup.*-1"),
    ("num_chains", {"num_chains": 0}, r"num_chains.*0"),
    ("seed", {"seed": -1}, r"seed.*-1"),
    ("seed string", {"seed": "today"}, r"seed.*'today'"),
    ("target_accept_prob", {"target_accept_prob": 1.0}, r"target_accept_prob.*1\.0"),
    ("max_tree_depth", {"max_tree_depth": 0}, r"max_tree_depth.*0"),
]


@pytest.mark.parametrize(("options", "pattern"), by_name(BAD_RUNS))
def test_bad_options_of_sample(options, pattern):
    check(lambda: GLM(regularizer="Ridge").sample(X, Y, progress_bar=False, **options), pattern)


def test_rates_are_refused_by_sample_only():
    rates = Y + 0.5
    check(
        lambda: GLM(regularizer="Ridge").sample(X, rates, progress_bar=False), r"y must hold whole numbers.*7 entries"
    )
    assert GLM(regularizer="Ridge").fit(X, rates).converged_


@pytest.fixture(scope="module")
def fitted():
    return GLM(regularizer="Ridge").fit({"a": pd.DataFrame(A, columns=["u", "v"]), "b": B}, Y)


OTHER_X = [
    ("array", M, r"X must have the structure.*'a', 'b'.*got one array"),
    ("list", [A, B], r"X must have the structure.*'a', 'b'.*got list"),
    ("missing leaf", {"a": A}, r"X must have the structure.*'a', 'b'.*got dict of \['a'\]"),
    ("extra leaf", {**X, "c": A}, r"X must have the structure.*got dict of \['a', 'b', 'c'\]"),
    ("other name", {"a": A, "c": B}, r"X must have the structure.*got dict of \['a', 'c'\]"),
    ("deeper", {"a": [A], "b": B}, r"X must have the structure.*got dict of \['a\.0', 'b'\]"),
    ("width", {"a": A, "b": A}, r"X\['b'\] has 2 features.*3"),
    ("columns", {"a": pd.DataFrame(A, columns=["v", "u"]), "b": B}, r"X\['a'\].*'v', 'u'.*fitted.*'u', 'v'"),
    ("NaN", {"a": A, "b": but(B, np.nan, 0, 0)}, r"X\['b'\] has 1 NaN"),
    ("dimension", {"a": A, "b": B[0]}, r"X\['b'\] must have two dimensions"),
    ("empty", {}, r"X has no features"),
]


@pytest.mark.parametrize(("design", "pattern"), by_name(OTHER_X))
def test_another_X_than_the_model_was_fitted_with(design, pattern, fitted):
    check(lambda: fitted.predict(design), pattern)
    check(lambda: fitted.score(design, Y), pattern)
    check(lambda: fitted.simulate(0, design), pattern)


BAD_CALLS = [
    ("predict offset", lambda m: m.predict(X, offset=np.zeros(3)), r"offset must have shape \(7,\); got \(3,\)"),
    ("score y", lambda m: m.score(X, Y[:3]), r"X and y.*7.*3"),
    ("score negative", lambda m: m.score(X, -Y - 1), r"y must hold numbers >= 0"),
    ("score weights", lambda m: m.score(X, Y, sample_weight=np.ones(3)), r"sample_weight must have shape \(7,\); got"),
    ("negative key", lambda m: m.simulate(-1, X), r"key.*-1"),
    ("string key", lambda m: m.simulate("a", X), r"key.*'a'"),
    ("no key", lambda m: m.simulate(None, X), r"key.*None"),
]


@pytest.mark.parametrize(("call", "pattern"), by_name(BAD_CALLS))
def test_bad_calls_of_a_fitted_model(call, pattern, fitted):
    assert COMPILATIONS  # the fit was noticed
    check(lambda: call(fitted), pattern)


@pytest.mark.parametrize("model", [GLM, PopulationGLM])
def test_an_unfitted_model_says_so(model):
    y = Y if model is GLM else MANY
    for name, data in {"predict": (X,), "score": (X, y), "simulate": (0, X), "numpyro_model": (X, y)}.items():
        check(
            lambda name=name, data=data: getattr(model(), name)(*data), f"{model.__name__}.*not fitted", NotFittedError
        )


def test_a_refused_fit_leaves_the_fitted_model(fitted):
    coef = fitted.coef_["b"].copy()
    check(lambda: fitted.fit(X, -Y - 1), "y must hold")
    np.testing.assert_array_equal(fitted.coef_["b"], coef)


def test_y_in_one_column_is_read_with_a_warning(fitted):
    with pytest.warns(DataConversionWarning, match=r"y.*\(samples, 1\)") as caught:
        model = GLM(regularizer="Ridge").fit({"a": pd.DataFrame(A, columns=["u", "v"]), "b": B}, Y[:, None])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(model.coef_["b"], fitted.coef_["b"])
    with pytest.warns(DataConversionWarning) as caught:
        model.score(X, Y[:, None])
    assert caught[0].filename == __file__
