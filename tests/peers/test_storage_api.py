"""BigQuery's Storage API is at Google's for any library: a token of another BigQuery does not go there."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from servers import Server, connect_proxy

GOOGLES = "bigquerystorage.googleapis.com"

#: A client of the program's own, which asks the Storage API for a table's rows.
PROGRAM = """
import sys
from carto_auth import CartoAuth
from google.api_core.exceptions import Unauthenticated
from google.cloud import bigquery

credentials = CartoAuth.from_m2m().get_carto_dw_google_credentials()
options = {"api_endpoint": sys.argv[1]}
client = bigquery.Client(project=credentials.project_id, credentials=credentials, client_options=options)
try:
    client.list_rows("carto-demo-data.demo_tables.world_cities").to_dataframe()
except Unauthenticated as error:
    print(error.message)
"""


class Refusing(grpc.GenericRpcHandler):
    """A Storage API that knows no token; ``authorizations`` are those that came."""

    def __init__(self):
        self.authorizations = []

    def service(self, call):
        self.authorizations.append(dict(call.invocation_metadata).get("authorization"))
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")
        )


@pytest.fixture
def storage_api(tmp_path, monkeypatch):
    """Stands for Google's in a process that the test starts: a proxy leads there, and its certificate is believed."""
    authority, api = trustme.CA(), Refusing()
    certificate = authority.issue_cert(GOOGLES)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[api])
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "ca.pem"))
    with Server(connect_proxy({f"{GOOGLES}:443": port})) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        yield api
        server.stop(None).wait()


@pytest.mark.parametrize("is_named", [True, False])
def test_a_token_of_another_bigquery_does_not_go_to_google(is_named, carto, storage_api, monkeypatch):
    """It does go there where nothing says that BigQuery is elsewhere, which shows that this test would see it."""
    bigquery_url = os.environ["BIGQUERY_EMULATOR_HOST"]
    if not is_named:
        monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, bigquery_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "no such token\n", done.stderr
    assert [bool(authorization) for authorization in storage_api.authorizations] == [not is_named]
