"""Which server is found by its name: exact before masks, masks before regular expressions, else the default one."""

import pytest
from headgate.worker.http.conf import Server, VirtualHosts
from headgate.worker.http.regex import Regex


def server(*names: str) -> Server:
    out = Server("nginx.conf", 1)
    out.names = list(names)
    return out


def hosts(*servers: Server) -> VirtualHosts:
    """As the configuration makes it: the first server is the default one."""
    out = VirtualHosts(servers[0])
    for each in servers:
        for name in each.names:
            if name.startswith("~"):
                out.regexes.append((Regex(name[1:], caseless=True), each))
            else:
                out.names.add(name.encode(), each)
    return out


DEFAULT, EXACT, WILD, LONGER = server("_"), server("a.test", ""), server("*.test"), server("*.b.test")
TAIL, REGEX, SECOND = server("mail.*"), server(r"~^(?<user>\w+)\.user\.net$"), server(r"~\.net$", r"~^a\.test$")
ALL = (DEFAULT, EXACT, WILD, LONGER, TAIL, REGEX, SECOND)


@pytest.mark.parametrize(
    "host, found",
    [
        (b"a.test", EXACT),
        (b"", EXACT),
        (b"x.test", WILD),
        (b"x.b.test", LONGER),
        (b"mail.test", WILD),
        (b"mail.net", TAIL),
        (b"joe.user.net", REGEX),
        (b"joe.x.net", SECOND),
        (b"test", DEFAULT),
        (b"10.0.0.1", DEFAULT),
    ],
)
def test_find(host: bytes, found: Server) -> None:
    table = hosts(*ALL)
    for _ in range(2):  # the second time it is remembered
        assert table.find(host)[0] is found


def test_a_regex_gives_its_match_every_time() -> None:
    table = hosts(*ALL)
    for user in (b"joe", b"ann", b"joe"):
        found, (regex, match) = table.find(user + b".user.net")
        assert found is REGEX and regex is table.regexes[0][0] and match.group(1) == user
    assert table.find(b"a.test")[1] is None


def test_what_clients_send_does_not_fill_the_memory() -> None:
    table = hosts(*ALL)
    for number in range(3000):
        assert table.find(b"%d.example" % number)[0] is DEFAULT
    assert len(table._seen) <= 1024
    assert table.find(b"x.b.test")[0] is LONGER
