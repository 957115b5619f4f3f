"""Models come back from files as they were, and nothing else does."""

import json
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

import bayesglm
from bayesglm import GLM, PopulationGLM, links
from bayesglm.observation_models import GaussianObservations, NegativeBinomialObservations
from bayesglm.priors import GroupLasso

QUICK = {"method": "laplace", "num_samples": 40, "num_chains": 2, "progress_bar": False}


def same(a, b):
    """Whether two trees of settings or results are equal."""
    if isinstance(a, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b)


MODELS = {
    "array": (GLM, {"regularizer": "Ridge", "regularizer_strength": 0.1}),
    "tree": (GLM, {"regularizer": "ElasticNet", "regularizer_strength": ({"a": 0.1, "b": [0.1, 0.2]}, 0.3)}),
    "population": (PopulationGLM, {"regularizer": "Lasso", "feature_mask": [[1, 1], [0, 1], [1, 1]]}),
    "mask": (GLM, {"regularizer": GroupLasso(np.array([[1, 1, 0], [0, 0, 1]])), "regularizer_strength": [0.1, 0.2]}),
    "parameter": (GLM, {"observation_model": NegativeBinomialObservations(0.5), "solver_kwargs": {"tol": 1e-8}}),
    "variance": (GLM, {"observation_model": GaussianObservations(dist.Exponential(1.0)), "regularizer": "Ridge"}),
    "function": (GLM, {"inverse_link_function": jax.nn.softplus}),
    "link": (GLM, {"inverse_link_function": links.SOFTPLUS}),
    "priors": (GLM, {"regularizer": "Ridge", "intercept_prior": dist.Normal(0.0, 2.0)}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fitted_model_comes_back(name, rng, tmp_path):
    kind, settings = MODELS[name]
    X = rng.normal(size=(80, 3))
    y = rng.poisson(1.0, size=(80, 2) if kind is PopulationGLM else 80)
    X = {"a": X[:, :1], "b": X[:, 1:]} if name == "tree" else X
    model = kind(**settings).fit(X, y)
    path = tmp_path / "model.zip"
    bayesglm.save(model, path)
    back = bayesglm.load(path)
    assert type(back) is kind
    for attribute in ("coef_", "intercept_", "scale_", "dof_resid_", "n_iter_", "converged_", "regularizer_strength_"):
        assert same(getattr(model, attribute), getattr(back, attribute)), attribute
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    pd.testing.assert_frame_equal(back.prior_summary(X), model.prior_summary(X))
    np.testing.assert_array_equal(back.fit(X, y).intercept_, model.intercept_)


def test_a_posterior_comes_back(rng, tmp_path):
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["dose", "age"])
    y = frame["dose"].to_numpy() + rng.normal(size=60)
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1)
    tree = model.sample(frame, y, **QUICK)
    bayesglm.save(model, tmp_path / "model")
    back = bayesglm.load(tmp_path / "model")
    assert back.feature_names_in_.tolist() == ["dose", "age"]
    assert set(back.posterior_.children) == set(tree.children)
    for name, group in tree.children.items():
        found = back.posterior_[name].to_dataset()
        assert found.identical(group.to_dataset().assign_attrs(found.attrs)), name
        assert list(found.attrs) == list(group.attrs)
    import arviz as az

    pd.testing.assert_frame_equal(az.summary(back.posterior_), az.summary(tree))
    new = back.posterior_predictive(frame, seed=3).predictions["y"]
    np.testing.assert_array_equal(new, model.posterior_predictive(frame, seed=3).predictions["y"])


def test_random_strengths_come_back(rng, tmp_path):
    X = {"a": rng.normal(size=(60, 2)), "b": rng.normal(size=(60, 2))}
    model = GLM(
        regularizer="Ridge",
        regularizer_strength={"a": "learn", "b": dist.HalfNormal(1.0)},
        intercept_prior=dist.Normal(),
    )
    model.sample(X, rng.poisson(1.0, size=60), num_samples=800, num_chains=1, progress_bar=False)
    bayesglm.save(model, tmp_path / "model")
    back = bayesglm.load(tmp_path / "model")
    assert same(back.regularizer_strength_, model.regularizer_strength_)
    np.testing.assert_array_equal(
        back.prior_predictive(X, num_samples=50).prior_predictive["y"],
        model.prior_predictive(X, num_samples=50).prior_predictive["y"],
    )


def test_a_distribution_that_comes_twice_stays_one(tmp_path):
    shared = dist.HalfNormal(2.0)
    bayesglm.save(GLM(regularizer="Ridge", regularizer_strength={"a": shared, "b": shared}), tmp_path / "model")
    back = bayesglm.load(tmp_path / "model").regularizer_strength
    assert back["a"] is back["b"]
    assert back["a"].scale == 2.0


