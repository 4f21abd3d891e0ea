"""`proxy_intercept_errors`: an upstream server's error is answered with the location's own error page.

Only where `error_page` names the status; any other answer is passed on (nginx:
ngx_http_upstream_intercept_errors).
"""

from typing import TYPE_CHECKING

from headgate.worker.http.special import SpecialConf

if TYPE_CHECKING:
    from headgate.worker.upstream.header import ResponseHead
    from headgate.worker.upstream.upstream import Upstream


def intercept(u: "Upstream", head: "ResponseHead") -> int | None:
    """The status to answer with instead of passing the response on, or None."""
    conf = u.conf
    status = head.status
    if status == 404 and conf.INTERCEPT_404:
        return status
    if not conf.intercept_errors or u.request.location.get(SpecialConf).page(status) is None:
        return None
    if status == 401:  # the page must still ask for credentials
        asked = [(b"WWW-Authenticate", value) for name, value in head.fields if name.lower() == b"www-authenticate"]
        u.request.fields += asked
    return status
