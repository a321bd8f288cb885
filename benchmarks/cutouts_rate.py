"""How many images of Cutouts one core renders in a second, for each split."""

import time

from hf_robustvit.cutouts import BENCHMARK_SPLITS, render


NUM_IMAGES = 500

if __name__ == "__main__":
    render("val", 0)  # reads the cut-outs
    for split in BENCHMARK_SPLITS:
        start = time.perf_counter()
        for index in range(NUM_IMAGES):
            render(split, index)
        print(f"{split:<14}{NUM_IMAGES / (time.perf_counter() - start):8.0f} images/s")
