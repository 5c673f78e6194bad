"""Replays: records are read from Kafka or from the quarantine once more, by the pipeline as it is applied now.

``request`` (what a person requests) and ``plan`` (what that is in offsets) run in Airflow's tasks and on the command
line; ``job`` runs in the driver that ``spark_jobs/replay.py`` starts. A replay uses the decoder, the transform and the
transaction of the stream, and runs beside it: it moves no position, and its commits carry the id of the replay.

**What a replay achieves.** Let ``V`` be its pipeline version, and let the *selection* be the records that it reads.
Afterwards the tables hold, for every key that a record of the selection has, what they would hold if ``V`` had read
all these records from the start, and the rollups agree with the tables. A replay by a version that has read the same
records before changes nothing.

**The two passes.** A transaction merges a record by the rules of its table: of an ``event`` the first record of a key
remains, of an ``entity`` the one with the highest version. One rule is added for a replay: a row that an older pipeline
version made *of the same record* is rewritten. From there it follows step by step:

1. *First pass.* Every record of the selection is merged by ``V``. Where its row exists, the row is now that of ``V``.
2. *Retraction.* What still has an older pipeline version, although its record is in the selection, is a row that ``V``
   does not make of that record: ``V`` filters the record, rejects it, or gives it another key. The row is removed.
   Rows are spared whose record Kafka no longer has, for no version can be applied to them.
3. *Invariant.* No row of a record of the selection has an older version than ``V``, except for spared ones.
4. *Second pass.* The removed rows, and rows of an entity whose version became lower, may have kept other records out:
   as duplicates or as stale. These records are merged once more. Among them are records that the stream has read since
   the replay was requested, so that the second pass reads to where the stream is then (``ReplayPlan.open_ends``).
   It cannot lead to another retraction: by the invariant there is nothing to retract.

The second pass is left out if nothing was retracted and no entity was written, for then no record was kept out by a
row that has changed. Records from the quarantine never became rows: they need neither retraction nor second pass.

**Interruption.** The plan is fixed when the replay is requested, and the ranges of the second pass are fixed before it
begins. Each batch commits per Kafka partition, and the ledger has the id of the replay and of the batch: another
attempt skips what is committed. A replay ends with an error, and without having written a wrong row, if the stream has
had a driver of a newer pipeline version, if the topic was recreated, or if Kafka has removed a part of the selection.
"""
