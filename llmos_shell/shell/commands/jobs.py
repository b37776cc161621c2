"""`jobs`, `fg`, `bg`, `wait` and `disown`: the jobs of the shell they run in, be they programs or model processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_DETACH, Pid
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option
from llmos_shell.shell.handover import Handover
from llmos_shell.shell.interpreter import bridge
from llmos_shell.shell.interpreter.control import StopRequested, WaitInterrupted
from llmos_shell.shell.interpreter.foreground import STOPPED, continue_in_foreground, suspend, wait_foreground
from llmos_shell.shell.interpreter.jobs import Job, Jobs, ModelMember, ThreadMember

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_POLL_SECONDS = 0.02
_SPEC = "`%1`, `%%` (the current one), `%-`, `%name` or a PID"


def _shell(context: Context) -> Shell:
    """The interpreter's shell; only these commands know it."""
    from llmos_shell.shell.interpreter.shell import Shell

    shell = context.shell
    if not isinstance(shell, Shell):
        raise LlmosError(Code.ENOENT, "there are no jobs here", hint="jobs belong to a running `llmos` shell")
    return shell


def _find(jobs: Jobs, spec: str) -> Job:
    job = jobs.find(spec) if spec.startswith("%") else None
    if job is None and spec.isascii() and spec.isdigit():
        job = jobs.of_pid(int(spec))
    if job is None:
        what = "no current job" if spec == "%+" else f"{spec}: no such job"
        raise LlmosError(Code.ESRCH, what, hint="`jobs` lists them")
    return job


def _select(context: Context, specs: Sequence[str]) -> list[Job]:
    jobs = _shell(context).jobs()
    jobs.poll()
    return [_find(jobs, spec) for spec in specs]


def _refresh(shell: Shell, job: Job) -> None:
    """Brings a job's state up to date, without starting a daemon for it."""
    job.poll()
    if job.pids and not job.done:
        bridge.refresh(shell, job)


# -- jobs ------------------------------------------------------------------------------------------------------------


def _jobs(context: Context, args: Args) -> int:
    shell = _shell(context)
    jobs = shell.jobs()
    for job in jobs:
        _refresh(shell, job)
    shown = _select(context, args.JOB) if args.JOB else list(jobs)
    shown = [job for job in shown if not (args.running and job.state() != "Running")]
    shown = [job for job in shown if not (args.stopped and job.state() != "Stopped")]
    if args.json:
        from llmos_shell.shell.tables import to_json

        context.out.write(to_json([_as_data(jobs, job) for job in shown]))
    elif args.pids:
        context.out.writelines(f"{job.pid}\n" for job in shown)
    else:
        context.out.writelines(f"{jobs.describe(job, long=args.long)}\n" for job in shown)
    for job in shown:
        job.shown_state = job.state()
        if job.done:
            jobs.remove(job)
    return 0


def _as_data(jobs: Jobs, job: Job) -> dict[str, Any]:
    return {
        "job": job.number,
        "current": jobs.mark(job) == "+",
        "state": job.state(),
        "pids": job.pids,
        "host_pids": job.host_pids,
        "command": job.text,
    }


# -- fg and bg -------------------------------------------------------------------------------------------------------


def _fg(context: Context, args: Args) -> int:
    shell = _shell(context)
    if not shell.job_control:
        raise LlmosError(Code.ENOSYS, "there is no job control here", hint="use an interactive shell on a terminal")
    job = _select(context, [args.JOB or "%+"])[0]
    if job.done:
        shell.jobs().remove(job)
        raise LlmosError(Code.ESRCH, f"{job.text}: has ended")
    print(job.text, file=context.out, flush=True)
    shell.jobs().touch(job)
    continue_in_foreground(shell, job)
    for member in job.members:
        if isinstance(member, ModelMember) and member.status is None:
            try:
                member.status = bridge.follow(shell, member)
            except StopRequested:
                return suspend(shell, job)
    return wait_foreground(shell, job)


