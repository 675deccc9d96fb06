"""How fast a model runs here: warm-up, synchronize, measure, and check the answers while at it.

Each engine and precision is measured in a process of its own (`vidcls.bench.worker`), so that its peak memory is its
own and a crash costs one row. `vidcls.bench.models` puts the rows together; `vidcls.bench.decode`,
`vidcls.bench.predict` and `vidcls.bench.score` measure the decoders, the whole command and the batch pipeline.
"""
