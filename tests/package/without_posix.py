"""Takes away what Windows lacks, then does what its arguments say: to be run as a program.

`import`: imports every module of the package. `run ARGS…`: the command line. What belongs to third parties is imported
before, as it is here; so this says what our own code needs, and nothing of theirs.
"""

import importlib
import os
import pkgutil
import signal
import subprocess  # noqa: F401
import sys
import sysconfig
import types

import h5py  # noqa: F401
import numpy as np  # noqa: F401
import torch.distributed
import torch.optim
import torch.utils.data
import torch.utils.tensorboard  # noqa: F401
import tree  # noqa: F401

# Attributes that exist on Linux only, or on systems of the family of Unix.
MISSING = {
    os: """
        fork forkpty register_at_fork sched_getaffinity sched_setaffinity sysconf set_blocking getuid geteuid getgid
        getpgid setpgid getsid setsid killpg mkfifo nice uname getloadavg statvfs chown fchmod wait waitid wait3 wait4
        pipe2 openpty ttyname O_NONBLOCK O_DIRECTORY O_NOFOLLOW O_CLOEXEC
        """,
    signal: """
        pthread_sigmask pthread_kill sigpending sigwait siginterrupt setitimer alarm pause SIG_BLOCK SIG_UNBLOCK
        SIG_SETMASK SIGUSR1 SIGUSR2 SIGHUP SIGQUIT SIGKILL SIGALRM SIGCHLD SIGPIPE SIGXCPU SIGXFSZ SIGTSTP SIGCONT
        """,
}
MODULES = "fcntl grp pwd resource syslog termios tty pty posix".split()


def take_away() -> None:
    """From now on this is (almost) Windows to our code."""
    import fcntl

    sysconfig.get_config_vars()  # reads a file of this system

    def locking(file: int, mode: int, count: int) -> None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, 0, os.SEEK_CUR)
        except OSError as exc:
            raise PermissionError(13, "Permission denied") from exc

    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
    sys.modules["msvcrt"] = msvcrt
    for module, names in MISSING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None
    sys.platform = "win32"


def import_all() -> None:
    """Every module of the package."""
    package = importlib.import_module("returnn_lite")
    for found in pkgutil.walk_packages(package.__path__, "returnn_lite."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
            print(found.name)


if __name__ == "__main__":
    take_away()
    if sys.argv[1] == "import":
        import_all()
    else:
        from returnn_lite.cli import run

        sys.argv = sys.argv[1:]
        run()
