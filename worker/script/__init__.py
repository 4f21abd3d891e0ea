"""Python in the configuration: what a user's file imports.

    from headgate.worker.script import Request

    async def hello(r: Request) -> None:
        await r.respond(200, {"Content-Type": "text/plain"}, f"hello, {r.remote_addr}\\n")

docs/scripting.md has the directives, the rules and whole examples.
"""

from headgate.worker.script.api import Body, InternalRedirect, Reply, Request, Variables
from headgate.worker.script.fields import Fields, ResponseFields
from headgate.worker.subrequest.subrequest import SubrequestError

__all__ = ["Body", "Fields", "InternalRedirect", "Reply", "Request", "ResponseFields", "SubrequestError", "Variables"]
