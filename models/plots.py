"""Plots that go with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from models.judging import reliability

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.clustering import ClusterModel
    from models.selection import Candidate


def reliability_plot(did: NDArray[np.bool_], probability: NDArray[np.float64]) -> Figure:
    """Predicted against observed by tenths of the customers; on the diagonal is calibrated."""
    table = reliability(did, probability)
    figure = Figure(figsize=(5, 5), layout="tight")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(table["predicted"], table["observed"], marker="o")
    axes.set(
        xlabel="predicted", ylabel="observed", title="Reliability by tenths of customers", xlim=(0, 1), ylim=(0, 1)
    )
    return figure


def gain_curve(did: NDArray[np.bool_], scores: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Part of those who did it that is found in the part of the customers ranked highest."""
    figure = Figure(figsize=(6, 5), layout="tight")
    axes = figure.subplots()
    part = np.arange(1, len(did) + 1) / len(did)
    for name, score in scores.items():
        found = np.cumsum(did[np.argsort(-score, kind="stable")]) / max(1, did.sum())
        axes.plot(part, found, label=name)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="by chance")
    axes.set(xlabel="part of the customers, ranked", ylabel="part of those who did", title="Gain")
    axes.legend()
    return figure


def stability_plot(candidates: Sequence[Candidate]) -> Figure:
    """Steadiness and usefulness by way and number of clusters; what the gates ask for is dashed."""
    from models.selection import MIN_ARI, MIN_JACCARD

    measures = {"ari": ("mean bootstrap ARI", MIN_ARI), "jaccard_min": ("worst cluster's Jaccard", MIN_JACCARD),
                "spend_r2": ("R2 of later spend", None)}  # fmt: skip
    figure = Figure(figsize=(12, 4), layout="tight")
    for axes, (measure, (title, least)) in zip(figure.subplots(1, 3), measures.items(), strict=True):
        for way in dict.fromkeys(c.way for c in candidates):
            of_way = [
                (c.k, v)
                for c in candidates
                if c.way == way and (v := getattr(c, measure)) is not None and np.isfinite(v)
            ]
            axes.plot([k for k, _ in of_way], [v for _, v in of_way], marker="o", label=way)
        if least is not None:
            axes.axhline(least, color="0.6", linestyle="--", linewidth=1)
        axes.set(title=title, xlabel="clusters", xticks=sorted({c.k for c in candidates}))
    figure.axes[0].legend(fontsize=8)
    return figure


def profile_plot(model: ClusterModel) -> Figure:
    """Where each cluster lies in recency, frequency and value, and how many are in it."""
    at = [[s.deviations(v) for s, v in zip(model.scales, centre, strict=True)] for centre in model.centres]
    figure = Figure(figsize=(9, 1.2 + 0.5 * model.k), layout="tight")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    shown = left.imshow(at, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
    left.set_xticks(range(3), ["days silent", "baskets", "net value"])
    left.set_yticks(range(model.k), [f"{i}: {name}" for i, name in zip(model.numbers, model.names, strict=True)])
    for i, row in enumerate(at):
        for j, value in enumerate(row):
            left.text(
                j,
                i,
                f"{value:+.1f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if abs(value) > 1.4 else "black",
            )
    left.set_title("standard deviations from the average")
    figure.colorbar(shown, ax=left, shrink=0.8)
    right.barh(range(model.k), model.shares, color="0.6")
    right.set_title("share")
    return figure
