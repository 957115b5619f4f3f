"""Imports point in one direction, and each heavy library has its own door."""

import ast
import subprocess
import sys
from pathlib import Path

import bayesglm

PACKAGE = Path(bayesglm.__file__).parent
LEVELS = [
    {"_sparse_matrix"},
    {"_groups", "_design", "_warn", "_numpyro", "_exact", "_row_space"},
    {"distributions", "links", "_formula", "_passes", "_targets", "_propriety", "_diagnostics", "_chunks"},
    {"priors", "observation_models", "_quadratic", "_smooth"},
    {"_composite", "_expansion"},
    {"_strength", "_problem", "_map", "_options"},
    {"_sparse_smooth"},
    {"_sparse_composite"},
    {"_posterior", "_working_set"},
    {"_frame", "_model"},
    {"_potential"},
    {"_hmc", "_laplace", "_nuts"},
    {"_fitted", "_draws", "_engines", "_score", "_prior_summary", "_summary"},
    {"_fitting", "_parameters"},
    {"_stream", "_inference_data", "_cross_validation", "_leave_one_out"},
    {"_sampling"},
    {"_evidence"},
    {"_hyperpriors"},
    {"_estimator"},
    {"_incremental"},
    {"_bayesian"},
    {"glm"},
    {"model_selection", "interop", "saving", "_plot_arguments"},
    {"_drawing"},
    {"plots"},
    {"__init__"},
]
DOORS = {
    "sklearn": {
        *(
            "_design",
            "_estimator",
            "_parameters",
            "_incremental",
            "_bayesian",
            "glm",
            "model_selection",
            "_targets",
            "_fitted",
            "_evidence",
            "plots",
        ),
        *("_plot_arguments",),
        "interop",
    },
    "arviz": set(),
    "arviz_base": {"_inference_data"},
    "arviz_stats": {"_laplace"},
    "numpyro.infer": {"_nuts"},
    "scipy": {
        *("_sparse_matrix", "_sparse_smooth", "_design", "_propriety", "_diagnostics", "_row_space", "_expansion"),
        *("_summary", "_drawing"),
    },
    "matplotlib": {"_drawing"},
    "formulaic": {"_formula"},
}
FREE_OF_NUMPYRO = {
    *(
        "_passes",
        "_quadratic",
        "_composite",
        "_smooth",
        "_map",
        "_working_set",
        "_sparse_matrix",
        "_sparse_smooth",
        "_sparse_composite",
        "_design",
        "_targets",
        "_problem",
        "_propriety",
    ),
    *("links", "_groups"),
}


def imports(module):
    """Names of the modules that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names):
    return {name.split(".")[1] for name in names if name.startswith("bayesglm.")} & set().union(*LEVELS)


def test_every_module_has_a_level():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set().union(*LEVELS)
    assert sum(map(len, LEVELS)) == len(set().union(*LEVELS))


def test_imports_point_down():
    for height, level in enumerate(LEVELS):
        below = set().union(*LEVELS[:height])
        for module in level:
            assert own(imports(module)) <= below, (module, own(imports(module)) - below)


def test_heavy_libraries_have_their_doors():
    for library, allowed in DOORS.items():
        users = {
            module
            for module in set().union(*LEVELS)
            if any(name == library or name.startswith(library + ".") for name in imports(module))
        }
        assert users <= allowed, (library, users - allowed)
    for module in FREE_OF_NUMPYRO:
        assert not any(name.startswith("numpyro") for name in imports(module)), module


def test_import_loads_neither_arviz_nor_matplotlib_and_changes_no_flag():
    code = """
import sys, jax
before = jax.config.jax_enable_x64
import bayesglm
assert not {"arviz", "arviz_base", "arviz_stats", "xarray", "matplotlib"} & set(sys.modules), "loaded at import"
import numpy as np
bayesglm.GLM(regularizer="Ridge").fit(np.eye(3), [1, 2, 3])
assert not {"arviz", "arviz_base", "arviz_stats", "matplotlib", "numpyro"} & set(sys.modules), "loaded by fit"
assert jax.config.jax_enable_x64 == before
assert jax.numpy.ones(1).dtype == "float32"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
