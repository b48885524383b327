"""A fleet's workers: those of Dask, Spark, Celery and gunicorn, as processes of theirs start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import requests
from redis_servers import Server, free_port
from servers import wait_for

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

CELERY = """
import subprocess, sys, time
from app import app, job, person, token_of
from tasks import main

def run(task, values):
    task = {"token_of": token_of, "job": job, "person": person}[task.__name__]
    asked = [task.delay(value) for value in values]
    return [one.get(timeout=60) for one in asked]

if __name__ == "__main__":
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", "--concurrency=4", "--loglevel=ERROR"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as worker:
        try:
            main(run)
        finally:
            worker.terminate()
"""

#: Celery's application, as its workers and whoever sends them tasks import it.
CELERY_APP = """
import os
from celery import Celery
import tasks

app = Celery("app", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"])
token_of, job, person = (app.task(task) for task in (tasks.token_of, tasks.job, tasks.person))
"""

no_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="Debian: apt install redis-server"
)
no_java = pytest.mark.skipif(
    shutil.which("java") is None and not os.environ.get("CI"), reason="Debian: apt install default-jre-headless"
)


KINDS = [
    pytest.param(DASK, id="Dask"),
    pytest.param(SPARK, id="Spark", marks=no_java),
    pytest.param(CELERY, id="Celery", marks=no_redis),
]


@pytest.fixture
def broker(tmp_path):
    with Server(tmp_path) as server:
        yield server.address


@pytest.fixture(params=KINDS)
def told(request, carto, tmp_path):
    """What a cluster's workers were told, a pair of process and text each; and the sandbox they asked."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "app.py").write_text(CELERY_APP)
    program = tmp_path / "program.py"
    program.write_text(request.param)
    environment = {"PYTHONPATH": str(tmp_path), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    if request.param == CELERY:
        environment |= {"BROKER": request.getfixturevalue("broker"), "C_FORCE_ROOT": "1"}
    else:
        # A browser that would log in, so that it is by the worker's nature that nobody is asked.
        environment["BROWSER"] = f"{sys.executable} -m carto_auth.sandbox.walker %s"
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return {name: [tuple(pair) for pair in pairs] for name, pairs in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.timeout(300)  # seconds; Java takes long to start beside other work
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


WEB_APP = """
import json, os
from carto_auth import CartoAuth
from tasks import person

auth = CartoAuth.from_m2m()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    told = {"process": os.getpid(), "token": auth.get_access_token()}
    if environ["PATH_INFO"] == "/person":
        told["error"] = person(0)[1]
    return [json.dumps(told).encode()]
"""


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["an object each", "one object, forked"])
def test_gunicorn(carto, tmp_path, options):
    carto.token_delay = 0.3
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "web.py").write_text(WEB_APP)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--workers=3", f"--bind={address}", *options, "web:app"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: _answers(address))
            told = []
            wait_for(lambda: told.append(_get(address)) or len({one["process"] for one in told}) == 3)
            assert server.pid not in {one["process"] for one in told}
            assert len({one["token"] for one in told}) == 1
            assert _get(address, "person")["error"] == "LoginRequired"
        finally:
            server.terminate()
    assert carto.count("/oauth/token") == 1
    assert carto.count("/authorize") == 0


def _get(address, path=""):
    return requests.get(f"http://{address}/{path}", timeout=30).json()


def _answers(address):
    try:
        return _get(address)
    except requests.ConnectionError:
        return None
