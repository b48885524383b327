"""SingleFlight: threads that want the same work done, and one that does it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import wait_for

from carto_auth import _single_flight
from carto_auth._single_flight import SingleFlight
from carto_auth.errors import CredentialsError

#: Seconds that nothing here takes.
LONG = 30.0


class Work:
    """Work that goes on until it is let go. Counts how often it was begun, and by whom it may not be waited for."""

    def __init__(self, error=None):
        self.error = error
        self.begun = []
        self.go_on = threading.Event()

    def __call__(self, may_wait):
        self.begun.append(may_wait)
        assert self.go_on.wait(LONG)
        if self.error is not None:
            raise self.error


@pytest.fixture
def flight():
    return SingleFlight()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def waiting(monkeypatch):
    """Grows by one whenever a thread begins to wait for what comes of another one's work."""
    waiting = []

    class Watched:
        def __init__(self):
            self.lock = threading.Lock()
            self.release = self.lock.release

        def acquire(self, **timeout):
            waiting.extend(timeout)
            return self.lock.acquire(**timeout)

    monkeypatch.setattr(_single_flight, "allocate_lock", Watched)
    return waiting


def start(pool, flight, work, *, wait=LONG):
    return pool.submit(flight.do, work, wait=wait)


def lead(pool, flight, work):
    """A thread that is at its work now."""
    leader = start(pool, flight, work)
    wait_for(lambda: work.begun)
    return leader


@pytest.mark.parametrize("error", [None, CredentialsError("for all")], ids=["success", "error"])
def test_one_does_the_work_and_the_others_share_what_comes_of_it(error, flight, pool, waiting):
    work = Work(error)
    threads = [lead(pool, flight, work), *(start(pool, flight, work) for _ in range(7))]
    wait_for(lambda: len(waiting) == 7)
    assert not any(thread.done() for thread in threads)
    work.go_on.set()
    assert [thread.exception(LONG) for thread in threads] == [error] * 8
    assert work.begun == [True]
    start(pool, flight, work).exception(LONG)  # after the end it is another flight
    assert work.begun == [True, True]


def test_after_an_error_that_is_not_for_all_another_thread_tries(flight, pool, waiting):
    failing, succeeding = Work(KeyboardInterrupt()), Work()
    leader = lead(pool, flight, failing)
    other = start(pool, flight, succeeding)
    wait_for(lambda: waiting)
    succeeding.go_on.set()
    failing.go_on.set()
    assert (leader.exception(LONG), other.exception(LONG)) == (failing.error, None)
    assert succeeding.begun == [True]


@pytest.mark.parametrize(("wait", "begun"), [(0.0, []), (0.01, [False])], ids=["nobody waits", "the wait is over"])
def test_whoever_does_not_wait_any_longer(wait, begun, flight, pool):
    first, second = Work(), Work()
    leader = lead(pool, flight, first)
    second.go_on.set()
    start(pool, flight, second, wait=wait).result(LONG)
    assert second.begun == begun  # without waiting for others in turn
    first.go_on.set()
    leader.result(LONG)


def test_a_thread_does_not_wait_for_itself(flight):
    """A signal handler runs in the middle of the work, and may want the same."""

    def work(may_wait):
        assert may_wait
        flight.do(work, wait=0.0)  # who does not wait gets nothing
        with pytest.raises(CredentialsError, match="signal handler"):
            flight.do(work, wait=LONG)

    flight.do(work, wait=LONG)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_begins_with_no_work_under_way(flight, pool):
    work = Work()
    leader = lead(pool, flight, work)
    child = os.fork()
    if child == 0:
        begun = []
        flight.do(begun.append, wait=LONG)
        os._exit(0 if begun == [True] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    work.go_on.set()
    leader.result(LONG)
