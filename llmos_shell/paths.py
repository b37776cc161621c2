"""Where everything lives. The only module that reads LLMOS_HOME and the XDG variables; creates nothing.

With `LLMOS_HOME` set, everything is below that folder; else config, data, state and runtime files go to the XDG
folders. The socket's path is shortened through a per-user folder in the system's temporary directory where the natural
one would exceed the 107 bytes a Unix socket allows.
"""

from __future__ import annotations

import os

SOCKET_PATH_MAX = 107


def _xdg(variable: str, fallback: str, leaf: str) -> str:
    home = os.environ.get("LLMOS_HOME")
    if home:
        return os.path.join(os.path.abspath(home), leaf)
    base = os.environ.get(variable) or os.path.join(os.path.expanduser("~"), fallback)
    return os.path.join(base, "llmos")


def settle() -> None:
    """Makes a relative LLMOS_HOME absolute, for the daemon and for a shell that changes its folder."""
    home = os.environ.get("LLMOS_HOME")
    if home and not os.path.isabs(home):
        os.environ["LLMOS_HOME"] = os.path.abspath(home)


def config_dir() -> str:
    """Holds `models.toml` and `rc.llmsh`."""
    return _xdg("XDG_CONFIG_HOME", ".config", "config")


def data_dir() -> str:
    """Holds the store of weights."""
    return _xdg("XDG_DATA_HOME", ".local/share", "data")


def state_dir() -> str:
    """Holds the journal, the log and the shell's history."""
    return _xdg("XDG_STATE_HOME", ".local/state", "state")


def runtime_dir() -> str:
    """Holds the socket and the lock; private to the user (0700), gone after a reboot."""
    home = os.environ.get("LLMOS_HOME")
    if home:
        natural = os.path.join(os.path.abspath(home), "run")
        if len(os.fsencode(os.path.join(natural, "llmosd.sock"))) <= SOCKET_PATH_MAX:
            return natural
        return _temporary("home", natural)
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return os.path.join(base, "llmos")
    return _temporary("user", str(os.getuid()))


def park_dir() -> str:
    """Holds KV images parked to RAM: on tmpfs where the system has one."""
    if os.access("/dev/shm", os.W_OK):
        import hashlib

        tag = hashlib.sha256(os.fsencode(runtime_dir())).hexdigest()[:12]
        return f"/dev/shm/llmos-{os.getuid()}-{tag}"
    return os.path.join(runtime_dir(), "park")


def swap_dir() -> str:
    """Holds KV images swapped to disk; LLMOS_SWAP_DIR names another folder."""
    chosen = os.environ.get("LLMOS_SWAP_DIR")
    return os.path.join(os.path.abspath(chosen), "llmos-swap") if chosen else os.path.join(state_dir(), "swap")


def socket_path() -> str:
    """The daemon's socket."""
    return os.path.join(runtime_dir(), "llmosd.sock")


def lock_path() -> str:
    """The file the one running daemon holds a lock on; its text is the daemon's host PID."""
    return os.path.join(runtime_dir(), "llmosd.lock")


def journal_path() -> str:
    """The SQLite journal."""
    return os.path.join(state_dir(), "journal.db")


def log_path() -> str:
    """The daemon's log file."""
    return os.path.join(state_dir(), "llmosd.log")


def history_path() -> str:
    """The shell's history."""
    return os.path.join(state_dir(), "history")


def _temporary(kind: str, key: str) -> str:
    import hashlib
    import tempfile

    tag = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    return os.path.join(tempfile.gettempdir(), f"llmos-{kind}-{os.getuid()}-{tag}")
