"""The steps of one pod, done: pull, sandbox, start, hook, stop, learn, clean, refresh, erase. In: a Step of
nodeagent.decide. Out: changes of the pod's record, or Failure with a reason a user can read. Calls engine, files
and prober; keeps nothing between calls.

Each step checks what it did and can be cut off at any await: what it leaves is found again in the engine's
listing.
"""

import asyncio
import contextlib
import errno
from dataclasses import replace
from typing import Any, Optional

from nodeagent import images, spec
from nodeagent.decide import (
    ADDRESS,
    CLEAN,
    ERASE,
    GRACE_MIN_S,
    HOOK,
    LEARN,
    LEAVE,
    PULL,
    REFRESH,
    REMOVE_SANDBOX,
    SANDBOX,
    START,
    STOP,
    Step,
)
from nodeagent.protocol import Container, Handler, Pod, SecretValue
from nodeagent.records import START_ERROR, UNKNOWN_STATUS, ContainerRecord, Ended, all_containers, cut, learned
from nodeagent.restarts import restarted
from nodeagent.runtime import MissingContent, PodNet, ProbeOutcome, Process, RegistryAuth, RuntimeFault

KILL_WAIT_S = 5.0  # between SIGKILL and saying that a process does not die
HOOK_TIMEOUT_S = 3600.0  # postStart has no limit in Kubernetes; everything has one here
LEARN_TRIES_MAX = 5  # half a minute; then how a container ended counts as what nobody knows
LOG_BYTES_MAX = 10 * 1024 * 1024
START_ERROR_CODE = 128  # as the kubelet reports a container whose first process could not be started


