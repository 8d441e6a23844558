"""Make docs/images/report.png: train and backtest the built-in trend follower, make the report, and photograph its top with Chromium.

Needs the worker extra and a Chromium on the PATH: ``python docs/make_report_picture.py``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ktrdr_zmq import LocalCluster

TARGET = Path(__file__).parent / "images" / "report.png"
WIDTH, HEIGHT = 1000, 1240


def main() -> None:
    """Make the page, then the picture."""
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("There is no Chromium on the PATH.")
    with tempfile.TemporaryDirectory() as folder, LocalCluster(workers=1) as cluster, cluster.client() as client:
        model = client.train("trend_follower", symbol="SP500", timeframe="1d")
        page = client.report(client.backtest(model)).save(Path(folder) / "report.html")
        argv = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            "--virtual-time-budget=8000", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={TARGET}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
