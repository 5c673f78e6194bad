"""The page ``doc_md`` of each DAG: what the DAG does, what each task does, and what to do when one has failed."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.spec import Model, Pipeline
from tidemill.spec.schema import Approval


def stream_doc(pipeline: Pipeline, rejected: str = "") -> str:
    """The page of ``stream__<pipeline>``."""
    name = pipeline.name
    return f"""\
{rejected_note(rejected)}### Stream `{name}`
This DAG keeps one Spark driver running, which reads the Kafka topic `{pipeline.source.topic}` into \
{_listed(pipeline.tables)}, for as long as the stream's desired state is *running*. The driver is a process of its own,
outside Airflow. The task `run` watches it and occupies no worker.

| task | what it does | when it is red |
| --- | --- | --- |
| `await_start_request` | waits until the stream is to be started | the database was unavailable; the next run waits \
again |
| `prepare` | checks that the pipeline is applied and that its topic exists | the last line of its log names what is \
missing and the command that creates it |
| `run` | adopts the live driver or starts one, and watches it | its log names the cause, followed by the last lines \
of the driver's log |

**To read the driver's log** while it runs, follow the link *Driver log* of the task `run`.

**To start or stop the stream**, use the DAG `control_streams`, or `./tidemill start {name}` and
`./tidemill stop {name}`. Marking the run or one of its tasks as failed stops the stream as well. Clearing `run`,
pausing this DAG and restarting Airflow do not touch the driver; but while the DAG is paused, a driver that fails is
not replaced.

**If it is red again and again:** after six failures without a commit the stream is *halted*. An incident is open, and
no driver is started until you fix the cause and run `./tidemill start {name}`. No record is lost meanwhile: the stream
continues from its offsets, which are in the database.

**If you find a driver that this DAG does not know:** its log is `logs/streams/{name}-<epoch>.log` in the state folder.
A driver of an older epoch cannot commit, and exits by itself.

Owner: {pipeline.owner}.
"""


def refresh_doc(pipeline: Pipeline, name: str, model: Model, rejected: str = "") -> str:
    """The page of ``refresh__<pipeline>__<model>``."""
    return f"""\
{rejected_note(rejected)}### Refresh of model `{name}` of `{pipeline.name}`
This DAG trains the model on the table `{model.table}` and writes scores to `{model.score.table}`, which readers see
through `{model.table}_scored`. It runs {_when(model)}. A run without new commits skips all its tasks. A challenger is
trained after each tick of the schedule `{model.train.schedule}`.

| task | what it does | when it is red |
| --- | --- | --- |
| `decide` | decides whether to train, only to score, or to do nothing | the last line of its log names the reason: an \
invalid field of the form, another run that is refreshing the model, or a stream that is behind (see its DAG) |
| `train` | fits a challenger and measures it on the newest rows, which are held out | the last line of its log names \
the cause |
| `promote` | promotes the challenger if it is better in {model.promotion.metric}, by at least \
{model.promotion.margin:g} | a metric is missing: clear `train` |
{_approve_row(model)}| `score` | scores the rows that have changed since the last publication | if the last line of \
its log names *drift*, see the incident; otherwise clear it, and it scores the rows that are still missing |
| `publish` | makes all new scores visible in one transaction | clear it; readers have seen none of the new scores |

Readers keep seeing the scores published last, whichever task is red. **To train now**, trigger the DAG with
*Train now*; a range of time or parameters in the form start a training as well. **To roll back** to an earlier version,
use the DAG `control_models` or `./tidemill models rollback {pipeline.name}.{name}`.

Owner: {pipeline.owner}.
"""


def _when(model: Model) -> str:
    number = model.score.after_commits
    parts = [f"on the schedule `{model.score.schedule}`"] if model.score.schedule else []
    parts += [f"each time the stream has made {number:,} commits"] if number else []
    return " and ".join(parts)


def _approve_row(model: Model) -> str:
    if model.promotion.approval is not Approval.MANUAL:
        return ""
    return (
        "| `approve` | waits, without a worker, for a person who answers under *Required Actions* in Airflow, with "
        "`control_models` or with `./tidemill models approve`; after 7 days the challenger is rejected | the last line "
        "of its log names why the answer could not be carried out |\n"
    )


def replay_doc(pipeline: Pipeline, rejected: str = "") -> str:
    """The page of ``replay__<pipeline>``."""
    return f"""\
{rejected_note(rejected)}### Replay of `{pipeline.name}`
This DAG reads records again, beside the running stream, and writes them into {_listed(pipeline.tables)} with
exactly-once effect. Trigger it with its form, which selects records by *offsets* (`0:100-200,1:0-50`), by *time* (from
`earliest` or an ISO time), or from the *quarantine* (all of it, by part of the reason, or by id). It is a **dry run**
unless you switch that off: the task `report` then shows what would change.

