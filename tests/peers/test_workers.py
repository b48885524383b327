"""A fleet's workers: Dask's and Spark's own, as processes of theirs start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

# What the workers do. It is a program of its own, because they import what they are given from there.
TASKS = """
import json, os, sys
from carto_auth import CartoAuth, errors

def token_of(auth):
    return os.getpid(), auth.get_access_token()

def job(number):
    return os.getpid(), CartoAuth.from_m2m().get_access_token()

def person(number):
    try:
        CartoAuth.from_oauth()
    except errors.LoginRequired as error:
        return os.getpid(), type(error).__name__

def main(run):
    auth = CartoAuth.from_m2m()
    told = {"mine": [[os.getpid(), auth.get_access_token()]]}
    told["carried"] = run(token_of, [auth] * 16)
    auth.logout()
    told["jobs"] = run(job, range(16))
    told["people"] = run(person, range(4))
    print(json.dumps(told), file=sys.__stdout__, flush=True)
"""

DASK = """
from distributed import Client, LocalCluster
from tasks import main

if __name__ == "__main__":
    with LocalCluster(n_workers=4, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        main(lambda task, values: client.gather(client.map(task, list(values), pure=False)))
"""

SPARK = """
from pyspark.sql import SparkSession
from tasks import main

session = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false").getOrCreate()
main(lambda task, values: session.sparkContext.parallelize(list(values), 8).map(task).collect())
session.stop()
"""

no_java = pytest.mark.skipif(
    shutil.which("java") is None and not os.environ.get("CI"), reason="Debian: apt install default-jre-headless"
)


@pytest.fixture(params=[pytest.param(DASK, id="Dask"), pytest.param(SPARK, id="Spark", marks=no_java)])
def told(request, carto, tmp_path):
    """What a cluster's workers were told, a pair of process and text each; and the sandbox they asked."""
    (tmp_path / "tasks.py").write_text(TASKS)
    program = tmp_path / "program.py"
    program.write_text(request.param)
    environment = {"PYTHONPATH": str(tmp_path), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    # A browser that would log in, so that it is by the worker's nature that nobody is asked.
    environment["BROWSER"] = f"{sys.executable} -m carto_auth.sandbox.walker %s"
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return {name: [tuple(pair) for pair in pairs] for name, pairs in json.loads(done.stdout.splitlines()[-1]).items()}


def test_workers(told, carto):
    [(driver, token)] = told["mine"]
    for name in ("carried", "jobs", "people"):
        assert driver not in {process for process, _ in told[name]}, "these are no workers"
    assert {given for _, given in told["carried"]} == {token}
    assert len({process for process, _ in told["jobs"]}) > 1
    assert len({given for _, given in told["jobs"]}) == 1
    assert carto.count("/oauth/token") == 2  # the driver's and, after its logout, one for all of the jobs
    assert {error for _, error in told["people"]} == {"LoginRequired"}
    assert carto.count("/authorize") == 0
