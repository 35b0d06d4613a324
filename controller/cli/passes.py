"""Commands that run passes: reconcile (once, or until settled), watch (for ever), wait, schedule (cron or a systemd timer)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from controller.cli import options
from controller.cli.running import run

if TYPE_CHECKING:
    from controller.cli.log import Log
    from controller.cli.metering import Meter
    from controller.cli.wiring import Wiring
    from controller.loop import Pass
    from controller.model.errors import SshoalError

schedule_app = typer.Typer(help="Let cron or systemd run passes.", no_args_is_help=True, rich_markup_mode=None)

_JOB_CONDITIONS = ("complete", "failed")

Settle = Annotated[bool, typer.Option("--settle", help="Repeat passes until the declared state is reached.")]
Budget = Annotated[str, typer.Option("--budget", metavar="TIME", help="With --settle: at most so long.")]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format", metavar="FORMAT", help="text, or json: a line for each thing.", envvar="SSHOAL_LOG_FORMAT"
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="From which level on: debug, info, warning, error.",
        envvar="SSHOAL_LOG_LEVEL",
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(reconcile)
    app.command()(watch)
    app.command()(wait)
    app.add_typer(schedule_app, name="schedule")


def reconcile(
    settle: Settle = False,
    budget: Budget = "50s",
    scheduled: Annotated[
        bool,
        typer.Option("--scheduled", help="From cron: silent while all is well, and exit 0 when another run is active."),
    ] = False,
    accept_inventory: Annotated[
        bool,
        typer.Option("--accept-inventory", help="It is meant that the inventory lost more than 30 % of its hosts."),
    ] = False,
    period: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How often passes are run, e.g. by cron: a longer silence restarts a series of misses."
        ),
    ] = "60s",
    metrics_file: Annotated[
        str,
        typer.Option(
            "--metrics-file",
            metavar="FILE",
            help="Write metrics there, for node_exporter's textfile collector.",
            envvar="SSHOAL_METRICS_FILE",
        ),
    ] = "",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Run one pass: observe all hosts, decide, push. Exit code 3: not settled, 4: hosts unreachable, 5: another run is active.

    Examples:
        sshoal reconcile
        sshoal reconcile --settle --budget 50s
        sshoal reconcile --settle --metrics-file /var/lib/prometheus/node-exporter/sshoal.prom
        sshoal reconcile --log-format json --log-level debug
    """
    from controller.cli.log import Log
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Settings
    from controller.model.errors import AnotherController, SshoalError

    wiring = Wiring.of(
        context_dir,
        inventory,
        Settings(period_s=_period_s(period), accept_inventory_loss=accept_inventory),
        vault=vault_id,
        executables=allow_executable_inventory,
    )
    budget_s = duration_s(budget) if settle else 0.0
    log = Log(log_format, log_level, lambda: wiring.now().wall_s)
    meter = _meter(wiring, metrics_file)

    def passed(done: Pass) -> None:
        if meter is not None:
            meter.passed(done)
        if log.is_json:
            log.passed(done)

    async def passes() -> Pass:
        async with wiring.controller() as controller:
            return await controller.settle(budget_s, passed)

    try:
        done = run(passes())
    except AnotherController:
        if scheduled:
            return
        raise
    except SshoalError as error:
        if meter is not None:
            meter.failed()
        _end(log, error)
    if meter is not None:
        meter.write()
    code = _exit_code(done, settle=settle)
    if not log.is_json and (not scheduled or code):  # cron mails whatever a line of its prints
        for line in _summary(done):
            print(line, file=sys.stderr if scheduled else sys.stdout)
    sys.exit(code)


