"""The plain-language card that goes with a trained model."""

from __future__ import annotations

from datetime import date

import numpy as np

from models.cluster_gate import ClusterVerdict
from models.clustering import FEATURES
from models.selection import BOOTSTRAPS, CLOSE, GOOD_ARI, MIN_ARI, MIN_JACCARD, MIN_SHARE, SEED, Selection


def describe_clusters(selection: Selection, verdict: ClusterVerdict | None, merchant_id: str, as_of: date) -> str:
    """Returns what the model is, what it was made from, how it was chosen and what it is not for, as Markdown."""
    gates = (
        f"stable means a mean adjusted Rand index of at least {MIN_ARI:.2f}, every cluster's Jaccard index at least "
        f"{MIN_JACCARD:.2f} and no cluster under {MIN_SHARE:.0%}; of those the fewest within {CLOSE} of the best R2 of "
        f"later spend are taken (without a past day to judge by, the finest with ARI {GOOD_ARI:.2f} or more)"
    )
    lines = [
        f"# Customer clusters of {merchant_id}",
        "",
        selection.reason,
        *([verdict.reason] if verdict else []),
        "",
        f"- **Made from**: {', '.join(FEATURES)} of {selection.rows:,} customers, events before {as_of} only.",
        "- **How**: k-means on standardised logarithms (net value below zero counts as zero), k-means on ranks, or a",
        "  Gaussian mixture on the former; which, the table below decides.",
        f"- **Choice of k**: {BOOTSTRAPS} bootstrap refits each; {gates}. Seed {SEED}.",
        "- **For**: describing customers and as a feature in segment rules.",
        "- **Not for**: predicting spend; a plain sum of R, F and M scores does that at least as well.",
        "",
        "| way | k | mean ARI | worst ARI | lowest Jaccard | smallest share | R2 of later spend | stable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in selection.candidates:
        explained = "" if c.spend_r2 is None else f"{c.spend_r2:.3f}"
        steady = f"{c.ari:.2f} | {c.ari_min:.2f} | {c.jaccard_min:.2f} | {c.min_share:.1%}"
        steady = steady if np.isfinite(c.ari) else " | | | "
        lines.append(f"| {c.way} | {c.k} | {steady} | {explained} | {'yes' if c.is_stable else 'no'} |")
    if selection.model:
        lines += ["", "| cluster | name | recency | frequency | net value |", "|---|---|---|---|---|"]
        model = selection.model
        for number, name, centre in zip(model.numbers, model.names, model.centres, strict=True):
            at = [s.deviations(v) for s, v in zip(model.scales, centre, strict=True)]
            lines.append(f"| {number} | {name} | {at[0]:+.2f} | {at[1]:+.2f} | {at[2]:+.2f} |")
        lines += [
            "",
            "Centres are in standard deviations from the average customer, by logarithm or rank.",
        ]
    return "\n".join(lines) + "\n"
