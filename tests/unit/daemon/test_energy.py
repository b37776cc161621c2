"""Energy: counters read, each by itself, and what devices used shared among processes by their time."""

from __future__ import annotations

import os

import pytest

from llmos_shell.daemon.machine.devices import DeviceReader, Energy
from llmos_shell.daemon.machine.energy import CPU, RETRY_SECONDS, EnergyShares
from llmos_shell.daemon.machine.rapl import Rapl
from llmos_shell.testing.nvml import Gpu, ScriptedNvml


class Powercap:
    """A tree as Linux shows it under /sys/class/powercap."""

    def __init__(self, folder):
        self.folder = folder

    def zone(self, name, energy, *, called="package-0", most=1000):
        zone = self.folder / name
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{called}\n")
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{most}\n")
        return zone


@pytest.fixture
def powercap(tmp_path):
    return Powercap(tmp_path)


@pytest.fixture
def rapl(tmp_path):
    return Rapl(str(tmp_path))


# -- counters of CPUs --------------------------------------------------------------------------------------------------


def test_packages_are_added_and_what_is_within_or_beside_them_is_not(powercap, rapl):
    powercap.zone("intel-rapl:0", 2_500_000)
    powercap.zone("intel-rapl:1", 1_000_000, called="package-1")
    powercap.zone("intel-rapl:0:0", 9_000_000, called="core")
    powercap.zone("intel-rapl:2", 9_000_000, called="psys")
    powercap.zone("intel-rapl-mmio:0", 9_000_000)
    assert rapl.joules() == 3.5


def test_a_counter_that_starts_anew_goes_on(powercap, rapl):
    for value, joules in ((900, 900), (100, 1100), (999, 1999), (998, 2998)):
        powercap.zone("intel-rapl:0", value)
        assert rapl.joules() == pytest.approx(joules / 1e6)


def test_a_counter_that_started_anew_with_an_unknown_range_is_unknown(powercap, rapl):
    zone = powercap.zone("intel-rapl:0", 900)
    assert rapl.joules() is not None
    powercap.zone("intel-rapl:0", 100)
    (zone / "max_energy_range_uj").unlink()
    assert rapl.joules() is None


def test_without_counters_or_without_the_right_to_read_one_it_is_unknown(powercap, rapl):
    assert rapl.joules() is None
    powercap.zone("intel-rapl:0", 5)
    zone = powercap.zone("intel-rapl:1", 5, called="package-1")
    assert rapl.joules() is not None
    (zone / "energy_uj").write_text("")
    assert rapl.joules() is None
    (zone / "energy_uj").unlink()
    (zone / "energy_uj").mkdir()  # cannot be read by root either
    assert rapl.joules() is None
    assert Rapl("/nowhere").joules() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_only_is_unknown(powercap, rapl):
    (powercap.zone("intel-rapl:0", 5) / "energy_uj").chmod(0)
    assert rapl.joules() is None


# -- where workers are -------------------------------------------------------------------------------------------------


def read(*gpus, workers=(7,), powercap="/nowhere", errors=None):
    return DeviceReader(lambda: ScriptedNvml(*gpus, errors=errors), powercap).energy(workers)


def test_gpus_are_asked_only_for_workers_on_them(powercap):
    powercap.zone("intel-rapl:0", 5_000_000)
    assert read(Gpu(), workers=(), powercap=str(powercap.folder)) == Energy({"cpu": 5.0}, {})


def test_which_gpus_a_worker_computes_on():
    both = read(Gpu(processes={7: 1, 8: 1}), Gpu(processes={7: 1}, millijoules=1500), workers=(7, 8, 9))
    assert both.joules == {"cpu": None, "gpu0": 5000.0, "gpu1": 1.5}
    assert both.places == {7: ("gpu0", "gpu1"), 8: ("gpu0",)}
    assert read(Gpu(processes={1: 1})).places == {7: ("gpu0",)}, "in a container it has another PID"


@pytest.mark.parametrize(
    ("gpu", "errors"),
    [
        (Gpu(errors={"nvmlDeviceGetTotalEnergyConsumption": 3}), None),
        (Gpu(errors={"*": 15}), None),
        (Gpu(instances=[Gpu()]), None),
        (Gpu(), {"nvmlInit": 9}),
        (Gpu(), {"nvmlDeviceGetCount": 1}),
    ],
)
def test_what_a_gpu_does_not_tell_is_unknown(gpu, errors):
    assert not any(read(gpu, errors=errors).joules.values())
    assert 0.0 not in read(gpu, errors=errors).joules.values()


