"""Commands for pipeline folders: check, paths, plan, apply."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.commands.options import Json, Names, print_facts, read_pipelines


def check(names: Names = None, as_json: Json = False) -> None:
    """Check pipeline folders; no server is needed.

    Example: ./tidemill check flights
    """
    from tidemill import config

    pipelines = read_pipelines(config.load(), names)
    facts = [{"pipeline": each.name, "digest": each.digest, "tables": [*each.tables]} for each in pipelines]
    print_facts(facts, as_json, [f"{each.name}: OK" for each in pipelines])


def paths(
    name: Annotated[str | None, typer.Argument(help="Print only this path.")] = None, as_json: Json = False
) -> None:
    """Print where the files of the project are: DAG files, Spark entries, plugins, SQL, pipelines, state.

    Example: AIRFLOW__CORE__DAGS_FOLDER=$(./tidemill paths dags)
    """
    from tidemill import config
    from tidemill.errors import ConfigError
    from tidemill.resources import FOLDERS, resource_folder

    settings = config.load()
    found = {each: str(resource_folder(each)) for each in FOLDERS}
    found |= {"pipelines": str(settings.pipelines), "state": str(settings.state), "jars": str(settings.jars)}
    if name is None:
        print_facts(found, as_json, [f"{each}: {path}" for each, path in found.items()])
    elif name in found:
        print_facts(found[name], as_json, [found[name]])
    else:
        raise ConfigError("TM-CLI-NO-SUCH-PATH", value=name, known=", ".join(found))


def plan(names: Names = None, as_json: Json = False) -> None:
    """Show what `apply` would create; nothing is changed.

    Example: ./tidemill plan flights
    """
    from tidemill import config
    from tidemill.deploy.apply import plan_pipeline

    settings = config.load()
    steps = [step for pipeline in read_pipelines(settings, names) for step in plan_pipeline(settings, pipeline)]
    print_facts(steps, as_json, steps or ["no changes"])


def apply(names: Names = None) -> None:
    """Create missing topics, tables, rollups and views, and register the versions of the pipelines.

    Example: ./tidemill apply
    """
    from tidemill import config
    from tidemill.deploy.apply import apply_all

    settings = config.load()
    apply_all(settings, read_pipelines(settings, names), typer.echo)
