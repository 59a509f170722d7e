"""Clients take turns, and nobody who gave up keeps a place."""

from __future__ import annotations

import asyncio

import pytest

from afterdetail.server.turns import Turns


@pytest.mark.parametrize(
    ("clients", "order"),
    [
        ("a", "a"),
        ("aab", "aab"),  # two places: the first two are at work at once, then b
        ("aaaabb", "aababa"),
    ],
)
def test_the_order_of_two_places(clients: str, order: str) -> None:
    served: list[str] = []

    async def one(turns: Turns, client: str) -> None:
        async with turns.turn(client):
            served.append(client)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        turns = Turns(2)
        await asyncio.gather(*(one(turns, client) for client in clients))
        assert turns.waiting == 0

    asyncio.run(all_of_them())
    assert "".join(served) == order


def test_a_place_is_not_given_to_who_gives_up_in_that_moment() -> None:
    async def scene() -> None:
        turns, ready = Turns(1), asyncio.Event()

        async def work() -> str:
            async with turns.turn("a"):
                await ready.wait()
            return "done"

        holder, leaver, other = (asyncio.create_task(work()) for _ in range(3))
        await asyncio.sleep(0)
        leaver.cancel()
        ready.set()
        done = await asyncio.wait_for(asyncio.gather(holder, other), 1)
        assert list(done) == ["done", "done"]
        assert turns.waiting == 0

    asyncio.run(scene())


def test_who_gives_up_leaves_the_queue_or_the_place() -> None:
    async def scene() -> None:
        turns = Turns(1)

        async def hold() -> None:
            async with turns.turn("a"):
                await asyncio.sleep(3600)

        holder, waiter, other = (asyncio.create_task(hold()) for _ in range(3))
        await asyncio.sleep(0)
        assert turns.waiting == 2
        waiter.cancel()
        await asyncio.sleep(0)
        assert turns.waiting == 1
        holder.cancel()
        other.cancel()
        await asyncio.gather(holder, waiter, other, return_exceptions=True)
        async with asyncio.timeout(1):
            async with turns.turn("b"):
                assert turns.waiting == 0

    asyncio.run(scene())


def test_who_gives_up_in_the_moment_of_getting_the_place_passes_it_on() -> None:
    async def scene() -> None:
        turns = Turns(1)
        leave = asyncio.Event()

        async def hold(client: str) -> str:
            async with turns.turn(client):
                await leave.wait()
                return client

        first = asyncio.create_task(hold("a"))
        await asyncio.sleep(0)
        second, third = asyncio.create_task(hold("b")), asyncio.create_task(hold("c"))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.sleep(0)  # the first gives its place to the second, who has not noticed
        second.cancel()
        async with asyncio.timeout(1):
            assert await first == "a"
            assert await third == "c"

    asyncio.run(scene())
