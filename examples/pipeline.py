"""From a folder of your own images to glimpse sequences, trained networks and a report, in Python.

    python examples/pipeline.py IMAGES OUT [ITERATIONS]

IMAGES has one sub-folder a class, with images of any size. The same line again goes on where it stopped.
"""

import json
import sys
from pathlib import Path

import nogs

if __name__ == "__main__":  # trainings run in processes of their own, which import this file
    images, out = Path(sys.argv[1]), Path(sys.argv[2])
    iterations = int(sys.argv[3]) if len(sys.argv) > 3 else 8000

    # A run is a frozen dataclass; its fields are the flags of the command line.
    config = nogs.Run(
        nogs.Machine(out, resume=True),
        nogs.Source(data=f"folder:{images}", image_size=64),  # pixels: cropped to squares, then resized
        nogs.Geometry(glimpse_size=12, stride=6, glimpses=4),  # how much one sees, where, and how often
        annotate=200,  # training images that get near-optimal sequences
        methods=("ram", "ps-nogs"),  # taught without them, and with
        seeds=(0, 1),
        iterations=iterations,
        posterior_iterations=iterations,
    )
    run = nogs.run(config)

    # Results are plain JSON. Both methods are raced to the same validation loss.
    results = json.loads((run.path / "results.json").read_text())
    for name, scores in results["methods"].items():
        print(name, "reached it after", scores["iterations_to_target"], "test accuracy", scores["test_accuracy"])

    # Each training is a model that classifies images, and says where it looked.
    image = next(images.glob("*/*"))
    nogs.predict(nogs.Predict(model=out / "train" / "ps-nogs-seed0", images=(image,), json=True))
    print("open", out / "report.html")
