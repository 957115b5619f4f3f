"""One run of one sampler in a process of its own: ``python sampling_jobs.py CASE SAMPLER WARMUP DRAWS DTYPE ANSWER``.

Makes the data, samples twice with different seeds, and writes the draws of the second run and the times of both. Runs
in the environment of the package that is timed, so it needs NumPy and that package only.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

CHAINS = 4


def correlated(rng, n, p, correlation=0.5):
    """Features of mean zero and variance one, each correlated with the one before."""
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    return X


def bumps(rng, n, p, width):
    """Raised cosines that overlap, of a signal between 0 and 1: neighbours are nearly collinear."""
    distance = (rng.random(n)[:, None] - np.linspace(0, 1, p)) * (p - 1) / width
    return 0.5 * (1 + np.cos(np.clip(distance, -1, 1) * np.pi))


def make(case):
    """Data and model of a case: family, regularizer, strength, X, y."""
    rng = np.random.default_rng(7)
    if case == "logistic":
        X = correlated(rng, 10_000, 50)
        y = rng.random(len(X)) < 1 / (1 + np.exp(-X @ rng.normal(size=50) * 0.3))
        return "Bernoulli", "Ridge", 1e-3, X, y.astype(float)
    if case == "poisson-lasso":
        X = correlated(rng, 5_000, 40)
        coef = 0.15 * rng.normal(size=40) * (rng.random(40) < 0.3)
        return "Poisson", "Lasso", 0.005, X, rng.poisson(np.exp(X @ coef)).astype(float)
    if case == "bumps":
        X = bumps(rng, 20_000, 60, 20.3)
        eta = np.sin(6 * X @ np.linspace(0, 1, 60) / X.sum(1)) - 0.5
        return "Poisson", "Ridge", 1e-6, X, rng.poisson(np.exp(eta)).astype(float)
    if case in ("gaussian-square", "gaussian-wide"):
        X = correlated(rng, 2_000, 2_000 if case == "gaussian-square" else 11_983)
        y = X @ rng.normal(size=X.shape[1]) * 0.05 + rng.normal(size=2_000)
        return "Gaussian", "Ridge", 0.5, X, y
    if case == "logistic-wide":
        X = correlated(rng, 60, 100)
        y = rng.random(60) < 1 / (1 + np.exp(-X[:, :5].sum(1)))
        return "Bernoulli", "Lasso", 0.02, X, y.astype(float)
    if case == "population":
        X = correlated(rng, 5_000, 30)
        y = rng.poisson(np.exp(X @ rng.normal(size=(30, 100)) * 0.1))
        return "Poisson", "Ridge", np.geomspace(1e-3, 1e-1, 100), X, y.astype(float)
    X = rng.normal(size=(500, 7))
    return "Poisson", "Ridge", 0.1, X, rng.poisson(np.exp(0.5 * X[:, 0])).astype(float)


def with_bayesglm(method, family, regularizer, strength, X, y, warmup, draws):
    """Sampler of `method`; a population for y of several columns."""
    from bayesglm import GLM, PopulationGLM

    options = {"log_likelihood": False, "posterior_predictive": False, "progress_bar": False}
    options |= {"num_warmup": warmup, "num_samples": draws, "num_chains": CHAINS, "method": method}
    if y.ndim == 2:
        model = PopulationGLM(family, regularizer=regularizer, regularizer_strength=strength[None])
    else:
        model = GLM(family, regularizer=regularizer, regularizer_strength=float(strength))

    def sample(seed):
        tree = model.sample(X, y, seed=seed, **options)
        facts = {"sampler": tree.sample_stats.attrs["sampler"]}
        facts |= {name: value for name, value in tree.sample_stats.attrs.items() if name.startswith(("par", "imp"))}
        if "n_steps" in tree.sample_stats:
            facts["steps"] = float(tree.sample_stats["n_steps"].mean())
            facts["divergences"] = int(tree.sample_stats["diverging"].sum())
        return tree.posterior["coef"].values, facts

    return sample


def log_density_of(family, regularizer, strength, X, y):
    """Log posterior density of (coef, intercept[, log sigma]) as a user would write it in JAX."""
    import jax
    import jax.numpy as jnp

    k = len(y)

    def log_density(position):
        eta = position["intercept"] + X @ position["coef"]
        if family == "Bernoulli":
            log_prob = jnp.sum(y * eta - jax.nn.softplus(eta))
        elif family == "Poisson":
            log_prob = jnp.sum(y * eta - jnp.exp(eta))
        else:
            log_sigma = position["log_sigma"]
            log_prob = -0.5 * jnp.sum((y - eta) ** 2) * jnp.exp(-2 * log_sigma) - len(y) * log_sigma
            log_prob += log_sigma - 2.5 * jnp.log1p((jnp.exp(log_sigma) / y.std()) ** 2 / 4)
        if regularizer == "Ridge":
            return log_prob - 0.5 * k * strength * jnp.sum(position["coef"] ** 2)
        return log_prob - k * strength * jnp.sum(jnp.abs(position["coef"]))

    return log_density


def with_blackjax(family, regularizer, strength, X, y, warmup, draws):
    """BlackJAX's NUTS with its window adaptation, chains vectorized, compiled once."""
    import blackjax
    import jax
    import jax.numpy as jnp

    log_density = log_density_of(family, regularizer, strength, jnp.asarray(X), jnp.asarray(y))
    start = {"coef": jnp.zeros(X.shape[1], X.dtype), "intercept": jnp.zeros((), X.dtype)}
    if family == "Gaussian":
        start["log_sigma"] = jnp.zeros((), X.dtype)

    @jax.jit
    def run(key):
        def chain(key):
            first, warm, key = jax.random.split(key, 3)
            leaves, tree = jax.tree.flatten(start)
            keys = jax.random.split(first, len(leaves))
            pairs = zip(leaves, keys, strict=True)
            position = [leaf + 0.1 * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in pairs]
            adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
            (state, parameters), _ = adaptation.run(warm, tree.unflatten(position), num_steps=warmup)
            kernel = blackjax.nuts(log_density, **parameters).step

            def step(state, key):
                state, info = kernel(key, state)
                return state, (state.position["coef"], info.num_integration_steps, info.is_divergent)

            return jax.lax.scan(step, state, jax.random.split(key, draws))[1]

        return jax.vmap(chain)(jax.random.split(key, CHAINS))

    def sample(seed):
        coef, steps, divergent = jax.block_until_ready(run(jax.random.key(seed)))
        return np.asarray(coef), {"steps": float(np.mean(steps)), "divergences": int(np.sum(divergent))}

    return sample


