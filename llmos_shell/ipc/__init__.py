"""The client's side of the daemon's socket."""
