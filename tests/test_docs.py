"""Every snippet of the README and the docs runs, and every example."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"```python\n(.*?)```", re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, monkeypatch):
    snippets = FENCE.findall(page.read_text())
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), namespace)


def test_most_pages_have_snippets():
    assert sum(bool(FENCE.findall(page.read_text())) for page in PAGES) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_at_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_examples_run(script, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", str(script)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 10


def test_quickstart_saves_its_figure(tmp_path, monkeypatch):
    """The picture is there and is not blank; the run itself is `test_examples_run`'s."""
    import numpy as np
    from matplotlib.image import imread

    figure = ROOT / "docs" / "figures" / "quickstart_forest.png"
    assert np.ptp(imread(figure)[..., :3]) > 0.5
    main = runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="imported")
    assert callable(main["main"])


# What the how-to page prints of its fits: first coefficients of f1 and f2, and the intercept, cut to four digits.
PRINTED = {
    "Ridge, one strength": (0.6940, 0.1343, 1.0842),
    "Ridge, one per group": (0.6984, 0.1297, 1.0994),
    "Ridge, one per coefficient": (0.6907, 0.1308, 1.1214),
    "Ridge, mixed": (0.6942, 0.1223, 1.0841),
    "ElasticNet, one pair": (0.2151, 0.0, 1.3568),
    "ElasticNet, one pair per coefficient": (0.6824, 0.0619, 1.1417),
}


def test_finegrained_example_gives_the_numbers_of_the_page():
    example = runpy.run_path(str(ROOT / "examples" / "finegrained_regularization.py"), run_name="imported")
    models = example["fit_all"](*example["make_data"]())
    group = next(model for title, model in models.items() if "GroupLasso" in title)
    for model, printed in [(models[title], values) for title, values in PRINTED.items()] + [
        (group, (0.6702, 0.0689, 1.2005))
    ]:
        first = model.coef_["f1"][0], model.coef_["f2"][0], model.intercept_[0]
        # The page's solver stops within about 1e-4 of the optimum, and its digits are cut, not rounded.
        assert max(abs(a - b) for a, b in zip(first, printed, strict=True)) < 3e-4
