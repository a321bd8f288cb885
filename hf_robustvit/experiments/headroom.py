"""The oracle, as a test of headroom before any fine-tuning."""

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.images import benchmark_image_processor
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.oracle import ForegroundImages, oracle_accuracy
from hf_robustvit.evaluation.statistics import difference_interval
from hf_robustvit.experiments.book import Book
from hf_robustvit.files import replacing
from hf_robustvit.reporting.tables import interval, markdown_table


def oracle(book: Book) -> str:
    """What a perfect map could gain, on every benchmark with masks: a test of headroom before any fine-tuning."""
    suite, rows = book.workshop.suite, []
    options = LoopOptions(suite.eval_batch_size, suite.num_workers)
    for model, _, run in book.experiment.rows(suite):
        checkpoint = book.workshop.checkpoint(run)
        processor = benchmark_image_processor("checkpoint", checkpoint.image_processor, checkpoint.model.config)
        for name in suite.with_masks:
            data = book.workshop.benchmark(name, checkpoint)
            images = ForegroundImages(data.rows, processor, with_masks=True)
            labels = np.asarray(data.rows["label"][:])
            frame = oracle_accuracy(
                checkpoint, images, labels, data.label_space, options, book.workshop.accelerator, f"{model}, {name}"
            )
            predictions = book.workshop.predictions(run, name).set_index("image_id").loc[frame["image_id"]]
            plain, with_oracle = outcomes(predictions)["top1"].to_numpy(), frame["top1_oracle"].to_numpy()
            ends = [100 * end for end in difference_interval(plain, with_oracle)]
            gain = 100 * (with_oracle.mean() - plain.mean())
            rows.append(
                [
                    model,
                    name,
                    len(frame),
                    f"{100 * plain.mean():.1f}",
                    f"{100 * with_oracle.mean():.1f}",
                    f"{gain:+.1f}",
                    interval(ends),
                ]
            )
    header = ["model", "data set", "n", "top-1", "top-1 with the oracle", "headroom", "95 % interval"]
    with replacing(book.folder / f"{book.name}.csv") as path:
        pd.DataFrame(rows, columns=header).to_csv(path, index=False)
    text = (
        "The oracle forbids the CLS token, in every layer, to attend to patches without the object: a perfect map by "
        "force. Where it gains nothing, a loss on the map has little to gain either.\n"
    )
    return f"{text}\n{markdown_table(header, rows)}\n"
