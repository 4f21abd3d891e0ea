"""What may stand in an upstream block about balancing, and what is told of what may not."""

from pathlib import Path

import pytest
from headgate.conf.build import Config, load
from headgate.conf.errors import ConfError

DRAWING = ["ip_hash", "hash $uri", "hash $uri consistent", "random", "random two", "random two least_time=header"]
OTHERS = ["least_conn", "least_time header", "least_time last_byte inflight", "peak_ewma"]


def read(tmp_path: Path, *blocks: str) -> Config:
    """The configuration with these upstream blocks, of which each has a server."""
    upstreams = "\n".join(f"upstream u{n} {{ {text} server 127.0.0.1:1; }}" for n, text in enumerate(blocks))
    path = tmp_path / "nginx.conf"
    path.write_text(f"events {{}} http {{\n{upstreams}\n}}")
    return load(str(path), str(tmp_path))


def refusal(tmp_path: Path, *blocks: str) -> str:
    """What is told of the first that is wrong."""
    with pytest.raises(ConfError) as error:
        read(tmp_path, *blocks)
    return error.value.reason


@pytest.mark.parametrize("parameter", ["backup", "slow_start=10s"])
def test_methods_that_map_or_draw_refuse_what_nginx_refuses(tmp_path: Path, parameter: str) -> None:
    for method in DRAWING:
        told = refusal(tmp_path, f"{method}; server 127.0.0.1:1 {parameter};")
        assert told == f'balancing method does not support parameter "{parameter}"'
    for method in OTHERS:
        read(tmp_path, f"{method}; server 127.0.0.1:1 {parameter};")


def test_a_method_behind_its_servers_does_not_look_back(tmp_path: Path) -> None:
    assert read(tmp_path, "server 127.0.0.1:1 backup; ip_hash;").warnings == []


@pytest.mark.parametrize("first", ["ip_hash", "sticky cookie name"])
def test_a_method_given_twice_is_warned_of_and_the_last_one_counts(tmp_path: Path, first: str) -> None:
    config = read(tmp_path, f"{first}; least_conn; server 127.0.0.1:1 backup;")
    assert config.warnings == [f"load balancing method redefined in {tmp_path}/nginx.conf:2"]
    assert config.http.groups["u0"].sticky is None, "as on nginx: it had wrapped the method before"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("least_time first;", 'invalid value "first"'),
        ("least_time header now;", 'invalid parameter "now"'),
        ("least_time header; least_time header;", '"least_time" directive is duplicate'),
        ("least_conn 1;", 'invalid number of arguments in "least_conn" directive'),
        ("random three;", 'invalid parameter "three"'),
        ("random two least_time;", 'invalid parameter "least_time"'),
        ("hash $uri consistently;", 'invalid parameter "consistently"'),
        ("hash $nothing;", 'unknown "nothing" variable'),
        ("peak_ewma 1;", 'invalid number of arguments in "peak_ewma" directive'),
        ("server 127.0.0.1:1 slow_start=x;", 'invalid parameter "slow_start=x"'),
        ("server 127.0.0.1:1 route=;", "route is empty"),
        (f"server 127.0.0.1:1 route={'x' * 33};", "route is longer than 32"),
        ("queue 0;", 'invalid value "0" in "queue" directive'),
        ("queue x;", 'invalid value "x" in "queue" directive'),
        ("queue 1 timeout=;", 'invalid parameter "timeout="'),
        ("queue 1 time=1s;", 'invalid parameter "time=1s"'),
        ("queue 1; queue 1;", '"queue" directive is duplicate'),
        ("sticky cookie a; sticky cookie b;", '"sticky" directive is duplicate'),
        ("sticky thing a;", 'unknown parameter "thing"'),
        ('sticky cookie "";', '"sticky" directive empty cookie name'),
        ("sticky cookie a domain=;", '"sticky" directive no value for "domain"'),
        ("sticky cookie a path=;", '"sticky" directive no value for "path"'),
        ("sticky cookie a path=/ path=/;", '"sticky" directive parameter "path" is duplicate'),
        ("sticky cookie a domain=a domain=b;", '"sticky" directive parameter "domain" is duplicate'),
        ("sticky cookie a expires=1h expires=max;", '"sticky" directive parameter "expires" is duplicate'),
        ("sticky cookie a expires=soon;", '"sticky" directive invalid "expires" parameter value'),
        ("sticky cookie a secure secure;", '"sticky" directive parameter "secure" is duplicate'),
        ("sticky cookie a httponly httponly;", '"sticky" directive parameter "httponly" is duplicate'),
        ("sticky cookie a samesite=maybe;", '"sticky" directive invalid "samesite" parameter value'),
        ("sticky cookie a samesite=lax samesite=lax;", '"sticky" directive parameter "samesite" is duplicate'),
        ("sticky cookie a thing;", 'unknown parameter "thing"'),
        ("sticky route name;", 'invalid variable name "name"'),
        ("sticky route $nothing;", 'unknown "nothing" variable'),
        ("sticky learn create=$uri lookup=$uri;", '"sticky" directive "zone" parameter is not specified'),
        ("sticky learn create=$uri zone=z:1m;", '"sticky" directive "lookup" parameter is not specified'),
        ("sticky learn lookup=$uri zone=z:1m;", '"sticky" directive "create" parameter is not specified'),
        ("sticky learn create=uri;", '"sticky" directive missing variable in the "create" parameter'),
        ("sticky learn zone=z;", '"sticky" directive zone size is not specified'),
        ("sticky learn zone=:1m;", '"sticky" directive zone name is not specified'),
        ("sticky learn zone=z:big;", '"sticky" directive invalid zone size'),
        ("sticky learn zone=z:1k;", '"sticky" directive zone is too small'),
        ("sticky learn zone=z:1m zone=y:1m;", '"sticky" directive duplicate zone'),
        ("sticky learn timeout=1h timeout=1h;", '"sticky" directive duplicate timeout'),
        ("sticky learn timeout=0;", '"sticky" directive invalid timeout'),
        ("sticky learn sync;", 'unknown parameter "sync"'),
    ],
)
def test_what_is_wrong_is_told_in_mainline_s_words(tmp_path: Path, text: str, told: str) -> None:
    assert refusal(tmp_path, text) == told


LEARN = "sticky learn create=$uri lookup=$uri zone=z:1m;"


def test_a_zone_of_sessions_is_one_upstream_s_alone(tmp_path: Path) -> None:
    assert refusal(tmp_path, LEARN, LEARN) == 'sticky zone "z" is already used in upstream "u0"'
    told = 'the shared memory zone "z" is already declared for a different use'
    assert refusal(tmp_path, LEARN, "zone z 1m;") == told
    assert refusal(tmp_path, "zone z 1m;", LEARN) == told
