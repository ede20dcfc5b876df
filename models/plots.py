"""Plots that go with a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from models.judging import reliability

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
