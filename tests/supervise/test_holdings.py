"""The books: who was promised what, and what of it is used."""

from __future__ import annotations

import attrs

from stoker.model import EngineSpec, Reservation
from stoker.supervise.holdings import Holdings

from .machine import GIB, gpu, report

SPEC = EngineSpec(model="m", gpus=1)


def holding(*engines: str, promised_gib: float | None = 40, used_gib: float = 0) -> Holdings:
    """Each of ``engines`` was promised that much of GPU 0."""
    holdings = Holdings()
    promised = None if promised_gib is None else int(promised_gib * GIB)
    for engine_id in engines:
        holdings.take(engine_id, SPEC, [gpu(0, used_gib=used_gib)], {"GPU-0": promised})
    return holdings


def held(holdings: Holdings, uuid: str = "GPU-0") -> tuple[Reservation, ...]:
    return holdings.reservations({}).held.get(uuid, ())


def test_what_is_promised_is_not_free_before_it_is_used() -> None:
    holdings = holding("a")
    assert holdings.reservations({}).free(gpu(0)) == 40 * GIB
    holdings.measure(report(gpu(0, processes={41: ("a", 10)})), began=1.0)
    assert holdings.reservations({}).free(gpu(0, used_gib=10)) == 40 * GIB, "10 are used, 30 are still promised"
    holdings.measure(report(gpu(0, processes={41: ("a", 60)})), began=2.0)
    assert holdings.reservations({}).free(gpu(0, used_gib=60)) == 20 * GIB, "it took more than it was promised"


def test_of_a_gpu_that_is_somebodys_alone_nothing_is_free() -> None:
    holdings = holding("a", promised_gib=None)
    reservations = holdings.reservations({"GPU-0": 1})
    assert reservations.free(gpu(0)) == 0
    assert not reservations.fits(gpu(0))
    assert reservations.holders(gpu(0)) == ("a",)


def test_an_engine_that_must_have_a_gpu_for_itself_gets_none_that_another_holds() -> None:
    assert not holding("a", promised_gib=0).reservations({"GPU-0": None}).fits(gpu(0))
    assert Holdings().reservations({"GPU-0": None}).fits(gpu(0))


def test_an_engine_that_must_have_a_gpu_for_itself_gets_none_that_a_stranger_fills() -> None:
    """Only promises once counted: what a stranger used, or a former engine left, was given away with the GPU."""
    reservations = Holdings().reservations({"GPU-0": None})
    assert reservations.fits(gpu(0, used_gib=8)), "a desktop, or the driver itself"
    assert not reservations.fits(gpu(0, used_gib=9))
    small = attrs.evolve(gpu(0, used_gib=1), memory_total=4 * GIB)
    assert reservations.fits(small)
    assert not reservations.fits(attrs.evolve(small, memory_used=GIB + 1))


def test_what_is_given_back_is_free() -> None:
    holdings = holding("a")
    assert holdings.gpus_of("a") == ("GPU-0",)
    assert holdings.give_back("a")
    assert not holdings.give_back("a")
    assert holdings.gpus_of("a") == ()
    assert holdings.reservations({}).free(gpu(0)) == 80 * GIB


def test_an_engine_is_measured_by_the_first_reading_that_began_after_it_was_ready() -> None:
    holdings = holding("a")
    reading = report(gpu(0, processes={41: ("a", 30), 42: ("a", 5), 99: (None, 7)}))
    assert holdings.measure(reading, began=10.0) == []
    holdings.ready("a", 11.0)
    assert holdings.measure(reading, began=10.5) == [], "the reading may have seen it before it had loaded all"
    assert holdings.starting_on(["GPU-0"]) == {"a": "GPU-0"}
    (first,) = holdings.measure(reading, began=12.0)
    assert (first.used, first.anew, first.gpu.uuid) == (35 * GIB, True, "GPU-0")
    assert holdings.starting_on(["GPU-0"]) == {}, "measured, so that another may start here"
    (second,) = holdings.measure(reading, began=13.0)
    assert not second.anew