def watch(
    period: Annotated[
        str, typer.Option(metavar="TIME", help="Time between polls; what agents and users change is acted on at once.")
    ] = "10s",
    metrics_listen: Annotated[
        str,
        typer.Option(
            "--metrics-listen",
            metavar="ADDRESS",
            help="Serve metrics for Prometheus there, e.g. 127.0.0.1:9464; 0 as port: any free one.",
            envvar="SSHOAL_METRICS_LISTEN",
        ),
    ] = "",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Run passes until interrupted, over kept connections. Tells what it does on standard error, a line each.

    Examples:
        sshoal watch --period 2s
        sshoal watch --metrics-listen 127.0.0.1:9464
        sshoal watch --log-format json
    """
    from contextlib import AsyncExitStack

    from controller.act.fleet import Deadlines
    from controller.cli.log import Line, Log
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Settings
    from controller.model.errors import SshoalError

    period_s = _period_s(period)
    wiring = Wiring.of(
        context_dir, inventory, Settings(period_s=period_s), vault=vault_id, executables=allow_executable_inventory
    )
    # A host that has missed a poll is waited for only briefly: it must not hold up the others' passes.
    deadlines = Deadlines(poll_s=min(10.0, max(1.0, period_s / 2)), install_s=0.0, missed_s=0.25)
    log = Log(log_format, log_level, lambda: wiring.now().wall_s)

    async def polls() -> None:
        async with AsyncExitStack() as stack:
            controller = await stack.enter_async_context(wiring.controller(deadlines))
            watchers, meter = [log.passed], None
            if metrics_listen:
                from controller.cli.metering import Meter, listening

                meter = Meter(wiring)
                url = await stack.enter_async_context(listening(metrics_listen, meter))
                watchers.append(meter.passed)
                log.say(Line("info", "Listening", f"metrics at {url}", f"metrics at {url}", {"url": url}))
            nodes = len(wiring.inventory().nodes)
            told = f"watching {nodes} hosts every {period_s:g} s; Ctrl-C ends it, the hosts go on"
            log.say(Line("info", "Started", told, told))

            def passed(done: Pass) -> None:
                for watcher in watchers:
                    watcher(done)

            def failed(error: SshoalError) -> None:
                log.stumbled(error)
                if meter is not None:
                    meter.failed()

            await controller.watch(passed, failed)

    try:
        run(polls())
    except SshoalError as error:
        _end(log, error)


def _period_s(text: str) -> float:
    """Raises UsageError for none at all: passes would run without a pause, and two missed polls would be one."""
    from controller.cli.output import duration_s
    from controller.model.errors import UsageError

    if not (period_s := duration_s(text)):
        raise UsageError(f"--period {text}: there must be time between polls", hint="for example 2s")
    return period_s


def wait(
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND/NAME…", help="What to wait for, e.g. deployment/web; with -l or --all kinds: pod,job."
        ),
    ],
    for_: Annotated[
        str,
        typer.Option(
            "--for", metavar="CONDITION", help="ready, available, complete, failed, delete, or jsonpath=PATH[=VALUE]."
        ),
    ] = "ready",
    selector: options.Chosen = None,
    all_: options.All = False,
    namespace: options.Namespace = "default",
    timeout: options.Timeout = "30s",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Wait for objects. Exit code 3 when they are not there in time.

    Examples:
        sshoal wait deployment/web --for available --timeout 60s
        sshoal wait job/pi --for=condition=complete
        sshoal wait pod/lonely --for jsonpath='{.status.phase}'=Running
        sshoal wait pod -l app=web --for ready
    """
    from controller.cli.carry import carry_out
    from controller.cli.output import duration_s
    from controller.cli.targets import parse_chosen
    from controller.cli.wiring import Wiring
    from controller.decide.standing import condition_of
    from controller.model.errors import NotFound, UsageError

    condition = for_.lower().removeprefix("condition=").removesuffix("=true")
    path = for_.removeprefix("jsonpath=") if for_.startswith("jsonpath=") else ""
    if not path and condition not in ("ready", "available", "delete", *_JOB_CONDITIONS):
        known = "ready, available, complete, failed, delete or jsonpath='{.status.phase}'=Running"
        raise UsageError(f"--for {for_} is no condition of this command", hint=known)
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    targets = parse_chosen(target, namespace, selector, all_)
    budget_s = duration_s(timeout)
    world = wiring.world()
    records = targets.records(world, missing_ok=condition == "delete")
    if condition == "delete":
        uids = [record.meta.uid for record in records]  # what is not there is gone already
        run(carry_out(wiring, [], [], lambda carry: carry.wait_gone(uids, budget_s, required=True)))
        return
    if not records:
        raise NotFound("no matching resources found")
    if path:
        from controller.cli.waiting import jsonpath_judge  # with what makes objects, which other conditions do without

        judge = jsonpath_judge(path, wiring.now)
    else:
        judge = condition_of(condition)
    for record in records:
        judge(world, record)  # a question that makes no sense is told at once
    identities = [(record.meta.kind, record.meta.namespace, record.meta.name) for record in records]
    run(carry_out(wiring, [], [], lambda carry: carry.wait_for(identities, budget_s, judge, required=True)))


@schedule_app.command("install")
def schedule_install(
    every: Annotated[str, typer.Option(metavar="TIME", help="How often, in whole minutes.")] = "1m",
    systemd: Annotated[
        bool, typer.Option("--systemd/--cron", help="A systemd timer rather than a line in your crontab.")
    ] = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Run `reconcile --settle` regularly, by cron or a systemd timer. Independent of cron's HOME and PATH.

    Examples:
        sshoal schedule install --every 1m
        sshoal schedule install --systemd --every 5m
    """
    from controller.act import schedule
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    wiring.context.inventory_sources()
    done = schedule.install(
        wiring.context,
        duration_s(every),
        systemd=systemd,
        vault=wiring.vault_ids,
        executables=wiring.allow_executables,
        config=wiring.config.path,
    )
    print(done)


@schedule_app.command("remove")
def schedule_remove(context_dir: options.ContextDir = "") -> None:
    """Take the schedule away again; the hosts go on by themselves.

    Examples:
        sshoal schedule remove
        sshoal --context staging schedule remove
    """
    from controller.act import schedule
    from controller.act.settings import find_context

    print(schedule.remove(find_context(context_dir)))


def _meter(wiring: Wiring, path: str) -> Meter | None:
    if not path:
        return None
    from controller.cli.metering import Meter

    return Meter.of_file(wiring, path)


def _end(log: Log, error: SshoalError) -> NoReturn:
    """Ends with this error, told once: here in a log for programs, else by main.py."""
    if not log.is_json:
        raise error
    log.failed(error)
    sys.exit(error.exit_code)


def _exit_code(done: Pass, *, settle: bool) -> int:
    if done.behind:
        return 1
    if done.unseen or done.quarantined or any(done.pushed.values()):
        return 4
    return 3 if settle and not done.settled else 0


def _summary(done: Pass) -> list[str]:
    from controller.cli.carry import notes_of

    shown = [change for change in done.plan.changes if not change.quiet]
    lines = [f"{change.verb:8} {change.subject}: {change.because}" for change in shown]
    lines += [f"! {note}" for note in notes_of(done)]
    if not done.settled:
        lines += [f"waiting  {line}" for line in done.plan.waiting]
    return lines or ["everything is as declared"]
