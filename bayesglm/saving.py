"""Models to files and back, without pickle: one zip of a readable JSON file and of NumPy's arrays.

Every object is written as what it is made of. A reader looks names up in the tables below, and calls nothing else.
"""

import json
import math
import numbers
import os
import re
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bayesglm import links, observation_models, priors
from bayesglm._design import Layout
from bayesglm._model import Hyper, Spec
from bayesglm._numpyro import dist, is_distribution, own_dist
from bayesglm._posterior import Form
from bayesglm._problem import Outputs
from bayesglm._stream import Memory, Moments
from bayesglm.glm import GLM, ClassifierGLM, PopulationGLM

__all__ = ["load", "save"]

FORMAT, FORMAT_VERSION = "bayesglm model", 1
MODELS: dict[str, type] = {model.__name__: model for model in (GLM, PopulationGLM, ClassifierGLM)}
FAMILIES = {name: getattr(observation_models, name) for name in observation_models.__all__}
PRIORS = {name: getattr(priors, name) for name in priors.__all__}
PRIORS |= {prior.__name__: prior for prior in priors.NONNEGATIVE.values()}
RECORDS: dict[str, type] = (
    FAMILIES
    | PRIORS
    | {"Spec": Spec, "Form": Form, "Hyper": Hyper, "Outputs": Outputs, "Link": links.Link}
    | {"Memory": Memory, "Moments": Moments}
)
PLAIN = (bool, str, type(None))
INDEX = "model.json"


