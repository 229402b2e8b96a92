"""A cluster whose etcd speaks TLS, with nobody but those who have a certificate of the same authority."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostlab import Cluster, Host, make_certificates, store_options, wait_until
from patience import patiently
from test_daemon_listeners import certificate

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd-server"),
    pytest.mark.xdist_group("hosts"),
]
_UNTRUSTED = "not trust this daemon's certificate (kv.certfile)"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def cluster(certificates: Path) -> Iterator[Cluster]:
    with Cluster(2, certificates=certificates) as made:
        yield made


def create(host: Host, name: str) -> str:
    """What the daemon says against a new overlay network."""
    return host.docker("network", "create", "-d", "overlay", "--attachable", name).errors


def test_hosts_hear_of_each_other_over_tls(cluster: Cluster) -> None:
    one, two = cluster.hosts[:2]
    assert create(one, "wide") == ""
    wait_until(lambda: "wide" in two.networks(), "the watch to tell of the network")
    one.box("web", "wide")
    two.box("db", "wide")
    wait_until(lambda: two.reaches("db", "web"), "the watch to tell of the name")
    assert any("/endpoints/" in key for key in cluster.etcd.list_keys())
    for host in (one, two):
        host.remove_containers()
    # a watch that breaks is taken up again
    cluster.etcd.end(signal.SIGKILL)
    cluster.etcd.start()
    wait_until(lambda: create(two, "late") == "", "etcd")
    wait_until(lambda: "late" in one.networks(), "the watch to be back")
    # and ends with the daemon, which does not wait for news
    assert two.end() == 0
    two.start()
    for name in ("wide", "late"):
        two.docker("network", "rm", name).ok()
        wait_until(lambda n=name: n not in one.networks(), "the network to go")  # type: ignore[misc]


def test_without_a_certificate_nothing_is_told(cluster: Cluster, certificates: Path) -> None:
    stranger = cluster.join(f"kv.cacertfile={certificates}/ca.pem")
    refused = create(stranger, "foreign")
    assert "cannot reach the cluster store etcd://" in refused
    assert _UNTRUSTED in refused and _UNTRUSTED in stranger.log
    assert not any("foreign" in key for key in cluster.etcd.list_keys())


def test_another_authoritys_etcd_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    deceived = cluster.join(*store_options(make_certificates(tmp_path)))
    refused = create(deceived, "foreign")
    assert "cannot reach the cluster store etcd://" in refused
    assert "certificate verify failed" in refused
    assert not any("foreign" in key for key in cluster.etcd.list_keys())


def test_a_certificate_of_another_authority_is_not_trusted(
    cluster: Cluster, certificates: Path, tmp_path: Path
) -> None:
    certificate(tmp_path, "stranger")
    stranger = cluster.join(
        f"kv.cacertfile={certificates}/ca.pem",
        f"kv.certfile={tmp_path}/stranger.pem",
        f"kv.keyfile={tmp_path}/stranger.key",
    )
    refused = create(stranger, "foreign")
    assert "cannot reach the cluster store etcd://" in refused and _UNTRUSTED in refused


def test_certificates_that_cannot_be_read(cluster: Cluster, certificates: Path) -> None:
    host = Host("h9", cluster.hosts[0].where, "10.99.0.9", f"kv.cacertfile={certificates}/nope.pem")
    try:
        done = subprocess.run(host.argv(), capture_output=True, text=True, timeout=patiently(20), check=False)
        assert done.returncode != 0
        assert "cannot use the cluster store's certificates" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    finally:
        host.destroy()
