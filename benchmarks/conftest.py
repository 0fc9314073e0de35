"""One thread for every benchmark, and the random stream back as it was."""

import pytest
from threadpoolctl import threadpool_limits

from minidl import config


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def fresh_settings():
    before = dict(vars(config))
    yield
    vars(config).update(before)