def save(model, path):
    """Write a model to one file: its settings, its fit, and its posterior if it was sampled.

    The file is a zip: ``model.json`` for people to read, and one ``.npy`` for each array. What is not in it: the data
    of the fit, so that `GLM.summary` needs another one, and scikit-learn's requests for the routing of metadata.

    Parameters
    ----------
    model : GLM, PopulationGLM or ClassifierGLM
        Fitted or not.
    path : str or path
        An existing file is replaced once the new one is complete.

    Raises
    ------
    ValueError
        If some part of the model cannot be written: a container of X of the user's own class, a distribution that is
        made of others.
    """
    if type(model) not in MODELS.values():
        raise ValueError(f"model must be a GLM, PopulationGLM or ClassifierGLM; got {type(model).__name__}.")
    path = Path(path)
    writer = _Writer()
    settings = model.get_params(deep=False)
    fit = {
        name: value
        for name, value in vars(model).items()
        if name.endswith("_") and name not in (*settings, "training_data_", "posterior_")
    }
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": type(model).__name__,
        "settings": {name: writer.write(value, name) for name, value in settings.items()},
        "fit": {name: writer.write(value, name) for name, value in fit.items()},
        "posterior": writer.tree(model.posterior_) if "posterior_" in vars(model) else None,
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(INDEX, json.dumps(content, indent=1))
            for name, array in writer.arrays.items():
                with archive.open(name, "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path, *, inverse_link_function=None):
    """Read a model that `save` wrote. No code from the file is run.

    Parameters
    ----------
    path : str or path
    inverse_link_function : callable or Link, optional
        The link of the model, if that is a function of the user's own.

    Returns
    -------
    GLM, PopulationGLM or ClassifierGLM

    Raises
    ------
    ValueError
        If the file is not one that `save` wrote, is damaged, or is of a later version.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_model(archive, inverse_link_function)
        except Exception as error:
            reason = str(error) if type(error) is ValueError else f"is it one that `save` wrote? {error!r}"
            raise ValueError(f"{path} cannot be loaded: {reason}") from error


def _read_model(archive, link):
    content = json.loads(archive.read(INDEX))
    if content.get("format") != FORMAT:
        raise ValueError(f"it is not a file that `save` wrote; its format is {content.get('format')!r}.")
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"it is of format version {content['format_version']}, and this version of bayesglm reads up to "
            f"{FORMAT_VERSION}: upgrade it."
        )
    reader = _Reader(archive, link)
    model = MODELS[content["model"]](**{name: reader.read(value) for name, value in content["settings"].items()})
    fit = {name: reader.read(value) for name, value in content["fit"].items()}
    if fit and not {"spec_", "coef_", "intercept_", "scale_", "dof_resid_"} <= set(fit):
        raise ValueError(f"parts of the fit are missing; there are {list(fit)}.")
    # What nobody but `save` named could be anything.
    wrong = [name for name in fit if not re.fullmatch("[a-z][a-z_]*_", name) or name in dir(type(model))]
    if wrong:
        raise ValueError(f"it has {wrong[0]!r} as a part of the fit, which is none.")
    for name, value in fit.items():
        setattr(model, name, value)
    if content["posterior"] is not None:
        model.posterior_ = reader.tree(content["posterior"])
    return model


class _Writer:
    """Objects to what JSON has; arrays are put aside."""

    def __init__(self):
        self.arrays = {}
        self.distributions = {}

    def write(self, value: Any, label):
        """Write one object; `label` is what an error calls it."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, PLAIN) or (isinstance(value, int | float) and math.isfinite(value)):
            return value
        if isinstance(value, float):
            return {"float": str(value)}
        if isinstance(value, np.ndarray | jax.Array):
            return self.array(np.asarray(value), label)
        if is_distribution(value):
            return self.distribution(value, label)
        if isinstance(value, type) and RECORDS.get(value.__name__) is value:
            return {"class": value.__name__}
        if isinstance(value, links.Link) and links.OWN_LINKS.get(value.name) is value:
            return {"link": value.name}
        if callable(value):
            return _write_function(value, label)
        if isinstance(value, Layout):
            if value.terms is not None:
                raise ValueError(
                    "A model with a formula cannot be saved: its terms are objects of formulaic. Pickle it."
                )
            parts = {"names": value.names, "widths": value.widths, "columns": value.columns}
            return {"layout": self.write({"skeleton": value.skeleton()} | parts, label)}
        if RECORDS.get(type(value).__name__) is type(value):
            record: Any = value
            names = record._fields if isinstance(value, Hyper) else [field.name for field in fields(record)]
            written = {name: self.write(getattr(record, name), f"{label}.{name}") for name in names}
            return {"record": type(value).__name__, "fields": written}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self.write(one, f"{label}[{i}]") for i, one in enumerate(value)]}
        if type(value) is dict:
            pairs = [[self.write(key, label), self.write(one, f"{label}[{key!r}]")] for key, one in value.items()]
            return {"dict": pairs}
        if isinstance(value, numbers.Real):
            return float(value)
        raise ValueError(
            f"{label} is a {type(value).__name__}, which cannot be saved: use dicts, lists, tuples, arrays and numbers."
        )

    def array(self, array, label):
        """Write an array; one of text goes to the JSON file."""
        if array.dtype.kind in "OUT":
            if not all(isinstance(one, str | int | float | np.generic) for one in array.flat):
                raise ValueError(f"{label} is an array of {array.dtype}, which cannot be saved: use numbers or text.")
            entries = [self.write(one, label) for one in array.flat]
            return {"text": entries, "shape": list(array.shape), "object": array.dtype.kind == "O"}
        name = f"arrays/{len(self.arrays)}.npy"
        self.arrays[name] = array
        return {"array": name, "of": label, "shape": list(array.shape)}

    def distribution(self, value, label):
        """Write a distribution of NumPyro; the same object comes back wherever it came twice."""
        number = self.distributions.setdefault(id(value), len(self.distributions))
        if type(value) is dist.TransformedDistribution and all(
            type(step) is dist.transforms.PowerTransform for step in value.transforms
        ):
            powers = [self.write(step.exponent, label) for step in value.transforms]
            return {"powers": powers, "number": number, "base": self.distribution(value.base_dist, label)}
        module = "own" if getattr(own_dist, type(value).__name__, None) is type(value) else "numpyro"
        parameters = {name: getattr(value, name) for name in value.arg_constraints}
        # What a reader would do.
        try:
            twin = getattr(own_dist if module == "own" else dist, type(value).__name__)(**parameters)
            is_same = type(twin) is type(value) and twin.batch_shape == value.batch_shape and bool(parameters)
        except (AttributeError, TypeError, ValueError):
            is_same = False
        if not is_same:
            raise ValueError(
                f"{label} is a {type(value).__name__}, which cannot be saved: of distributions, only those with plain "
                "parameters can, such as HalfNormal."
            )
        written = {name: self.write(parameter, f"{label}.{name}") for name, parameter in parameters.items()}
        return {"distribution": type(value).__name__, "module": module, "number": number, "parameters": written}

    def tree(self, posterior):
        """Write a DataTree."""
        return {
            node.path: {
                "attrs": {name: self.write(_plain(value), name) for name, value in node.attrs.items()},
                "coords": {name: self.variable(one) for name, one in node.to_dataset(inherit=False).coords.items()},
                "data": {name: self.variable(one) for name, one in node.to_dataset(inherit=False).data_vars.items()},
            }
            for node in posterior.subtree
        }

    def variable(self, variable):
        """Write a variable: its dims, values and attributes."""
        attrs = {name: self.write(_plain(value), name) for name, value in variable.attrs.items()}
        return {"dims": list(variable.dims), "values": self.array(variable.values, variable.name), "attrs": attrs}


