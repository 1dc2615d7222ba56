"""The package as a user gets it: a wheel in an empty environment, an editable install, every file there."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "mimbench": "mimbench",
    "mimbench_methods": "methods",
    "mimbench_published": "results/published",
    "mimbench_tasks": "tasks",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the tree."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    for name in files:
        if name and (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_module_and_preset(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".csv", ".css", ".html", ".js"):
                assert f"{package}/{path.relative_to(ROOT / folder)}" in inside
    assert not [name for name in inside if name.startswith(("methods/", "tasks/", "tests/"))]
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_wheel_runs_from_another_folder(wheel, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies come from this environment; the editable finder stays behind, as .pth files are not followed.
    site.joinpath("zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = "import sys; sys.argv = ['mimbench', 'list']; from mimbench.cli import main; main()"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for expected in (
        "simmim",
        "random-init",
        "linear-probe",
        "detection",
        "mnist5k",
        "vit",
        "mnist5k-vit-tiny",
        "smoke",
    ):
        assert expected in done.stdout
    assert "BROKEN" not in done.stdout
    script = "import sys; sys.argv = ['mimbench', *'table --published --method simmim --task detection'.split()]"
    script += "; from mimbench.cli import main; main()"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "52.3" in done.stdout, done.stderr
    where = subprocess.run(
        [
            environment / "bin" / "python",
            "-c",
            "import mimbench, mimbench_methods; print(mimbench.__file__, mimbench_methods.__file__)",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout
    assert all(path.startswith(str(site)) for path in where.split())


def test_the_editable_install_points_into_the_tree(tmp_path):
    code = "\n".join(f"import {package}; print({package}.__file__)" for package in FOLDERS)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [Path(path).parent for path in done.stdout.split()] == [ROOT / folder for folder in FOLDERS.values()]


def test_every_package_is_listed():
    packages = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_version_is_printed_once():
    import mimbench

    assert PROJECT["project"]["version"] == mimbench.__version__
