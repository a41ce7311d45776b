"""What pyproject.toml cannot say: conf/ and constraints.txt travel in the wheel, inside the package.

They stay at the top of the repository, where people read and edit them; `minitx.utils.checkout` finds them in either
place. An editable install needs no copy.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent


class BuildWithConf(build_py):
    """Build the package, and put beside its modules what they read from the top of a checkout."""

    def run(self) -> None:
        """Copy conf/ anew, so that no file which has since been removed stays."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "minitx")
        shutil.rmtree(package / "conf", ignore_errors=True)
        shutil.copytree(TOP / "conf", package / "conf")
        shutil.copy2(TOP / "constraints.txt", package)


setup(cmdclass={"build_py": BuildWithConf})
