"""The same training in processes that compute with other kernels: where equality is claimed it holds, and elsewhere it is not claimed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ktrdr_zmq.results import TrainingResult, differing_circumstances

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from tests.unit.trading.test_jobs import OTHER, SAMPLE, Context, body, training
context = Context(Path(tempfile.mkdtemp(dir=sys.argv[2])), data=SAMPLE.path)
sys.stdout.write(json.dumps(training.run(body(overrides=OTHER[sys.argv[1]]), context)))
"""


def trained(kind: str, folder: Path, capability: str) -> TrainingResult:
    """Train in a process of its own."""
    env = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
    env |= {"PYTHONPATH": str(ROOT)} | ({"ATEN_CPU_CAPABILITY": capability} if capability else {})
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind, str(folder)], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain: dict[str, Any] = json.loads(done.stdout)
    return TrainingResult.from_dict(plain)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="there is but one kind of kernels")
@pytest.mark.parametrize("kind", ["gru", "lstm of returns"])
def test_equality_is_claimed_and_holds_where_the_fingerprint_is_equal_and_is_not_claimed_elsewhere(kind: str, tmp_path: Path) -> None:
    one, again, other = (trained(kind, tmp_path, capability) for capability in ("", "", "default"))
    assert differing_circumstances(one, again) == []
    assert (one.digest, one.model_digest, one.history) == (again.digest, again.model_digest, again.history)
    assert differing_circumstances(one, other) == ["cpu"]
    assert (one.fingerprint["cpu"] == "DEFAULT", other.fingerprint["cpu"]) == (False, "DEFAULT")
    assert one.digest != other.digest
    for before, after in zip(one.history.validation_loss, other.history.validation_loss, strict=True):
        assert before == pytest.approx(after, rel=1e-3), "docs/metrics.md states this tolerance for the losses of the first epochs"
