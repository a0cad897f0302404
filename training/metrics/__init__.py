"""Metrics, one in each module; the protocols that they are taken by are named here."""

from training.metrics.scoring import LUMA, RGB, Scoring

__all__ = ["LUMA", "RGB", "Scoring"]
