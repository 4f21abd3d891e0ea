"""`retry_budget`: how many requests of a group may be tried again at a time, as a share of those that are active.

Envoy's retry budget: `percent` is its budget_percent, `min_retries` its min_retry_concurrency. Counted in the zone
(`Retries` of headgate.shm.peers), so all workers share one budget. `next.py` asks here before another peer is tried; a
request counts from its first retry to its end.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, Conf, Ctx, directive
from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


@dataclass(frozen=True, slots=True)
class BudgetConf:
    """The parameters."""

    percent: int = 20
    min_retries: int = 3


def _parse(call: Call) -> BudgetConf:
    values: dict[str, int] = {}
    for word in call.args:
        name, _, text = word.partition("=")
        good = name in ("percent", "min_retries") and text.isascii() and text.isdigit()
        if not good or (name == "percent" and int(text) > 100) or int(text) >= 1 << 31:
            raise call.error_at(f'invalid parameter "{word}"')
        values[name] = int(text)
    return BudgetConf(**values)


class BudgetDirective(Conf, level=Ctx.UPSTREAM):
    """The directive of an upstream block."""

    budget: BudgetConf | None = directive("retry_budget", Ctx.UPSTREAM, "0|1|2", _parse)


def allowed(u: "Upstream") -> bool:
    """Whether this request may be tried again; it is counted then, until its end. Logs it when not."""
    budget = u.group.retries
    if budget is None or u.retrying:
        return True
    if budget.begin(held=u.index >= 0):
        u.retrying = True
        return True
    u.request.log(Level.WARN, f'retry budget of upstream "{u.group.name}" is exhausted')
    return False
