"""One self-contained HTML page per run, written for a marketer.

`collect` reads tables into a `ReportData` of a few hundred plain values, `charts` draws them as SVG, `render` makes
the page and `build` puts it beside the data.
"""
