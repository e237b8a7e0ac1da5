"""The charts as Vega-Lite; tests/report/test_report.py looks at them in a browser."""

import pandas as pd
import pytest

from eqco.report import charts


@pytest.mark.parametrize("lines", [1, 2, 9])
def test_every_point_is_inside_the_axes(lines):
    same = {"id": 0, "method": "simo", "margin": "0", "protocol": "knn", "mean": 50.0, "std": 1.0}
    rows = [
        {**same, "line": f"line {i}", "negatives": k, "alpha": k, "accuracy": "", "values": ""}
        for i in range(lines)
        for k in (4, 255)
    ]
    chart = charts.against_k(pd.DataFrame(rows), "simo")
    low, high = chart["layer"][0]["encoding"]["x"]["scale"]["domain"]
    points = [point["x"] for point in next(iter(chart["datasets"].values()))]
    assert len(points) == 2 * lines
    assert low < min(points) < max(points) < high
