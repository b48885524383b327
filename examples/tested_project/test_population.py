"""Tests of the job, offline: the fixture `carto_sandbox` comes with carto-auth's extra `sandbox`."""

import pytest
from population import population

from carto_auth import CredentialsError


def test_population(carto_sandbox):
    assert population("Japan") > 10_000_000
    assert carto_sandbox.count("/oauth/token") == 1


def test_unknown_country(carto_sandbox):
    assert population("Atlantis") == 0


def test_carto_is_down(carto_sandbox):
    carto_sandbox.outage = 503
    with pytest.raises(CredentialsError):
        population("Japan")


def test_account_without_a_warehouse(carto_sandbox):
    carto_sandbox.has_warehouse = False
    with pytest.raises(CredentialsError, match="Data Warehouse"):
        population("Japan")
