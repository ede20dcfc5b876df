"""Renders `docs/destinations.md`, every key of a file in `conf/destinations`, from the models of the kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from connectors.base import BatchDestination, DestinationConfig, Holdout
from connectors.destinations import kinds
from connectors.secret import Secret
from lakehouse.key_tables import summary_of, table_of_keys

_SAMPLES: Final[dict[str, Any]] = {
    "account_id": "0",
    "advertiser_id": "0",
    "base_url": "https://service.example",
    "bootstrap_servers": "broker.example:9093",
    "client_id": "your-client",
    "host": "sftp.example",
    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    "list_id": "LIST",
    "token_url": "https://service.example/token",
    "topic": "segment-members",
    "user": "segmentation",
}
"""What stands in a sample for keys that must be given."""
_ALSO: Final[dict[str, dict[str, Any]]] = {
    "google": {"terms_accepted": True},
    "sftp": {"password": "env:SFTP_PASSWORD"},
}
"""What a destination asks for although its file may be without."""


def render_destinations() -> str:
    """Return the whole page as Markdown."""
    batch = [name for name in BatchDestination.model_fields if name not in DestinationConfig.model_fields]
    lines = [
        "# Destinations",
        "",
        "Made from `connectors/base.py` and `connectors/destinations/` by `segmentation docs`; do not edit.",
        "",
        "A destination is a file `conf/destinations/<name>.yml`. Its `kind` says which of the keys below it takes;",
        "mistakes are told before anything is sent. How destinations are served: [activation.md](activation.md). A",
        "secret is written as `env:NAME`, `file:PATH` or `databricks:SCOPE/KEY`.",
        "",
        *["## Every destination", ""],
        *[*table_of_keys(DestinationConfig, [n for n in DestinationConfig.model_fields if n != "name"]), ""],
        *["### `holdouts`, each", "", summary_of(Holdout), "", *table_of_keys(Holdout, Holdout.model_fields), ""],
        *["## Every destination but `files`", "", *table_of_keys(BatchDestination, batch), ""],
    ]
    for kind, model in kinds().items():
        own = [n for n in model.model_fields if n != "kind" and _is_own(model, n)]
        lines += [f"## `{kind}`", "", summary_of(model), "", "```yaml", sample_of(kind).strip(), "```", ""]
        lines += [*table_of_keys(model, own), ""]
    return "\n".join(lines)


def write_destinations(docs: Path) -> Path:
    """Write the page into `docs`; returns its path."""
    path = docs / "destinations.md"
    path.write_text(render_destinations(), encoding="utf-8")
    return path


def sample_of(kind: str) -> str:
    """Return a file of a kind with no more than it needs, and a segment."""
    model = kinds()[kind]
    said: dict[str, Any] = {"kind": kind}
    for name, field in model.model_fields.items():
        if field.is_required() and name not in ("name", "kind"):
            said[name] = f"env:{kind.upper()}_{name.upper()}" if field.annotation is Secret else _SAMPLES[name]
    said |= _ALSO.get(kind, {})
    if issubclass(model, BatchDestination) and not model.keeps_places_apart:
        said["audiences"] = {"champions": "ID"}
    else:
        said["segments"] = ["champions"]
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=None)


def _is_own(model: type[DestinationConfig], name: str) -> bool:
    """Whether a key is of one kind alone, or another value holds for it there than elsewhere."""
    shared, field = BatchDestination.model_fields.get(name), model.model_fields[name]
    return shared is None or (shared.is_required(), shared.default) != (field.is_required(), field.default)