def test_an_unfitted_model_comes_back(tmp_path):
    model = GLM(regularizer="Lasso", regularizer_strength=(0.1, [np.float32(0.2), float("inf")]))
    bayesglm.save(model, tmp_path / "model")
    assert str(bayesglm.load(tmp_path / "model").get_params()) == str(
        model.get_params() | {"regularizer_strength": (0.1, [0.20000000298023224, float("inf")])}
    )


def test_links_of_ones_own_are_handed_over(rng, tmp_path):
    def steep(eta):
        return jax.numpy.exp(2 * eta)

    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, size=60)
    model = GLM(inverse_link_function=steep).fit(X, y)
    bayesglm.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=r"function of its user, .*steep: hand it over"):
        bayesglm.load(tmp_path / "model")
    back = bayesglm.load(tmp_path / "model", inverse_link_function=steep)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    link = links.Link("steep", steep)
    bayesglm.save(GLM(inverse_link_function=link).fit(X, y), tmp_path / "model")
    for same_link in (link, steep):
        back = bayesglm.load(tmp_path / "model", inverse_link_function=same_link)
        np.testing.assert_array_equal(back.predict(X), model.predict(X))


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    (tmp_path / "other").touch()
    bayesglm.save(GLM(), tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_file_can_be_read_by_people(rng, tmp_path):
    model = GLM(regularizer="Ridge", regularizer_strength={"f": 0.5}).fit({"f": np.eye(9)}, np.arange(9))
    bayesglm.save(model, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        content = json.loads(archive.read("model.json"))
        assert content["settings"]["regularizer_strength"] == {"dict": [["f", 0.5]]}
        arrays = {name: np.load(archive.open(name)) for name in archive.namelist() if name.endswith(".npy")}
    place = content["fit"]["coef_"]["dict"][0][1]
    assert (place["of"], place["shape"]) == ("coef_['f']", [9])
    np.testing.assert_array_equal(arrays[place["array"]], model.coef_["f"])


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


def test_what_cannot_be_saved_is_told_and_leaves_no_file(rng, tmp_path):
    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, size=60)
    path = tmp_path / "model"
    with pytest.raises(ValueError, match="is a Pair, which cannot be saved"):
        bayesglm.save(GLM().fit(Pair(X, X[:, :1] ** 2), y), path)
    with pytest.raises(ValueError, match="intercept_prior is a Independent|intercept_prior is a Expanded"):
        bayesglm.save(GLM(intercept_prior=dist.Normal(0, 1).expand([2])), path)
    for made_of_others in (dist.TruncatedNormal(0.0, 1.0, low=0.0), dist.FoldedDistribution(dist.Normal(0.0, 1.0))):
        with pytest.raises(ValueError, match="regularizer_strength is a .*, which cannot be saved"):
            bayesglm.save(GLM(regularizer="Ridge", regularizer_strength=made_of_others), path)
    with pytest.raises(ValueError, match="model must be a GLM, PopulationGLM or ClassifierGLM; got dict"):
        bayesglm.save({}, path)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_wrong_newer_or_damaged_are_told(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="model cannot be loaded: is it one that `save` wrote"):
        bayesglm.load(path)
    with pytest.raises(FileNotFoundError):
        bayesglm.load(tmp_path / "none")
    bayesglm.save(GLM(), path)
    with zipfile.ZipFile(path) as archive:
        content = json.loads(archive.read("model.json"))

    def write(**changes):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.json", json.dumps(content | changes))

    write(format_version=9)
    with pytest.raises(ValueError, match="format version 9, and this version of bayesglm reads up to 1"):
        bayesglm.load(path)
    write(format="photos")
    with pytest.raises(ValueError, match="not a file that `save` wrote"):
        bayesglm.load(path)
    write(settings={"regularizer": {"call": "os.system"}})
    with pytest.raises(ValueError, match="'call', which this version"):
        bayesglm.load(path)
    for damage in ({"record": "Popen", "fields": {}}, {"array": "arrays/0.npy"}, {}, {"dict": [[1]]}):
        write(settings={"regularizer_strength": damage})
        with pytest.raises(ValueError, match="model cannot be loaded: "):
            bayesglm.load(path)
    for name in ("__class__", "predict", "covariance_"):
        write(fit=content["fit"] | {"spec_": 0, "coef_": 0, "intercept_": 0, "scale_": 0, "dof_resid_": 0, name: "x"})
        with pytest.raises(ValueError, match=f"it has '{name}' as a part of the fit, which is none"):
            bayesglm.load(path)
    write(settings={"inverse_link_function": {"function": ["jax.numpy", "__loader__"]}})
    with pytest.raises(ValueError, match="'__loader__', which this version"):
        bayesglm.load(path)
    write(fit={"coef_": 3})
    with pytest.raises(ValueError, match="parts of the fit are missing"):
        bayesglm.load(path)
    write(settings={"intercept_prior": {"distribution": "kl_divergence", "module": "numpyro", "number": 0,
                                        "parameters": {}}})  # fmt: skip
    with pytest.raises(ValueError, match="'kl_divergence', which this version"):
        bayesglm.load(path)
