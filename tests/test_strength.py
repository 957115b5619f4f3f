"""Every form of regularizer_strength and of GroupLasso's mask, and the numbers that it means."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from bayesglm import GLM, PopulationGLM
from bayesglm._design import read_design
from bayesglm._strength import read_strength
from bayesglm.priors import ElasticNet, GroupLasso, Lasso, Ridge, UnRegularized


class Pair(NamedTuple):
    a: object
    b: object


A, B, C = np.ones((4, 2)), np.ones((4, 3)), np.ones((4, 1))
LAYOUTS = {
    name: read_design(X)[1]
    for name, X in {
        "array": A,
        "one": {"a": A},
        "dict": {"b": B, "a": A},
        "integers": {2: A, 10: B},
        "list": [A, B],
        "tuple": (A, B),
        "named": Pair(A, B),
        "same": [A, A],
        "nested": {"z": [A, {"q": B}], "a": (C,)},  # leaves: a.0, z.0, z.1.q
        "list of dict": [{"q": A}, B],
        "deep": [[A, [B, C]], C],
    }.items()
}


def read(prior, X, strength, outputs=None):
    free = np.ones((LAYOUTS[X].n_features, outputs or 1), bool)
    return read_strength(strength, prior, LAYOUTS[X], free, output_shape=() if outputs is None else (outputs,))


def per(leaf_a, leaf_b):
    """Strengths of two leaves of 2 and 3 features."""
    return np.concatenate([np.full(2, leaf_a), np.full(3, leaf_b)])


# (X, strength, one number per coefficient)
ONE_OUTPUT = [
    ("array", 0.3, 0.3),
    ("array", 2, 2.0),
    ("array", 0, 0.0),
    ("array", True, 1.0),
    ("array", np.float32(0.5), 0.5),
    ("array", np.float16(0.5), 0.5),
    ("array", np.int64(2), 2.0),
    ("array", np.array(0.3), 0.3),
    ("array", np.array(3, np.uint8), 3.0),
    ("array", jnp.asarray(0.5), 0.5),
    ("array", 1e300, 1e300),
    ("array", 1e-300, 1e-300),
    ("array", [0.1, 0.2], [0.1, 0.2]),
    ("array", (1, 2), [1, 2]),
    ("array", [np.array(1.0), 2], [1, 2]),
    ("array", np.array([0.1, 0.2]), [0.1, 0.2]),
    ("array", np.array([0.5, 2], ">f4"), [0.5, 2]),
    ("array", np.array([0.2, 9, 0.1])[::-2], [0.1, 0.2]),
    ("array", jnp.asarray([0.5, 2]), [0.5, 2]),
    ("array", pd.Series([0.1, 0.2], index=[7, 3]), [0.1, 0.2]),
    ("one", 0.3, 0.3),
    ("one", {"a": 0.3}, 0.3),
    ("one", {"a": [0.1, 0.2]}, [0.1, 0.2]),
    ("one", [0.1, 0.2], [0.1, 0.2]),
    ("dict", 0.3, 0.3),
    ("dict", {"a": 0.1, "b": 0.2}, per(0.1, 0.2)),
    ("dict", {"b": 0.2, "a": 0.1}, per(0.1, 0.2)),
    ("dict", {"a": [0.1, 0.2], "b": 0.3}, [0.1, 0.2, 0.3, 0.3, 0.3]),
    ("dict", {"a": np.int64(1), "b": np.array([1, 2, 3])}, [1, 1, 1, 2, 3]),
    ("dict", {"a": (0.1, 0.2), "b": np.array(0.3)}, [0.1, 0.2, 0.3, 0.3, 0.3]),
    ("integers", {10: 0.2, 2: 0.1}, per(0.1, 0.2)),
    *[(X, s, per(0.1, 0.2)) for X in ("list", "tuple", "named") for s in ([0.1, 0.2], (0.1, 0.2), Pair(0.1, 0.2))],
    *[(X, [[0.1, 0.2], 0.3], [0.1, 0.2, 0.3, 0.3, 0.3]) for X in ("list", "tuple", "named")],
    *[(X, (0.1, (0.1, 0.2, 0.3)), [0.1, 0.1, 0.1, 0.2, 0.3]) for X in ("list", "tuple", "named")],
    ("same", [0.1, 0.2], [0.1, 0.1, 0.2, 0.2]),  # a list is the list X
    ("same", np.array([0.1, 0.2]), [0.1, 0.2, 0.1, 0.2]),  # an array is one value for everything below
    ("same", [[0.1, 0.2], [0.3, 0.4]], [0.1, 0.2, 0.3, 0.4]),
    ("nested", 0.3, 0.3),
    ("nested", {"a": 0.1, "z": 0.2}, [0.1, *[0.2] * 5]),
    ("nested", {"a": [0.1], "z": [0.2, 0.3]}, [0.1, 0.2, 0.2, 0.3, 0.3, 0.3]),
    ("nested", {"a": [[0.1]], "z": ([0.2, 0.3], {"q": [0.4, 0.5, 0.6]})}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ("nested", {"a": (np.array([0.1]),), "z": [0.2, {"q": 0.3}]}, [0.1, 0.2, 0.2, 0.3, 0.3, 0.3]),
    ("list of dict", [{"q": 0.1}, 0.2], per(0.1, 0.2)),
    ("list of dict", [0.1, 0.2], per(0.1, 0.2)),
    ("deep", [[0.1, [0.2, [0.3]]], 0.4], [0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.4]),
    ("deep", [[0.1, 0.2], 0.4], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.4]),
]
GRID = np.arange(6.0).reshape(2, 3)
# (X, strength, one number per coefficient and output) for three outputs
THREE_OUTPUTS = [
    ("array", 0.3, 0.3),
    ("array", np.float32(0.5), 0.5),
    ("array", [0.1, 0.2], [[0.1] * 3, [0.2] * 3]),
    ("array", [[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]] * 2),
    ("array", [[0.1], [0.2]], [[0.1] * 3, [0.2] * 3]),
    ("array", GRID, GRID),
    ("array", GRID.tolist(), GRID),
    ("array", np.asfortranarray(GRID), GRID),
    ("array", pd.DataFrame(GRID, columns=list("abc")), GRID),
    ("one", {"a": GRID}, GRID),
    ("dict", {"a": 0.1, "b": 0.2}, np.tile(per(0.1, 0.2)[:, None], 3)),
    ("dict", np.array([[0.1, 0.2, 0.3]]), [[0.1, 0.2, 0.3]] * 5),
    ("dict", [[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]] * 5),
    ("dict", {"a": GRID, "b": [1, 2, 3]}, np.vstack([GRID, [[1] * 3, [2] * 3, [3] * 3]])),
    ("dict", {"a": [0.1, 0.2], "b": [[1, 2, 3]]}, [[0.1] * 3, [0.2] * 3, [1, 2, 3], [1, 2, 3], [1, 2, 3]]),
    ("tuple", [0.1, [[1], [2], [3]]], [[0.1] * 3, [0.1] * 3, [1] * 3, [2] * 3, [3] * 3]),
    ("nested", {"a": [[[1, 2, 3]]], "z": 0.2}, [[1, 2, 3], *[[0.2] * 3] * 5]),
]
SEPARABLE = {"Ridge": Ridge(), "Lasso": Lasso(), "ElasticNet": ElasticNet()}


@pytest.mark.parametrize("prior", SEPARABLE)
@pytest.mark.parametrize(
    ("X", "strength", "expected", "outputs"),
    [(*case, None) for case in ONE_OUTPUT] + [(*case, 3) for case in THREE_OUTPUTS],
)
def test_strength_per_coefficient(prior, X, strength, expected, outputs):
    expected = np.asarray(expected, float)
    expected = expected[:, None] if expected.ndim == 1 else expected
    shape = LAYOUTS[X].n_features, outputs or 1
    expected = np.broadcast_to(expected, shape)
    if prior == "ElasticNet":
        # A plain tuple at the root is always (strength, ratio).
        if type(strength) is not tuple:
            size, ratio = read(ElasticNet(), X, strength, outputs)
            np.testing.assert_array_equal(size, expected)
            np.testing.assert_array_equal(ratio, np.full(shape, 0.5))
        size, ratio = read(ElasticNet(), X, (strength, 0.25), outputs)
        np.testing.assert_array_equal(size, expected)
        np.testing.assert_array_equal(ratio, np.full(shape, 0.25))
        return
    result = read(SEPARABLE[prior], X, strength, outputs)
    assert result.shape == shape
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("outputs", [None, 1, 2])
def test_one_dimension_is_per_coefficient_also_if_there_are_as_many_outputs(outputs):
    np.testing.assert_array_equal(
        read(Ridge(), "array", [0.1, 0.2], outputs), [[0.1] * (outputs or 1), [0.2] * (outputs or 1)]
    )
    if outputs == 2:
        np.testing.assert_array_equal(read(Ridge(), "array", [[0.1, 0.2]], 2), [[0.1, 0.2]] * 2)


@pytest.mark.parametrize("X", LAYOUTS)
def test_defaults(X):
    p = LAYOUTS[X].n_features
    np.testing.assert_array_equal(read(Ridge(), X, None), np.ones((p, 1)))
    np.testing.assert_array_equal(read(Lasso(), X, None), np.ones((p, 1)))
    np.testing.assert_array_equal(read(ElasticNet(), X, None), (np.ones((p, 1)), np.full((p, 1), 0.5)))
    np.testing.assert_array_equal(read(UnRegularized(), X, None), np.zeros((p, 1)))
    rate, groups = read(GroupLasso(), X, None)
    np.testing.assert_array_equal(rate, np.sqrt(LAYOUTS[X].widths))
    np.testing.assert_array_equal(groups[:, 0], np.repeat(np.arange(len(rate)), LAYOUTS[X].widths))


# (X, outputs, strength as given, strength, ratio)
ELASTIC_NET = [
    ("array", None, (0.1, 0.2), 0.1, 0.2),
    ("array", None, (1, 1), 1, 1),
    ("array", None, (0.1, np.float32(0.5)), 0.1, 0.5),
    ("array", None, [0.1, 0.2], [0.1, 0.2], 0.5),
    ("array", None, ((0.1, 0.2), 0.3), [0.1, 0.2], 0.3),
    ("array", None, (0.3, [0.1, 0.2]), 0.3, [0.1, 0.2]),
    ("array", None, ([0.1, 0.2], np.array([0.3, 0.4])), [0.1, 0.2], [0.3, 0.4]),
    ("dict", None, (0.1, 0.2), 0.1, 0.2),
    ("dict", None, {"a": 0.1, "b": 0.2}, per(0.1, 0.2), 0.5),
    ("dict", None, {"a": (0.1, 0.2), "b": 0.3}, [0.1, 0.2, 0.3, 0.3, 0.3], 0.5),  # below the root a tuple is a list
    ("dict", None, ({"a": 0.1, "b": 0.2}, 0.3), per(0.1, 0.2), 0.3),
    ("dict", None, (0.1, {"b": 0.2, "a": 0.3}), 0.1, per(0.3, 0.2)),
    (
        "dict",
        None,
        ({"a": [0.1, 0.2], "b": 0.3}, {"a": 1, "b": [0.4, 0.5, 0.6]}),
        [0.1, 0.2, 0.3, 0.3, 0.3],
        [1, 1, 0.4, 0.5, 0.6],
    ),
    ("dict", None, (0, {"a": 0.3, "b": 1.0}), 0, per(0.3, 1.0)),
    *[(X, None, (0.1, 0.2), 0.1, 0.2) for X in ("list", "tuple", "named")],
    *[(X, None, [0.1, 0.2], per(0.1, 0.2), 0.5) for X in ("list", "tuple", "named")],
    *[(X, None, Pair(0.1, 0.2), per(0.1, 0.2), 0.5) for X in ("list", "tuple", "named")],
    *[(X, None, ((0.1, 0.2), 0.5), per(0.1, 0.2), 0.5) for X in ("list", "tuple", "named")],
    *[(X, None, (0.5, [0.3, 0.4]), 0.5, per(0.3, 0.4)) for X in ("list", "tuple", "named")],
    *[(X, None, (Pair(0.1, 0.2), (0.3, 0.4)), per(0.1, 0.2), per(0.3, 0.4)) for X in ("list", "tuple", "named")],
    (
        "nested",
        None,
        ({"a": 0.1, "z": 0.2}, {"a": 0.3, "z": [0.4, 0.5]}),
        [0.1, *[0.2] * 5],
        [0.3, 0.4, 0.4, *[0.5] * 3],
    ),
    ("array", 3, (0.1, [[0.2, 0.3, 0.4]]), 0.1, [[0.2, 0.3, 0.4]] * 2),
    ("array", 3, ([[0.1], [0.2]], 0.5), [[0.1] * 3, [0.2] * 3], 0.5),
    ("dict", 3, ({"a": GRID, "b": 0.1}, 0.5), np.vstack([GRID, np.full((3, 3), 0.1)]), 0.5),
]


@pytest.mark.parametrize(("X", "outputs", "strength", "size", "ratio"), ELASTIC_NET)
def test_elastic_net_pairs(X, outputs, strength, size, ratio):
    for result, expected in zip(read(ElasticNet(), X, strength, outputs), (size, ratio), strict=True):
        expected = np.asarray(expected, float)
        expected = expected[:, None] if expected.ndim == 1 else expected
        np.testing.assert_array_equal(result, np.broadcast_to(expected, (LAYOUTS[X].n_features, outputs or 1)))


EYE = np.eye(2)
TREE = {"a": EYE, "b": [[1, 0, 0], [0, 1, 1]]}
SPAN = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
CHECKERS = np.stack([np.eye(2, 3), 1 - np.eye(2, 3)])
BY_LEAF = [[0], [0], [1], [1], [1]]
BY_LEAF_AND_OUTPUT = [[0, 1, 2]] * 2 + [[3, 4, 5]] * 3
OF_TREE = [[0], [1], [0], [1], [1]]
# (X, outputs, mask, strength, s_g of each group, group of each coefficient)
GROUPS = [
    # Default groups: one per leaf and output.
    ("array", None, None, 0.3, [0.3], [[0]] * 2),
    ("array", None, None, [0.3], [0.3], [[0]] * 2),
    ("array", 3, None, 0.3, [0.3] * 3, [[0, 1, 2]] * 2),
    ("array", 3, None, [1, 2, 3], [1, 2, 3], [[0, 1, 2]] * 2),
    ("array", 3, None, [[1, 2, 3]], [1, 2, 3], [[0, 1, 2]] * 2),
    ("array", 3, None, np.array([[1, 2, 3]]), [1, 2, 3], [[0, 1, 2]] * 2),
    *[("dict", None, None, s, [0.1, 0.4], BY_LEAF) for s in ([0.1, 0.4], (0.1, 0.4), np.array([0.1, 0.4]))],
    ("dict", None, None, {"b": 0.4, "a": 0.1}, [0.1, 0.4], BY_LEAF),
    ("dict", None, None, {"a": np.array(0.0), "b": 1}, [0, 1], BY_LEAF),
    *[
        (X, None, None, s, [0.1, 0.4], BY_LEAF)
        for X in ("list", "tuple", "named")
        for s in ([0.1, 0.4], Pair(0.1, 0.4))
    ],
    ("dict", 3, None, 0.3, [0.3] * 6, BY_LEAF_AND_OUTPUT),
    ("dict", 3, None, {"a": 0.1, "b": 0.2}, [0.1] * 3 + [0.2] * 3, BY_LEAF_AND_OUTPUT),
    ("dict", 3, None, {"a": [[1, 2, 3]], "b": 4}, [1, 2, 3, 4, 4, 4], BY_LEAF_AND_OUTPUT),
    ("dict", 3, None, np.array([[1, 2, 3]]), [1, 2, 3, 1, 2, 3], BY_LEAF_AND_OUTPUT),
    ("dict", 3, None, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], BY_LEAF_AND_OUTPUT),
    ("tuple", 3, None, [0.1, 0.2], [0.1] * 3 + [0.2] * 3, BY_LEAF_AND_OUTPUT),
    ("tuple", 3, None, ([[1, 2, 3]], 4), [1, 2, 3, 4, 4, 4], BY_LEAF_AND_OUTPUT),
    ("nested", None, None, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], None),
    ("nested", None, None, {"z": [0.1, {"q": 0.2}], "a": 0.3}, [0.3, 0.1, 0.2], None),
    ("nested", None, None, {"z": 0.1, "a": [0.3]}, [0.3, 0.1, 0.1], None),
    ("list of dict", None, None, [{"q": 0.1}, 0.2], [0.1, 0.2], BY_LEAF),
    ("list of dict", None, None, [0.1, 0.2], [0.1, 0.2], BY_LEAF),
    ("deep", None, None, [[0.1, 0.2], 0.3], [0.1, 0.2, 0.2, 0.3], None),
    ("deep", None, None, [[0.1, [0.2, 0.3]], 0.4], [0.1, 0.2, 0.3, 0.4], None),
    # Masks on one array.
    *[("array", None, mask, [1, 2], [1, 2], [[0], [1]]) for mask in (EYE, EYE.tolist(), EYE.astype(bool), jnp.eye(2))],
    ("array", None, EYE, None, [1, 1], [[0], [1]]),
    ("array", None, EYE[::-1], np.array([1, 2]), [1, 2], [[1], [0]]),
    ("array", None, [[1, 0]], 0.5, [0.5], [[0], [1]]),  # the second feature is in no group
    ("array", None, [[1, 1]], [0], [0], [[0], [0]]),
    ("array", 3, np.ones((1, 2, 3)), 0.5, [0.5], [[0] * 3] * 2),
    ("array", 3, CHECKERS, [1, 2], [1, 2], [[0, 1, 1], [1, 0, 1]]),
    # Masks on containers: one group may span leaves.
    ("dict", None, TREE, [0.1, 0.4], [0.1, 0.4], OF_TREE),
    ("dict", None, SPAN, [1, 2], [1, 2], [[0], [1], [2], [0], [2]]),
    ("dict", 3, {"a": np.ones((1, 2, 3)), "b": np.zeros((1, 3, 3))}, 1, [1], [[0] * 3] * 2 + [[1] * 3] * 3),
    *[
        (X, None, container(EYE, TREE["b"]), [0.1, 0.4], [0.1, 0.4], OF_TREE)
        for X in ("list", "tuple", "named")
        for container in (lambda *leaves: list(leaves), lambda *leaves: leaves, Pair)
    ],
    *[(X, None, SPAN, 0.3, [0.3, 0.3], [[0], [1], [2], [0], [2]]) for X in ("list", "tuple", "named")],
    ("nested", None, {"z": [EYE, {"q": TREE["b"]}], "a": (np.zeros((2, 1)),)}, [1, 2], [1, 2], [[2], *OF_TREE]),
]


@pytest.mark.parametrize(("X", "outputs", "mask", "strength", "size", "groups"), GROUPS)
def test_group_lasso(X, outputs, mask, strength, size, groups):
    rate, ids = read(GroupLasso(mask), X, strength, outputs)
    assert ids.shape == (LAYOUTS[X].n_features, outputs or 1)
    if groups is not None:
        np.testing.assert_array_equal(ids, groups)
    members = np.bincount(ids.ravel(), minlength=len(size) + 1)[: len(size)]
    np.testing.assert_allclose(rate, np.asarray(size) * np.sqrt(members), rtol=1e-15)


N = 9
RNG = np.random.default_rng(1)
DATA = {"a": RNG.normal(size=(N, 2)), "b": RNG.normal(size=(N, 3))}
Y = RNG.poisson(1.5, size=N)


def coef(model):
    return np.concatenate([model.coef_["a"], model.coef_["b"]])


def test_forms_of_one_strength_give_one_fit():
    forms = [0.5, np.float32(0.5), np.array(0.5), {"a": 0.5, "b": np.full(3, 0.5)}, {"a": [0.5, 0.5], "b": 0.5}]
    fits = [coef(GLM(regularizer="Ridge", regularizer_strength=form).fit(DATA, Y)) for form in forms]
    for fit in fits:
        np.testing.assert_array_equal(fit, fits[0])


def test_a_strength_reaches_its_coefficient():
    free = coef(GLM(regularizer="Ridge", regularizer_strength=0).fit(DATA, Y))
    for i in range(5):
        strength = np.zeros(5)
        strength[i] = 1e9
        model = GLM(regularizer="Ridge", regularizer_strength={"a": strength[:2], "b": strength[2:]}).fit(DATA, Y)
        assert abs(coef(model)[i]) < 1e-6
        assert (np.abs(np.delete(coef(model), i)) > 1e-3 * np.abs(np.delete(free, i))).all()


def test_a_strength_reaches_its_output():
    strength = {"a": 0.1, "b": [[0.1, 1e9]]}
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=strength).fit(DATA, np.stack([Y, Y], axis=1))
    alone = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(DATA, Y)
    np.testing.assert_allclose(coef(model)[:, 0], coef(alone), rtol=1e-8)
    np.testing.assert_allclose(model.coef_["b"][:, 1], 0, atol=1e-6)
