"""`map`: exact keys, masks of host names, regular expressions, defaults, and when a value is computed."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = r"""
http {
    map_hash_max_size 4096;
    map_hash_bucket_size 128;

    map $arg_k $plain {
        default other;
        a 1;
        B2 two;
        "with space" spaced;
        "" empty;
        \default "the word";
        \~x "no regex";
        var "<$arg_v>";
        include more.map;
    }
    map $arg_k $none { a 1; }
    map "$arg_k-$arg_v" $pair { a-b "pair of $arg_k and $arg_v"; }
    map $arg_k $regex {
        default "no match";
        exact first;
        ~^(?<name>[a-z]+)-(\d)$ "$name/$2";
        ~*^UP "any case";
        ~^up "never reached";
        ~exact "never reached either";
    }
    map $arg_h $host_of {
        hostnames;
        default none;
        example.com 1;
        *.example.com 2;
        *.deep.example.com 3;
        mail.* 4;
        www.mail.* 5;
        .both.org 6;
    }
    map $uri $kept { default $uri; }
    map $uri $fresh { volatile; default $uri; }
    map $chained $chain { x "chained"; }
    map $arg_k $chained { a x; }

    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /plain { return 200 $plain; }
        location /none { return 200 "[$none]"; }
        location /pair { return 200 "[$pair]"; }
        location /regex { return 200 "$regex"; }
        location /host { return 200 $host_of; }
        location /late { set $a "$kept$fresh"; rewrite ^ /shown; }
        location /shown { return 200 "$a$kept$fresh"; }
        location /chain { return 200 "[$chain]"; }
    }
}
"""


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF, files={"more.map": "included yes;\n# a comment\nlast 'one more';\n"})


ANSWERS = [
    ("/plain?k=a", b"1"), ("/plain?k=A", b"1"), ("/plain?k=b2", b"two"), ("/plain?k=x", b"other"),
    ("/plain", b"empty"), ("/plain?k=default", b"the word"), ("/plain?k=~x", b"no regex"),
    ("/plain?k=var&v=7", b"<7>"), ("/plain?k=included", b"yes"), ("/plain?k=last", b"one more"),
    ("/none?k=a", b"[1]"), ("/none?k=b", b"[]"),
    ("/pair?k=a&v=b", b"[pair of a and b]"), ("/pair?k=a", b"[]"),
    ("/regex?k=exact", b"first"), ("/regex?k=ab-1", b"ab/1"), ("/regex?k=upx", b"any case"),
    ("/regex?k=ab-", b"no match"), ("/regex", b"no match"),
    ("/host?h=example.com", b"1"), ("/host?h=EXAMPLE.com.", b"1"), ("/host?h=a.example.com", b"2"),
    ("/host?h=a.b.example.com", b"2"), ("/host?h=a.deep.example.com", b"3"), ("/host?h=deep.example.com", b"2"),
    ("/host?h=notexample.com", b"none"), ("/host?h=mail.ru", b"4"), ("/host?h=mail.example.com", b"2"),
    ("/host?h=www.mail.ru", b"5"), ("/host?h=both.org", b"6"), ("/host?h=x.both.org", b"6"), ("/host", b"none"),
    ("/late", b"/late/late/late/shown"),
    ("/chain?k=a", b"[chained]"), ("/chain", b"[]"),
]  # fmt: skip


def test_values(server: Server) -> None:
    for path, body in ANSWERS:
        assert server.get(path).body == body, path


def test_captures_of_the_map(either: Factory) -> None:
    server = either(
        r"""http {
            map $arg_k $m { ~(?<x>\d+) found; }
            server {
                listen 127.0.0.1:%%PORT_0%%;
                location / { return 200 "$m:$x:$1"; }
            }
        }"""
    )
    assert server.get("/?k=a12b").body == b"found:12:12"
    assert server.get("/?k=b").body == b"::"


def test_cycle(headgate: Factory) -> None:
    server = headgate(
        """http {
            map $b $a { default "a$b"; }
            map $a $b { default "b$a"; }
            server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 "[$a]"; } }
        }"""
    )
    server.allow("cycle while evaluating variable")
    assert server.get("/").body == b"[ab]"
    server.expect_log('cycle while evaluating variable "a", client')
