"""The queue: no two of a lane at once, nothing forgotten, failures ever later."""

import threading

from koinon_operator.queue import FIRST_SECONDS, LONGEST_SECONDS, Queue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_handed_out_once_however_often_it_is_wished_for() -> None:
    queue: Queue[str] = Queue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [queue.get(0), queue.get(0), queue.get(0)] == ["a", "b", None]


def test_a_key_that_is_worked_on_comes_again_after_and_not_beside() -> None:
    queue: Queue[str] = Queue()
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add("a")
    assert queue.get(0) is None
    queue.done("a")
    assert queue.get(0) == "a"
    queue.done("a")
    assert queue.get(0) is None


def test_one_key_of_a_lane_at_a_time_and_other_lanes_go_on() -> None:
    queue: Queue[tuple[str, str]] = Queue(lane=lambda key: key[0])
    for key in (("lyon", "a"), ("lyon", "b"), ("nice", "c")):
        queue.add(key)
    assert queue.get(0) == ("lyon", "a")
    assert queue.get(0) == ("nice", "c")
    assert queue.get(0) is None
    queue.done(("lyon", "a"))
    assert queue.get(0) == ("lyon", "b")


def test_later_comes_later_and_the_earliest_of_several_times_counts() -> None:
    clock = Clock()
    queue: Queue[str] = Queue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.now = 4.9
    assert queue.get(0) is None
    clock.now = 5.0
    assert queue.get(0) == "a"
    queue.done("a")
    clock.now = 30.0
    assert queue.get(0) is None


def test_failures_come_again_ever_later_until_one_goes_well() -> None:
    clock = Clock()
    queue: Queue[str] = Queue(clock=clock)
    queue.add("a")
    waits = []
    for _ in range(10):
        assert queue.get(0) == "a"
        waits.append(queue.failed("a"))
        assert queue.get(0) is None
        clock.now += waits[-1]
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS
    assert queue.get(0) == "a"
    queue.done("a")
    queue.add("a")
    queue.get(0)
    assert queue.failed("a") == FIRST_SECONDS


def test_a_failed_key_that_is_wished_for_meanwhile_comes_at_once() -> None:
    clock = Clock()
    queue: Queue[str] = Queue(clock=clock)
    queue.add("a")
    queue.get(0)
    queue.add("a")
    queue.failed("a")
    assert queue.get(0) == "a"


def test_done_may_ask_for_a_next_time() -> None:
    clock = Clock()
    queue: Queue[str] = Queue(clock=clock)
    queue.add("a")
    queue.get(0)
    queue.done("a", after=7)
    clock.now = 7.0
    assert queue.get(0) == "a"


def test_the_length_is_what_waits_now() -> None:
    queue: Queue[str] = Queue()
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 100)
    assert len(queue) == 2
    queue.get(0)
    assert len(queue) == 1


def test_threads_never_hold_a_lane_twice_and_do_all_of_it() -> None:
    queue: Queue[tuple[int, int]] = Queue(lane=lambda key: key[0])
    lock, held, done, twice = threading.Lock(), set[int](), list[tuple[int, int]](), list[int]()

    def work() -> None:
        while (key := queue.get(0.5)) is not None:
            with lock:
                if key[0] in held:
                    twice.append(key[0])
                held.add(key[0])
            with lock:
                held.discard(key[0])
                done.append(key)
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    wanted = {(lane, number) for lane in range(5) for number in range(40)}
    for key in wanted:
        queue.add(key)
    for thread in threads:
        thread.join()
    assert twice == []
    assert set(done) == wanted


def test_closing_wakes_those_who_wait() -> None:
    queue: Queue[str] = Queue()
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(5)
    assert found == [None]
