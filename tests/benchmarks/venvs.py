"""Make a virtual environment for each peer: ``python tests/benchmarks/venvs.py [--venvs DIRECTORY] [PEER ...]``.

Peers pin each other's dependencies, so each has an environment of its own. Environments that are there already are
kept; remove a folder to make it anew.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / ".peers"
REQUIREMENTS = {
    "scikit-learn": ["scikit-learn"],
    "glum": ["glum"],
    "skglm": ["skglm"],
    "celer": ["celer"],
    "statsmodels": ["statsmodels"],
    "nemos": ["nemos==0.2.9", "tqdm"],  # with tqdm, bayesglm fits there, too
    "adelie": ["adelie", "numpy<2"],
    "blackjax": ["blackjax"],
}


def python_of(directory, peer):
    """Path of the interpreter of a peer's environment."""
    folder, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return Path(directory) / peer / folder / name


def is_ready(directory, peer):
    """Whether the peer's environment was completed."""
    return marker(directory, peer).exists() and python_of(directory, peer).exists()


def marker(directory, peer):
    """File that is written once everything is installed."""
    return Path(directory) / peer / "installed"


def make(directory, peer):
    """Make the environment of one peer; return whether that worked."""
    if is_ready(directory, peer):
        print(f"{peer}: there already")
        return True
    venv.create(Path(directory) / peer, clear=True, with_pip=True)
    command = [python_of(directory, peer), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]]
    done = subprocess.run(command, check=False).returncode == 0
    if done:
        marker(directory, peer).touch()
    print(f"{peer}: {'installed' if done else 'could not be installed'}")
    return done


def main():
    """Make the environments asked for; the exit status says whether all could be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"any of {', '.join(REQUIREMENTS)}; default all")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_DIRECTORY, help="folder of the environments")
    options = parser.parse_args()
    unknown = set(options.peers) - set(REQUIREMENTS)
    if unknown:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    failed = [peer for peer in options.peers or REQUIREMENTS if not make(options.venvs, peer)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