class _Reader:
    """What JSON has to objects."""

    def __init__(self, archive, link):
        self.archive = archive
        self.link = link
        self.distributions = {}

    def read(self, value) -> Any:
        """Read one object."""
        if not isinstance(value, dict):
            return value
        kind = next(iter(value), None)
        return getattr(self, f"read_{kind}")(value) if kind in KINDS else self._unknown(kind)

    @staticmethod
    def _unknown(kind):
        raise ValueError(f"The file holds a {kind!r}, which this version of bayesglm does not know.")

    def read_float(self, value):
        return float(value["float"])

    def read_array(self, value):
        with self.archive.open(value["array"]) as entry:
            return np.lib.format.read_array(entry, allow_pickle=False)

    def read_text(self, value):
        entries = [self.read(one) for one in value["text"]]
        return np.array(entries, object if value["object"] else str).reshape(value["shape"])

    def read_class(self, value):
        return RECORDS[value["class"]]

    def read_record(self, value):
        return RECORDS[value["record"]](**{name: self.read(one) for name, one in value["fields"].items()})

    def read_layout(self, value):
        parts = self.read(value["layout"])
        return Layout(jax.tree.structure(parts.pop("skeleton")), **parts)

    def read_list(self, value):
        return [self.read(one) for one in value["list"]]

    def read_tuple(self, value):
        return tuple(self.read(one) for one in value["tuple"])

    def read_dict(self, value):
        return {self.read(key): self.read(one) for key, one in value["dict"]}

    def read_link(self, value):
        return links.OWN_LINKS[value["link"]]

    def read_function(self, value):
        module, name = value["function"]
        function = getattr(links.PUBLIC_MODULES[module], name)
        if links.public_address(function) != (module, name) or isinstance(function, type):
            self._unknown(name)
        return function

    def read_own_function(self, value):
        if self.link is None:
            raise ValueError(
                f"The link of this model was a function of its user, {value['own_function']}: hand it over, "
                "load(path, inverse_link_function=...)."
            )
        return self.link.inverse if isinstance(self.link, links.Link) else self.link

    def read_distribution(self, value):
        number = value["number"]
        if number not in self.distributions:
            parameters = {name: self.read(one) for name, one in value["parameters"].items()}
            found = getattr({"own": own_dist, "numpyro": dist}[value["module"]], value["distribution"])
            if not (isinstance(found, type) and issubclass(found, dist.Distribution)):
                self._unknown(value["distribution"])
            self.distributions[number] = found(**parameters)
        return self.distributions[number]

    def read_powers(self, value):
        number = value["number"]
        if number not in self.distributions:
            powers = [dist.transforms.PowerTransform(self.read(power)) for power in value["powers"]]
            self.distributions[number] = dist.TransformedDistribution(self.read(value["base"]), powers)
        return self.distributions[number]

    def tree(self, value):
        # xarray comes with ArviZ; a fit does not need it.
        import xarray as xr

        return xr.DataTree.from_dict(
            {
                path: xr.Dataset(
                    {name: self.variable(one) for name, one in node["data"].items()},
                    {name: self.variable(one) for name, one in node["coords"].items()},
                    {name: self.read(one) for name, one in node["attrs"].items()},
                )
                for path, node in value.items()
            }
        )

    def variable(self, value):
        attrs = {name: self.read(one) for name, one in value["attrs"].items()}
        return value["dims"], self.read(value["values"]), attrs


KINDS = {name.removeprefix("read_") for name in vars(_Reader) if name.startswith("read_")}


def _write_function(function, label):
    """A function by its address in JAX; the user's own has only a name."""
    address = links.public_address(function)
    if address is not None:
        return {"function": list(address)}
    if not label.endswith(("inverse_link_function", ".inverse")):
        raise ValueError(f"{label} is a function of your own, which cannot be saved: of these, only a link can.")
    return {"own_function": getattr(function, "__qualname__", repr(function))}


def _plain(value):
    """An attribute of a DataTree as something that can be written."""
    return value if isinstance(value, int | float | str | bool | list | np.ndarray | np.generic) else str(value)
