"""What the suites share: threads, the peers' processes, and the replay of what they measured.

A worker measures its own time. pytest-benchmark gets it by a clock that stands still but for replay, which advances it
by a sample a round.
"""

import pytest
from peers import PEERS
from pool import Pool, cores

from minidl import config

SKIPPED = []  # {"suite", "group", "name", "reason"}, for the report


class Clock:
    """Seconds that were told to pass."""

    now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


CLOCK = Clock()


def pytest_addoption(parser):
    group = parser.getgroup("minidl's benchmarks")
    group.addoption("--threads", type=int, default=cores(), help="of every peer; default: the cores")
    group.addoption("--rounds", type=int, default=7, help="of each comparison, interleaved; at least 3")
    group.addoption("--seconds", type=float, default=6, help="after which a comparison makes no more than 3 rounds")
    group.addoption("--cold-rounds", type=int, default=3, help="of cold starts")
    group.addoption("--growth-seconds", type=float, default=150, help="of the growth with width, batch and depth")
    group.addoption("--round-seconds", type=float, default=0.05, help="what a peer is timed for in a round, about")


def pytest_collection_modifyitems(items):
    """A test of peers is timed by their clock."""
    for item in items:
        if "compare" in item.fixturenames:
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture(scope="session")
def pool(request):
    pool = Pool(request.config.getoption("threads"))
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def measured():
    """What was measured: group -> name -> samples and what is known of them, or the error."""
    return {}


@pytest.fixture
def settings(request):
    get = request.config.getoption
    return {name: get(name) for name in ("rounds", "seconds", "round_seconds", "cold_rounds")}


@pytest.fixture
def compare(request, benchmark, measured):
    """compare(group, name, measure): the samples of this name as this test's benchmark.

    The first test of a group calls measure(names) with those of all its tests that will run; it returns for each
    name (samples, extra) or an exception.
    """

    def compare(group, name, measure):
        benchmark.group = group
        missing = PEERS[name].missing() if name in PEERS else None
        if missing:
            skip(request, group, name, missing)
        if group not in measured:
            measured[group] = measure([other for other in names_beside(request) if not is_missing(other)])
        found = measured[group][name]
        if isinstance(found, Exception):
            raise found
        samples, extra = found
        benchmark.extra_info.update(extra, name=name)
        ticks = iter(samples)
        benchmark.pedantic(CLOCK.advance, setup=lambda: ((next(ticks),), {}), rounds=len(samples), iterations=1)

    return compare


def is_missing(name):
    return name in PEERS and PEERS[name].missing() is not None


def skip(request, group, name, reason):
    """Skip the test; the report says why."""
    suite = request.node.path.stem.removeprefix("test_")
    SKIPPED.append({"suite": suite, "group": group, "name": name, "reason": reason})
    pytest.skip(f"{name}: {reason}")


def names_beside(request):
    """The names of the tests that will run of the same function with the same other parameters."""
    own = request.node.callspec.params
    return [
        item.callspec.params["name"]
        for item in request.session.items
        if getattr(item, "originalname", None) == request.node.originalname
        and {**item.callspec.params, "name": own["name"]} == own
    ]


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json["skipped"] = SKIPPED
    output_json["threads"] = config.getoption("threads")


@pytest.fixture(autouse=True)
def fresh_settings():
    before = dict(vars(config))
    yield
    vars(config).update(before)