The same version of the pipeline changes no row that is already correct. A newer version corrects the rows that it
computes differently, and retracts the rows that it does not produce any more: apply it first, then replay from
`earliest`.

| task | what it does | when it is red |
| --- | --- | --- |
| `request` | resolves the form into offsets, and writes them to the table `replays` | the last line of its log names \
the invalid field |
| `run` | reads and writes the records in batches | fix the cause and clear `run`: it continues after its last commit |
| `report` | reports the result, in its log and as XCom | clear it |

A replay with an outdated version of the pipeline is rejected. The same from a terminal: \
`./tidemill replay {pipeline.name} --help`.

Owner: {pipeline.owner}.
"""


CONTROL_STREAMS_DOC = """\
### Start, stop or restart streams
Trigger this DAG with its form: a stream, or *all*, and an action. It writes the same request as `./tidemill start`,
`stop` and `restart`, with the name of the Airflow user and the run. *start* also closes the circuit of a halted stream.
*restart* has the driver finish its batch and exit, and the next driver start; with *all* it leaves those streams alone
that a person has stopped. No record is lost by any of these actions.

| task | what it does | when it is red |
| --- | --- | --- |
| `request` | writes the desired state | the last line of its log names the unknown stream or action |
| `await_outcome` | waits, without a worker, until the streams have reached the desired state | the last line of its \
log names why one has not: it is halted, its last driver failed, or its DAG `stream__<pipeline>` is paused; the \
request stays in effect |

The newest request counts. A run that waits for an older one fails, and names who made the newer request.
"""
"""The page of ``control_streams``."""
CONTROL_MODELS_DOC = """\
### Approve, reject or roll back versions of models
Trigger this DAG with its form: a model, an action and, if it is not the default one, a version. *approve* and *reject*
answer the task `approve` of the model's refresh, which then goes on. *rollback* shows the scores of an earlier version
to readers again, in one transaction, and makes that version the champion; without a version in the form it is the one
published before. The same from a terminal: `./tidemill models approve|reject|rollback`.

| task | what it does | when it is red |
| --- | --- | --- |
| `apply_decision` | carries out the decision, and writes who made it to the table `decisions` | the last line of its \
log names why not: no version waits for approval, or the earlier version has no scores any more |
"""
"""The page of ``control_models``."""
MAINTENANCE_DOC = """\
### Maintenance
This DAG keeps each pipeline's part of the database small, and verifies it, while the streams run. Each step is a
transaction of a few thousand rows at most; a step that does not get its locks is left to the next run.

| task | what it does | when it is red |
| --- | --- | --- |
| `maintain__<pipeline>` | merges old commits of the ledger, deletes rows past their `retention`, old tombstones, old \
quarantined records, and scores and artifacts of model versions that are not used any more | clear it: it continues \
where it failed |
| `verify__<pipeline>` | compares ledger, Kafka, tables and rollups | the incident *ledger* names the first \
difference: leave the database as it is, and look for programs other than Tidemill that write to it |
| `maintain_files` | removes scratch folders, unfinished bulk-load files and old logs of former drivers | clear it |

**To see what would be removed**, run `./tidemill maintain --dry-run`, or trigger the DAG with *Dry run*. The periods
are set by `TIDEMILL_LEDGER_DAYS`, `TIDEMILL_QUARANTINE_DAYS`, `TIDEMILL_HISTORY_DAYS`, `TIDEMILL_LOG_DAYS` and by the
pipelines' `retention`.
"""
"""The page of ``maintenance``."""


def rejected_note(reason: str) -> str:
    """The first lines of a page whose pipeline folder is rejected; empty if it is not."""
    # The page is Markdown, and the reason quotes what an author wrote.
    quoted = reason.replace("`", "'")
    note = "The pipeline folder is rejected, and the version applied last stays in use."
    return f"> **{note}** `{quoted}`\n\n" if reason else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
