"""What people look at after a run: one page that needs no network, and the words and pictures on it."""

from wardround.console.reports.html import render_report

__all__ = ["render_report"]
