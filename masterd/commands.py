"""The flags of the command line and what they do; errors are worded as nginx words them."""

import os
import sys
from collections.abc import Sequence

import click
from headgate.masterd import pidfile, signals
from headgate.masterd.cli import VERSION, show_version
from headgate.masterd.cycle import Cycle, CycleError, Setup
from headgate.masterd.listen import Listeners
from headgate.masterd.logfile import STDERR, ErrorLog, Level, LogFile, LogTarget, failed, say

DEFAULT_CONF = "nginx.conf"  # under the prefix

_MISSING = {"-c": "file name", "-e": "file name", "-p": "directory name", "-g": "parameter", "-s": "parameter"}


def execute(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = command(list(argv), prog_name="headgate", standalone_mode=False)
    except click.NoSuchOption as error:
        say(f'invalid option: "{error.option_name.lstrip("-")}"')
    except click.BadOptionUsage as error:
        say(f'option "{error.option_name}" requires {_MISSING.get(error.option_name, "a value")}')
    except click.BadParameter as error:
        say(error.message)
    except click.UsageError:
        word = next((word for word in argv if not word.startswith("-")), "")
        say(f'invalid option: "{word}"')
    else:
        return int(code or 0)
    return 1


def _signal_name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and value not in signals.NAMED:
        raise click.BadParameter(f'invalid option: "-s {value}"')
    return value


@click.group("headgate", invoke_without_command=True, add_help_option=False)
@click.option("-h", "-?", "--help", "help_", is_flag=True, help="Show this help.")
@click.option("-v", "version", is_flag=True, help="Show the version and exit.")
@click.option("-V", "configuration", is_flag=True, help="Show the version and the modules, and exit.")
@click.option("-t", "test", is_flag=True, help="Test the configuration and exit.")
@click.option("-T", "dump", is_flag=True, help="Test the configuration, print it and exit.")
@click.option("-q", "quiet", is_flag=True, help="Print only errors while testing.")
@click.option("-s", "signal_name", metavar="SIGNAL", callback=_signal_name, help="Send stop, quit, reopen or reload.")
@click.option("-p", "prefix", metavar="PREFIX", help="Where relative paths start. [default: this directory]")
@click.option("-e", "error_log", metavar="FILE", default="stderr", help="Error log at the start. [default: stderr]")
@click.option("-c", "conf", metavar="FILE", default=DEFAULT_CONF, help=f"Configuration. [default: {DEFAULT_CONF}]")
@click.option("-g", "globals_text", metavar="DIRECTIVES", default="", help="Directives of the main context.")
@click.pass_context
def command(
    context: click.Context,
    help_: bool,
    version: bool,
    configuration: bool,
    test: bool,
    dump: bool,
    quiet: bool,
    signal_name: str | None,
    prefix: str | None,
    error_log: str,
    conf: str,
    globals_text: str,
) -> int:
    """A reverse proxy and load balancer that speaks nginx's configuration language."""
    if context.invoked_subcommand is not None:
        return 0
    if help_ or version or configuration:
        show_version(configuration)
        if help_:
            os.write(STDERR, f"{context.get_help()}\n".encode())
        if not (test or dump):
            return 0
    prefix = os.path.join(os.path.abspath(prefix or "."), "")
    setup = Setup(
        conf=os.path.join(prefix, conf),
        prefix=prefix,
        error_log="" if error_log in ("", "stderr") else os.path.join(prefix, error_log),
        globals_text=globals_text,
        testing=test or dump,
    )
    ErrorLog.console = True
    log = _first_log(setup)
    if setup.testing:
        return _test(setup, log, dump, quiet)
    return _signal(setup, log, signal_name) if signal_name else _serve(setup, log)


@command.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to serve on. [default: a free one]")
@click.option("--seconds", type=float, default=None, help="Stop by itself after this time.")
def demo(port: int, seconds: float | None) -> None:
    """Show headgate at work in front of built-in backends."""
    from headgate.masterd import demo

    demo.run(port, seconds)


def _first_log(setup: Setup) -> ErrorLog:
    """The log that is used until the configuration's own is open."""
    file = LogFile(setup.error_log, -1 if setup.error_log else STDERR)
    if setup.error_log:
        try:
            file.open()
        except OSError as error:
            what = failed(f'open() "{setup.error_log}"', error)
            say(f"[alert] could not open error log file: {what}")
            file.fd = STDERR
    return ErrorLog([LogTarget(file, Level.INFO if setup.testing else Level.NOTICE)])


def _test(setup: Setup, log: ErrorLog, dump: bool, quiet: bool) -> int:
    """-t and -T."""
    try:
        cycle = Cycle.read(setup, log)
        if not quiet:
            say(f"the configuration file {setup.conf} syntax is ok")
        cycle.open(Listeners(), log)
    except CycleError as error:
        log.emit(Level.EMERG, str(error))
        say(f"configuration file {setup.conf} test failed")
        return 1
    if not quiet:
        say(f"configuration file {setup.conf} test is successful")
    if dump:
        with open(1, "wb", closefd=False) as stdout:
            for path, text in cycle.config.files:
                stdout.write(f"# configuration file {path}:\n{text}\n".encode("utf-8", "surrogateescape"))
    cycle.abandon()
    return 0


def _signal(setup: Setup, log: ErrorLog, name: str) -> int:
    """-s."""
    log.emit(Level.NOTICE, "signal process started")
    try:
        path = Cycle.read(setup, log).config.main.pid
    except CycleError as error:
        log.emit(Level.EMERG, str(error))
        return 1
    try:
        pid = pidfile.read(path)
        action = f"kill({pid}, {int(signals.NAMED[name])})"
        os.kill(pid, signals.NAMED[name])
    except ValueError as error:
        log.emit(Level.ERROR, f'invalid PID number "{error}" in "{path}"')
    except ProcessLookupError as error:
        log.emit(Level.ALERT, failed(action, error))
    except OSError as error:
        log.emit(Level.ERROR, failed(f'open() "{path}"', error))
    else:
        return 0
    return 1


def _serve(setup: Setup, log: ErrorLog) -> int:
    """Become the master; returns when the server has ended."""
    from headgate.masterd.master import Master
    from headgate.worker import process

    signals.block()  # from here to the loop no signal is lost
    inherited = Listeners.from_systemd(log)
    try:
        cycle = Cycle.read(setup, log)
        cycle.open(inherited, log)
    except CycleError as error:
        log.emit(Level.EMERG, str(error))
        return 1
    main = cycle.config.main
    if main.daemon:
        cycle.starter = _daemonize()
    cycle.commit(inherited)
    cycle.redirect_stderr()
    ErrorLog.console = False
    for target in log.targets:
        target.file.close()
    cycle.log.emit(Level.NOTICE, 'using the "epoll" event method')
    system = os.uname()
    cycle.log.emit(Level.NOTICE, f"headgate/{VERSION}, Python {sys.version.split()[0]}")
    cycle.log.emit(Level.NOTICE, f"OS: {system.sysname} {system.release}")
    return Master(cycle).run() if main.master_process else process.run_single(cycle)


def _daemonize() -> int:
    """Go on in the background; returns a pipe to the process in the foreground.

    That one ends when the pid file is there, so that whoever started it finds the server, or with 1 when none starts.
    """
    started, starter = os.pipe()
    if os.fork():
        os.close(starter)
        os._exit(0 if os.read(started, 1) else 1)
    os.close(started)
    os.setsid()
    os.umask(0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    return starter
