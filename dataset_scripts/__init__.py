"""One `datasets` builder per data set, and `BENCHMARKS`, the table of their names.

`datasets` refuses loading scripts given by path, so the builders are instantiated here directly, with absolute paths,
sorted listings and a cache key that changes when the source folder changes.
"""
