"""The worker: one uvloop process that serves clients and talks to upstream servers.

A request, read down this list, is [1] to [14]; what is not numbered serves several steps.

    process.py             after the fork: privileges, the loop, the end
    suspension.pyx         what a request awaits
    timers.py              lazy deadlines
    outbox.py              writes held back to the end of the event loop's turn
    compiled.py            that what was compiled is what is written
    kernel.py              sockets past their transports, and pipes: what splice and sendfile need
    capabilities.py        what a worker keeps of the super-user's rights
    http/
      server.py            accepts, counts, leaves
      protocol.py          [1] socket <-> reader; flow control
      closing.py           [1] how a connection ends, and a request whose body nobody has read
      reader.py            [2] bytes -> request heads and body pieces (sans-IO)
      head.py              [2] one request head, and what its fields say (sans-IO)
      llhttp.py            httptools, for heads that are not usual
      wire.pyx             usual heads, split and put together in one pass (sans-IO)
      chunked.py           the chunked coding, both ways (sans-IO)
      request.py           [3] Request; [13] its one end, finish()
      phases.py            [4] the phases and the coroutine that runs them
      location.py          [5] server and location match
      rewrite.py           set, return, rewrite, if
      static.py            files; index.py, try_files.py, types.py beside it
      special.py           error pages and redirects
      body.py              [6] the request body; body_conf.py: where it is kept
      tempfile.py          temporary files; aio.py: threads that wait for disks
      variables.py         $host, $uri, ...
      not_modified.py      header filters: conditions, ranges.py, headers.py
      filters.py           what a body filter is; sub_filter.py is one
      mime.py              which responses a filter is for
      access.py            who may come in: addresses; auth_basic.py (with crypt.py): passwords
      realip.py            whose connection it is, behind a trusted proxy
      sendfile.py          file bodies
      limit_rate.py        how fast a response goes to its client; tcp.py: when small packets leave
      output.py            [12] the write filter to the client
      log.py               [14] access log, error log; error_line.py: what a line of the latter says of a request
                           log_cache.py: open_log_file_cache
    upstream/
      upstream.py          [7] Upstream.run(): the spine
      contract.py          UpstreamProtocol and Balancer
      directives.py        upstream{}, server, zone
      conf.py              what all upstream protocols share; passing.py: NAME_pass for one that needs no URL
      group.py             [8] peers of a group
      live.py              [8] groups whose names are resolved while the server runs
      resolve.py           [8] groups that only a request tells
      peer.py              [8] one attempt: get, free
      keepalive.py         cached connections; wraps any balancer
      connect.py           [9] TCP, Unix; timeout; bind.py: the socket before that
      tls.py               [9] TLS: contexts, handshakes, sessions; tls_conf.py, certificates.py beside it
      send.py              [10] request and body
      header.py            [11a] the response head: process, copy, hide
      accel.py             [11a] X-Accel-*: redirects, and how to send; intercept.py, early_hints.py beside it
      response.py          [11b] the head to the client
      pipe.py              [11c] the body to the client; throttle.py: how fast it is read
      spool.py             [11c] what a slow client has not taken; store.py: what is kept as a file
      splice.py            [11c] large plain bodies, moved by the kernel
      upgrade.py           [11d] 101: a tunnel
      next.py              the next peer, or a status; retries.py: the budget for that
      prober.py            which worker checks a group's health, and when
      status.py            upstream_status
      errors.py            kinds of failure and their tables
      variables.py         $upstream_*
    proxy/
      http.py              proxy_pass and its directives
      target.py            the URL of proxy_pass, and the group it means
      handler.py           proxy_pass at work
      protocol.py          HTTP to an upstream server
      redirect.py          Location and Refresh as the client sees them; cookie.py: Set-Cookie
      reader.py            response heads (sans-IO)
      memcached.py         memcached_pass
      health_check.py      health_check; health_match.py: match{}; probe.py: one check
    subrequest/
      subrequest.py        a request that another one starts
      postpone.py          [12] the output of several in order
      addition.py          before and after a body; slice.py: a response in parts
      auth_request.py      access asked of another location; mirror.py: copies to others
      ssi.py               pages with commands; ssi_commands.py: what they do
      ssi_reader.py        texts and commands (sans-IO)
    resolver/
      resolver.py          names to addresses: cache, questions, who waits for them
      wire.py              DNS messages (sans-IO)
      transport.py         UDP and TCP to name servers
      conf.py              resolver, resolver_timeout
    tls/
      layer.py             TLS between a transport and a protocol
      context.py           contexts from files, with nginx's errors
      names.py             host names against certificates (sans-IO)
      openssl.py           what Python's ssl leaves out
"""

from headgate.worker import compiled

compiled.check()