def with_numpyro(family, regularizer, strength, X, y, warmup, draws):
    """Plain NUTS on the model as a user would write it, chains vectorized."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    rate = len(y) * strength

    def model(X, y):
        p = X.shape[1]
        prior = dist.Normal(0, 1 / np.sqrt(rate)) if regularizer == "Ridge" else dist.Laplace(0, 1 / rate)
        coef = numpyro.sample("coef", prior.expand([p]).to_event(1))
        intercept = numpyro.sample("intercept", dist.ImproperUniform(dist.constraints.real, (), ()))
        eta = intercept + X @ coef
        if family == "Bernoulli":
            numpyro.sample("y", dist.Bernoulli(logits=eta), obs=y)
        elif family == "Poisson":
            numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=y)
        else:
            sigma = numpyro.sample("sigma", dist.HalfNormal(np.std(y)))
            numpyro.sample("y", dist.Normal(eta, sigma), obs=y)

    mcmc = MCMC(
        NUTS(model), num_warmup=warmup, num_samples=draws, num_chains=CHAINS, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    X, y = jnp.asarray(X), jnp.asarray(y)

    def sample(seed):
        mcmc.run(jax.random.key(seed), X, y, extra_fields=("num_steps", "diverging"))
        coef = np.asarray(mcmc.get_samples(group_by_chain=True)["coef"])
        extra = mcmc.get_extra_fields()
        return coef, {"steps": float(extra["num_steps"].mean()), "divergences": int(extra["diverging"].sum())}

    return sample


def compiling_seconds():
    """Function that returns how long JAX has traced, lowered and compiled so far."""
    from jax import monitoring

    total = [0.0]

    def listen(event, duration, **_):
        if "compile" in event or "trace" in event or "lower" in event or "mlir" in event:
            total[0] += duration

    monitoring.register_event_duration_secs_listener(listen)
    return lambda: total[0]


def peak_memory():
    """Largest resident memory of this process so far, in MB; what getrusage says counts the parent's as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main():
    case, sampler, warmup, draws, dtype, answer = sys.argv[1:]
    began = time.perf_counter()
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    family, regularizer, strength, X, y = make(case)
    X, y = X.astype(dtype), y.astype(dtype)
    if sampler == "numpyro-loop" or sampler == "bayesglm-loop":
        X, y, strength = X, y[:, 0], strength[0]
    before = peak_memory()
    arguments = family, regularizer, strength, X, y, None if warmup == "default" else int(warmup), int(draws)
    compiling = compiling_seconds()
    start = time.perf_counter()
    if sampler.startswith("bayesglm"):
        method = sampler.partition(" ")[2] or "auto"
        sample = with_bayesglm(method, *arguments)
    else:
        sample = {"numpyro": with_numpyro, "numpyro-loop": with_numpyro, "blackjax": with_blackjax}[sampler](*arguments)
    sample(0)
    first = time.perf_counter() - start
    compiled, start = compiling(), time.perf_counter()
    coef, facts = sample(1)
    second = time.perf_counter() - start
    facts |= {"first": first, "running": second - (compiling() - compiled), "second": second}
    facts["memory"] = peak_memory() - before
    facts["process"] = time.perf_counter() - began
    np.savez(answer, coef=coef[..., :3] if coef.size > 50_000_000 else coef, facts=json.dumps(facts))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity") and "CORE" in os.environ:
        os.sched_setaffinity(0, {int(os.environ["CORE"])})
    main()
