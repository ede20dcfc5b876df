"""The files of `conf/sources` to sources: everything wrong in any is found at once, each with its file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lakehouse.errors import SourceDeclarationError, suggest
from lakehouse.strict import problems_of
from lakehouse.yaml_file import read_yaml, yaml_files
from pipelines.bronze.sources import Merchant, Source, Sources

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def load_sources(conf_dir: Path, variables: Mapping[str, str] | None = None) -> Sources:
    """Read and check every YAML file of `conf/sources`.

    Args:
        conf_dir: Folder that holds `sources/`.
        variables: Values for `${name}` in locations; the environment is asked for names not in it. A feed whose
            variable is nowhere defined gets an empty location: it is declared but not configured here, and a run that
            names its source is refused.

    Raises:
        SourceDeclarationError: listing every problem of every file.
    """
    folder = conf_dir / "sources"
    problems: list[str] = []
    found: list[tuple[Path, Source]] = []
    asked: set[str] = set()
    unset: dict[str, tuple[str, ...]] = {}
    for path in yaml_files(folder):
        try:
            content = read_yaml(path)
        except (yaml.YAMLError, UnicodeDecodeError) as e:
            problems.append(f"{path.name}: not readable as YAML: {' '.join(str(e).split())}")
            continue
        if not isinstance(content, dict):
            problems.append(f"{path.name}: a source is a mapping with name, currency, feeds, ...")
            continue
        content.setdefault("name", path.stem)
        names, without = _substitute(content, {**os.environ, **(variables or {})})
        asked |= names
        if without:
            unset[path.stem] = tuple(sorted(without))
        try:
            source = Source.model_validate(content)
        except ValidationError as e:
            problems += [f"{path.name}: {p}" for p in problems_of(e, Source)]
            continue
        if source.name != path.stem:
            problems.append(f"{path.name}: name is '{source.name}', but a source is named after its file.")
        if twin := next((p.name for p, s in found if s.name == source.name), None):
            problems.append(f"{path.name}: '{source.name}' is declared in {twin}, too; keep one of them.")
        found.append((path, source))
    resolved, disagreements = _resolve_merchants(found)
    problems += disagreements
    declared = [s.name for s in resolved]
    for path, source in found:
        problems += [
            f"{path.name}: accompanies: '{n}' is not a source.{suggest(n, declared)}"
            for n in source.accompanies
            if n != "*" and n not in declared and not problems
        ]
    known = sorted({name.lower() for name in asked})
    problems += [
        f"variable '{name}': no location asks for it; known are {', '.join(known) or 'none'}.{suggest(name, known)}"
        for name in variables or {}
        if name not in asked and not problems
    ]
    if not folder.is_dir():
        problems.append(f"{folder} does not exist.")
    if problems:
        listed = "\n  ".join(problems)
        raise SourceDeclarationError(f"{len(problems)} problem(s) in the sources under {folder}:\n  {listed}")
    return Sources(conf_dir=conf_dir, sources=tuple(resolved), unset=unset)


def _substitute(content: dict[str, Any], values: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Put values into locations; returns the names that were asked for, and those of them without a value."""
    asked: set[str] = set()
    unset: set[str] = set()
    for feed in content.get("feeds") or ():
        if isinstance(feed, dict) and isinstance(feed.get("location"), str):
            location = feed["location"]
            names = _VARIABLE.findall(location)
            asked |= {*names, *map(str.upper, names)}
            for name in names:
                value = values.get(name) or values.get(name.upper())
                location = location.replace(f"${{{name}}}", value) if value else ""
                if not value:
                    unset.add(name)
            feed["location"] = location
    return asked, unset


def _resolve_merchants(found: list[tuple[Path, Source]]) -> tuple[list[Source], list[str]]:
    problems: list[str] = []
    described: dict[str, tuple[Path, Merchant]] = {}
    for path, source in found:
        m = source.merchant
        if m and m.is_complete:
            if m.id in described and described[m.id][1] != m:
                other = described[m.id][0].name
                problems.append(f"{path.name}: merchant '{m.id}' is described differently in {other}.")
            described[m.id] = (path, m)
    problems += _money_problems(found)
    problems += _key_problems(found)
    problems += _week_problems(found)
    resolved: list[Source] = []
    for path, source in found:
        m = source.merchant
        if m and m.id not in described:
            problems.append(f"{path.name}: merchant '{m.id}' needs a name and a country.{suggest(m.id, described)}")
        if m and m.id in described:
            resolved.append(source.model_copy(update={"merchant": described[m.id][1]}))
        else:
            resolved.append(source)
    return resolved, problems


def _money_problems(found: list[tuple[Path, Source]]) -> list[str]:
    """Sales of a merchant are added up as they are, and its days are days of one zone."""
    problems = []
    first: dict[str, tuple[Path, Source]] = {}
    for path, source in found:
        if not source.merchant_id or all(f.subject != "transactions" for f in source.feeds):
            continue
        where, other = first.setdefault(source.merchant_id, (path, source))
        for name in ("currency", "timezone"):
            own, theirs = getattr(source, name), getattr(other, name)
            if own != theirs:
                problems.append(
                    f"{path.name}: {name}: {own}, but sales of '{source.merchant_id}' are in {theirs} in {where.name}. "
                    "One merchant has one; give the other shop a merchant of its own."
                )
    return problems


def _key_problems(found: list[tuple[Path, Source]]) -> list[str]:
    """A line of one feed is that of another when their keys are equal, which two sorts of keys never are."""
    problems = []
    first: dict[tuple[str, str], tuple[str, bool]] = {}
    for path, source in found:
        for feed in source.feeds:
            if not source.merchant_id or feed.subject != "transactions":
                continue
            own = not feed.key or "product_id" in feed.key
            numbers = (source.merchant_id, feed.rules.basket_prefix)
            where, theirs = first.setdefault(numbers, (f"feed '{feed.name}' of {path.name}", own))
            if own != theirs:
                problems.append(
                    f"{path.name}: feed '{feed.name}': key: lines of '{source.merchant_id}' are told apart "
                    f"{'with' if own else 'without'} product_id here, but not in {where}. "
                    "Give both feeds the same key, or one of them a retailer or basket_prefix of its own."
                )
    return problems


def _week_problems(found: list[tuple[Path, Source]]) -> list[str]:
    """Purchases meet promotions by week, so the weeks of a merchant begin on one day of the week in all its feeds."""
    problems = []
    first: dict[str, tuple[str, str]] = {}
    for path, source in found:
        for feed in source.feeds:
            if not source.merchant_id or not feed.week_one_starts_on:
                continue
            own = f"{feed.week_one_starts_on:%A}"
            where, theirs = first.setdefault(source.merchant_id, (f"feed '{feed.name}' of {path.name}", own))
            if own != theirs:
                problems.append(
                    f"{path.name}: feed '{feed.name}': week_one_starts_on: {feed.week_one_starts_on} is a {own}, but "
                    f"weeks of '{source.merchant_id}' begin on a {theirs} in {where}. Name the day of both feeds on "
                    "which the shop's week begins, or give one of them a merchant of its own."
                )
    return problems
