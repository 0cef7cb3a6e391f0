import os
import signal
import time

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.worker_pool import DIED, HUNG, ordered_map


def work(job, given_up, at):
    found = []
    for place, item in enumerate(job):
        if place in given_up:
            found.append(given_up[place])
            continue
        at(place)
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "hang":
            time.sleep(1000)
        if item == "fail":
            raise KeyError("a mistake in the work")
        if isinstance(item, float):
            time.sleep(item)
        found.append(item)
    return found


def die_at_once(job, given_up, at):
    os._exit(1)


def test_deadly_items_are_found_and_the_rest_stays_in_order():
    jobs: list[list] = [[10 * j + i for i in range(5)] for j in range(8)]
    jobs[0][0] = 0.3  # the first job is the last to be done
    jobs[3][4] = "die"
    jobs[3][1] = "hang"
    expected = [list(job) for job in jobs]
    expected[3][4], expected[3][1] = DIED, HUNG
    assert list(ordered_map(work, iter(jobs), 2, hang_s=0.8)) == expected


def test_jobs_are_taken_when_there_is_room():
    taken = 0

    def jobs():
        nonlocal taken
        for i in range(50):
            taken += 1
            yield [i]

    results = ordered_map(work, jobs(), 1)
    assert next(results) == [0]
    assert taken <= 8


def test_without_processes():
    assert list(ordered_map(work, iter([[1, 2], [3]]), 0)) == [[1, 2], [3]]


def test_mistakes_are_not_hidden():
    with pytest.raises(KeyError, match="a mistake in the work"):
        list(ordered_map(work, [[1], ["fail"]], 1))
    with pytest.raises(UserError, match="die before they begin.*--workers"):
        list(ordered_map(die_at_once, [[1]], 1))
