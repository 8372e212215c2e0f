"""The imports of the command line; `lint-imports` checks the other layers."""

import subprocess
import sys


def test_the_command_line_loads_no_torch() -> None:
    heavy = "('torch', 'torchvision', 'timm', 'sklearn', 'matplotlib')"
    program = f"import sys, nogs.config.stages, nogs.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
