"""`rerankops lineage`: what a release, a model or an artifact was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import libraries_write_to, out

if TYPE_CHECKING:
    from models.operations.lineage import Lineage

_CODE = 12
_DIGEST = 12


def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A release id, champion or previous; a model as reranker@champion or reranker/3; an artifact as "
            "index/dense_index, index/dense_index@VERSION, or the beginning of a data version."
        ),
    ],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Print the tree from a release, model or artifact down to the raw source."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        from models.operations.lineage import trace
        from models.records.database import open_database
        from models.records.ledger import Ledger
        from models.records.mlflow_registry import Tracking
        from models.store.artifacts import ArtifactStore

        with open_database(settings) as database:
            traced = trace(name, ArtifactStore.of(settings), Ledger(database), Tracking.of(settings))
    if as_json:
        print_json(traced.to_dict())
    else:
        out.print(_tree(traced), soft_wrap=True)


def _tree(traced: Lineage) -> Tree:
    top = None
    if traced.release is not None:
        release = traced.release
        top = Tree(
            f"[bold]release {release['release_id']}[/] {release['action']}, {release['state']}, MLflow version "
            f"{release['model_version']}, by {escape(release['actor'])} {release['created_at']}, "
            f"gate decision {release['gate_decision_id']}, settings {release['settings_digest'][:_DIGEST]}"
        )
    elif traced.model is not None:
        release = traced.model
        aliases = f" ({', '.join(release['aliases'])})" if release["aliases"] else ""
        run = f", run {release['run_id']}" if release["run_id"] else ""
        top = Tree(f"[bold]model {escape(release['name'])}/{release['version']}[/]{aliases}{run}")
    root = Tree(_line(traced.nodes[traced.root])) if top is None else top.add(_line(traced.nodes[traced.root]))
    _grow(root, traced, traced.root, set())
    return top or root


def _grow(tree: Tree, traced: Lineage, name: str, shown: set[str]) -> None:
    node = traced.nodes[name]
    shown.add(name)
    if node["known"] and node["settings"]:
        tree.add(f"[dim]settings {escape(', '.join(f'{key}={value}' for key, value in node['settings'].items()))}[/]")
    for outside, digest in node.get("outside", {}).items():
        source = f" {escape(node['source'])}" if outside == "source" and node["source"] else ""
        tree.add(f"[cyan]{outside}[/]{source} {digest[:_DIGEST] or '-'}")
    for needed in node["inputs"]:
        if needed in shown:
            tree.add(f"{traced.nodes[needed]['asset']} {traced.nodes[needed]['data_version']} [dim](above)[/]")
        else:
            _grow(tree.add(_line(traced.nodes[needed])), traced, needed, shown)


def _line(node: Mapping[str, Any]) -> str:
    name = f"[bold]{node['asset']}[/] {node['data_version']}"
    if not node["known"]:
        return f"{name} [red]nothing is known of it any more[/]"
    rows = "" if node["rows"] is None else f", {node['rows']} rows"
    gone = "" if node["stored"] else " [red](deleted)[/]"
    return f"{name}{gone} code {node['code_version'][:_CODE]}, {node['seconds']:.1f} s{rows}, {node['created_at']}"
