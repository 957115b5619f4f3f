"""The seed page's fits against their exact optima."""

import json

import numpy as np
import pytest
from conftest import SEED_FILE

import bayesglm

CASES = json.loads(SEED_FILE.read_text())["cases"]
SMOOTH = {"UnRegularized", "Ridge"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_fit_is_the_exact_optimum(seed, name, dtype):
    case = CASES[name]
    strength = case["regularizer_strength"]
    strength = tuple(strength) if case["strength_is_tuple"] else strength
    model = getattr(bayesglm, case["model"])(regularizer=case["regularizer"], regularizer_strength=strength)
    y = np.stack([seed["y"], 2 * seed["y"]], axis=1) if case["model"] == "PopulationGLM" else seed["y"]
    model.fit({leaf: X.astype(dtype) for leaf, X in seed["X"].items()}, y)
    tolerance = 2e-5 if dtype == np.float32 else 1e-8 if case["regularizer"] in SMOOTH else 1e-7
    for leaf, exact in case["exact"]["coef"].items():
        assert model.coef_[leaf].dtype == dtype
        np.testing.assert_allclose(model.coef_[leaf], exact, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(model.coef_[leaf] == 0, np.array(exact) == 0)
    np.testing.assert_allclose(model.intercept_, case["exact"]["intercept"], rtol=0, atol=tolerance)
    assert model.converged_
