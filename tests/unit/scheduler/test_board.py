"""Who is told of what, and when."""

import asyncio
import threading
import time

from koinon.scheduler.board import Board


def test_a_poll_ends_when_a_task_comes_and_not_before() -> None:
    async def scenario() -> None:
        board = Board()
        board.bind(asyncio.get_running_loop())
        cursor, tasks = board.read("lyon")
        assert tasks == []
        polling = asyncio.create_task(board.poll("lyon", cursor, 5))
        await asyncio.sleep(0.01)
        threading.Thread(target=board.set_tasks, args=("run001", {"nice": b"{}"})).start()
        await asyncio.sleep(0.05)
        assert not polling.done()
        threading.Thread(target=board.set_tasks, args=("run001", {"lyon": b"{1}", "nice": b"{}"})).start()
        following, tasks = await asyncio.wait_for(polling, 1)
        assert following > cursor
        assert tasks == [b"{1}"]
        assert await board.poll("lyon", following, 0.01) == (following, [b"{1}"])  # it stands until it is answered
        board.drop_task("run001", "lyon")
        assert board.read("lyon") == (following, [])

    asyncio.run(scenario())


def test_the_same_task_again_wakes_nobody() -> None:
    board = Board()
    board.set_tasks("run001", {"lyon": b"{}"})
    cursor, _ = board.read("lyon")
    board.set_tasks("run001", {"lyon": b"{}"})
    assert board.read("lyon") == (cursor, [b"{}"])
    board.set_tasks("run001", {})
    assert board.read("lyon") == (cursor, [])


def test_cursors_rise_over_restarts() -> None:
    before, _ = Board().read("lyon")
    time.sleep(0.002)
    after, _ = Board().read("lyon")
    assert after > before


def test_a_site_in_its_long_poll_was_seen_now() -> None:
    async def scenario() -> None:
        now = [100.0]
        board = Board(lambda: now[0])
        board.bind(asyncio.get_running_loop())
        assert board.last_seen("lyon") == 0.0
        cursor, _ = board.read("lyon")
        polling = asyncio.create_task(board.poll("lyon", cursor, 5))
        await asyncio.sleep(0)
        now[0] = 200.0
        assert board.last_seen("lyon") == 200.0
        board.close()
        await asyncio.wait_for(polling, 1)
        now[0] = 300.0
        assert board.last_seen("lyon") == 200.0

    asyncio.run(scenario())


def test_a_watcher_misses_nothing_between_looking_and_waiting() -> None:
    async def scenario() -> None:
        board = Board()
        board.bind(asyncio.get_running_loop())
        watch = board.watcher("run001")
        board.tell("run001")
        assert await watch(1.0)
        assert not await board.watcher("run001")(0.01)

    asyncio.run(scenario())
