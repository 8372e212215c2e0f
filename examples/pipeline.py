"""Design glimpse sequences for a folder of your own images, train networks on them, and draw a report.

    python examples/pipeline.py IMAGES OUT [ITERATIONS]

IMAGES has one sub-folder for each class, with images of any size. The same command continues a stopped run.
"""

import json
import sys
from pathlib import Path

import nogs

if __name__ == "__main__":
    images, out = Path(sys.argv[1]), Path(sys.argv[2])
    iterations = int(sys.argv[3]) if len(sys.argv) > 3 else 8000

    # A run is a frozen dataclass; its fields are the flags of the command line.
    config = nogs.Run(
        nogs.Machine(out, resume=True),
        nogs.Source(data=f"folder:{images}", image_size=64),  # cropped to squares, then resized to 64 x 64 pixels
        nogs.Geometry(glimpse_size=12, stride=6, glimpses=4),  # in pixels; 4 glimpses of each image
        annotate=200,  # training images that get near-optimal sequences
        methods=("ram", "ps-nogs"),  # trained without these sequences, and with them
        seeds=(0, 1),
        iterations=iterations,
        posterior_iterations=iterations,
    )
    run = nogs.run(config)

    # results.json compares the iterations until each method reaches the same validation loss.
    results = json.loads((run.path / "results.json").read_text())
    for name, scores in results["methods"].items():
        print(name, "iterations", scores["iterations_to_target"], "test accuracy", scores["test_accuracy"])

    # Each training is a model that classifies images and returns its glimpses.
    image = next(images.glob("*/*"))
    nogs.predict(nogs.Predict(model=out / "train" / "ps-nogs-seed0", images=(image,), json=True))
    print("open", out / "report.html")
