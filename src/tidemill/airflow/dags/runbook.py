"""The page that each DAG shows beside itself: what it does, and what to do when it is red."""

from __future__ import annotations

from tidemill.spec import Model, Pipeline
from tidemill.spec.schema import Approval


def stream_doc(pipeline: Pipeline, refused: str = "") -> str:
    """Of ``stream__<pipeline>``."""
    return f"""\
{refused_note(refused)}### Stream `{pipeline.name}`
Keeps one Spark driver reading Kafka topic `{pipeline.source.topic}` into {_listed(pipeline.tables)} for as long as the
stream is wanted. The driver runs by itself, outside Airflow; the task `run` only watches it and occupies no worker.

| task | does | when it is red |
| --- | --- | --- |
| `wanted` | waits until the stream is wanted and may start | the database was away; the next run waits again |
| `prepare` | checks that the pipeline is applied and its topic is there | its last line says what is missing |
| `run` | adopts the live driver or starts one, and watches it | its log names the cause and ends as the driver's does |

**The driver's log** while it runs: the link *Driver log* of the task `run`.

**Start and stop** with the DAG `control_streams`, or `./tidemill start {pipeline.name}` and `./tidemill stop
{pipeline.name}`. Marking the run or one of its tasks as
failed stops the stream too. Clearing `run`, pausing the DAG or restarting Airflow leaves the driver alone; while the
DAG is paused nobody starts it again if it breaks.

**Red again and again:** after six failures without a commit the stream is *halted*: an incident is open, and nothing is
started until `./tidemill start {pipeline.name}`. Mend the cause first. No record is lost meanwhile: the position stands
in the database.

**Unknown driver?** Its log is `logs/streams/{pipeline.name}-<epoch>.log` in the state folder; a driver of an older
epoch cannot commit and leaves by itself.

Owner: {pipeline.owner}.
"""


def refresh_doc(pipeline: Pipeline, name: str, model: Model, refused: str = "") -> str:
    """Of ``refresh__<pipeline>__<model>``."""
    return f"""\
{refused_note(refused)}### Refresh of model `{name}` of `{pipeline.name}`
Learns from table `{model.table}` and scores it into `{model.score.table}`, read through `{model.table}_scored`. It runs
{_when(model)}. A run in which nothing changed skips everything; training happens after each tick of
`{model.train.schedule}`.

| task | does | when it is red |
| --- | --- | --- |
| `fresh` | decides: train, only score, or nothing | its last line says it: the form asks for what there cannot be, \
another run is under way, or the stream is behind: look at its DAG first |
| `train` | fits a challenger on a time split | its last line names the cause |
| `promote` | compares by {model.promotion.metric}, margin {model.promotion.margin:g} | a metric is missing: clear \
`train` |
{_approve_row(model)}| `score` | scores what changed since the last publication | *drift* in its last line: see the \
incident; else clear it: it begins again |
| `publish` | makes the new scores visible, all at once | clear it: readers saw nothing yet |

Readers keep seeing the last published scores whatever is red here. **To train now**, trigger the DAG with *Train now*;
a range of time or other parameters in the form train, too. **To go back** to an earlier version, use the DAG
`control_models` or `./tidemill models rollback {pipeline.name}.{name}`.

Owner: {pipeline.owner}.
"""


def _when(model: Model) -> str:
    number = model.score.after_commits
    parts = [f"by the schedule `{model.score.schedule}`"] if model.score.schedule else []
    parts += [f"whenever the stream has made {number:,} commits"] if number else []
    return " and ".join(parts)


def _approve_row(model: Model) -> str:
    if model.promotion.approval is not Approval.MANUAL:
        return ""
    return (
        "| `approve` | asks a person, without a worker: *Required Actions* in Airflow, `control_models` or "
        "`./tidemill models approve`; rejects after 7 days | its last line says why the answer could not be carried "
        "out |\n"
    )


def replay_doc(pipeline: Pipeline, refused: str = "") -> str:
    """Of ``replay__<pipeline>``."""
    return f"""\
{refused_note(refused)}### Replay of `{pipeline.name}`
Reads records again, beside the running stream, and writes them into {_listed(pipeline.tables)} exactly once more.
Trigger it with the form: by *offsets* (`0:100-200,1:0-50`), by *time* (from `earliest` or an ISO time), or from
*quarantine* (all of it, by part of the reason, or by id). It is a **dry run** unless you say otherwise: `tell` shows
what would change.

The same version of the folder changes nothing that is right already. A newer version corrects the rows that it makes
otherwise and retracts those that it does not make any more: apply it first, then replay from `earliest`.

| task | does | when it is red |
| --- | --- | --- |
| `ask` | settles what the form means, and writes it into the table `replays` | its last line says what is wrong |
| `run` | reads and writes in batches | mend the cause and clear `run`: it goes on after its last commit |
| `tell` | says what came of it, in its log and as XCom | clear it |

A replay of an outdated version is refused. The same from a terminal: `./tidemill replay {pipeline.name} --help`.

Owner: {pipeline.owner}.
"""


CONTROL_DOC = """\
### Start, stop, restart
Trigger this DAG with its form: a stream, or *all*, and an action. It writes the same wish as `./tidemill start`,
`stop` and `restart`; the row says who wished, by Airflow's user name and the run. *start* also resets a stream that is
halted. *restart* has the driver finish its batch and leave, and another one follow; with *all* it leaves alone what a
person has stopped.

| task | does | when it is red |
| --- | --- | --- |
| `wish` | writes what is wanted | its last line says what the form asks for that there is not |
| `settle` | waits, without a worker, until it is so | its last line says why it is not: halted, the last driver's \
error, or a DAG `stream__<pipeline>` that is switched off; the wish stands all the same |

Whoever wishes last is heard; the run before then ends red and names him. No record is lost by any of this.
"""
"""Of ``control_streams``."""
MODELS_DOC = """\
### Approve, reject, roll back
Trigger this DAG with its form: a model, an action and, if it is not to be the obvious one, a version. *approve* and
*reject* answer the task `approve` of the model's refresh, which then goes on. *rollback* lets readers see an earlier
version's scores again, in one transaction, and lets that version score from now on; without a version it is the one
published before. The same from a terminal: `./tidemill models approve|reject|rollback`.

| task | does | when it is red |
| --- | --- | --- |
| `decide` | carries it out, and writes who decided into the table `decisions` | its last line says why not: nothing \
waits, or that version has no scores any more |
"""
"""Of ``control_models``."""


def refused_note(refused: str) -> str:
    """What stands at the top of a page where the pipeline's folder is refused; nothing where it is not."""
    # A page is Markdown, and the reason quotes what an author wrote.
    quoted = refused.replace("`", "'")
    return f"> **The folder is refused, and the version applied last goes on.** `{quoted}`\n\n" if refused else ""


def _listed(names: object) -> str:
    return ", ".join(f"`{name}`" for name in names)  # type: ignore[attr-defined]
