"""A usual site's nginx.conf runs unchanged under nginx and headgate: same answers and logs, every difference explained.

Each case runs against headgate and, to show that a difference means something, against a second nginx.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from headgate.conf.directive import Ctx
from headgate.conf.modules import registry

from tests.differential.cases_wire import CASES
from tests.differential.compare import Case, Pair
from tests.differential.differences import SITE
from tests.differential.site import running
from tests.harness import NGINX

pytestmark = pytest.mark.skipif(shutil.which(NGINX) is None, reason="nginx is not installed")

BALANCING = {"hash", "ip_hash", "least_conn", "queue", "random"}  # test_balancing.py


@pytest.fixture(scope="module", params=["nginx", "headgate"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(request.param, tmp_path_factory.mktemp("site")) as pair:
        yield pair


def test_case_names_are_unique_and_explanations_name_cases() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 150
    assert set(SITE) <= set(names)


def test_every_directive_of_upstreams_is_in_the_site() -> None:
    """Those that this nginx knows, too: its binary holds the names that it looks for."""
    known = Path(NGINX).read_bytes()
    site = "".join(path.read_text() for path in (Path(__file__).parent / "site").rglob("*.conf"))
    names = [
        name
        for name, commands in registry().commands.items()
        if name.startswith(("proxy_", "resolver")) or any(each.contexts & Ctx.UPSTREAM for each in commands)
    ]
    names = [name for name in names if b"%b\0" % name.encode() in known and name not in BALANCING]
    assert len(names) > 50
    assert [name for name in names if not re.search(rf"\b{name}\b", site)] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same(pair: Pair, case: Case) -> None:
    found = pair.differences(case)
    if pair.other.server.is_nginx or case.name not in SITE:
        assert not found
    else:
        assert SITE[case.name].covers(found), found