class Failure(Exception):
    """A step that failed; it is tried again after a while."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(cut(message))
        self.reason = reason


class Operations:
    """`worker` is the pod's worker.PodWorker."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._host = worker.host

    async def perform(self, step: Step) -> None:
        """Does one step to its end. Raises Failure."""
        steps = {
            PULL: self._pull,
            SANDBOX: self._sandbox,
            ADDRESS: self._address,
            REMOVE_SANDBOX: self._remove_sandbox,
            START: self._start,
            HOOK: self._hook,
            STOP: self._stop,
            LEARN: self._learn,
            CLEAN: self._clean,
            REFRESH: self._refresh,
            ERASE: self._erase,
        }
        try:
            await steps[step.kind](step)
        except spec.SpecError as error:
            raise Failure(error.reason, str(error)) from None
        except MissingContent as error:
            raise Failure("FailedMount" if step.kind != START else spec.CONFIG_ERROR, str(error)) from None
        except RuntimeFault as fault:
            raise Failure(_reason(step.kind, fault), str(fault)) from None
        except OSError as error:
            raise Failure(*_file_trouble(step.kind, error)) from None

    # ---- image, sandbox ---------------------------------------------------------------------------------------------------

    async def _pull(self, step: Step) -> None:
        worker = self._worker
        container = self._spec(step.container)

        def begin() -> tuple[RegistryAuth, ...]:
            auths = images.credentials(container.image, self._pull_secrets())
            worker.event("Pulling", f"pulling image {container.image}", container=container.name)
            return auths

        try:
            image = await self._host.images.find(
                container.image,
                container.pull,
                pin=container.pin,
                known_id=worker.record.container(container.name).image_id,
                pulling=begin,
            )
        except images.PullTrouble as trouble:
            raise Failure(trouble.reason, str(trouble)) from None
        except MissingContent as missing:
            raise Failure("FailedToRetrieveImagePullSecret", str(missing)) from None
        worker.images[container.name] = image
        worker.wake()

    def _pull_secrets(self) -> tuple[SecretValue, ...]:
        """One that does not exist is left out, as kubelet does. Raises MissingContent for one whose value is still on its way."""
        content = self._host.content()
        found = []
        for name in self._pod().pull_secrets:
            wanted, held = content.wanted_secrets.get(name), content.secrets.get(name)
            if wanted is None:
                continue
            if held is None or held.hash != wanted:
                raise MissingContent(f"the value of pull secret {name} has not arrived yet")
            found.append(held)
        return tuple(found)

    async def _sandbox(self, step: Step) -> None:
        worker, host, pod = self._worker, self._host, self._pod()
        await self._prepare_files()
        async with host.starts:
            if not pod.host_network:
                await host.ensure_network()
            body = spec.pod_body(worker.record.cluster, pod, host.node, worker.paths, selinux=host.selinux)
            try:
                pod_id = await host.guard(host.runtime.create_pod(body))
                count = worker.record.sandbox_count + 1
                made = replace(worker.record, sandbox_id=pod_id, sandbox_process=None, sandbox_count=count, ip="")
                worker.change(made)
                net = await host.guard(host.runtime.start_pod(pod_id))
            except RuntimeFault:
                host.forget_network()  # a person may have removed it while no pod was on it: `podman system prune` does
                raise
        await self._use(net)

    async def _address(self, step: Step) -> None:
        """Of a sandbox that was adopted running."""
        if self._worker.paths is None:
            await self._prepare_files()
        await self._use(await self._host.guard(self._host.runtime.pod_net(self._worker.record.sandbox_id)))

    async def _use(self, net: PodNet) -> None:
        worker, host, pod = self._worker, self._host, self._pod()
        ip = net.ip or host.node.address
        if net.process is not None:
            await host.files.set_address(pod, ip)
        worker.change(replace(worker.record, sandbox_process=net.process, ip=ip))
        worker.watch()
        if net.process is None:
            raise RuntimeFault("failed", "the pod's infra container has ended")
        if not ip:
            raise RuntimeFault("failed", "neither Podman nor the wanted set tells the pod's address")

    async def _prepare_files(self) -> None:
        worker, pod = self._worker, self._pod()
        key = self._host.content_key(pod)
        worker.paths = await self._host.files.prepare(pod, self._host.content())
        worker.files_key = key

    async def _remove_sandbox(self, step: Step) -> None:
        worker = self._worker
        try:
            await self._host.guard(self._host.runtime.remove_pod(worker.record.sandbox_id))
        except RuntimeFault:
            self._host.forget_network()
            raise
        containers = tuple(
            replace(mine, last=_without_container(mine.last), ended=_without_container(mine.ended))
            for mine in worker.record.containers
        )
        worker.strays.clear()
        gone = replace(worker.record, sandbox_id="", sandbox_process=None, ip="", containers=containers)
        worker.change(gone)
        self._host.sandbox_removed()

    # ---- containers ---------------------------------------------------------------------------------------------------------

    async def _start(self, step: Step) -> None:
        """Creates the next attempt and starts it. A restart never waits for the engine to learn how the former attempt ended."""
        worker, host, pod = self._worker, self._host, self._pod()
        container = self._spec(step.container)
        if worker.paths is None:
            await self._prepare_files()
        container = spec.with_sub_paths(
            pod,
            container,
            ip=worker.record.ip,
            node=host.node,
            content=host.content(),
            capacity=host.capacity,
        )
        async with host.starts:
            before = worker.record.container(container.name)
            attempt = before.attempt + 1
            own = await host.files.prepare_container(pod, container, attempt, worker.paths)
            body = spec.container_body(
                cluster=worker.record.cluster,
                pod=pod,
                container=container,
                attempt=attempt,
                pod_id=worker.record.sandbox_id,
                ip=worker.record.ip,
                node=host.node,
                paths={**worker.paths, **own},
                content=host.content(),
                image=worker.images[container.name],
                log_path=host.log_path(worker.record.uid, container.name, attempt),
                log_bytes_max=LOG_BYTES_MAX,
                capacity=host.capacity,
                rules=host.rules,
                selinux=host.selinux,
            )
            container_id = await self._create(container.name, body)
            if pod.restart != "Always":
                self._intend(before, attempt, container_id)
            try:
                process = await host.guard(host.runtime.start_container(container_id))
            except RuntimeFault as fault:
                self._start_failed(before, attempt, container_id, fault)
                return
            self._started(container, before, attempt, container_id, process)

    async def _create(self, name: str, body: Any) -> str:
        try:
            container_id: str = await self._host.guard(self._host.runtime.create_container(body))
        except RuntimeFault as fault:
            if fault.reason in ("image-missing", "storage-corrupt"):
                self._worker.images.pop(name, None)  # the next decision pulls it
            if fault.reason == "storage-corrupt":
                await self._discard(self._spec(name).image, fault)
            raise
        return container_id

    async def _discard(self, reference: str, fault: RuntimeFault) -> None:
        try:
            await self._host.images.discard(reference, str(fault))
        except images.PullTrouble as trouble:
            raise Failure(trouble.reason, str(trouble)) from None

    def _intend(self, before: ContainerRecord, attempt: int, container_id: str) -> None:
        """What must not run twice in silence is written down before it runs: an attempt that is then gone has ended, however it did."""
        worker = self._worker
        intent = self._next_attempt(before, attempt, container_id)
        worker.change(worker.record.with_container(intent))
        if not worker.save():
            worker.change(worker.record.with_container(before))
            worker.strays[container_id] = (before.name, attempt)
            raise Failure("StateNotSaved", "the agent's disk refuses to store that this container is about to run")

    def _next_attempt(self, before: ContainerRecord, attempt: int, container_id: str) -> ContainerRecord:
        now_s = self._host.clock.boottime_s()
        backoff = before.backoff
        if before.ended is not None:
            backoff = restarted(backoff, before.ended.ended_s, now_s)
        image = self._worker.images.get(before.name)
        return ContainerRecord(
            name=before.name,
            attempt=attempt,
            id=container_id,
            sandbox=self._worker.record.sandbox_count,
            image_id=image.id if image is not None else before.image_id,
            started_s=now_s,
            started_wall_s=self._host.clock.wall_s(),
            last=before.ended or before.last,
            backoff=backoff,
        )

    def _start_failed(self, before: ContainerRecord, attempt: int, container_id: str, fault: RuntimeFault) -> None:
        """A container that can't be started has ended, as in Kubernetes; with the engine or sandbox at fault it is tried again."""
        worker = self._worker
        if fault.reason not in ("failed", "not-found") or worker.record.sandbox_process is None:
            worker.change(worker.record.with_container(before))
            worker.strays[container_id] = (before.name, attempt)
            raise fault
        now = self._next_attempt(before, attempt, container_id)
        wall_s = self._host.clock.wall_s()
        ended = Ended(
            attempt, container_id, now.started_s, wall_s, wall_s, True, START_ERROR_CODE, START_ERROR, cut(str(fault))
        )
        self._drop_former(before)
        worker.change(worker.record.with_container(replace(now, ended=ended)))
        worker.event("Failed", f"could not start: {fault}", container=before.name, warning=True)

    def _started(
        self, container: Container, before: ContainerRecord, attempt: int, container_id: str, process: Process
    ) -> None:
        worker = self._worker
        self._drop_former(before)
        former = worker.record.container(before.name)  # its exit code may have been learned meanwhile
        running = replace(
            self._next_attempt(before, attempt, container_id),
            process=process,
            started=container.startup is None,
            ready=container.readiness is None,
            last=former.ended or former.last,
        )
        worker.change(worker.record.with_container(running))
        worker.watch()
        again = f" again (restart {attempt})" if attempt else ""
        worker.event("Started", f"container {before.name} has started{again}", container=before.name)

    def _drop_former(self, before: ContainerRecord) -> None:
        """Only the last dead container is kept for its logs; of one that went with its sandbox the log is all that is left."""
        former = before.last
        if before.ended is None or former is None:
            return
        if former.id:
            self._worker.strays[former.id] = (before.name, former.attempt)
            return
        with contextlib.suppress(OSError):  # it goes with the pod, too
            self._host.remove_log(self._worker.record.uid, before.name, former.attempt)

    async def _hook(self, step: Step) -> None:
        """postStart. One that fails has its container killed and restarted by policy, as in Kubernetes."""
        worker = self._worker
        container = self._spec(step.container)
        process = worker.record.container(container.name).process
        if container.post_start is None or process is None:
            return
        outcome = await self._run_hook(container.post_start, worker.record.container(container.name).id, HOOK_TIMEOUT_S)
        mine = worker.record.container(container.name)
        if mine.process != process:
            return
        if outcome.ok:
            worker.change(worker.record.change(container.name, hooked=True))
        else:
            message = f"postStart hook failed: {outcome.message}"
            worker.event("FailedPostStartHook", message, container=container.name, warning=True)
            worker.change(worker.record.change(container.name, kill=message))

    async def _run_hook(self, handler: Handler, container_id: str, timeout_s: float) -> ProbeOutcome:
        outcome = await self._host.prober.probe(
            handler,
            ip=self._worker.record.ip,
            sandbox=self._worker.sandbox(),
            container_id=container_id,
            timeout_s=timeout_s,
        )
        assert isinstance(outcome, ProbeOutcome)
        return outcome

    # ---- stopping -----------------------------------------------------------------------------------------------------------

    async def _stop(self, step: Step) -> None:
        """preStop, then the stop signal, then SIGKILL when the grace is over. Raises Failure if the process outlives even that."""
        worker, host = self._worker, self._host
        mine = worker.record.container(step.container)
        process = mine.process
        if process is None:
            return
        worker.watch()
        operation = worker.operations[step.slot]
        resumed = mine.kill_at_s > 0
        operation.kill_at_s = host.clock.boottime_s() + step.grace_s
        if resumed:  # the order may have become a shorter one since
            operation.kill_at_s = min(mine.kill_at_s, operation.kill_at_s)
        if not resumed:
            worker.change(worker.record.change(mine.name, kill_at_s=operation.kill_at_s))
            worker.event("Killing", step.reason, container=mine.name)
            await self._pre_stop(mine, operation)
        if operation.kill_at_s > host.clock.boottime_s():
            await self._signal(mine, process, await self._stop_signal(mine))
            await self._wait_gone(mine.name, operation)
        if worker.record.container(mine.name).process != process:
            return
        operation.kill_at_s = host.clock.boottime_s() + KILL_WAIT_S
        await self._signal(mine, process, "SIGKILL")
        await self._wait_gone(mine.name, operation)
        if worker.record.container(mine.name).process == process:
            message = f"process {process.pid} of container {mine.name} does not end when killed"
            raise Failure("FailedKillPod", message)

    async def _pre_stop(self, mine: ContainerRecord, operation: Any) -> None:
        worker = self._worker
        container = self._spec_or_none(mine.name)
        if container is None or container.pre_stop is None:
            return
        left_s = operation.kill_at_s - self._host.clock.boottime_s()
        if left_s <= 0:
            return
        hook = asyncio.get_running_loop().create_task(self._run_hook(container.pre_stop, mine.id, left_s))
        try:
            await self._wait_gone(mine.name, operation, hook)
            if hook.done() and not hook.result().ok:
                message = f"preStop hook failed: {hook.result().message}"
                worker.event("FailedPreStopHook", message, container=mine.name, warning=True)
        finally:
            hook.cancel()
        soonest_s = self._host.clock.boottime_s() + GRACE_MIN_S
        operation.kill_at_s = max(operation.kill_at_s, soonest_s)

    async def _wait_gone(self, name: str, operation: Any, sooner: Optional["asyncio.Task[Any]"] = None) -> None:
        """Until the process has ended, `sooner` is done, or operation.kill_at_s, which may be moved forward meanwhile."""
        watcher = self._worker.watcher(name)
        while watcher is not None and not watcher.done() and not (sooner is not None and sooner.done()):
            left_s = operation.kill_at_s - self._host.clock.boottime_s()
            if left_s <= 0.0005:
                return
            operation.nudge.clear()
            nudged = asyncio.get_running_loop().create_task(operation.nudge.wait())
            try:
                waited = {watcher, nudged} if sooner is None else {watcher, nudged, sooner}
                await asyncio.wait(waited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                nudged.cancel()

    async def _signal(self, mine: ContainerRecord, process: Process, name: str) -> None:
        """An engine that does not answer does not stop the stop: the kill that follows is tried in any case."""
        try:
            await self._host.guard(self._host.runtime.signal(mine.id, process, name))
        except RuntimeFault as fault:
            self._worker.event("FailedKillPod", f"{name}: {fault}", container=mine.name, warning=True)

    async def _stop_signal(self, mine: ContainerRecord) -> str:
        """The spec's, else the image's."""
        container = self._spec_or_none(mine.name)
        if container is not None and container.stop_signal:
            return container.stop_signal
        image = self._worker.images.get(mine.name)
        if image is None and mine.image_id:  # adopted, and never asked for: its pod was already to end
            try:
                image = await self._host.guard(self._host.runtime.image(mine.image_id))
            except RuntimeFault:
                return "SIGTERM"
        return (image.stop_signal if image is not None else "") or "SIGTERM"

    # ---- afterwards -----------------------------------------------------------------------------------------------------------

    async def _learn(self, step: Step) -> None:
        worker = self._worker
        mine = worker.record.container(step.container)
        ended = next((e for e in (mine.ended, mine.last) if e is not None and e.attempt == step.attempt), None)
        if ended is None or ended.known:
            return
        code, oom_killed = None, False
        if ended.id:
            try:
                exit = await self._host.guard(self._host.runtime.exit_of(ended.id))
                code, oom_killed = exit.code, exit.oom_killed
            except RuntimeFault as fault:
                if fault.reason != "not-found" and not self._is_past_asking(step, fault):
                    raise
        message = await self._last_words(step, failed=code != 0)
        mine = worker.record.container(step.container)
        worker.change(worker.record.with_container(learned(mine, step.attempt, code, oom_killed, message)))

    def _is_past_asking(self, step: Step, fault: RuntimeFault) -> bool:
        """Podman answers, and says the same again: it can't tell (a container whose layers are lost).

        Its pod must be able to end all the same.
        """
        trouble = self._worker.troubles.get(step.slot)
        if trouble is None or fault.reason in ("timeout", "unavailable"):
            return False
        return bool(trouble.failures >= LEARN_TRIES_MAX and trouble.message == cut(str(fault)))

    async def _last_words(self, step: Step, *, failed: bool) -> str:
        uid = self._worker.record.uid
        container = self._spec_or_none(step.container)
        falls_back = container is not None and container.termination_message_policy == "FallbackToLogsOnError"
        try:
            message = str(await self._host.files.termination_message(uid, step.container, step.attempt))
            if message or not falls_back or not failed:
                return message
            return str(await asyncio.to_thread(self._host.log_end, uid, step.container, step.attempt))
        except OSError as error:
            return f"its termination message can't be read: {error.strerror or error}"

    async def _clean(self, step: Step) -> None:
        """One that can't be removed keeps no other: each restart leaves one more."""
        trouble: Optional[RuntimeFault] = None
        for container_id, (name, attempt) in list(self._worker.strays.items()):
            try:
                await self._clear_away(container_id, name, attempt)
            except RuntimeFault as fault:
                trouble = fault
                if fault.reason in ("timeout", "unavailable"):
                    break
        if trouble is not None:
            raise trouble

    async def _clear_away(self, container_id: str, name: str, attempt: int) -> None:
        worker = self._worker
        await self._host.guard(self._host.runtime.remove_container(container_id))
        worker.strays.pop(container_id, None)
        mine = worker.record.container(name)
        kept = {mine.attempt if mine.id else -1} | {e.attempt for e in (mine.ended, mine.last) if e is not None}
        if attempt not in kept:
            self._host.remove_log(worker.record.uid, name, attempt)

    async def _refresh(self, step: Step) -> None:
        worker, pod = self._worker, self._pod()
        key = self._host.content_key(pod)
        await self._host.files.refresh(pod, self._host.content())
        worker.files_key = key

    async def _erase(self, step: Step) -> None:
        worker = self._worker
        await self._host.files.remove(worker.record.uid)
        if worker.order != LEAVE:  # it is wanted again: nobody else would care for it
            return
        self._host.remove_logs(worker.record.uid)
        self._host.erase(worker)

    # ---- the spec -------------------------------------------------------------------------------------------------------------

    def _pod(self) -> Pod:
        pod = self._worker.pod
        if pod is None:
            raise Failure("NotWanted", "the pod is not in the wanted set")
        assert isinstance(pod, Pod)
        return pod

    def _spec(self, name: str) -> Container:
        container = self._spec_or_none(name)
        if container is None:
            raise Failure("NotWanted", f"container {name} is not in the wanted set")
        return container

    def _spec_or_none(self, name: str) -> Optional[Container]:
        pod = self._worker.pod
        return next((c for c in all_containers(pod) if c.name == name), None) if pod is not None else None


# What a pod asks for and this host refuses or has not; anything else (disk full, read-only) is the host's own trouble.
_REFUSALS = (errno.EACCES, errno.EINVAL, errno.ELOOP, errno.ENOENT, errno.ENOTDIR)


def _file_trouble(kind: str, error: OSError) -> tuple[str, str]:
    """(reason, message) of a failure with the files and directories that a pod mounts."""
    where = f": {error.filename}" if error.filename else ""
    message = f"{error.strerror or error}{where}"
    if kind in (SANDBOX, ADDRESS, START) and error.errno in _REFUSALS:
        return spec.CONFIG_ERROR, message
    return "FailedMount", f"{kind}: {message}"


def _reason(kind: str, fault: RuntimeFault) -> str:
    """Kubernetes' word for what failed."""
    if fault.reason == "port-taken":
        return "PortTaken"
    if fault.reason == "image-missing":
        return "ErrImagePull"
    return {
        PULL: "ErrImagePull",
        SANDBOX: "FailedCreatePodSandBox",
        ADDRESS: "FailedCreatePodSandBox",
        REMOVE_SANDBOX: "FailedKillPod",
        START: "CreateContainerError",
        STOP: "FailedKillPod",
        LEARN: "ExitCodeUnknown",
        CLEAN: "FailedKillPod",
    }.get(kind, "Failed")


def _without_container(ended: Optional[Ended]) -> Optional[Ended]:
    """The container went with the sandbox; its log stays."""
    if ended is None:
        return None
    return replace(ended, id="", known=True, reason=ended.reason or UNKNOWN_STATUS)
