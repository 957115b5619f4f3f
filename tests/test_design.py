"""X, y and weights as users hand them over: what they may be, what comes back, and what stays untouched."""

import copy
import pickle
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from bayesglm import GLM, ClassifierGLM, Design, PopulationGLM, links, load, save
from bayesglm._design import read_design
from bayesglm._strength import read_groups

# Every design below has this shape, so that all fits of one prior and family share one compilation.
N = 12
RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 3))
M = np.hstack([A, B])
Y = RNG.poisson(np.exp(0.5 * M[:, 0] - 0.4 * M[:, 4] + 0.5))
REAL = M @ [0.5, 0.0, -0.2, 0.1, 0.3] + RNG.normal(size=N)
OFFSET = 0.3 * RNG.normal(size=N)
WEIGHT = np.array([2, 0, 1, 1, 3, 1, 0, 1, 1, 1, 0, 1])  # sums to N: rows repeated so often have M's shape


class Pair(NamedTuple):
    a: object
    b: object


class OnlyArray:
    """An object that NumPy can read, and nothing else."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def ridge(family="Poisson", **arguments):
    return GLM(family, **{"regularizer": "Ridge", "regularizer_strength": 0.1, **arguments})


def flat(model):
    """All coefficients and the intercept as one array."""
    return np.concatenate([*jax.tree.leaves(model.coef_), model.intercept_])


@pytest.fixture(scope="module")
def reference():
    return ridge().fit(M, Y)


ONE_ARRAY = {
    "array": M,
    "fortran order": np.asfortranarray(M),
    "strided": np.repeat(np.repeat(M, 2, axis=0), 2, axis=1)[::2, ::2],
    "reversed": M[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only(M),
    "big-endian": M.astype(">f8"),
    "list of rows": M.tolist(),
    "tuple of rows": tuple(map(tuple, M.tolist())),
    "list of row arrays": list(M),
    "only __array__": OnlyArray(M),
    "frame": pd.DataFrame(M, columns=list("vwxyz"), index=np.arange(N)[::-1]),
    "frame, integer names": pd.DataFrame(M),
    "frame, nullable": pd.DataFrame(M).astype("Float64"),
}
CONTAINERS = {
    "dict": ({"a": A, "b": B}, ["a", "b"]),
    "dict in another order": ({"b": B, "a": A}, ["a", "b"]),
    "dict of frames": ({"a": pd.DataFrame(A), "b": pd.DataFrame(B)}, ["a", "b"]),
    "dict of anything": ({"a": A.tolist(), "b": OnlyArray(B)}, ["a", "b"]),
    "integer keys": ({2: A, 10: B}, ["2", "10"]),
    "dotted keys": ({"a.b": A, "c/d": B}, ["a.b", "c.d"]),
    "empty key": ({"": A, "b": B}, ["", "b"]),
    "OrderedDict": (OrderedDict(z=A, a=B), ["z", "a"]),
    "defaultdict": (defaultdict(list, b=B, a=A), ["a", "b"]),
    "list": ([A, B], ["0", "1"]),
    "tuple": ((A, B), ["0", "1"]),
    "list of lists of rows": ([A.tolist(), B.tolist()], ["0", "1"]),
    "list of one": ([M], ["0"]),
    "NamedTuple": (Pair(A, B), ["a", "b"]),
    "list of dicts": ([{"q": A}, {"q": B}], ["0.q", "1.q"]),
    "nested": ({"a": [A, {"c": B[:, :1]}], "z": (Pair(B[:, 1:2], B[:, 2:]),)}, ["a.0", "a.1.c", "z.0.a", "z.0.b"]),
}


@pytest.mark.parametrize("name", ONE_ARRAY)
def test_one_array(name, reference):
    X = ONE_ARRAY[name]
    model = ridge().fit(X, Y)
    assert type(model.coef_) is np.ndarray
    np.testing.assert_allclose(flat(model), flat(reference), rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.predict(X), reference.predict(M), rtol=1e-12)


@pytest.mark.parametrize("name", CONTAINERS)
def test_coefficients_come_back_in_the_container_of_X(name, reference):
    X, names = CONTAINERS[name]
    model = ridge().fit(X, Y)
    layout = read_design(X)[1]
    assert list(layout.names) == names
    assert type(model.coef_) is type(X)
    assert jax.tree.structure(model.coef_) == layout.treedef
    assert all(type(leaf) is np.ndarray and leaf.ndim == 1 for leaf in jax.tree.leaves(model.coef_))
    np.testing.assert_array_equal(flat(model), flat(reference))
    np.testing.assert_array_equal(model.predict(X), reference.predict(M))


def test_one_key_that_is_the_empty_string_is_still_a_container():
    X = {"": A}
    assert not read_design(X)[1].is_array


def test_columns_of_a_frame():
    frame = pd.DataFrame({"x": [1.5, 2, 3], "count": [1, 2, 3], "on": [True, False, True]})
    matrix, layout = read_design({"f": frame, "a": np.ones((3, 1))})
    np.testing.assert_array_equal(matrix, [[1, 1.5, 1, 1], [1, 2, 2, 0], [1, 3, 3, 1]])
    assert layout.columns == (None, ("x", "count", "on"))
    assert matrix.dtype == np.float64


F32, F64, F16 = np.float32, np.float64, np.float16
DTYPES = [
    ([F32], F32), ([F64], F64), ([F16], F64), ([int], F64), ([np.int8], F64), ([np.uint64], F64), ([bool], F64),
    ([F32, F32], F32), ([F32, F64], F64), ([F32, F16], F64), ([F32, int], F64), ([F32, bool], F64),
    ([np.longdouble], F64), ([F16, F16], F64), ([jnp.bfloat16], F64), ([F32, jnp.bfloat16], F64),
]  # fmt: skip


@pytest.mark.parametrize(("dtypes", "expected"), DTYPES)
def test_float32_only_if_every_leaf_is(dtypes, expected):
    leaves = [np.abs(A).astype(dtype) for dtype in dtypes]
    assert read_design(leaves)[0].dtype == expected
    if jnp.bfloat16 not in dtypes:
        assert read_design([pd.DataFrame(leaf) for leaf in leaves])[0].dtype == expected


def test_dtype_of_jax_arrays_and_frames():
    assert read_design(jnp.asarray(A))[0].dtype == np.float32
    assert read_design(pd.DataFrame({"a": np.ones(3, F32), "b": np.ones(3, F32)}))[0].dtype == np.float32
    assert read_design(pd.DataFrame({"a": np.ones(3, F32), "b": np.ones(3, int)}))[0].dtype == np.float64


@pytest.mark.parametrize(("of_x", "of_rest"), [(F32, F64), (F64, F32)])
def test_only_x_decides_the_dtype(of_x, of_rest, reference):
    model = ridge(regularizer_strength=np.full(5, 0.1, of_rest))
    rest = {"sample_weight": np.ones(N, of_rest), "offset": np.zeros(N, of_rest)}
    model.fit(M.astype(of_x), Y.astype(of_rest), **rest)
    assert model.coef_.dtype == model.intercept_.dtype == model.scale_.dtype == of_x
    assert model.predict(M.astype(of_x)).dtype == of_x
    assert model.simulate(0, M.astype(of_x))[1].dtype == of_x
    np.testing.assert_allclose(flat(model), flat(reference), atol=1e-4)


def test_outputs_are_numpy_and_the_x64_flag_stays(reference):
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == jnp.float32
    outputs = [reference.predict(M), *reference.simulate(0, M), reference.score(M, Y)]
    outputs += [value for name, value in vars(reference).items() if name.endswith("_")]
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(outputs))
    with jax.enable_x64(True):
        assert ridge().fit(M.astype(np.float32), Y).coef_.dtype == np.float32
        assert jnp.ones(2).dtype == jnp.float64
    assert jnp.ones(2).dtype == jnp.float32


def test_the_callers_objects_are_not_touched():
    X = {"b": read_only(B), "a": A.tolist()}
    masks = {"a": read_only(np.array([[1.0, 1.0]])), "b": read_only(np.zeros((1, 3)))}
    strength = {"a": np.float32(0.1), "b": [0.1, 0, 2]}
    rest = {"sample_weight": read_only(WEIGHT.astype(float)), "offset": read_only(OFFSET)}
    y = read_only(Y.astype(float))
    arguments = [X, y, rest, masks, strength]
    before = copy.deepcopy(arguments)
    model = ridge(regularizer_strength=strength).fit(X, y, **rest)
    read_groups(masks, read_design(X)[1], ())
    model.predict(X, offset=rest["offset"])
    assert model.regularizer_strength is strength
    assert jax.tree.structure(arguments) == jax.tree.structure(before)
    jax.tree.map(np.testing.assert_array_equal, arguments, before)
    assert list(X) == ["b", "a"]
    X["b"].flags.writeable = True
    coef = copy.deepcopy(model.coef_)
    X["b"][:] = 0
    strength["b"][0] = 100
    jax.tree.map(np.testing.assert_array_equal, model.coef_, coef)


def test_permuting_leaves_permutes_coefficients(reference):
    model = ridge().fit({"a": B, "b": A}, Y)
    np.testing.assert_allclose(flat(model), flat(reference)[[2, 3, 4, 0, 1, 5]], rtol=0, atol=1e-9)


def test_splitting_a_leaf_leaves_the_fit(reference):
    model = ridge().fit({"a": A, "b": B[:, :1], "c": B[:, 1:]}, Y)
    np.testing.assert_array_equal(flat(model), flat(reference))


@pytest.mark.parametrize(("family", "y"), [("Poisson", Y), ("Gaussian", REAL)])
def test_a_weight_is_a_number_of_rows(family, y):
    repeated = ridge(family).fit(np.repeat(M, WEIGHT, axis=0), np.repeat(y, WEIGHT), offset=np.repeat(OFFSET, WEIGHT))
    weighted = ridge(family).fit(M, y, sample_weight=WEIGHT, offset=OFFSET)
    for name in ("coef_", "intercept_", "scale_", "dof_resid_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-8, err_msg=name)
    rescaled = ridge(family).fit(M, y, sample_weight=7 * WEIGHT, offset=OFFSET)
    np.testing.assert_allclose(flat(rescaled), flat(weighted), rtol=1e-8)


@pytest.mark.parametrize("weight", [WEIGHT, np.eye(N)[0], np.eye(N)[:2].sum(0)], ids=["many", "one", "two"])
def test_score_leaves_out_rows_of_weight_zero(weight, reference):
    kept = np.repeat(np.arange(N), weight.astype(int))
    expected = reference.score(M[kept], Y[kept])
    assert np.isfinite(expected)
    np.testing.assert_allclose(reference.score(M, Y, sample_weight=weight), expected, rtol=1e-12)


def test_offset_shifts_the_predictor():
    model = ridge("Gaussian").fit(M, REAL, offset=OFFSET)
    shifted = ridge("Gaussian").fit(M, REAL - OFFSET)
    np.testing.assert_allclose(flat(model), flat(shifted), rtol=1e-9)
    np.testing.assert_allclose(model.predict(M, offset=OFFSET), shifted.predict(M) + OFFSET, rtol=1e-9)


def test_exposure_as_offset_is_a_rate_with_the_exposure_as_weight():
    exposure = np.exp(OFFSET)
    counts = ridge(regularizer_strength=0.1 * exposure.mean()).fit(M, Y, offset=OFFSET)
    rates = ridge().fit(M, Y / exposure, sample_weight=exposure)
    np.testing.assert_allclose(flat(counts), flat(rates), rtol=1e-7)


TARGETS = {
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "int8": Y.astype(np.int8),
    "float32": Y.astype(np.float32),
    "big-endian": Y.astype(">i4"),
    "read-only": read_only(Y),
    "jax": jnp.asarray(Y),
    "only __array__": OnlyArray(Y),
    "series with another index": pd.Series(Y, index=np.arange(N)[::-1]),
    "nullable series": pd.Series(Y, dtype="Int64"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_forms_of_y_and_weights(name, reference):
    model = ridge().fit(M, TARGETS[name])
    np.testing.assert_array_equal(flat(model), flat(reference))
    weighted = ridge().fit(M, Y, sample_weight=TARGETS[name], offset=TARGETS[name])
    expected = ridge().fit(M, Y, sample_weight=Y, offset=Y)
    np.testing.assert_array_equal(flat(weighted), flat(expected))


def test_a_population_of_one_is_a_glm(reference):
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).fit({"a": A, "b": B}, Y[:, None])
    assert model.coef_["b"].shape == (3, 1)
    assert model.intercept_.shape == model.scale_.shape == (1,)
    assert model.predict({"a": A, "b": B}).shape == (N, 1)
    np.testing.assert_allclose(np.concatenate(jax.tree.leaves(model.coef_))[:, 0], reference.coef_, rtol=1e-9)


ROUND_TRIPS = {
    "clone": clone,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("how", ROUND_TRIPS)
@pytest.mark.parametrize("link", [None, "exp", links.EXP, jnp.exp], ids=["default", "name", "Link", "callable"])
def test_copies_predict_the_same(how, link, reference):
    X = Pair(A, B)
    model = ridge(inverse_link_function=link)
    fresh = ROUND_TRIPS[how](model).fit(X, Y)
    np.testing.assert_array_equal(flat(fresh), flat(reference))
    fitted = ROUND_TRIPS[how](fresh)
    if how == "clone":
        assert not any(name.endswith("_") for name in vars(fitted))
    else:
        np.testing.assert_array_equal(fitted.predict(X), reference.predict(M))
        assert type(fitted.coef_) is Pair


@pytest.mark.parametrize("how", ROUND_TRIPS)
@pytest.mark.parametrize("link", [links.EXP, jnp.exp, jax.nn.softplus], ids=["Link", "ufunc", "function"])
def test_copies_keep_the_identity_of_the_link(how, link):
    """A copy of a link would be another function to JAX, and every clone would compile anew."""
    copied = ROUND_TRIPS[how](ridge(inverse_link_function=link))
    assert copied.inverse_link_function is link or copied.inverse_link_function == link


def test_predict_on_new_rows(reference):
    new = np.linspace(-1, 1, 15).reshape(3, 5)
    expected = np.exp(new @ reference.coef_ + reference.intercept_)
    for X in (new, new.tolist(), pd.DataFrame(new, columns=list("vwxyz")), new.astype(">f8")):
        np.testing.assert_allclose(reference.predict(X), expected, rtol=1e-12)
    np.testing.assert_allclose(reference.predict(new[:1], offset=[1.0]), np.e * expected[:1], rtol=1e-12)


def test_fit_returns_self_and_writes_only_names_with_an_underscore():
    model = ridge()
    before = set(vars(model))
    model.posterior_ = "of earlier data"
    assert model.fit(M, Y) is model
    assert not hasattr(model, "posterior_")
    assert all(name.endswith("_") for name in set(vars(model)) - before)


def test_columns_without_information_get_zero():
    model = ridge().fit(np.hstack([A, np.ones((N, 1)), np.zeros((N, 1)), np.full((N, 1), 1e-300)]), Y)
    np.testing.assert_allclose(model.coef_[2:], 0, atol=1e-12)
    assert model.converged_


def test_one_row_and_one_column():
    model = ridge().fit([[2.0]], [3])
    np.testing.assert_allclose(model.predict([[2.0]]), 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_numbers_are_numbers(dtype):
    huge = np.full((4, 2), 0.9 * np.finfo(dtype).max, dtype)
    np.testing.assert_array_equal(read_design(huge)[0], huge)


def frames(kind, X, y):
    """X and y as other libraries hold them."""
    names = [f"cell {i}" for i in range(X.shape[1])]
    if kind == "polars":
        import polars

        return polars.DataFrame(X, schema=names), polars.Series(y)
    if kind == "xarray":
        import xarray

        return xarray.DataArray(X, dims=("time", "cell"), coords={"cell": names}), xarray.DataArray(y, dims="time")
    if kind == "pandas":
        return pd.DataFrame(X, columns=names), pd.Series(y, index=np.arange(len(y))[::-1])
    if kind == "pandas that may lack entries":
        return pd.DataFrame(X, columns=names).convert_dtypes(), pd.Series(y).astype("Int64")
    import pynapple

    columns = {"pynapple": names, "numbered": None, "cells of many": range(7, 7 + 2 * X.shape[1], 2)}[kind]
    times = 0.1 * np.arange(len(y))
    return pynapple.TsdFrame(t=times, d=X, columns=columns), pynapple.Tsd(t=times, d=y)


@pytest.mark.parametrize(
    "kind",
    ["polars", "xarray", "pandas", "pandas that may lack entries", "pynapple", "numbered", "cells of many"],
)
def test_what_other_libraries_hold_is_read_as_arrays(kind, rng):
    X, y = rng.normal(size=(60, 4)), rng.poisson(1.0, size=60)
    frame, targets = frames(kind, X, y)
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    of_array, of_frame = model.fit(X, y), GLM(**model.get_params(deep=False)).fit(frame, targets)
    np.testing.assert_array_equal(of_frame.coef_, of_array.coef_)
    assert type(of_frame.predict(frame)) is np.ndarray
    np.testing.assert_array_equal(of_frame.predict(frame), of_array.predict(X))
    assert of_frame.score(frame, targets) == of_array.score(X, y)
    tree = {"past": frame, "stimulus": X[:, :2]}
    of_tree = GLM(**model.get_params(deep=False)).fit(tree, targets)
    of_arrays = GLM(**model.get_params(deep=False)).fit({"past": X, "stimulus": X[:, :2]}, y)
    np.testing.assert_array_equal(of_tree.coef_["past"], of_arrays.coef_["past"])
    some = Design(tree)[10:30]
    np.testing.assert_array_equal(of_tree.predict(some), of_arrays.predict(tree)[10:30])


def test_groups_of_columns_of_a_polars_frame(rng):
    import polars

    X, y = rng.normal(size=(60, 4)), rng.poisson(1.0, size=60)
    frame = polars.DataFrame(X, schema=list("abcd")).with_columns(polars.lit(y).alias("y"))
    tree = {"first": frame[["a", "b"]], "last": frame[["c", "d"]]}
    model = GLM(regularizer="Ridge", regularizer_strength={"first": 0.1, "last": 1.0}).fit(tree, frame["y"])
    by_hand = GLM(**model.get_params(deep=False)).fit({"first": X[:, :2], "last": X[:, 2:]}, y)
    np.testing.assert_array_equal(model.coef_["last"], by_hand.coef_["last"])
    assert model.spec_.layout.columns == (("a", "b"), ("c", "d"))
    with pytest.raises(ValueError, match=r"X\['last'\] has the columns \['d', 'c'\]"):
        model.predict(tree | {"last": frame[["d", "c"]]})
    lacking = frame.with_columns(polars.when(polars.col("a") > 1.5).then(None).otherwise(polars.col("a")).alias("a"))
    part = GLM(regularizer="Ridge", nan_policy="drop").fit(lacking[["a", "b"]], frame["y"])
    assert part.n_samples_dropped_ == (X[:, 0] > 1.5).sum() > 0
    with pytest.raises(ValueError, match=r"X has \d NaN or infinite entr"):
        GLM().fit(lacking[["a", "b"]], y)


def test_labels_of_strengths_are_names_of_columns(rng):
    frame = pd.DataFrame(rng.normal(size=(80, 3)), columns=list("abc"))
    y = rng.poisson(1.0, size=80)
    by_name = pd.Series({"c": 0.5, "a": 0.0, "b": 0.1})
    model = ridge(regularizer_strength=by_name).fit(frame, y)
    np.testing.assert_array_equal(model.coef_, ridge(regularizer_strength=[0.0, 0.1, 0.5]).fit(frame, y).coef_)
    bounds = pd.Series({"c": True, "b": False, "a": False})
    bounded = GLM("Gaussian", positive=bounds).fit(frame, -frame["c"] - frame["a"])
    assert bounded.coef_[2] == 0
    assert bounded.coef_[0] < 0
    tree = {"x": frame}
    of_leaf = ridge(regularizer_strength={"x": by_name}).fit(tree, y)
    np.testing.assert_array_equal(of_leaf.coef_["x"], model.coef_)
    mask = pd.DataFrame({"one": [1, 0, 1], "two": [1, 1, 0]}, index=list("cab"))
    masked = PopulationGLM(feature_mask=mask, regularizer="Ridge").fit(frame, np.stack([y, y[::-1]], 1))
    np.testing.assert_array_equal(masked.coef_ == 0, [[True, False], [False, True], [False, False]])
    unnamed = pd.Series([0.0, 0.1, 0.5])
    np.testing.assert_array_equal(ridge(regularizer_strength=unnamed).fit(frame, y).coef_, model.coef_)
    with pytest.raises(ValueError, match=r"has the labels \['c', 'a', 'd'\]; X has the columns \['a', 'b', 'c'\]"):
        ridge(regularizer_strength=by_name.rename({"b": "d"})).fit(frame, y)
    with pytest.raises(ValueError, match="A pandas Series gives them by the names of the columns"):
        ridge(regularizer_strength=dict(by_name)).fit(frame, y)


def test_columns_of_objects_are_read_and_categories_refused(rng):
    frame = pd.DataFrame({"a": rng.normal(size=40), "b": rng.integers(0, 2, 40)})
    y = rng.poisson(1.0, size=40)
    np.testing.assert_array_equal(GLM().fit(frame.astype(object), y).coef_, GLM().fit(frame, y).coef_)
    with pytest.raises(ValueError, match="column 'b' is of dtype category: make it numbers"):
        GLM().fit(frame.astype({"b": "category"}), y)


@pytest.mark.parametrize("kind", ["pandas", "polars", "xarray", "pynapple"])
def test_columns_of_y_name_the_outputs(kind, rng, tmp_path):
    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, size=(60, 3))
    names = [f"cell {i}" for i in range(3)]
    frame, _ = frames(kind, y.astype(float), y[:, 0].astype(float))
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=[[0.1, 0.2, 0.3]])
    tree = model.sample(X, frame, num_samples=10, num_chains=1, method="laplace", progress_bar=False)
    assert tree.posterior.coords["output"].values.tolist() == names
    assert tree.sample_stats_output.coords["output"].values.tolist() == names
    assert model.summary().index[:2].tolist() == ["intercept[cell 0]", "coef[cell 0, 0]"]
    assert model.prior_summary().loc["coef", "output"].tolist() == names
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.posterior_predictive(X).predictions.coords["output"].values.tolist() == names
    if kind in ("pandas", "polars"):
        turned = frame[names[::-1]]
        for call in (
            lambda: model.score(X, turned),
            lambda: PopulationGLM().partial_fit(X, frame).partial_fit(X, turned),
        ):
            with pytest.raises(
                ValueError, match=r"y has the columns \['cell 2'.*; the model was fitted with \['cell 0'"
            ):
                call()
    labels = ClassifierGLM("Ridge", 0.1).fit(X, frames(kind, np.minimum(y, 1).astype(float), y[:, 0])[0])
    assert labels.summary().index[0] == "intercept[cell 0, 0.0]"