def _bg(context: Context, args: Args) -> int:
    shell = _shell(context)
    for job in _select(context, args.JOB or ["%+"]):
        if job.done:
            raise LlmosError(Code.ESRCH, f"{job.text}: has ended")
        job.members = [_followed(shell, member) for member in job.members]
        job.proceed()  # whatever is known of it: a stop that was just sent may not have been reported yet
        shell.last_background = job.pid
        context.out.write(f"[{job.number}]{shell.jobs().mark(job)} {job.text} &\n")
    return 0


def _followed(shell: Shell, member: Any) -> Any:
    """A process whose command was stopped, with a thread that goes on showing its output."""
    if not isinstance(member, ModelMember) or member.status is not None:
        return member
    follower = shell.subshell(background=True)
    follower.background = True
    thread = ThreadMember(lambda _: bridge.follow(follower, member), f"bg {member.pid}")
    thread.handover = Handover()
    thread.handover.needless()
    thread.track(member.pid)
    thread.start()
    return thread


# -- wait and disown -------------------------------------------------------------------------------------------------


def _wait(context: Context, args: Args) -> int:
    shell = _shell(context)
    shell.waiting = threading.current_thread() is threading.main_thread()
    try:
        if args.next:
            return _wait_next(context, shell, args.TARGET)
        if not args.TARGET:
            for job in shell.jobs():
                _wait_for(shell, job)
            shell.jobs().forget_untold()
            return 0
        return [_wait_one(context, shell, spec) for spec in args.TARGET][-1]
    except WaitInterrupted as signal:
        return 128 + signal.number
    finally:
        shell.waiting = False


def _wait_next(context: Context, shell: Shell, specs: Sequence[str]) -> int:
    """Waits for whichever of the jobs ends first; 127 if there is none."""
    ended = (shell.jobs().ended_status(int(spec)) for spec in specs if spec.isascii() and spec.isdigit())
    status = next((each for each in ended if each is not None), None) if specs else shell.jobs().next_untold()
    if status is not None:
        return status
    jobs = _select(context, specs) if specs else list(shell.jobs())
    while jobs:
        for job in jobs:
            _refresh(shell, job)
            if job.done:
                return _wait_for(shell, job)
        time.sleep(_POLL_SECONDS)
    return 127


def _wait_one(context: Context, shell: Shell, spec: str) -> int:
    jobs = shell.jobs()
    if spec.isascii() and spec.isdigit():
        pid = int(spec)
        ended = jobs.ended_status(pid)
        if ended is not None:
            return ended
        if jobs.of_pid(pid) is None:
            try:
                return bridge.wait_model(shell, pid)
            except LlmosError as error:
                context.error("wait", error)
                return 127
    try:
        job = _find(jobs, spec)
    except LlmosError as error:
        context.error("wait", error)
        return 127
    return _wait_for(shell, job)


def _wait_for(shell: Shell, job: Job) -> int:
    """Waits until a job ended; it leaves the table. With job control, a stop ends the waiting too."""
    if shell.job_control:
        _refresh(shell, job)
    job.wait_to_end(heed_stops=shell.job_control)
    for member in job.members:
        if isinstance(member, ModelMember) and member.status is None and not (shell.job_control and job.stopped):
            member.status = bridge.wait_model(shell, member.pid)
    if not job.done:
        return STOPPED
    status = job.status()
    shell.jobs().remove(job)
    return status


def _disown(context: Context, args: Args) -> int:
    shell = _shell(context)
    jobs = list(shell.jobs()) if args.all else _select(context, args.JOB or ["%+"])
    for job in jobs:
        threads = [each for each in job.members if isinstance(each, ThreadMember) and each.status is None]
        if not all(each.pids and each.handover is not None and each.handover.possible() for each in threads):
            text = f"{job.text}: is run by this shell, and would end with it"
            raise LlmosError(Code.EINVAL, text, hint="put it into a script, and run `nohup llmos SCRIPT &`")
        for pid in job.pids:
            _detach(context, shell, pid)
        for thread in threads:
            if thread.handover is not None:
                thread.handover.take()
        shell.jobs().remove(job)
    return 0


