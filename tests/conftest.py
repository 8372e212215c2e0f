"""Every test runs on one thread, with the shapes and types in the signatures of `nogs` checked."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# Before any test module imports nogs: the hook rewrites modules as they are imported, and stays installed.
install_import_hook("nogs", "beartype.beartype")
