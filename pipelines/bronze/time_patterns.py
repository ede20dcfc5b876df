"""Patterns of dates and times as Spark reads them, checked beforehand: Spark fails in the middle of a file."""

from __future__ import annotations

import re

_READABLE = re.compile(
    r"G{1,4}|y{1,6}|M{1,4}|L{1,4}|D{1,3}|d{1,2}|a|h{1,2}|K{1,2}|k{1,2}|H{1,2}|m{1,2}|s{1,2}|S{1,9}"
    r"|VV|z{1,4}|O|O{4}|X{1,5}|x{1,5}|Z{1,5}"
)
_MEANT = {
    "Y": "is the year that weeks are counted in; write yyyy",
    "u": "is not read; write yyyy",
    "w": "is a week, which names no day",
    "W": "is a week, which names no day",
    "e": "is a day of the week, which names no date",
    "c": "is a day of the week, which names no date",
    "E": "is a day of the week, which Spark writes but does not read",
    "T": "is text, which goes in single quotes: 'T'",
}


def pattern_problems(pattern: str) -> list[str]:
    """What keeps a pattern from being read, or would make it read other days than are written; empty when nothing."""
    bare = re.sub(r"'[^']*'", "\0", pattern)
    problems = ["a single quote is not closed"] if "'" in bare else []
    always, opened = re.subn(r"\[[^\[\]]*\]", "\0", bare)
    while opened:
        always, opened = re.subn(r"\[[^\[\]]*\]", "\0", always)
    if "[" in always or "]" in always:
        problems.append("square brackets do not pair")
    if found := sorted(set(bare) & set("{}#")):
        problems.append(f"{' '.join(found)} goes in single quotes")
    for run in dict.fromkeys(_runs(bare)):
        if not _READABLE.fullmatch(run):
            known = _READABLE.fullmatch(run[0])
            said = "has more letters than Spark reads" if known else "is no letter of Spark's patterns; quote text: 'x'"
            problems.append(f"{run} {_MEANT.get(run[0], said)}")
    return problems + _misread({run[0] for run in _runs(bare)}, _runs(always))


def _misread(letters: set[str], always: list[str]) -> list[str]:
    """Letters that are fine each by itself and together read something else than is written."""
    problems: list[str] = []
    has_month = bool(letters & set("ML"))
    if "D" in letters and (has_month or "d" in letters or "Y" in letters):
        problems.append("D is the day of the year; the day of a month is dd")
    elif not letters & set("yYu"):
        problems.append("it has no year (yyyy)")
    if "d" in letters and not has_month:
        problems.append("it has a day and no month (MM; mm are minutes)")
    elif "m" in letters and not letters & set("HhKk"):
        problems.append("it has minutes (mm) and no hour; months are MM")
    if letters & set("hK") and "a" not in letters:
        problems.append("hours to twelve need a (AM or PM); hours to 24 are HH")
    first = [run[0] for run in always]
    if twice := sorted({c for c in first if first.count(c) > 1}):
        problems.append(f"{', '.join(twice)} stands twice (months are MM, minutes mm)")
    return problems


def _runs(pattern: str) -> list[str]:
    return [m[0] for m in re.finditer(r"([A-Za-z])\1*", pattern)]