# -- shares ------------------------------------------------------------------------------------------------------------


def cpu(joules):
    return Energy({"cpu": joules}, {})


def test_a_busy_interval_is_shared_by_device_time():
    shares = EnergyShares()
    shares.note(CPU, 1, 0.0)
    assert shares.take(cpu(100.0), 10.0) == {}
    shares.note(CPU, 1, 0.75)
    shares.note(CPU, 2, 0.25)
    assert shares.take(cpu(140.0), 11.0) == {1: pytest.approx(30.0), 2: pytest.approx(10.0)}
    assert shares.idle and shares.take(cpu(180.0), 12.0) == {}


def one_busy_second() -> EnergyShares:
    """Process 1 has computed for a second since a first reading, at 0, of a counter that stood at 0."""
    shares = EnergyShares()
    shares.take(cpu(0.0), 0.0)
    shares.note(CPU, 1, 1.0)
    return shares


def test_idling_is_nobodys():
    shares = EnergyShares()
    shares.take(cpu(0.0), 0.0)
    shares.note(CPU, 1, 0.5)
    assert shares.take(cpu(10.0), 2.0) == {1: pytest.approx(2.5)}


def test_models_side_by_side_are_charged_no_more_than_the_device_used():
    shares = one_busy_second()
    shares.note(CPU, 2, 1.0)
    assert sum(shares.take(cpu(10.0), 1.0).values()) == pytest.approx(10.0)


def test_what_was_computed_just_before_the_first_reading_counts_to_the_first_interval():
    shares = EnergyShares()
    shares.note(CPU, 1, 0.1)
    assert shares.take(cpu(5.0), 0.0) == {} and shares.pending(1)
    assert shares.take(cpu(6.0), 0.2) == {1: pytest.approx(0.5)}
    assert not shares.pending(1)


def test_a_reading_that_fails_prolongs_the_interval():
    shares = one_busy_second()
    assert shares.take(cpu(None), 1.0) == {} and shares.pending(1)
    shares.note(CPU, 1, 1.0)
    assert shares.take(cpu(20.0), 2.0) == {1: pytest.approx(20.0)}


def test_readings_that_fail_for_long_are_given_up():
    shares = one_busy_second()
    assert shares.take(cpu(None), RETRY_SECONDS + 1) == {}
    assert not shares.pending(1)
    assert shares.take(cpu(1000.0), RETRY_SECONDS + 2) == {}


def test_what_never_tells_charges_nothing():
    shares = EnergyShares()
    for now in range(3):
        shares.note(CPU, 1, 1.0)
        assert shares.take(cpu(None), float(now)) == {} and shares.idle


def test_a_driver_that_was_loaded_anew_begins_an_interval():
    shares = EnergyShares()
    shares.take(cpu(500.0), 0.0)
    shares.note(CPU, 1, 1.0)
    assert shares.take(cpu(3.0), 1.0) == {}
    shares.note(CPU, 1, 1.0)
    assert shares.take(cpu(5.0), 2.0) == {1: pytest.approx(2.0)}


def test_a_worker_on_two_gpus_is_charged_for_both_or_for_none():
    places = {7: ("gpu0", "gpu1"), 8: ("gpu1",)}
    shares = EnergyShares()
    shares.take(Energy({"gpu0": 0.0, "gpu1": 0.0}, places), 0.0)
    shares.note(7, 1, 1.0)
    shares.note(8, 2, 1.0)
    taken = shares.take(Energy({"gpu0": 10.0, "gpu1": 6.0}, places), 2.0)
    assert taken == {1: pytest.approx(5.0 + 3.0), 2: pytest.approx(3.0)}
    half = EnergyShares()
    half.take(Energy({"gpu0": 0.0, "gpu1": None}, places), 0.0)
    half.note(7, 1, 1.0)
    assert half.take(Energy({"gpu0": 10.0, "gpu1": None}, places), 1.0) == {}
    half.note(9, 3, 1.0)
    assert half.take(Energy({"gpu0": 20.0}, places), 2.0) == {}, "nobody knows where that worker is"