def test_where_the_driver_hides_who_uses_what_the_growth_since_the_start_counts() -> None:
    """Nobody else starts there meanwhile. When others come later, the growth is no longer this engine's alone."""
    holdings = holding("a", used_gib=7)
    holdings.ready("a", 1.0)
    hidden = report(gpu(0, used_gib=27, processes={41: ("a", None)}))
    assert [each.used for each in holdings.measure(hidden, began=2.0)] == [20 * GIB]
    fuller = report(gpu(0, used_gib=60, processes={41: ("a", None)}))
    assert [each.used for each in holdings.measure(fuller, began=3.0)] == [20 * GIB]


def test_where_the_driver_knows_no_process_the_growth_counts_too() -> None:
    holdings = holding("a", used_gib=7)
    holdings.ready("a", 1.0)
    assert [each.used for each in holdings.measure(report(gpu(0, used_gib=9)), began=2.0)] == [2 * GIB]


def test_an_engine_one_of_whose_gpus_can_not_be_read_is_not_measured_and_holds_up_nobody() -> None:
    """Its neighbours waited for ever for an engine that was READY."""
    holdings = Holdings()
    both = [gpu(0), gpu(1)]
    holdings.take("a", attrs.evolve(SPEC, gpus=2), both, {})
    holdings.ready("a", 1.0)
    assert holdings.measure(report(gpu(0, processes={41: ("a", 3)})), began=2.0) == []
    assert holdings.starting_on(["GPU-0", "GPU-1"]) == {}
    (later,) = holdings.measure(report(gpu(0, processes={41: ("a", 3)}), gpu(1, processes={42: ("a", 2)})), began=3.0)
    assert (later.used, later.anew) == (3 * GIB, True)


def test_of_gpus_of_one_kind_the_fullest_is_what_an_engine_needs() -> None:
    """Each GPU once counted as a run of its own, so that the last one hid the largest."""
    holdings = Holdings()
    four = [gpu(0), gpu(1), gpu(2), attrs.evolve(gpu(3), name="Other")]
    holdings.take("a", attrs.evolve(SPEC, gpus=4), four, {})
    holdings.ready("a", 1.0)
    used = [gpu(index, processes={41: ("a", gib)}) for index, gib in enumerate((60, 48, 36))]
    measured = holdings.measure(report(*used, attrs.evolve(gpu(3, processes={41: ("a", 24)}), name="Other")), began=2.0)
    assert {(each.gpu.name, each.used // GIB, each.anew) for each in measured} == {
        ("Test", 60, True),
        ("Other", 24, True),
    }


def test_a_neighbour_that_goes_while_an_engine_starts_is_not_taken_off_its_growth() -> None:
    """Where the driver names no process, 30 GiB that came while 20 went looked like 10."""
    holdings = Holdings()
    holdings.take("old", SPEC, [gpu(0)], {"GPU-0": 20 * GIB})
    holdings.ready("old", 1.0)
    holdings.measure(report(gpu(0, used_gib=20)), began=2.0)
    holdings.take("new", SPEC, [gpu(0, used_gib=20)], {"GPU-0": 30 * GIB})
    holdings.give_back("old")
    holdings.ready("new", 3.0)
    assert [each.used // GIB for each in holdings.measure(report(gpu(0, used_gib=30)), began=4.0)] == [30]


def test_a_report_shows_the_holders_and_what_is_promised() -> None:
    holdings = holding("a", "b")
    holdings.ready("a", 1.0)
    shown = holdings.shown_in(report(gpu(0, processes={41: ("a", 3)}), gpu(1)))
    assert shown.gpus[0].engines == ("a", "b")
    assert shown.gpus[0].memory_promised == 80 * GIB
    assert shown.gpus[0].reservations == held(holdings)
    assert shown.gpus[1].engines == ()
    alone = holding("c", promised_gib=None).shown_in(report(gpu(0)))
    assert alone.gpus[0].memory_promised == 80 * GIB