def _detach(context: Context, shell: Shell, pid: int) -> None:
    try:
        context.client.call(PROC_DETACH, Pid(pid))
    except LlmosError as error:
        if error.code is not Code.ESRCH:  # it has ended
            raise
    shell.session().disown(pid)


_JOBS = Operand("JOB", _SPEC, "job", required=False, many=True)

COMMANDS = (
    Command(
        "jobs",
        "list what runs in the background or is stopped",
        _jobs,
        family="shell",
        options=(
            Option(("-l", "--long"), "with the PID"),
            Option(("-p", "--pids"), "only the PIDs"),
            Option(("-r", "--running"), "only running ones"),
            Option(("-s", "--stopped"), "only stopped ones"),
            Option(("--json",), "as JSON"),
        ),
        operands=(_JOBS,),
        description=(
            "`+` marks the current job, `-` the one before. A job that has ended is shown once, and then forgotten."
        ),
        examples=(
            Example('run -n 30 "list" > story.txt &', "start a job"),
            Example("jobs -l", "with its PID", before="sleep 1 &"),
        ),
        see_also=("fg", "bg", "wait", "ps"),
    ),
    Command(
        "fg",
        "bring a job to the foreground",
        _fg,
        family="shell",
        operands=(Operand("JOB", _SPEC, "job", required=False),),
        description="A stopped one goes on. Of a model process the output is shown from where the terminal had got to.",
        examples=(Example("fg %1", "job 1", untested="needs a terminal"),),
        exit_statuses=(("STATUS", "that of the job"), *ERROR_STATUSES, ("148", "it was stopped again")),
        see_also=("bg", "jobs", "attach"),
    ),
    Command(
        "bg",
        "let a stopped job go on in the background",
        _bg,
        family="shell",
        operands=(_JOBS,),
        description="None: the current job. What it writes still goes to the terminal.",
        examples=(Example("bg %1", "job 1", before="sleep 1 & kill -STOP %1"),),
        see_also=("fg", "jobs", "cont"),
    ),
    Command(
        "wait",
        "wait until jobs or processes have ended",
        _wait,
        family="shell",
        options=(Option(("-n", "--next"), "wait for whichever ends first"),),
        operands=(Operand("TARGET", f"{_SPEC}; none: all jobs of this shell", "target", required=False, many=True),),
        description=(
            "The exit status is that of the last one; 127 if there is no such job. A signal with a `trap` ends the "
            "waiting, with 128 and its number."
        ),
        examples=(
            Example("wait %1", "the first job", before="true &"),
            Example("wait -n", "whichever of two ends first", before="true & false > log.txt || true &"),
            Example("wait 12", "a process, also of another shell", before="pid=$(run -d -n 5 list)"),
            Example('wait $!; echo "status $?"', "and how it went", before="false &", output="status 1"),
        ),
        exit_statuses=(
            ("STATUS", "that of the last one; 0 when there was nothing to wait for"),
            ("127", "there is no such job or process"),
            ("148", "it is stopped, which in an interactive shell ends the waiting"),
        ),
        see_also=("jobs", "attach", "exit-statuses"),
    ),
    Command(
        "disown",
        "let jobs outlive the shell",
        _disown,
        family="shell",
        options=(Option(("-a", "--all"), "all of them"),),
        operands=(_JOBS,),
        description=(
            "They leave the list of jobs; `ps` still shows those that are model processes. What a background `run` or "
            "`ask` writes to a file or a pipe goes on being written, by a program of its own. What only the shell "
            "itself could go on with (a loop, a group, `-o json`) is refused."
        ),
        examples=(
            Example("disown %1", "job 1", before="sleep 1 &"),
            Example('run -n 50 "a story" > story.txt & disown', "the file is finished, come what may"),
        ),
        see_also=("nohup", "jobs", "attach"),
    ),
)
