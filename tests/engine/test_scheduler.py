from __future__ import annotations

from afterdetail.engine.scheduler import Entry, Scheduler, Stage, Tick


def entry(
    number: int,
    *,
    model: str = "a",
    rows: int = 2,
    since: float = 0.0,
    key: str = "k",
    stage: Stage = Stage.DENOISE,
    deadline: float | None = None,
    owner: str = "",
) -> Entry:
    return Entry(number, model, rows, since, deadline, key, stage, owner=owner)


def scheduler_of(*entries: Entry, **settings: float) -> Scheduler:
    scheduler = Scheduler(**settings)  # type: ignore[arg-type]
    for item in entries:
        scheduler.add(item)
    return scheduler


def numbers(entries: tuple[Entry, ...]) -> list[int]:
    return [item.number for item in entries]


def test_an_empty_scheduler_has_nothing_to_do() -> None:
    assert not Scheduler().next_tick(0.0)
    assert Scheduler().next_tick(0.0) == Tick()


def test_one_tick_encodes_denoises_and_decodes() -> None:
    scheduler = scheduler_of(
        entry(1, stage=Stage.DECODE), entry(2), entry(3, stage=Stage.ENCODE), entry(4)
    )
    tick = scheduler.next_tick(0.0)
    assert numbers(tick.decode) == [1]
    assert numbers(tick.denoise) == [2, 4]
    assert numbers(tick.encode) == [3]


def test_codec_work_of_a_tick_is_bounded_and_first_come_first_served() -> None:
    waiting = [entry(n, stage=Stage.ENCODE, since=10 - n) for n in range(10)]
    tick = scheduler_of(*waiting, codec_limit=3).next_tick(20.0)
    assert numbers(tick.encode) == [9, 8, 7]


def test_an_owner_with_one_job_does_not_wait_for_all_of_another() -> None:
    running = [entry(1, owner="crowd")]
    crowd = [entry(n, stage=Stage.ENCODE, owner="crowd") for n in range(2, 9)]
    late = [entry(n, stage=Stage.ENCODE, since=5, owner=f"one {n}") for n in (20, 21)]
    tick = scheduler_of(*running, *crowd, *late).next_tick(6.0)
    assert numbers(tick.encode) == [20, 21, 2, 3]


def test_newcomers_wait_while_the_rows_in_flight_leave_no_room() -> None:
    running = [entry(n) for n in range(4)]
    newcomers = [entry(8, stage=Stage.ENCODE, rows=1), entry(9, stage=Stage.ENCODE, rows=1)]
    assert numbers(scheduler_of(*running, *newcomers, row_limit=9).next_tick(0.0).encode) == [8]
    assert numbers(scheduler_of(*running, *newcomers, row_limit=8).next_tick(0.0).encode) == []


def test_a_newcomer_is_encoded_while_the_job_before_it_takes_its_last_step() -> None:
    last, newcomer = entry(1, key="x"), entry(3, stage=Stage.ENCODE)
    last.leaving = True
    scheduler = scheduler_of(last, entry(2, key="y", since=1.0), newcomer, row_limit=4)
    first, second = (scheduler.next_tick(now) for now in (2.0, 3.0))
    assert (numbers(first.denoise), numbers(first.encode)) == ([1], [3])
    assert (numbers(second.denoise), numbers(second.encode)) == ([2], [])


def test_a_job_larger_than_the_row_limit_runs_alone_rather_than_never() -> None:
    tick = scheduler_of(entry(1, rows=5, stage=Stage.ENCODE), row_limit=2).next_tick(0.0)
    assert numbers(tick.encode) == [1]


def test_jobs_share_a_forward_only_with_their_own_key() -> None:
    scheduler = scheduler_of(entry(1, key="x"), entry(2, key="y"), entry(3, key="x"))
    assert numbers(scheduler.next_tick(1.0).denoise) == [1, 3]
    assert numbers(scheduler.next_tick(2.0).denoise) == [2]
    assert numbers(scheduler.next_tick(3.0).denoise) == [1, 3]


def test_a_model_keeps_its_turn_while_others_wait_and_then_gives_way() -> None:
    scheduler = scheduler_of(entry(1, model="a"), entry(2, model="b", since=0.5), turn=1.0)
    runs = [numbers(scheduler.next_tick(now).denoise) for now in (1.0, 1.5, 1.9, 2.0, 2.9, 3.0)]
    assert runs == [[1], [1], [1], [2], [2], [1]]


def test_a_model_without_work_gives_way_at_once() -> None:
    scheduler = scheduler_of(entry(1, model="a"), entry(2, model="b"), turn=60.0)
    first = numbers(scheduler.next_tick(0.0).denoise)
    scheduler.remove(first[0])
    assert numbers(scheduler.next_tick(0.0).denoise) == [2]


def test_of_many_models_the_longest_waiting_comes_next() -> None:
    jobs = [entry(n, model=str(n), since=float(-n)) for n in range(4)]
    scheduler = scheduler_of(*jobs, turn=1.0)
    runs = [numbers(scheduler.next_tick(float(now)).denoise)[0] for now in range(8)]
    assert runs == [3, 2, 1, 0, 3, 2, 1, 0]


def test_a_queue_of_one_model_never_blocks_another_model() -> None:
    flood = [entry(n, model="a", stage=Stage.ENCODE) for n in range(1000)]
    scheduler = scheduler_of(*flood, entry(1001, model="b", since=5.0), turn=1.0, row_limit=8)
    ticks = [scheduler.next_tick(6.0 + now / 10) for now in range(30)]
    assert any(1001 in numbers(tick.denoise) for tick in ticks)


def test_expired_entries_are_those_whose_deadline_has_passed() -> None:
    scheduler = scheduler_of(entry(1), entry(2, deadline=5.0), entry(3, deadline=6.0))
    assert [item.number for item in scheduler.expired(5.0)] == [2]


def test_removing_an_unknown_number_is_fine() -> None:
    scheduler = scheduler_of(entry(1))
    scheduler.remove(7)
    assert len(scheduler) == 1


def test_a_shapes_limit_is_lowered_and_never_raised() -> None:
    scheduler = Scheduler(row_limit=16)
    assert not scheduler.knows("s")
    for rows, expected in ((32, 16), (8, 8), (12, 8), (4, 4)):
        scheduler.limit("s", rows)
        assert scheduler.limit_of("s") == expected
    assert scheduler.limit_of("another") == 16


def test_a_lowered_limit_divides_what_is_in_flight_and_starves_nobody() -> None:
    scheduler = scheduler_of(*(entry(n) for n in range(5)))
    scheduler.limit(None, 4)
    turns = [numbers(scheduler.next_tick(float(now)).denoise) for now in range(1, 7)]
    assert all(len(turn) <= 2 for turn in turns)
    assert all(sum(n in turn for turn in turns) >= 2 for n in range(5))
